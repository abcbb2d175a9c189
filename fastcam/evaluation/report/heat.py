"""Maps as the page draws them: a few hundred bytes at the layer's resolution, and where they lie in the picture."""

from __future__ import annotations

import base64
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fastcam.image.preprocess import Float, Geometry, Size, Uint8, resize
from fastcam.render import overlays, web
from fastcam.results.explanation import OK, Explanation

LARGEST = 56
"""Rows and columns of a map on the page, at most; larger ones are averaged."""


def drawn(explanation: Explanation, target: int = 0) -> str:
    """A map for the page's script: "rows columns base64 of bytes, 4 + 4 shares".

    The bytes are the map over its maximum, 0..255, row by row. The first four numbers say which part of the picture the
    network saw, the others which part of its input that became, each x0, y0, x1, y1 as shares of the sides. Empty where
    there is no map.
    """
    if explanation.status[0][target] != OK:
        return ""
    low = _low(explanation, target)
    rows, columns = low.shape
    values = base64.b64encode(np.rint(255 * low).astype(np.uint8).tobytes()).decode("ascii")
    geometry = explanation.geometry[0]
    places = [*_shares(geometry.source, geometry.original), *_shares(geometry.target, geometry.network)]
    return " ".join([str(rows), str(columns), values, *(f"{place:.6g}" for place in places)])


def _low(explanation: Explanation, target: int) -> Float:
    """The map at the layer's resolution over its maximum, 0..1; of the image's resolution its heatmap, averaged."""
    values = explanation.maps[0, target]
    if max(values.shape) > LARGEST:
        values = explanation.heatmaps[0, target]
        height, width = values.shape
        values = resize(np.ascontiguousarray(values), (min(height, LARGEST), min(width, LARGEST)))
    positive = np.maximum(np.nan_to_num(values), 0)
    low: Float = positive / max(float(positive.max()), 1e-30)
    return low


def _shares(rect: tuple[int, int, int, int], size: Size) -> tuple[float, ...]:
    height, width = size
    return rect[0] / width, rect[1] / height, rect[2] / width, rect[3] / height


def in_grid(explanation: Explanation, target: int, cells: int) -> Float:
    """The heatmap over the whole picture, averaged in ``cells`` x ``cells`` parts: float32, zeros without a map."""
    geometry = shrunk(explanation.geometry[0], (cells, cells))
    return geometry.heatmap_to_original(explanation.heatmaps[0, target])


def shrunk(geometry: Geometry, size: Size) -> Geometry:
    """The geometry of the same picture at another size."""
    (height, width), (x0, y0, x1, y1) = geometry.original, geometry.source
    x, y = size[1] / width, size[0] / height
    left, top = min(round(x0 * x), size[1] - 1), min(round(y0 * y), size[0] - 1)
    source = (left, top, max(left + 1, round(x1 * x)), max(top + 1, round(y1 * y)))
    return replace(geometry, original=size, source=source)


def guided_gradcam(explanation: Explanation, target: int, side: int) -> Uint8 | None:
    """Guided Grad-CAM as a picture whose longer side is at most ``side``; None where the file has not what it takes."""
    if explanation.input_gradients is None or explanation.metadata.input_gradient != "guided":
        return None
    geometry = explanation.geometry[0]
    small = shrunk(geometry, web.fitted(geometry.original, side))
    how = explanation.metadata.preprocessing
    return overlays.pixels(explanation.guided_gradcam[0, target], small, False, how.color if how else "RGB")


def share_inside(heatmap: Float, inside: NDArray[np.bool_], ignored: NDArray[np.bool_] | None) -> tuple[float, float]:
    """The share of a heatmap's positive heat inside a region, and that of an even map; pixels that are ignored count
    for neither."""
    counts = np.ones(inside.shape, np.bool_) if ignored is None else ~ignored
    heat = np.maximum(heatmap, 0)
    total = float(heat.sum(where=counts, dtype=np.float64))
    within = inside & counts
    share = float(heat.sum(where=within, dtype=np.float64)) / total if total > 0 else 0.0
    return share, float(within.sum()) / max(1, int(counts.sum()))
