"""SSIM: how alike two maps look."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam.evaluation.faithfulness.masking import Floats


def ssim(a: NDArray[Any], b: NDArray[Any], window: int = 7, data_range: float = 1.0) -> float:
    """The mean structural similarity of two maps [H, W], over all windows that lie inside; 1 for the same map.

    Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity", IEEE TIP 13(4), with
    even weights and unbiased variances, as scikit-image has it by default.

    Args:
        window: side of a window, at most that of the map.
        data_range: between the least and the most that a map may hold.
    """
    window = min(window, *a.shape)
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    mean_a, mean_b = _means(a, window), _means(b, window)
    unbiased = window**2 / max(1, window**2 - 1)
    variances = unbiased * (_means(a * a, window) - mean_a**2 + _means(b * b, window) - mean_b**2)
    covariance = unbiased * (_means(a * b, window) - mean_a * mean_b)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    above = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    below = (mean_a**2 + mean_b**2 + c1) * (variances + c2)
    return float(np.mean(above / below))


def _means(values: Floats, window: int) -> Floats:
    """The means of all windows inside."""
    for axis in (0, 1):
        sums = np.cumsum(values, axis)
        zero = np.zeros_like(np.take(sums, [0], axis))
        sums = np.concatenate([zero, sums], axis)
        count = sums.shape[axis]
        values = np.take(sums, range(window, count), axis) - np.take(sums, range(count - window), axis)
    return values / window**2
