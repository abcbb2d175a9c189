"""MaxBoxAcc and MaxBoxAccV2: weakly supervised localization at every threshold.

The arithmetic is that of the authors' wsolevaluation. It runs at the network's input, to which marked boxes are scaled
and cut down to whole pixels; maps lie between 0 and 1, their minimum at 0; 255 steps, of which a pixel belongs to
threshold t where floor(255 value) > floor(255 t); and boxes hold their last row and column, so that a box of the map
is one pixel larger than what it surrounds, except at the picture's border. Two things differ: the largest component is
the one with most pixels (there the largest area inside an outline), and holes are no objects (there the outline of a
hole is one more box of MaxBoxAccV2).

Source: Choe et al., "Evaluating Weakly Supervised Object Localization Methods Right", CVPR 2020, section 3; version 2
is of its journal version, "Evaluation for Weakly Supervised Object Localization", 2020.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam.errors import FastcamError
from fastcam.evaluation.protocols.base import Case, Protocol, Row
from fastcam.evaluation.protocols.regions import Boxes
from fastcam.evaluation.protocols.sweep import Components, swept
from fastcam.evaluation.statistics import REPLICATES, Figure, Floats, Tally, Weights, figure
from fastcam.image.preprocess import Geometry

OVERLAPS = (0.3, 0.5, 0.7)
"""Intersection over union of MaxBoxAccV2."""
CURVES = {"MaxBoxAcc": "largest", **{f"MaxBoxAccV2 at IoU {share}": str(share) for share in OVERLAPS}}
"""Figures that have a threshold of their own, and where a row holds what they count."""


@dataclass(frozen=True)
class Wsol(Protocol):
    """MaxBoxAcc and MaxBoxAccV2 of the true class's map.

    MaxBoxAcc is the share of marked classes whose largest component's box overlaps one of theirs by half, at the
    threshold where it is highest. MaxBoxAccV2 takes the best of all components, and is the mean of its three shares at
    overlaps of 0.3, 0.5 and 0.7, each at the threshold that is best for it.

    A threshold that is chosen on the pictures that it is measured on flatters. So choose it on other ones:
    ``Wsol(thresholds=chosen(figures))`` takes those of an earlier run's figures. Its figures are called BoxAcc.

    Attributes:
        steps: how many thresholds, i / steps from 0 on; 1000 of wsolevaluation, of which 255 differ.
        thresholds: one for each of :data:`CURVES`, in their order, chosen on another split; empty takes the best on
            this one.
    """

    name = "wsol"
    title = "MaxBoxAcc and MaxBoxAccV2: boxes at the best threshold (wsolevaluation)"

    steps: int = 100
    thresholds: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise FastcamError(f"wsol.steps is {self.steps}; give 1 or more")
        if self.thresholds and not (len(self.thresholds) == len(CURVES) and all(0 <= x < 1 for x in self.thresholds)):
            raise FastcamError(
                f"wsol.thresholds is {self.thresholds}; give numbers from 0 to below 1 for {', '.join(CURVES)}"
            )

    @property
    def levels(self) -> Floats:
        """float64 [steps]: what of 255 steps a value has to exceed at each threshold."""
        levels: Floats = np.floor(np.arange(self.steps) * (1 / self.steps) * 255)
        return levels

    def measure(self, case: Case) -> Row | None:
        """Of each marked class a text for each of :data:`CURVES`: at each threshold 1 where its box fits, else 0."""
        row: Row = {}
        geometry = case.explanation.geometry[0]
        for each in case.present:
            boxes = each.boxes
            if not len(boxes):
                continue
            heatmap = case.explanation.heatmaps[0, case.columns[each.target]]
            if not case.ok(each.target):
                heatmap = np.zeros_like(heatmap)
            connectivity = case.explanation.connectivity
            found = swept(heatmap, ((self.levels + 1) / 255)[::-1], connectivity, geometry.target)
            hits = _hits(*found, in_network(boxes, geometry), geometry.network)
            row[each.label] = {key: _text(flags[::-1]) for key, flags in hits.items()}
        return row or None

    def tally(self) -> Tally:
        """The shares, of marked classes of pictures, and at which thresholds they are so."""
        return _Curves(self.steps, self.thresholds)


def chosen(figures: Mapping[str, Figure]) -> tuple[float, ...]:
    """The thresholds that the figures of a run without given ones say are best, for :class:`Wsol` on another split."""
    return tuple(figures[f"threshold of {name}"].value for name in CURVES)


def in_network(boxes: Boxes, geometry: Geometry) -> Boxes:
    """Boxes in whole pixels of the network's input, cut down as wsolevaluation does; all [n, 4]."""
    (sx0, sy0, sx1, sy1), (tx0, ty0, tx1, ty1) = geometry.source, geometry.target
    spread = np.array([sx1 - sx0, sy1 - sy0] * 2, np.float64)
    moved = (boxes - (sx0, sy0, sx0, sy0)) * ((tx1 - tx0, ty1 - ty0) * 2) / spread + (tx0, ty0, tx0, ty0)
    inside: Boxes = np.trunc(np.clip(moved, (tx0, ty0) * 2, (tx1, ty1) * 2))
    return inside


def inclusive_overlaps(boxes: Boxes, others: Boxes) -> Floats:
    """Intersection over union [n, m] of boxes that hold their last row and column."""
    a, b = boxes[:, None], others[None]
    shared = np.maximum(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]) + 1, 0).prod(-1)
    union = (a[..., 2:] - a[..., :2] + 1).prod(-1) + (b[..., 2:] - b[..., :2] + 1).prod(-1) - shared
    shares: Floats = shared / union  # a box has a pixel at least
    return shares


def _hits(
    rows: Components, counts: NDArray[np.int32], boxes: Boxes, size: tuple[int, int]
) -> dict[str, NDArray[np.bool_]]:
    """bool [levels] for each of :data:`CURVES`, by its key in a row; a level without components has an empty box."""
    ends = np.array([size[1] - 1, size[0] - 1])
    with_last = np.concatenate([rows[:, :2], np.minimum(rows[:, 2:4], ends)], axis=1).astype(np.float64)
    overlap = inclusive_overlaps(with_last, boxes).max(1)
    nothing = float(inclusive_overlaps(np.zeros((1, 4)), boxes).max())
    largest, best = np.full(len(counts), nothing), np.full(len(counts), nothing)
    some = np.flatnonzero(counts)
    if len(some):
        starts = (np.cumsum(counts) - counts)[some]
        best[some] = np.maximum.reduceat(overlap, starts)
        most = np.repeat(np.maximum.reduceat(rows[:, 4], starts), counts[some])
        of_level = np.repeat(some, counts[some])
        at = np.flatnonzero(rows[:, 4] == most)
        levels, first = np.unique(of_level[at], return_index=True)  # of equals the first
        largest[levels] = overlap[at[first]]
    return {"largest": largest >= 0.5, **{str(share): best >= share for share in OVERLAPS}}


def _text(flags: NDArray[np.bool_]) -> str:
    return (flags.astype(np.uint8) + ord("0")).astype(np.uint8).tobytes().decode("ascii")


class _Curves:
    """How many of the marked classes each threshold hits, in each replicate."""

    def __init__(self, steps: int, thresholds: tuple[float, ...]) -> None:
        self.steps, self.thresholds = steps, dict(zip(CURVES, thresholds, strict=False))
        self.hits = {name: np.zeros((steps, 1 + REPLICATES)) for name in CURVES}
        self.count, self.n, self.pictures = np.zeros(1 + REPLICATES), 0, 0

    def add(self, row: Mapping[str, Any], weights: Weights) -> None:
        self.pictures += 1
        for texts in row.values():
            for name, key in CURVES.items():
                flags = np.frombuffer(texts[key].encode(), np.uint8) == ord("1")
                self.hits[name][flags] += weights
            self.count += weights
            self.n += 1

    def figures(self) -> dict[str, Figure]:
        with np.errstate(invalid="ignore", divide="ignore"):
            curves = {name: (hits / self.count).T for name, hits in self.hits.items()}
        at = {name: self._steps(name, curve) for name, curve in curves.items()}
        values = {name: np.take_along_axis(curve, at[name][:, None], 1)[:, 0] for name, curve in curves.items()}
        mean = np.mean([values[name] for name in CURVES if name != "MaxBoxAcc"], axis=0)
        all_values = {"MaxBoxAcc": values["MaxBoxAcc"], "MaxBoxAccV2": mean, **values}
        figures = {self._called(name): figure(value, self.n, self.pictures) for name, value in all_values.items()}
        nothing = self.count == 0
        return figures | {
            f"threshold of {self._called(name)}": figure(np.where(nothing, np.nan, at[name] / self.steps), self.n)
            for name in CURVES
        }

    def _steps(self, name: str, curve: Floats) -> NDArray[np.int64]:
        """The threshold's number in each replicate: the best of each, the first of equals, or the given one."""
        if self.thresholds:
            given = round(self.thresholds[name] * self.steps)
            return np.full(len(curve), min(given, self.steps - 1), np.int64)
        best: NDArray[np.int64] = np.argmax(curve, axis=1)
        return best

    def _called(self, name: str) -> str:
        return name if not self.thresholds else name.removeprefix("Max")
