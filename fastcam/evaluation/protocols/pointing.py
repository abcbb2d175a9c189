"""The pointing game: whether a map is highest on an object of its class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastcam.evaluation.protocols.base import Case, Present, Protocol, Row
from fastcam.evaluation.protocols.options import check
from fastcam.evaluation.protocols.regions import boxes_of, pixels
from fastcam.evaluation.samples import Annotation, Mask
from fastcam.evaluation.statistics import REPLICATES, Figure, Ratio, Ratios, Tally, Weights, figure

TOLERANCE = 15
"""How many pixels of the picture a point may lie beside the object."""
SMALL = 0.25
"""Of the picture: objects of less area together are difficult, beside those of another class."""


def near(inside: Mask, x: float, y: float, tolerance: float = TOLERANCE, open_end: bool = False) -> bool:
    """Whether the middle of one of the pixels lies within the tolerance of a point.

    Args:
        inside: bool [height, width].
        x, y: the point; a pixel's middle is at its number plus one half.
        open_end: whether a distance of exactly the tolerance is too far, as TorchRay has it.
    """
    if tolerance > 1 and inside[min(int(y), len(inside) - 1), min(int(x), inside.shape[1] - 1)]:
        return True  # its own pixel's middle is nearer than one pixel
    left, top = (max(0, int(place - tolerance) - 1) for place in (x, y))
    window = inside[top : int(y + tolerance) + 2, left : int(x + tolerance) + 2]
    rows, columns = np.nonzero(window)
    if not len(rows):
        return False
    squared = (columns + (left + 0.5 - x)) ** 2 + (rows + (top + 0.5 - y)) ** 2
    return bool((squared < tolerance**2 if open_end else squared <= tolerance**2).any())


def _can_be_hit(marks: Sequence[Annotation]) -> bool:
    """Whether some mark says where its object is, and some is not "difficult"."""
    placed = any(mark.box is not None or mark.read_mask is not None for mark in marks)
    return placed and not all(mark.difficult for mark in marks)


def is_difficult(case: Case, present: Present) -> bool:
    """Whether the boxes of a class fill less than a quarter of the picture, and another class is marked in it."""
    boxes = boxes_of(present.annotations)
    area = float((boxes[:, 2:] - boxes[:, :2]).prod(axis=1).sum())
    others = set(case.sample.labels) - {present.label}
    return bool(others) and area < SMALL * case.size[0] * case.size[1]


class Pointing(Protocol):
    """The pointing game of Zhang et al.: the share of marked classes that the peak of their map hits.

    A class is hit where the peak, the middle of the maximum's plateau, lies within 15 pixels of one of its objects:
    of its pixels where the data set has masks, otherwise of its box. Pixels are the picture's. All marks of the class
    count, "difficult" ones and crowds too; a class whose marks are all "difficult", or have neither box nor mask, is
    left out. A map without heat hits nothing. Accuracy is the mean over classes of each one's hits. The difficult
    subset holds the classes whose boxes fill less than a quarter of the picture together, in pictures where another
    class is marked. What the picture's centre hits is said beside both.

    Source: Zhang et al., "Top-down Neural Attention by Excitation Backprop", ECCV 2016, section 4.1.
    """

    name = "pointing"
    title = "pointing game, and its difficult subset (Zhang et al.)"

    def measure(self, case: Case) -> Row | None:
        """Of each marked class [is hit, is hit by the picture's centre, is difficult], by label."""
        row: Row = {}
        middle = case.size[1] / 2, case.size[0] / 2
        for each in case.present:
            if not _can_be_hit(each.annotations):
                continue
            inside = pixels(each.annotations, case.size)
            point = self.point(case, each)
            flags = [point is not None and self.hits(inside, *point), self.hits(inside, *middle)]
            row[each.label] = [int(flag) for flag in (*flags, is_difficult(case, each))]
        return row or None

    def point(self, case: Case, present: Present) -> tuple[float, ...] | None:
        """Where a class's map is highest; None where it has no heat."""
        return case.explanation.peak(0, case.columns[present.target])

    def hits(self, inside: Mask, x: float, y: float) -> bool:
        """Whether a point hits an object."""
        return near(inside, x, y)

    def tally(self) -> Tally:
        """Means over classes, and the share of all marked classes of pictures."""
        return _Hits()


class PointingTorchray(Pointing):
    """The pointing game as TorchRay plays it: its rules where they differ from those of :class:`Pointing`.

    The point is the first pixel, in raster order, of the maximum of the map enlarged to the picture, and a distance of
    exactly 15 pixels is a miss. TorchRay reads its difficult subset from a list for two data sets; this one is computed
    as above. A class of the data set that no picture shows counts as 0 there and is left out here.

    Source: TorchRay, torchray/benchmark/pointing_game.py.
    """

    name = "pointing-torchray"
    title = "pointing game as TorchRay plays it: first pixel of the maximum, below 15 pixels"

    def point(self, case: Case, present: Present) -> tuple[float, ...] | None:
        """The first pixel of the maximum, its middle."""
        if not case.ok(present.target):
            return None
        heatmap = case.heatmap(present.target)
        y, x = np.unravel_index(int(heatmap.argmax()), heatmap.shape)
        return float(x) + 0.5, float(y) + 0.5

    def hits(self, inside: Mask, x: float, y: float) -> bool:
        """Whether a pixel of an object is nearer than the tolerance."""
        return near(inside, x, y, open_end=True)


class _Hits:
    def __init__(self) -> None:
        self.of_all = Ratio(share=True)
        self.by_class = {(who, subset): Ratios() for subset in ("all", "difficult") for who in ("map", "centre")}

    def add(self, row: Mapping[str, Any], weights: Weights) -> None:
        for label, (hit, centre, difficult) in row.items():
            self.of_all.add(hit, weights)
            for subset in ("all", "difficult") if difficult else ("all",):
                self.by_class["map", subset].add(label, hit, weights, share=True)
                self.by_class["centre", subset].add(label, centre, weights, share=True)

    def figures(self) -> dict[str, Figure]:
        names = {
            "pointing accuracy": ("map", "all"),
            "pointing accuracy, difficult": ("map", "difficult"),
            "pointing accuracy of the centre": ("centre", "all"),
            "pointing accuracy of the centre, difficult": ("centre", "difficult"),
        }
        means = {name: self.by_class[key].mean() for name, key in names.items()}
        return means | {"pointing accuracy, all objects alike": self.of_all.figure()}


@dataclass(frozen=True)
class PointingRecall(Protocol):
    """The Grad-CAM paper's pointing game, which asks for recall too: wrong predictions are to be rejected.

    The five best classes of a picture are explained. Each may be rejected: where its map, not normalised, stays below
    a threshold. A class that the picture shows is a hit where its map is not rejected and its peak lies within 15
    pixels of an object, and one that it does not show where its map is rejected. Classes whose marks are all
    "difficult", or have neither box nor mask, are left out. The paper gives no threshold: the figure is that of the one
    which is best, unless one is given, which may be chosen on other pictures.

    Source: Selvaraju et al., "Grad-CAM", ICCV 2017, section 4.3 and its supplement: 70.58 % against 60.30 % of c-MWP.

    Attributes:
        threshold: below which a map's maximum rejects its class; 0 takes the best.
    """

    name = "pointing-recall"
    title = "pointing game with recall: top-5 classes, each may be rejected (Grad-CAM paper)"

    threshold: float = 0.0

    def __post_init__(self) -> None:
        check(self)

    def targets(self, present: Sequence[Present]) -> list[int]:
        """The ranks -1 to -5."""
        return [-rank for rank in range(1, 6)]

    def measure(self, case: Case) -> Row | None:
        """Of each predicted class [is shown, is hit if it is not rejected, its map's maximum]."""
        rows = []
        for target in self.targets(case.present):
            if target not in case.columns:  # a model of fewer classes
                continue
            column = case.columns[target]
            index = int(case.explanation.classes[0, column])
            marks = [mark for each in case.present if index in each.classes for mark in each.annotations]
            if marks and not _can_be_hit(marks):
                continue
            point = case.explanation.peak(0, column)
            hit = bool(marks) and point is not None and near(pixels(marks, case.size), point[0], point[1])
            highest = float(case.explanation.maps[0, column].max()) if case.ok(target) else 0.0
            rows.append([int(bool(marks)), int(hit), highest])
        return {"predicted": rows} if rows else None

    def tally(self) -> Tally:
        """Of predicted classes: the share of hits with rejection, and without."""
        return _Rejections(self.threshold)


STEPS = np.concatenate([[0.0], 2.0 ** np.arange(-40, 20.1, 0.25)])
"""Thresholds that are tried: 0, which rejects none, and a fine scale over all that maps reach."""


class _Rejections:
    """Hits by the highest threshold that does not reject them, and absent classes by the lowest that does."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.steps = STEPS if threshold == 0 else np.array([0.0, threshold])
        size = len(self.steps), 1 + REPLICATES
        self.kept, self.rejected = np.zeros(size), np.zeros(size)
        self.count, self.n, self.pictures = np.zeros(size[1]), 0, 0

    def add(self, row: Mapping[str, Any], weights: Weights) -> None:
        self.pictures += 1
        for shown, hit, highest in row["predicted"]:
            self.count += weights
            self.n += 1
            passed = int(np.searchsorted(self.steps, highest, side="right"))  # thresholds that do not reject it
            if shown and hit:
                self.kept[passed - 1] += weights
            elif not shown and passed < len(self.steps):
                self.rejected[passed] += weights

    def figures(self) -> dict[str, Figure]:
        hits = np.cumsum(self.kept[::-1], axis=0)[::-1] + np.cumsum(self.rejected, axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            shares = hits / self.count
        nothing = self.count == 0
        best = np.argmax(shares, axis=0) if self.threshold == 0 else np.full(shares.shape[1], len(self.steps) - 1)
        chosen = np.take_along_axis(shares, best[None], 0)[0]
        said = "best" if self.threshold == 0 else "given"
        return {
            f"accuracy with rejection at the {said} threshold": figure(chosen, self.n, self.pictures),
            "accuracy without rejection": figure(shares[0], self.n, self.pictures),
            f"{said} threshold": figure(np.where(nothing, np.nan, self.steps[best]), self.n),
        }
