"""Max-sensitivity: how much the map may change when the picture changes so little that nobody sees it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam.image.preprocess import Float


def max_sensitivity(heat: NDArray[Any], others: NDArray[Any]) -> float:
    """The largest of |others - heat| / |heat| (Euclidean norms): [H, W] and [M, H, W]. NaN for a map of zeros.

    Yeh et al. 2019, "On the (In)fidelity and Sensitivity of Explanations" (arXiv 1901.09392), definition 3.1, by
    random neighbours and, as its authors' code, Captum and Quantus have it, in units of the map's norm.
    """
    flat = np.asarray(heat, np.float64).ravel()
    norm = float(np.sqrt(flat @ flat))
    if not norm:
        return float("nan")
    changes = np.asarray(others, np.float64).reshape(len(others), -1) - flat
    return float(np.sqrt((changes**2).sum(1)).max()) / norm


def neighbours(x: Float, radius: float, samples: int, rng: np.random.Generator) -> Iterator[Float]:
    """``samples`` pictures around ``x``, each number of which moved by at most ``radius``, uniformly."""
    for _ in range(samples):
        yield x + rng.uniform(-radius, radius, x.shape).astype(np.float32)
