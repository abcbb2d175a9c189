"""Two tables beside each other: the index of each figure, and of each class's mean map."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam.drift import stability
from fastcam.drift.figures import VALUES, Figures, MeanMap, read
from fastcam.drift.stability import Level
from fastcam.errors import FastcamError, shown
from fastcam.schema import __version__

MOST = 30
"""Classes that are bins of their own, the most frequent of the reference first; the others are one bin."""
OTHERS = "others"
LEAST = 20
"""Maps of a class in each table, from which on its mean map is compared."""
OTHERWISE = {
    "model": "two models", "model's settings": "two settings of the model (preprocessing, labels)",
    "targets": "different targets (--target compares one)", "how": "two methods, thresholds or options",
    "exif": "pictures that were turned and pictures that were not",
}  # fmt: skip
"""Settings of a batch that change figures where the pictures are the same."""
FLOOR = 1e-3
"""Added to the share of each cell of a mean map, so that none is empty."""


@dataclass(frozen=True)
class Measured:
    """A figure.

    Attributes:
        name: what it is.
        psi: the index.
        chance: what it stays below by chance, 95 times in 100.
        level: of the drift.
        reference, now: how many values there were.
        bins: name, share of the reference and share now of each.
    """

    name: str
    psi: float
    chance: float
    level: Level
    reference: int
    now: int
    bins: tuple[tuple[str, float, float], ...]


@dataclass(frozen=True, eq=False)
class MapDrift:
    """The mean map of a class.

    Attributes:
        label: of the class.
        psi: the index of the shares of heat in its cells.
        chance: about what two halves of the same maps differ by.
        level: of the drift.
        reference, now: how many maps there were.
        maps: the mean maps, [rows, columns] of sum 1, of the reference and now.
    """

    label: str
    psi: float
    chance: float
    level: Level
    reference: int
    now: int
    maps: tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Drift:
    """Two tables.

    Attributes:
        reference, now: where they lie.
        pictures: how many there are in each.
        figures: of the tables, in the order in which people are told.
        maps: of classes, those that have changed most first.
        notes: what is to be known beside the figures.
    """

    reference: Path
    now: Path
    pictures: tuple[int, int]
    figures: tuple[Measured, ...]
    maps: tuple[MapDrift, ...]
    notes: tuple[str, ...]

    @property
    def largest(self) -> tuple[str, float]:
        """The figure, or class, with the largest index that chance does not explain; "" and 0 where there is none."""
        found = [(one.psi, one.name) for one in self.figures if one.level != "none"]
        found += [(one.psi, f"map of {one.label}") for one in self.maps if one.level != "none"]
        psi, name = max(found, default=(0.0, ""))
        return name, psi

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "fastcam": __version__,
            "reference": str(self.reference),
            "now": str(self.now),
            "pictures": {"reference": self.pictures[0], "now": self.pictures[1]},
            "notes": list(self.notes),
            "figures": {
                one.name: _said(one) | {"bins": [{"bin": name, "reference": p, "now": q} for name, p, q in one.bins]}
                for one in self.figures
            },
            "maps": {
                one.label: _said(one)
                | dict(zip(("reference map", "map now"), (m.tolist() for m in one.maps), strict=True))
                for one in self.maps
            },
        }


def _said(one: Measured | MapDrift) -> dict[str, Any]:
    return {"psi": one.psi, "by chance": one.chance, "drift": one.level, "reference": one.reference, "now": one.now}


def compare(reference: Path, now: Path, target: str | None = None) -> Drift:
    """Compare two tables of ``fastcam batch``.

    Args:
        target: the rows of which target count; None: all.

    Raises:
        FastcamError: one is no table, or holds nothing.
    """
    before, after = read(reference, target), read(now, target)
    for one in (before, after):
        if not one.pictures:
            raise FastcamError(f"{shown(one.place)}: no pictures in it; give a table with some")
    figures = [_values(name, before.values[column], after.values[column]) for column, name in VALUES.items()]
    figures.append(_categories("status of the map", before.status, after.status))
    shared = before.shared_labels | after.shared_labels
    classes = [Counter({each.name(key, shared): n for key, n in each.predicted.items()}) for each in (before, after)]
    figures.append(_categories("predicted class", *classes))
    old, new = ({each.name(key, shared): one for key, one in each.maps.items()} for each in (before, after))
    maps = [
        map_drift(name, one, new[name])
        for name, one in old.items()
        if name in new and min(one.count, new[name].count) >= LEAST
    ]
    maps.sort(key=lambda one: (-one.psi, one.label))
    kept = tuple(one for one in figures if one is not None)
    notes = _notes(before, after, maps, ("targets",) if target is not None else ())
    return Drift(reference, now, (before.pictures, after.pictures), kept, tuple(maps), notes)


def _notes(before: Figures, after: Figures, maps: Sequence[MapDrift], alike: Sequence[str]) -> tuple[str, ...]:
    """What is to be known; of what was asked, ``alike`` are the same in both."""
    notes = [
        f"the tables are of {words}; what differs may be theirs"
        for key, words in OTHERWISE.items()
        if key not in alike and key in before.about and before.about[key] != after.about.get(key, before.about[key])
    ]
    for one in (before, after):
        source = one.about.get("source")
        listed = source.get("pictures") if isinstance(source, dict) else None
        if isinstance(listed, int) and one.pictures < listed:
            notes.append(f"{shown(one.place)} has {one.pictures} of {listed} pictures: its run has not ended")
    if not before.maps or not after.maps:
        notes.append("mean maps are not compared: not both tables have maps (fastcam batch --maps)")
    elif not maps:
        notes.append(f"mean maps are not compared: no class has {LEAST} maps in both tables")
    return tuple(notes)


def _values(name: str, reference: NDArray[Any], now: NDArray[Any]) -> Measured | None:
    if not len(reference) or not len(now):
        return None
    between = stability.edges(reference)
    counts = stability.counted(reference, between), stability.counted(now, between)
    ends = [f"{edge:.3g}" for edge in between]
    names = [f"to {ends[0]}", *(f"{a} to {b}" for a, b in pairwise(ends)), f"over {ends[-1]}"]
    return _measured(name, names, *counts)


def _categories(name: str, reference: Counter[str], now: Counter[str]) -> Measured | None:
    if not reference or not now:
        return None
    kinds = sorted({*reference, *now}, key=lambda each: (-reference[each], -now[each], each))
    named, pooled = kinds[:MOST], len(kinds) > MOST
    counts = [[one[each] for each in named] for one in (reference, now)]
    if pooled:
        counts = [[*kept, one.total() - sum(kept)] for kept, one in zip(counts, (reference, now), strict=True)]
        named.append(OTHERS)
    return _measured(name, named, *(np.array(one, np.int64) for one in counts))


def _measured(name: str, bins: Sequence[str], reference: NDArray[np.int64], now: NDArray[np.int64]) -> Measured:
    n, m = int(reference.sum()), int(now.sum())
    psi, chance = stability.index(reference, now), stability.by_chance(len(reference), n, m)
    shares = zip(bins, (reference / n).tolist(), (now / m).tolist(), strict=True)
    return Measured(name, psi, chance, stability.level(psi, chance), n, m, tuple(shares))


def map_drift(label: str, reference: MeanMap, now: MeanMap) -> MapDrift:
    """The drift of a class's mean map. What chance makes of it is told by the two halves of the reference."""
    n, m = reference.count, now.count
    psi = _cells(reference.mean, now.mean)
    halves = _cells(reference.half(0), reference.half(1))
    chance = 2 * halves * (1 / n + 1 / m) / (4 / n)  # twice what is expected
    return MapDrift(label, psi, chance, stability.level(psi, chance), n, m, (reference.mean, now.mean))


def _cells(reference: NDArray[np.float64], now: NDArray[np.float64]) -> float:
    p, q = ((one + FLOOR) / (1 + FLOOR * one.size) for one in (reference, now))
    return float(((q - p) * np.log(q / p)).sum())
