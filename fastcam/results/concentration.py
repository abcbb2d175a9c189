"""How much of a map lies together: the share of its heat inside its box, and its entropy."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fastcam.image.preprocess import Float, Geometry
from fastcam.results.explanation import OK, Explanation


def heat_inside(explanation: Explanation, i: int = 0, target: int = 0) -> float | None:
    """The share of a picture's heat that lies inside the box of a target.

    The heat is the positive part of the heatmap, pixel by pixel of the network's input; what lies on a letterbox's bars
    does not count. A pixel that the box covers in part counts in part.

    Returns:
        0 to 1; None where there is no map, or no box, and of signals, volumes and texts.
    """
    box, heatmap = explanation.boxes[i, target], explanation.heatmaps[i, target]
    if explanation.status[i][target] != OK or not box.any() or heatmap.ndim != 2:
        return None
    return share_inside(heatmap, explanation.geometry[i], box)


def share_inside(heatmap: Float, geometry: Geometry, box: Float) -> float | None:
    """The same of a heatmap [H, W] of the network's input and a box x0, y0, x1, y1 in pixels of the picture."""
    (sx0, sy0, sx1, sy1), (tx0, ty0, tx1, ty1) = geometry.source, geometry.target
    heat = np.maximum(heatmap[ty0:ty1, tx0:tx1], 0, dtype=np.float32)
    x0, y0, x1, y1 = map(float, box)
    across = _covered((x0 - sx0) / (sx1 - sx0), (x1 - sx0) / (sx1 - sx0), tx1 - tx0)
    down = _covered((y0 - sy0) / (sy1 - sy0), (y1 - sy0) / (sy1 - sy0), ty1 - ty0)
    rows = heat @ across
    total = float(heat.sum(dtype=np.float64))
    return min(1.0, float(down @ rows) / total) if total > 0 else None


def _covered(begin: float, end: float, count: int) -> NDArray[np.float64]:
    """How much of each of ``count`` pixels lies between two places, which are shares of the side."""
    edges = np.arange(count + 1, dtype=np.float64)
    return np.diff(np.clip(edges, begin * count, end * count))


def entropy(explanation: Explanation, i: int = 0, target: int = 0) -> float | None:
    """The entropy of a target's map, at the layer's resolution, over that of an even map.

    Returns:
        0 (all heat in one cell) to 1 (the same everywhere); None where there is no map.
    """
    if explanation.status[i][target] != OK:
        return None
    return map_entropy(explanation.maps[i, target])


def map_entropy(values: Float) -> float | None:
    """The same of a map of any shape: -sum p log p / log n, of its n cells' shares p of its positive part."""
    heat = np.maximum(values, 0).astype(np.float64).ravel()
    total = float(heat.sum())
    if heat.size < 2 or not 0 < total < math.inf:
        return None
    shares = heat[heat > 0] / total
    return max(0.0, float(-(shares * np.log(shares)).sum()) / math.log(heat.size))
