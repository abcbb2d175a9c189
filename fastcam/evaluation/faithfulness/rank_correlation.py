"""Correlations of two maps: of their values, and of their ranks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam.evaluation.faithfulness.masking import Floats


def pearson(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Pearson's coefficient of the values of two arrays of one size; NaN where one of them is constant."""
    a, b = (np.asarray(one, np.float64).ravel() for one in (a, b))
    if not len(a) or (a == a[0]).all() or (b == b[0]).all():
        return float("nan")
    a, b = a - a.mean(), b - b.mean()
    return float(np.clip(a @ b / np.sqrt((a @ a) * (b @ b)), -1, 1))


def spearman(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Spearman's coefficient: Pearson's of the ranks; NaN where one of the arrays is constant."""
    return pearson(ranks(a), ranks(b))


def ranks(values: NDArray[Any]) -> Floats:
    """Ranks from 1, float64 [values]; equals share the mean of theirs."""
    _, group, counts = np.unique(np.asarray(values).ravel(), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    means: Floats = last - (counts - 1) / 2
    return means[group.ravel()]
