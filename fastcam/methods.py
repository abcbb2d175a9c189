"""The CAM family: (activations, gradients) -> weights, one short function each.

Shapes: activations [N, K, h, w], gradients [N, T, K, h, w], weights [N, T, K]; T explained targets per image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def gradcam_weights(gradients: NDArray[Any]) -> NDArray[np.float32]:
    """alpha_k = 1/(h w) * sum_ij dy/dA_ij^k: the spatial mean of the gradient, [N, T, K, h, w] -> float32 [N, T, K].

    Source: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization",
    ICCV 2017, equation 1. Summed in float64: the addends of one map may cancel.
    """
    mean: NDArray[Any] = np.asarray(gradients).mean(axis=(-2, -1), dtype=np.float64)
    return mean.astype(np.float32)
