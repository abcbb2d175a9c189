"""Whether another way to run a file explains the same: its maps and boxes beside those of the reference.

The reference is ONNX Runtime in float32 on the CPU. Maps are compared as heatmaps, in [0, 1] at the size of the
network's input, of the two classes that the reference finds best in each picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam.errors import FastcamError
from fastcam.evaluation.faithfulness.rank_correlation import ranks, spearman
from fastcam.explainer import Explainer
from fastcam.results.explanation import Explanation

TOP = 2
SLACK = 0.01
"""How far edges of boxes may lie apart, as a share of the picture's longer side; a pixel in any case."""


@dataclass(frozen=True)
class Tolerance:
    """What another engine may change.

    Attributes:
        difference: the largest difference of a heatmap at any place.
        correlation: the least rank correlation (Spearman) of two heatmaps.
    """

    difference: float = 0.05
    correlation: float = 0.99

    def __post_init__(self) -> None:
        if not 0 < self.difference <= 1 or not 0 <= self.correlation < 1:
            raise FastcamError(
                "a tolerance is out of range; give a difference above 0 and up to 1, and a correlation of 0 to below 1"
            )


@dataclass(frozen=True)
class Agreement:
    """How far the worst map is from the reference's.

    Attributes:
        difference, correlation: see :class:`Tolerance`.
        boxes: whether all boxes are the same, give or take :data:`SLACK`.
        classes: whether the same class is predicted in each picture.
    """

    difference: float
    correlation: float
    boxes: bool
    classes: bool

    def refusal(self, tolerance: Tolerance) -> str:
        """Why it is too far; empty where it is not."""
        if not self.classes:
            return "another class is predicted"
        if not self.difference <= tolerance.difference:
            return f"maps differ by {self.difference:.2g}"
        if not self.correlation >= tolerance.correlation:
            return f"rank correlation {self.correlation:.3f}"
        return "" if self.boxes else "other boxes"


class Reference:
    """The maps that every candidate must find.

    Args:
        explainer: the reference.
        pictures: that are explained.

    Raises:
        FastcamError: a picture cannot be explained, or nothing in any of them.
    """

    def __init__(self, explainer: Explainer, pictures: Sequence[Any]) -> None:
        self._pictures = list(pictures)
        many = explainer.metadata.score.classes
        ranks = [-1 - rank for rank in range(TOP if many is None else min(TOP, many))]
        found = explainer(self._pictures, [ranks] * len(self._pictures))
        self._classes = [[int(one) for one in row] for row in found.classes]
        self._found = found
        if not any(status == "ok" for row in found.status for status in row):
            raise FastcamError(f"the pictures show nothing to compare maps of ({found.status[0][0]}); give other ones")

    def agreement(self, explainer: Explainer) -> Agreement:
        """How an explainer agrees on the reference's classes.

        Raises:
            FastcamError: it cannot be asked for them.
        """
        made = [explainer([picture], [row]) for picture, row in zip(self._pictures, self._classes, strict=True)]
        best = [int(explainer([picture], [[-1]]).classes[0, 0]) for picture in self._pictures]
        maps = np.concatenate([one.heatmaps for one in made])
        wanted = self._found.heatmaps
        pairs = zip(maps.reshape(-1, *maps.shape[2:]), wanted.reshape(-1, *wanted.shape[2:]), strict=True)
        return Agreement(
            difference=float(np.abs(maps - wanted).max()),
            correlation=min(rank_correlation(a, b) for a, b in pairs),
            boxes=all(self._same_boxes(one, i) for i, one in enumerate(made)),
            classes=best == [row[0] for row in self._classes],
        )

    def _same_boxes(self, made: Explanation, number: int) -> bool:
        height, width = self._pictures[number].shape[:2]
        apart = np.abs(made.boxes[0].astype(float) - self._found.boxes[number])
        return bool(apart.max() <= max(1.0, SLACK * max(height, width)))


def rank_correlation(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Spearman's; of two constants 1, of one of them 0."""
    found = spearman(a, b)
    return found if math.isfinite(found) else float(np.ptp(ranks(a)) == np.ptp(ranks(b)))
