"""The kernels in C++ (csrc/include/fastcam/cam.h): validates, then computes without the GIL.

:class:`fastcam.kernels.Kernels` documents the functions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

import fastcam._native as _native  # this form raises ModuleNotFoundError where it is not built
from fastcam.kernels import _validate
from fastcam.kernels.api import Explained
from fastcam.kernels.arrays import Activations, Bytes, Doubles, Floats, Ints, Mask
from fastcam.kernels.reference import largest as largest  # one argmax: nothing to gain


def weigh(activations: Activations, weights: Activations) -> Floats:
    """``sum_k weights[n, t, k] * activations[n, k]``, summed in float32."""
    return _native.weigh(*_validate.weigh(activations, weights))


def status(maps: Floats) -> Bytes:
    """NON_FINITE, then OK, ALL_NEGATIVE, ZERO_GRADIENT: the first that applies."""
    return _native.status(_validate.maps(maps))


def relu(maps: Floats) -> Floats:
    """``max(maps, 0)``; NaN stays NaN."""
    return _native.relu(_validate.maps(maps))


def normalize(maps: Floats) -> Floats:
    """Each map divided by its peak, or zeros."""
    return _native.normalize(_validate.maps(maps))


def upsample(maps: Floats, size: tuple[int, int]) -> Floats:
    """Bilinear with half-pixel centres."""
    maps = _validate.maps(maps)
    height, width = _validate.target_size(size)
    return _native.upsample(maps, height, width)


def threshold(maps: Floats, fraction: float = 0.15) -> Bytes:
    """``value >= fraction * peak and value > 0``, where there is a peak."""
    maps = _validate.maps(maps)
    return _native.threshold(maps, float(_validate.fraction(fraction)))


def label(mask: Mask, connectivity: int = 8) -> tuple[Ints, Ints]:
    """Connected components, by runs and union-find."""
    checked = _validate.mask(mask)
    return _native.label(checked, _validate.connectivity(connectivity))


def boxes(labels: Ints, count: int) -> Ints:
    """Box and number of pixels of each label."""
    labels, count = _validate.boxes(labels, count)
    found = _native.boxes(labels, count)
    if found is None:
        raise _validate.label_error(count)
    return found


def overlay(image: Bytes, heatmap: Floats, lut: Bytes, alpha: float) -> Bytes:
    """``(1 - alpha) * image + alpha * lut[255 * heatmap]`` with 16 fractional bits, halves rounded up."""
    image, heatmap, lut = _validate.overlay(image, heatmap, lut)
    return _native.overlay(image, heatmap, lut, _validate.alpha(alpha))


def prepare(pixels: Bytes, factor: Floats, shift: Floats, out: Floats) -> None:
    """A picture shrunk and normalised in one pass, with the bits of :func:`fastcam.kernels.reference.prepare`."""
    try:
        _native.prepare(pixels, factor, shift, out)
    except (TypeError, ValueError):  # to be said in the user's words, or copied
        pixels, factor, shift = _validate.prepare(pixels, factor, shift, out)
        _native.prepare(pixels, factor, shift, out)


def sweep(values: Floats, cuts: Floats, connectivity: int = 8, window: Ints | None = None) -> tuple[Ints, Ints]:
    """Components at many thresholds in one pass, as :func:`fastcam.kernels.reference.sweep` finds them."""
    return _native.sweep(*_validate.sweep(values, cuts, connectivity, window))


def same_everywhere(maps: Floats) -> npt.NDArray[np.bool_]:
    """Which of the maps [N, T, ...] are, as :func:`fastcam.kernels.reference.same_everywhere` says."""
    return _native.same_everywhere(np.ascontiguousarray(maps, np.float32))


def in_original(
    counts: Ints, components: Ints, ways: Sequence[Doubles]
) -> tuple[Floats, tuple[tuple[Floats, ...], ...]]:
    """Boxes in pixels of the pictures, with the bits of :func:`fastcam.kernels.reference.in_original`."""
    return _native.in_original(counts, components, ways)


def explain_maps(
    activations: Activations,
    weights: Activations | None,
    size: tuple[int, int],
    fraction: float = 0.15,
    connectivity: int = 8,
    *,
    windows: Ints | None = None,
    want_heatmaps: bool = True,
) -> Explained:
    """Everything in one call, map by map."""
    try:
        share = float(_validate.fraction(fraction))
        found = _native.explain_maps(activations, weights, *size, share, connectivity, want_heatmaps, windows)
    except (TypeError, ValueError):  # to be said in the user's words, or converted
        if weights is None:
            activations = _validate.signed_maps(activations)
        else:
            activations, weights = _validate.weigh(activations, weights)
        height, width = _validate.target_size(size)
        share, neighbours = float(_validate.fraction(fraction)), _validate.connectivity(connectivity)
        inside = _validate.windows(windows, len(activations))
        found = _native.explain_maps(activations, weights, height, width, share, neighbours, want_heatmaps, inside)
    return Explained(*found)
