"""Maps of clips and volumes with what is made for pictures: times or slices under the rows, and linear in between."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam import kernels
from fastcam.image.preprocess import Float

Array = NDArray[Any]


def under_rows(maps: Array) -> Float:
    """[..., t, h, w] as [..., t h, w], times or slices under the rows; [N, T, h, w] as it is."""
    return np.asarray(maps if maps.ndim < 5 else maps.reshape(*maps.shape[:-3], -1, maps.shape[-1]))


def enlarged(maps: Float, size: tuple[int, ...]) -> Float:
    """Maps [N, T, h, w] or [N, T, t, h, w] at (H, W) or (times, H, W): linear along each axis, half-pixel centres."""
    if maps.ndim == 5:
        maps = at_times(maps, size[0])
    return kernels.get().upsample(np.ascontiguousarray(maps), (size[-2], size[-1]))


def at_times(maps: Float, times: int) -> Float:
    """Maps [N, T, t, h, w] at other times or slices, [N, T, times, h, w]: linear, half-pixel centres."""
    n, t, before, rows, columns = maps.shape
    if before == times:
        return maps
    apart = np.ascontiguousarray(maps.reshape(n * t, before, rows * columns))
    return kernels.get().upsample(apart, (times, rows * columns)).reshape(n, t, times, rows, columns)
