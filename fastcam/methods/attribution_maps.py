"""Attributions, a number for each element of the network's input, as maps of its size; and what of a map is shown.

Of gradients (plain, guided, averaged) the map is the largest absolute value over the channels, as Simonyan et al. 2014
show it; of attributions that share a score out (relevance, input times gradient, integrated gradients) their sum. The
box surrounds the largest connected part above the threshold, which of single pixels is small. ``blur`` makes regions of
them: a Gaussian of that standard deviation, in pixels of the input, before anything else is done with the map.
"""

from __future__ import annotations

import numpy as np

from fastcam.errors import FastcamError
from fastcam.methods.registry import Array, Float
from fastcam.schema import Mode

FROM_MINIMUM: tuple[Mode, ...] = ("rollout", "rollout-max", "rollout-min", "legrad", "fullgrad")
"""Maps that are nowhere negative and nowhere near zero: what tells is by how much a position exceeds the least one."""


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
