"""Rank correlation of maps with the attention of people: do both look at the same places?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fastcam.evaluation.faithfulness.rank_correlation import spearman
from fastcam.evaluation.protocols.base import Case, Present, Protocol, Row
from fastcam.evaluation.protocols.options import check
from fastcam.evaluation.statistics import Figure, Ratios, Tally, Weights

Floats = NDArray[np.float64]
GRID = 14
"""To how many cells a side Das et al. make maps smaller before they are compared."""


def on_grid(heat: NDArray[Any], grid: int = GRID) -> Floats:
    """The mean of a map [height, width] over each cell of a grid, float64 [grid, grid]; a pixel may be in several.

    Means are rounded to 1e-7 of the largest, so that equal ones are equal: what counts are their ranks.
    """
    rows, columns = (_overlaps(side, grid) for side in heat.shape)
    means = rows @ np.asarray(heat, np.float64) @ columns.T
    most = float(np.abs(means).max())
    return np.asarray(np.round(means / most, 7) * most if most > 0 else means)


def _overlaps(side: int, cells: int) -> Floats:
    """How much of each cell each of ``side`` pixels covers, [cells, side]; a row's sum is 1."""
    edges = np.arange(cells + 1) * (side / cells)
    pixels = np.arange(side)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.asarray(np.maximum(covered, 0) * (cells / side))


def attention_correlation(heat: NDArray[Any], attention: NDArray[Any], grid: int = GRID) -> float:
    """Spearman's coefficient of two maps on a grid; NaN where one of them is the same everywhere.

    Args:
        heat, attention: [height, width], each of a size of its own, over the same picture.
    """
    return spearman(on_grid(heat, grid), on_grid(attention, grid))


@dataclass(frozen=True)
class AttentionCorrelation(Protocol):
    """Spearman's rank correlation of a map with where people looked, on a grid of 14 x 14; the mean over pictures.

    Of several people's maps of a picture the mean is taken. A map without heat has a correlation of 0; attention that
    is the same everywhere says nothing, and is left out. Beside it stands what a map has that falls from the picture's
    centre: people look there anyway.

    Attributes:
        target: what is explained: the answer that the network predicts, or the true one of the data set.
        grid: cells a side.

    Source: Das et al., "Human Attention in Visual Question Answering", EMNLP 2016, section 4; Grad-CAM, section 8.2.
    """

    name = "attention"
    title = "rank correlation with people's attention (Das et al.), of data sets that have it"
    target: Literal["predicted", "true"] = "predicted"
    grid: int = GRID

    def __post_init__(self) -> None:
        check(self)

    def targets(self, present: Sequence[Present]) -> list[int]:
        """The predicted class, or those that are marked."""
        return [-1] if self.target == "predicted" else [each.target for each in present]

    def measure(self, case: Case) -> Row | None:
        """Means over people of the correlation with the map and with the centre, and whether there is heat."""
        if case.sample.read_attention is None:
            return None
        wanted = self.targets(case.present)
        people = [on_grid(one, self.grid) for one in case.sample.read_attention()]
        people = [one for one in people if np.ptp(one) > 0]
        if not people or not wanted:
            return None
        centre = float(np.mean([spearman(_centre(self.grid), one) for one in people]))
        found, heated = [], 0
        for target in wanted:
            own = on_grid(case.heatmap(target), self.grid) if case.ok(target) else np.zeros((self.grid, self.grid))
            heat = bool(np.ptp(own) > 0)
            heated += heat
            found.append(float(np.mean([spearman(own, one) for one in people])) if heat else 0.0)
        share = heated / len(wanted)
        return {"map": round(float(np.mean(found)), 6), "centre": round(centre, 6), "heat": round(share, 6)}

    def tally(self) -> Tally:
        """Means over pictures."""
        return _Means()


def _centre(grid: int) -> Floats:
    """A map that falls with the distance from the centre, [grid, grid]; whole numbers, so that equals are equal."""
    place = 2.0 * np.arange(grid) + 1 - grid
    return -(place[:, None] ** 2 + place**2)


class _Means:
    def __init__(self) -> None:
        self.ratios = Ratios()

    def add(self, row: Mapping[str, Any], weights: Weights) -> None:
        self.ratios.add("rank correlation with attention", row["map"], weights)
        self.ratios.add("rank correlation with attention, picture's centre", row["centre"], weights)
        self.ratios.add("maps with heat", row["heat"], weights)

    def figures(self) -> dict[str, Figure]:
        return self.ratios.figures()
