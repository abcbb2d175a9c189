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
from fastcam.evaluation.protocols.regions import best_overlap
from fastcam.explainer import Explainer

TOP = 2


@dataclass(frozen=True)
class Tolerance:
    """What another engine may change.

    Attributes:
        difference: the largest difference of a heatmap at any place.
        correlation: the least rank correlation (Spearman) of two heatmaps.
        overlap: the least intersection over union of two boxes.
    """

    difference: float = 0.1
    correlation: float = 0.95
    overlap: float = 0.9

    def __post_init__(self) -> None:
        if not 0 < self.difference <= 1 or not 0 <= self.correlation < 1 or not 0 <= self.overlap <= 1:
            raise FastcamError(
                "a tolerance is out of range; give a difference above 0 and up to 1, a correlation of 0 to below 1 "
                "and an overlap of 0 to 1"
            )


@dataclass(frozen=True)
class Agreement:
    """How far the worst map is from the reference's.

    Attributes:
        difference, correlation, overlap: see :class:`Tolerance`.
        scores: the largest difference of a class's score, as a share of the largest score. It is the plain pass's:
            no tolerance holds it.
        classes: whether the same class is predicted in each picture.
    """

    difference: float
    correlation: float
    overlap: float
    scores: float
    classes: bool

    def refusal(self, tolerance: Tolerance) -> str:
        """Why it is too far; empty where it is not."""
        if not self.classes:
            return "another class is predicted"
        if not self.difference <= tolerance.difference:
            return f"maps differ by {self.difference:.2g}"
        if not self.correlation >= tolerance.correlation:
            return f"rank correlation {self.correlation:.3f}"
        return "" if self.overlap >= tolerance.overlap else f"boxes overlap by {self.overlap:.2f}"


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
        maps, scores = (np.concatenate([getattr(one, name) for one in made]) for name in ("heatmaps", "scores"))
        found = self._found
        pairs = zip(maps.reshape(-1, *maps.shape[2:]), found.heatmaps.reshape(-1, *maps.shape[2:]), strict=True)
        boxes = zip(np.concatenate([one.boxes for one in made]).reshape(-1, 4), found.boxes.reshape(-1, 4), strict=True)
        return Agreement(
            difference=float(np.abs(maps - found.heatmaps).max()),
            correlation=min(rank_correlation(a, b) for a, b in pairs),
            overlap=min(overlap(a, b) for a, b in boxes),
            scores=float(np.abs(scores - found.scores).max() / max(np.abs(found.scores).max(), np.finfo(float).tiny)),
            classes=best == [row[0] for row in self._classes],
        )


def overlap(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Intersection over union of two boxes; 1 of equal ones, which no box at all may be too."""
    return 1.0 if np.array_equal(a, b) else best_overlap(a, b[None])


def rank_correlation(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Spearman's; of two constants 1, of one of them 0."""
    found = spearman(a, b)
    return found if math.isfinite(found) else float(np.ptp(ranks(a)) == np.ptp(ranks(b)))
