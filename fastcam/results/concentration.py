"""How much of a map lies together: the share of its heat inside its box, and its entropy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

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
    return _or_none(shares_inside(heatmap[None, None], [geometry], box[None, None])[0, 0])


def shares_inside(heatmaps: Float, geometry: Sequence[Geometry], boxes: Float) -> NDArray[np.float64]:
    """The same of the heatmaps [N, T, H, W] and boxes [N, T, 4] of several pictures, float64 [N, T].

    NaN where there is no heat. A box of zeros, or a map that is not finite, gives a number that says nothing.
    """
    count, height, width = len(geometry), *heatmaps.shape[2:]
    source, target = (np.array([getattr(one, name) for one in geometry]) for name in ("source", "target"))
    begin, end, sides = target[:, None, :2], target[:, None, 2:], source[:, None, 2:] - source[:, None, :2]
    with np.errstate(all="ignore"):
        places = (boxes.reshape(count, -1, 2, 2) - source[:, None, None, :2]) / sides[:, :, None]
        places = begin[:, :, None] + np.clip(places, 0, 1) * (end - begin)[:, :, None]  # in the network's input
        across, down = (_covered(places[..., 0, i], places[..., 1, i], n) for i, n in ((0, width), (1, height)))
        seen_across, seen_down = (_covered(begin[..., i], end[..., i], n) for i, n in ((0, width), (1, height)))
        weights = np.stack(np.broadcast_arrays(across, seen_across), axis=-1)
        rows, heat = np.empty((*boxes.shape[:2], height, 2)), np.empty(heatmaps.shape[1:])
        for i in range(count):  # one by one: the float64 of a picture stays in the processor's cache
            np.matmul(np.maximum(heatmaps[i], 0, out=heat), weights[i], out=rows[i])
        inside, total = (rows[..., 0] * down).sum(axis=-1), (rows[..., 1] * seen_down).sum(axis=-1)
        return np.where(total > 0, np.minimum(1.0, inside / total), np.nan)


def _covered(begin: Any, end: Any, count: int) -> NDArray[np.float64]:
    """How much of each of ``count`` pixels lies between two places [N, T]: [N, T, count]."""
    edges = np.arange(count + 1, dtype=np.float64)
    return np.diff(np.minimum(np.maximum(edges, begin[..., None]), end[..., None]))


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
    return _or_none(map_entropies(values[None, None])[0, 0])


def map_entropies(maps: Float) -> NDArray[np.float64]:
    """The same of maps [N, T, ...], float64 [N, T]; NaN where there is no finite heat, or one cell alone."""
    heat = np.maximum(maps, 0, dtype=np.float64).reshape(*maps.shape[:2], -1)
    if heat.shape[2] < 2:
        return np.full(heat.shape[:2], np.nan)
    with np.errstate(all="ignore"):
        total = heat.sum(axis=2)
        shares = heat / total[..., None]
        spread = -(shares * np.log(np.where(shares > 0, shares, 1))).sum(axis=2) / math.log(heat.shape[2])
    return np.where((total > 0) & (total < math.inf), np.maximum(spread, 0), np.nan)


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
