"""Energy-based pointing: which share of a map's heat lies on the objects of its class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from fastcam.evaluation.protocols.base import Case, Present, Protocol, Row
from fastcam.evaluation.protocols.regions import box_pixels, box_slices, ignored_pixels, mask_pixels
from fastcam.evaluation.samples import Mask
from fastcam.evaluation.statistics import Figure, Ratios, Tally, Weights
from fastcam.image.preprocess import Float, Size

Region: TypeAlias = "Mask | tuple[slice, slice]"
"""Pixels of a picture: any, or those of one box."""


class Energy(Protocol):
    """The share of a map's heat inside the boxes, and inside the masks, of its class.

    Beside it stands the share that a map would have that is the same everywhere, which is the boxes' (or masks') share
    of the picture, and how many times as much the map has. Pixels that the data set ignores, and those of "difficult"
    objects and crowds of the class, count neither inside nor outside. A map without heat has a share of 0.

    Source: Wang et al., "Score-CAM", CVPR workshops 2020, section 4.3, whose proportion is the share in boxes.
    """

    name = "energy"
    title = "share of the heat inside boxes and masks, beside an even map's (energy-based pointing game)"

    def measure(self, case: Case) -> Row | None:
        """Of each marked class [its map's share, an even map's share], in "box" and "mask", by label."""
        row: Row = {"box": {}, "mask": {}}
        for each in case.present:
            regions = _regions(case, each)
            heat, counts = _heat(case, each) if regions else (None, None)
            total = 0.0 if heat is None else float(heat.sum(axis=1).sum(dtype=np.float64))  # rows: in pairs, fast
            for kind, inside in regions.items():
                row[kind][each.label] = _shares(heat, total, counts, inside, case.size)
        return row if row["box"] or row["mask"] else None

    def tally(self) -> Tally:
        """Means over marked classes of pictures."""
        return _Shares()


def _regions(case: Case, present: Present) -> dict[str, Region]:
    boxes, masks = present.boxes, mask_pixels(present.counted, case.size)
    regions: dict[str, Region] = {}
    if len(boxes):
        regions["box"] = box_slices(boxes, case.size)[0] if len(boxes) == 1 else box_pixels(boxes, case.size)
    if masks is not None:
        regions["mask"] = masks
    return regions


def _heat(case: Case, present: Present) -> tuple[Float | None, Mask | None]:
    """The map of a class, zero in pixels that do not count, None where it has none; and which count, None: all."""
    ignored = ignored_pixels(case.sample, present.annotations, case.size)
    counts = None if ignored is None else ~ignored
    if not case.ok(present.target):
        return None, counts
    heat = case.heatmap(present.target)
    if heat.min() < 0:
        heat = np.maximum(heat, 0)
    return heat if counts is None else heat * counts, counts


def _shares(heat: Float | None, total: float, counts: Mask | None, inside: Region, size: Size) -> list[float]:
    """The share of the heat that lies inside, and the share of the pixels."""
    if counts is not None:
        kept = np.zeros_like(counts)
        kept[inside] = counts[inside]
        inside = kept
    share = float(heat[inside].ravel().sum(dtype=np.float64)) / total if heat is not None and total > 0 else 0.0
    area = size[0] * size[1] if counts is None else max(1, int(np.count_nonzero(counts)))
    return [round(share, 6), round(_count(inside) / area, 6)]


def _count(inside: Region) -> int:
    if not isinstance(inside, tuple):
        return int(np.count_nonzero(inside))
    rows, columns = inside
    return max(0, int(rows.stop - rows.start)) * max(0, int(columns.stop - columns.start))


class _Shares:
    def __init__(self) -> None:
        self.ratios = Ratios()

    def add(self, row: Mapping[str, Any], weights: Weights) -> None:
        for kind, plural in (("box", "boxes"), ("mask", "masks")):
            for share, even in row[kind].values():
                self.ratios.add(f"share of heat in {plural}", share, weights)
                self.ratios.add(f"share of an even map in {plural}", even, weights)
                self.ratios.add(f"heat in {plural}, times an even map's", share, weights, even)

    def figures(self) -> dict[str, Figure]:
        return self.ratios.figures()
