"""Localization: whether the box around a map fits an object, for predicted classes and for the true one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastcam.evaluation.protocols.base import Case, Present, Protocol, Row
from fastcam.evaluation.protocols.regions import best_overlap
from fastcam.evaluation.statistics import Figure, Ratios, Tally, Weights

ENOUGH = 0.5
"""Intersection over union from which on a box fits."""
TOP = 5
"""How many predicted classes ILSVRC takes."""


class Localization(Protocol):
    """Top-1 and top-5 error of classification and of localization, as ILSVRC defines them.

    The model's five best classes are explained, and each has one box: that of its map's largest component at the
    explanation's threshold (15 % of the maximum by default). A marked class g counts as classified where one of the
    first k classes stands for it, and as localized where the box of such a class overlaps a box of g by half or more
    (intersection over union >= 0.5). The error of a picture with n marked classes is the share of them that are not;
    ILSVRC's pictures have n = 1. A map that has no box localizes nothing.

    Source: ILSVRC 2012, "Task 2: classification with localization"; Selvaraju et al., "Grad-CAM", ICCV 2017,
    section 4.1 and table 1.
    """

    name = "localization"
    title = "top-1 and top-5 classification and localization error (ILSVRC; Grad-CAM paper, table 1)"

    def targets(self, present: Sequence[Present]) -> list[int]:
        """The ranks -1 to -5."""
        return [-1 - rank for rank in range(TOP)]

    def measure(self, case: Case) -> Row | None:
        """Of each marked class the first rank, from 1, that names it, and the first that finds it; 0: none does."""
        rows = []
        asked = [-rank for rank in range(1, TOP + 1) if -rank in case.columns]
        predicted = [int(case.explanation.classes[0, case.columns[target]]) for target in asked]
        for each in case.present:
            boxes = each.boxes
            if not len(boxes):
                continue
            ranks = [rank for rank, index in enumerate(predicted, 1) if index in each.classes]
            found = [rank for rank in ranks if _overlap(case, -rank, boxes) >= ENOUGH]
            rows.append([min(ranks, default=0), min(found, default=0)])
        return {"ranks": rows} if rows else None

    def tally(self) -> Tally:
        """The four errors, of pictures."""
        return _Errors()


def _overlap(case: Case, target: int, boxes: Any) -> float:
    """Intersection over union of a target's box with the best of some boxes; 0 where it has none."""
    if not case.ok(target):
        return 0.0
    return best_overlap(case.explanation.boxes[0, case.columns[target]], boxes)


class _Errors:
    def __init__(self) -> None:
        self.ratios = Ratios()

    def add(self, row: Mapping[str, Any], weights: Weights) -> None:
        for what, column in (("classification", 0), ("localization", 1)):
            for most in (1, TOP):
                missed = [not 1 <= ranks[column] <= most for ranks in row["ranks"]]
                self.ratios.add(f"top-{most} {what} error", sum(missed) / len(missed), weights, share=True)

    def figures(self) -> dict[str, Figure]:
        return self.ratios.figures()


class GroundTruthLocalization(Protocol):
    """Whether the box of the true class's map fits: localization apart from classification ("GT-known").

    Every marked class of a picture is explained, whatever the model predicts, and counts once: it is localized where
    the box of its map's largest component overlaps one of its boxes by half or more.

    Source: Choe et al., "Evaluating Weakly Supervised Object Localization Methods Right", CVPR 2020, section 3.
    """

    name = "gt-known"
    title = "localization error of the true class (GT-known)"

    def measure(self, case: Case) -> Row | None:
        """The best intersection over union of each marked class, by label."""
        found = {}
        for each in case.present:
            boxes = each.boxes
            if len(boxes):
                found[each.label] = _overlap(case, each.target, boxes)
        return {"iou": found} if found else None

    def tally(self) -> Tally:
        """The error and the mean overlap, of marked classes of pictures."""
        return _Overlaps()


class _Overlaps:
    def __init__(self) -> None:
        self.ratios = Ratios()

    def add(self, row: Mapping[str, Any], weights: Weights) -> None:
        for overlap in row["iou"].values():
            self.ratios.add("GT-known localization error", overlap < ENOUGH, weights, share=True)
            self.ratios.add("mean IoU of boxes", overlap, weights)

    def figures(self) -> dict[str, Figure]:
        return self.ratios.figures()
