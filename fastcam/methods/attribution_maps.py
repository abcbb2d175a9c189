"""Attributions, a number for each element of the network's input, as maps of its size; and what of a map is shown.

Of gradients (plain, guided, averaged) the map is the largest absolute value over the channels, as Simonyan et al. 2014
show it; of attributions that share a score out (relevance, input times gradient, integrated gradients) their sum.
Single pixels make no region, whose box would say where an object is. So they are blurred: by a Gaussian whose standard
deviation, ``blur``, is in pixels of the input, and by default :data:`SHARE` of a cell of the target layer. 0 leaves
single pixels.
"""

from __future__ import annotations

import math

import numpy as np

from fastcam.errors import FastcamError
from fastcam.methods.context import Probe
from fastcam.methods.registry import Array, Float
from fastcam.schema import Mode

FROM_MINIMUM: tuple[Mode, ...] = ("rollout", "rollout-max", "rollout-min", "legrad", "fullgrad")
"""Maps that are nowhere negative and nowhere near zero: what tells is by how much a position exceeds the least one."""


AUTO = math.nan
"""The default of ``blur``: :data:`SHARE` of a cell."""
SHARE = 3 / 8
"""Chosen for Guided Grad-CAM, on crops of COCO photos and on generated scenes; a quarter to a half are alike."""
CELLS = 7
"""How many cells the longer side counts where the layer has one position, or is no map."""


def blur_of(probe: Probe, blur: float) -> float:
    """The standard deviation that an option means, in pixels."""
    if not math.isnan(blur):
        return blur
    cells = [side / positions for side, positions in zip(probe.size, probe.layer, strict=False) if positions > 1]
    return SHARE * max(cells, default=max(probe.size) / CELLS)


def strongest(attributions: Array, blur: float = 0.0) -> Float:
    """[T, C, H, W] -> [T, H, W]: the largest absolute value over the channels."""
    return blurred(np.abs(attributions).max(1), blur)


def summed(attributions: Array, blur: float = 0.0) -> Float:
    """[T, C, H, W] -> [T, H, W]: the sum over the channels."""
    return blurred(attributions.sum(1, dtype=np.float64), blur)


def blurred(maps: Array, blur: float) -> Float:
    """Maps [T, H, W] under a Gaussian that ends at three standard deviations, and with weights that sum to one at the
    border too.

    Raises:
        FastcamError: a negative standard deviation.
    """
    if blur < 0:
        raise FastcamError(f"blur is a standard deviation in pixels, at least 0, got {blur}")
    smoothed = np.asarray(maps, np.float64)
    if blur:
        rows, columns = (_gaussian(side, blur) for side in smoothed.shape[1:])
        smoothed = rows @ smoothed @ columns.T
    return np.asarray(smoothed, np.float32)


def shown(mode: str, maps: Float) -> Float:
    """Maps [..., h, w] as they are then divided by their maximum.

    So those of :data:`FROM_MINIMUM` are brought from their minimum and maximum to 0 and 1, as LeGrad's paper and
    FullGrad's authors do; of others what speaks for the class counts.
    """
    return above_minimum(maps) if mode in FROM_MINIMUM else np.maximum(maps, 0)


def above_minimum(maps: Float) -> Float:
    """By how much each position exceeds the least one of its map."""
    return np.asarray(maps - maps.min((-2, -1), keepdims=True), np.float32)


def _gaussian(side: int, blur: float) -> Array:
    """[side, side]: each row the weights of one pixel's neighbours."""
    away = np.arange(side) - np.arange(side)[:, None]
    weights: Array = np.where(np.abs(away) <= 3 * blur, np.exp(-0.5 * (away / blur) ** 2), 0)
    return np.asarray(weights / weights.sum(1, keepdims=True))
