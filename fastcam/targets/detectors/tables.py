"""Outputs of a detector as tables: a row for each position (and anchor), with the places of its numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam.schema import Cotangent
from fastcam.targets.arrays import Double
from fastcam.targets.detectors.forms import Index, Numbers

STRIDES = (4, 8, 16, 32, 64, 128)
WORDS = {
    "class": r"cls|class|score|conf|prob|logit|heat|hm\b|label",
    "factor": r"obj|iou|center(?!net)|centre|ctr|quality",
    "box": r"box|reg|loc(?!al)|dis|dfl|delta|offset|\bwh",
    "points": r"kps|kpt|key|landm|point|ldm",
}
"""What names say of an output of a level."""


@dataclass(frozen=True, eq=False)
class Table:
    """One output.

    Attributes:
        output: its name.
        index: [P, k], the places of the numbers of each position in one image's part.
        grid: (h, w) of a map; None where rows alone are known.
        says: the word of :data:`WORDS` that its name fits, or "".
    """

    output: str
    index: Index
    grid: tuple[int, int] | None
    says: str

    @property
    def columns(self) -> int:
        """k."""
        return int(self.index.shape[1])

    def numbers(self, start: int = 0, stop: int | None = None) -> Numbers:
        """Some of the columns."""
        return Numbers(self.output, self.index[:, start:stop])

    def apart(self, anchors: int) -> Table:
        """The same with a row for each anchor of a position, of columns [anchors * k]."""
        if anchors == 1:
            return self
        return Table(self.output, self.index.reshape(len(self.index) * anchors, -1), self.grid, self.says)


def tables(about: Sequence[Cotangent], arrays: Mapping[str, NDArray[Any]]) -> Iterator[Table]:
    """The explained outputs as tables; those with other axes are left out."""
    for one in about:
        shape = np.shape(arrays[one.output])[one.batched :]
        places: NDArray[Any] = np.arange(math.prod(shape), dtype=np.int64).reshape(shape)
        rows: NDArray[Any]
        grid: tuple[int, int] | None = None
        if len(shape) == 4:  # [A, h, w, k], or [h, w, A, k]
            first = shape[1] >= shape[0] and shape[2] >= shape[0]
            grid = (shape[1], shape[2]) if first else (shape[0], shape[1])
            rows = np.moveaxis(places, 0, 2) if first else places
            rows = rows.reshape(-1, shape[3])
        elif len(shape) == 3:
            last = one.axes == "HWC"
            rows = (places if last else np.moveaxis(places, 0, 2)).reshape(-1, shape[2] if last else shape[0])
            grid = (shape[0], shape[1]) if last else (shape[1], shape[2])
        elif len(shape) == 2:
            rows = places
        elif len(shape) == 1:
            rows = places[:, None]
        else:
            continue
        yield Table(one.output, rows, grid, meant(one.output))


def meant(name: str) -> str:
    """What the name of an output says of it."""
    found = [word for word, pattern in WORDS.items() if re.search(pattern, name.lower())]
    return next((word for word in ("points", "factor", "box", "class") if word in found), "")


def points(
    rows: int, size: tuple[int, int] | None, grid: tuple[int, int] | None = None, middle: float = 0.0
) -> tuple[Double, int] | None:
    """The priors of one level [rows, 4], and its anchors at each position; None where the size of the input is open.

    Args:
        rows: positions times anchors.
        size: height and width of the network's input.
        grid: of the level, where it is known.
        middle: 0.5 where points lie in the middle of their cells.
    """
    if size is None:
        return None
    if grid is not None:
        known = [[(grid, max(1, round(size[0] / grid[0])))]]
    else:
        known = [[(cells, stride) for stride, cells in zip(STRIDES, each)] for each in _roundings(size, STRIDES)]
    for (h, w), stride in chain.from_iterable(known):
        if h * w and rows % (h * w) == 0 and rows // (h * w) <= 9:
            return _grid(h, w, stride, rows // (h * w), middle), rows // (h * w)
    return None


def _roundings(size: tuple[int, int], strides: Sequence[int]) -> list[tuple[tuple[int, int], ...]]:
    """Rows and columns of the levels, where sides that are no multiples of a stride are rounded up, or down."""
    (up, down), (right, left) = ([[-(-side // s) for s in strides], [side // s for s in strides]] for side in size)
    return [tuple(zip(up, right)), tuple(zip(down, left)), tuple(zip(up, left)), tuple(zip(down, right))]


def pyramid(rows: int, size: tuple[int, int] | None, middle: float = 0.0) -> Double | None:
    """The priors of all levels in one list [rows, 4], of strides 8, 16, 32 and so on; None where they do not fit."""
    if size is None:
        return None
    for strides in ((8, 16, 32), (8, 16, 32, 64), (8, 16, 32, 64, 128), (16, 32), (16, 32, 64), (4, 8, 16, 32)):
        for cells in _roundings(size, strides):
            total = sum(h * w for h, w in cells)
            if total and rows % total == 0 and rows // total <= 3:
                return np.concatenate([_grid(h, w, s, rows // total, middle) for (h, w), s in zip(cells, strides)])
    return None


def _grid(h: int, w: int, stride: int, anchors: int, middle: float) -> Double:
    y, x = np.mgrid[:h, :w] + middle
    each = np.stack([x * stride, y * stride, np.full((h, w), stride), np.full((h, w), stride)], -1).reshape(-1, 4)
    return np.repeat(each.astype(np.float64), anchors, axis=0)
