"""Boxes of a map at many thresholds, from the low-resolution map.

The kernels find the components of the enlarged map at a threshold from where its bilinear patches cross it, without
building it. So a sweep costs no picture for any of its thresholds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastcam import kernels
from fastcam.explain.postprocess import same_everywhere
from fastcam.image.preprocess import Float, Size

Levels = NDArray[np.float64]
Components = NDArray[np.int32]
"""int32 [count, 5]: x0, y0, x1, y1 (half open, in pixels of the network's input) and number of pixels, in raster order
of their first pixels."""


def components_at(
    small: Float, size: Size, levels: Levels, connectivity: int = 8, window: tuple[int, int, int, int] | None = None
) -> list[Components]:
    """The components of what reaches each level, of the map enlarged to ``size`` and scaled to 0..1.

    The scale is that of weakly supervised localization: the enlarged map's minimum becomes 0 and its maximum 1.
    FastCAM's heatmaps are divided by their maximum alone. Of a map that is 0 somewhere, as most are after ReLU, both
    are the same; of others a level v means ``low + v * (high - low)`` here.

    Args:
        small: float32 [h, w], not negative: a map at its layer's resolution.
        size: (H, W), of the network's input.
        levels: float64 [n], in (0, 1].
        connectivity: 8 or 4 neighbours of a pixel.
        window: x0, y0, x1, y1 outside of which no pixel counts (a letterbox's bars).

    Returns:
        for each level its components; none of a map without heat, or that is the same everywhere.
    """
    maps = np.ascontiguousarray(small, np.float32)[None, None]
    if not np.isfinite(maps).all() or maps.max() <= 0 or same_everywhere(maps)[0, 0]:
        return [np.zeros((0, 5), np.int32) for _ in levels]
    backend = kernels.get()
    high, low = 1.0, 0.0
    if maps.min() > 0:
        enlarged = backend.upsample(backend.normalize(maps), size)
        high, low = float(enlarged.max()), float(enlarged.min())
    windows = None if window is None else np.array([window], np.int32)
    found = []
    for level in levels:
        share = (low + float(level) * (high - low)) / high
        explained = backend.explain_maps(maps, None, size, share, connectivity, windows=windows, want_heatmaps=False)
        found.append(explained.components)
    return found


def scaled(heatmap: Float) -> Float:
    """A heatmap with its minimum at 0 and its maximum at 1; zeros where it is the same everywhere."""
    low, high = heatmap.min(), heatmap.max()
    spread = high - low
    return (heatmap - low) / spread if spread > 0 else np.zeros_like(heatmap)
