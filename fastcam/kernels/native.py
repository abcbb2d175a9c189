"""The kernels in C++ (csrc/cam.h): validates, then computes without the GIL.

:class:`fastcam.kernels.Kernels` documents the functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import fastcam._native as _native  # this form raises ModuleNotFoundError where it is not built
from fastcam.kernels import _check
from fastcam.kernels.reference import largest as largest  # one argmax: nothing to gain

if TYPE_CHECKING:
    from fastcam.kernels import Bytes, Floats, Ints, Mask


def weigh(activations: Floats, weights: Floats) -> Floats:
    """``sum_k weights[n, t, k] * activations[n, k]``, summed in float32."""
    activations, weights = _check.weigh(activations, weights)
    return _native.weigh(activations, weights)


def status(maps: Floats) -> Bytes:
    """NON_FINITE, then OK, ALL_NEGATIVE, ZERO_GRADIENT: the first that applies."""
    return _native.status(_check.maps(maps))


def relu(maps: Floats) -> Floats:
    """``max(maps, 0)``; NaN stays NaN."""
    return _native.relu(_check.maps(maps))


def normalize(maps: Floats) -> Floats:
    """Each map divided by its peak, or zeros."""
    return _native.normalize(_check.maps(maps))


def upsample(maps: Floats, size: tuple[int, int]) -> Floats:
    """Bilinear with half-pixel centres."""
    maps = _check.maps(maps)
    height, width = _check.size(size)
    return _native.upsample(maps, height, width)


def threshold(maps: Floats, fraction: float = 0.15) -> Bytes:
    """``value >= fraction * peak and value > 0``, where there is a peak."""
    maps = _check.maps(maps)
    return _native.threshold(maps, float(_check.fraction(fraction)))


def label(mask: Mask, connectivity: int = 8) -> tuple[Ints, Ints]:
    """Connected components, by runs and union-find."""
    checked = _check.mask(mask)
    return _native.label(checked, _check.connectivity(connectivity))


def boxes(labels: Ints, count: int) -> Ints:
    """Box and number of pixels of each label."""
    labels, count = _check.boxes(labels, count)
    found = _native.boxes(labels, count)
    if found is None:
        raise _check.label_error(count)
    return found


def overlay(image: Bytes, heatmap: Floats, lut: Bytes, alpha: float) -> Bytes:
    """``(1 - alpha) * image + alpha * lut[255 * heatmap]`` with 16 fractional bits, halves rounded up."""
    image, heatmap, lut = _check.overlay(image, heatmap, lut)
    return _native.overlay(image, heatmap, lut, _check.alpha(alpha))
