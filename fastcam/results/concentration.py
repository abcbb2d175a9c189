"""How much of a map lies together: the share of its heat inside its box, and its entropy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam.image.preprocess import Float, Geometry
from fastcam.results.explanation import OK, Explanation

AT_ONCE = 1 << 18
"""Pixels of heatmaps that are looked at together: of more the float64 would not stay in a processor's cache."""


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
    shares = np.full(boxes.shape[:2], np.nan)
    several = max(1, AT_ONCE // max(1, heatmaps[:1].size))
    for window, group in groupby(range(len(geometry)), lambda i: geometry[i].target):  # without bars they have one
        same = list(group)
        for chosen in (same[start : start + several] for start in range(0, len(same), several)):
            rows, (x0, y0, x1, y1) = slice(chosen[0], chosen[-1] + 1), window
            source = np.array([geometry[i].source for i in chosen], np.float64)[:, None]
            with np.errstate(all="ignore"):
                shares[rows] = _shares(heatmaps[rows, :, y0:y1, x0:x1], source, boxes[rows])
    return shares


def _shares(heatmaps: Float, source: NDArray[np.float64], boxes: Float) -> NDArray[np.float64]:
    """Of heatmaps that are all picture; ``source`` [N, 1, 4]: the rectangle of the picture that each shows."""
    height, width = heatmaps.shape[2:]
    places = (boxes - source[..., [0, 1, 0, 1]]) / np.tile(source[..., 2:] - source[..., :2], 2)
    across = _covered(places[..., 0], places[..., 2], width)
    down = _covered(places[..., 1], places[..., 3], height)
    heat = np.maximum(heatmaps, 0, dtype=np.float64)
    rows = heat @ np.stack([across, np.ones_like(across)], axis=-1)  # each row's heat inside, and all of it
    inside, total = (rows[..., 0] * down).sum(axis=-1), rows[..., 1].sum(axis=-1)
    return np.where(total > 0, np.minimum(1.0, inside / total), np.nan)


def _covered(begin: Any, end: Any, count: int) -> NDArray[np.float64]:
    """How much of each of ``count`` pixels lies between two places [N, T], shares of the side: [N, T, count]."""
    edges = np.arange(count + 1, dtype=np.float64)
    return np.diff(np.minimum(np.maximum(edges, begin[..., None] * count), end[..., None] * count))


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
