"""Boxes of a map at many thresholds, in one pass over its pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastcam.image.preprocess import Float

try:
    from fastcam.kernels.native import sweep
except ImportError:  # it is not built
    from fastcam.kernels.reference import sweep

Levels = NDArray[np.float64]
Components = NDArray[np.int32]
"""int32 [count, 5]: x0, y0, x1, y1 (half open, in pixels of the network's input) and number of pixels, in raster order
of their first pixels."""


def swept(
    heatmap: Float, levels: Levels, connectivity: int = 8, window: tuple[int, int, int, int] | None = None
) -> tuple[Components, NDArray[np.int32]]:
    """The components of what reaches each level, of a heatmap scaled to 0..1.

    The scale is that of weakly supervised localization: the minimum becomes 0 and the maximum 1. FastCAM's heatmaps are
    divided by their map's maximum alone. Of one that is 0 somewhere, as most are after ReLU, both order pixels alike;
    of others a level v means ``low + v * (high - low)`` here.

    Args:
        heatmap: float32 [H, W], not negative, at the network's input.
        levels: float64 [n], in (0, 1], falling.
        connectivity: 8 or 4 neighbours of a pixel.
        window: x0, y0, x1, y1 outside of which no pixel counts (a letterbox's bars).

    Returns:
        the components, level by level, and int32 [n], how many each level has; none of a map that is the same
        everywhere.
    """
    low, high = float(heatmap.min()), float(heatmap.max())
    if not np.isfinite(high) or high <= low:
        return np.zeros((0, 5), np.int32), np.zeros(len(levels), np.int32)
    shares = ((low + levels * (high - low)) / high).astype(np.float32)
    inside = None if window is None else np.array(window, np.int32)
    return sweep(np.ascontiguousarray(heatmap, np.float32), shares * np.float32(high), connectivity, inside)


def scaled(heatmap: Float) -> Float:
    """A heatmap with its minimum at 0 and its maximum at 1; zeros where it is the same everywhere."""
    low, high = heatmap.min(), heatmap.max()
    spread = high - low
    return (heatmap - low) / spread if spread > 0 else np.zeros_like(heatmap)
