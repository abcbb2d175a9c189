"""Where a heatmap is highest, as one point."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastcam import kernels
from fastcam.image.preprocess import Float, Geometry

TIED = np.float32(1 - 1e-6)
"""What this share of the maximum reaches belongs to its plateau; less is rounding."""


def peak(heatmap: Float) -> tuple[float, ...]:
    """The middle of the plateau of the maximum; of several plateaus the first in raster order.

    An enlarged map has plateaus: at the border half a cell wide, and where neighbouring cells are equal. Their first
    pixel, which argmax takes, lies at their corner.

    Args:
        heatmap: float32 [H, W], [L] of a signal, or [D, H, W] of a volume, whose plateau is looked for in the slice of
            the maximum. Nothing is NaN.

    Returns:
        x, y; x of a signal; x, y, z of a volume. A pixel's middle is at its number plus one half, as boxes are half
        open.
    """
    first = [int(place) for place in np.unravel_index(int(heatmap.argmax()), heatmap.shape)]
    outer, (y, x) = first[:-2], [0, *first][-2:]
    plane = np.atleast_2d(heatmap[tuple(outer)])
    tied = np.flatnonzero(plane >= plane[y, x] * TIED)
    at: tuple[float, float] = (x, y) if len(tied) == 1 else _middle(tied, plane.shape[1], y, x)
    return tuple(float(each) + 0.5 for each in (*at, *outer[::-1])[: heatmap.ndim])


def _middle(tied: NDArray[np.int64], width: int, y: int, x: int) -> tuple[float, float]:
    """The middle of the component of tied pixels that holds one; where that lies outside, the component's nearest.

    Args:
        tied: their numbers in raster order, in a plane of this width.
    """
    rows, columns = np.divmod(tied, width)
    top, left = int(rows[0]), int(columns.min())  # what is tied is small: the rest of the picture is left out
    mask = np.zeros((int(rows[-1]) - top + 1, int(columns.max()) - left + 1), np.uint8)
    mask[rows - top, columns - left] = 1
    labels, _ = kernels.get().label(mask, 8)
    own = labels[y - top, x - left]
    rows, columns = np.nonzero(labels == own)
    middle = float(columns.mean()), float(rows.mean())
    if labels[round(middle[1]), round(middle[0])] != own:
        nearest = int(np.argmin((columns - middle[0]) ** 2 + (rows - middle[1]) ** 2))
        middle = float(columns[nearest]), float(rows[nearest])
    return middle[0] + left, middle[1] + top


def in_picture(heatmap: Float, geometry: Geometry) -> tuple[float, float]:
    """The peak of a heatmap [H, W] of the network's input, in pixels of the picture; a letterbox's bars have none."""
    x0, y0, x1, y1 = geometry.target
    x, y = peak(np.ascontiguousarray(heatmap[y0:y1, x0:x1]))
    left, top, right, bottom = geometry.source
    return left + x * (right - left) / (x1 - x0), top + y * (bottom - top) / (y1 - y0)
