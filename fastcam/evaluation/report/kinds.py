"""Kinds of maps: the groups of maps within a class, the odd ones first, with what tells them from each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastcam.evaluation.report.clusters import groups
from fastcam.evaluation.report.facts import Group, Seen, percent

EXAMPLES = 4


@dataclass(frozen=True, eq=False)
class Kind:
    """Pictures of a class whose maps lie alike.

    Attributes:
        label: the class.
        number, count: which of how many kinds of the class, from 1; the oddest is the first.
        places: numbers of its pictures, those first whose maps are nearest to the mean map.
        mean_map: float64 [h, w], 0..1.
        pictures: how many of the class have a map.
        share, other: the mean share of heat inside boxes, and that of the class's other kinds; None without boxes.
        right: the share of pictures that are predicted right; None where nothing is known.
        silhouette: how far apart the kinds lie, up to 1.
    """

    label: str
    number: int
    count: int
    places: tuple[int, ...]
    mean_map: NDArray[np.float64]
    pictures: int
    share: float | None
    other: float | None
    right: float | None
    silhouette: float

    @property
    def title(self) -> str:
        """For people: "star, kind 1 of 2"."""
        return f"{self.label}, kind {self.number} of {self.count}"

    @property
    def lines(self) -> list[str]:
        """What is known of it, in words."""
        said = [f"{len(self.places)} of {self.pictures} pictures"]
        if self.share is not None:
            others = "" if self.other is None else f", in the others {percent(self.other)}"
            said.append(f"{percent(self.share)} of the heat inside boxes{others}")
        if self.right is not None:
            said.append(f"{self.right:.0%} predicted right")
        return said


def kinds(by_name: Mapping[str, Group]) -> list[Kind]:
    """The kinds of all classes that have several: the class first whose kinds lie farthest apart."""
    found = [kind for label, group in by_name.items() for kind in of_class(label, group.seen)]
    return sorted(found, key=lambda kind: (-kind.silhouette, kind.label, kind.number))


def of_class(label: str, seen: Sequence[Seen]) -> list[Kind]:
    """The kinds of a class; none where its maps are of one kind.

    Odd is the kind with the least heat inside the boxes, or, where there are none, with the fewest pictures.
    """
    if not seen:
        return []
    maps = np.stack([one.small for one in seen]).astype(np.float64) / 255
    labels, silhouette = groups(maps)
    members = [np.flatnonzero(labels == number).tolist() for number in range(labels.max() + 1)]
    if len(members) < 2:
        return []
    shares = [_mean([seen[i].share for i in member]) for member in members]
    order = sorted(range(len(members)), key=lambda n: (1.0 if shares[n] is None else shares[n] or 0.0, len(members[n])))
    made = []
    for number, which in enumerate(order, 1):
        member = members[which]
        mean = maps[member].mean(0)
        nearest = np.argsort(((maps[member] - mean) ** 2).sum((1, 2)), kind="stable")
        others = [seen[i].share for n, one in enumerate(members) if n != which for i in one]
        known = [None if seen[i].right is None else float(bool(seen[i].right)) for i in member]
        made.append(
            Kind(
                label,
                number,
                len(members),
                tuple(seen[member[i]].place for i in nearest.tolist()),
                mean,
                len(seen),
                shares[which],
                _mean(others),
                _mean(known),
                silhouette,
            )
        )
    return made


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
