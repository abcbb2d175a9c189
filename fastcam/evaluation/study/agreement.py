"""How far raters agree: Krippendorff's alpha."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Metric = Literal["nominal", "ordinal", "interval"]


def alpha(units: Sequence[Mapping[float, int]], metric: Metric) -> float:
    """Krippendorff's alpha of any number of raters, each of whom may have rated any of the units.

    1 is agreement in everything, 0 what chance gives. NaN where no unit has two ratings, or all ratings are equal.

    Args:
        units: for each unit how often each value was given.
        metric: how far two values lie apart: "nominal" (they differ or not), "ordinal" (by how many ratings lie between
            them), "interval" (by their difference).

    Source: Krippendorff, "Content Analysis", 2nd edition 2004, chapter 11.
    """
    rated = [unit for unit in units if sum(unit.values()) >= 2]
    values = sorted({value for unit in rated for value, count in unit.items() if count})
    if len(values) < 2:
        return float("nan")
    counts = np.array([[unit.get(value, 0) for value in values] for unit in rated], np.float64)
    each = counts.sum(1)
    pairs = np.einsum("uc,ud,u->cd", counts, counts, 1 / (each - 1)) - np.diag((counts / (each - 1)[:, None]).sum(0))
    totals = pairs.sum(1)
    distance = _squared(np.array(values, np.float64), totals, metric)
    expected = (np.outer(totals, totals) * distance).sum() / (totals.sum() - 1)
    return float(1 - (pairs * distance).sum() / expected)


def _squared(values: NDArray[np.float64], totals: NDArray[np.float64], metric: Metric) -> NDArray[np.float64]:
    """Squared distances of values, [values, values]."""
    if metric == "nominal":
        return 1 - np.eye(len(values))
    if metric == "ordinal":
        values = np.cumsum(totals) - totals / 2
    return (values[:, None] - values[None]) ** 2
