"""Fusion: the maps of several layers as one. Maps are float32 [N, T, h, w] in 0..1, each divided by its own maximum.

Of clips and volumes they are [N, T, t, h, w], with one maximum for all times or slices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fastcam import kernels
from fastcam.errors import FastcamError
from fastcam.image.preprocess import Float
from fastcam.image.stacks import enlarged, under_rows

Array = NDArray[Any]
Fuse = Literal["max", "mean", "layercam", "refinecam", "last", "place"]
NAMES: tuple[Fuse, ...] = get_args(Fuse)
GAMMA = 2.0
"""LayerCAM's factor in tanh(gamma M / max M)."""


@dataclass(frozen=True)
class Fusion:
    """How maps become one.

    Attributes:
        formula, source: what is computed, and where it comes from.
        each: of a map that was divided by its maximum, before it is enlarged.
        together: of the enlarged maps [layers, N, T, h, w].
        at_input: whether they are enlarged to the network's input; else to the largest of them.
    """

    formula: str
    source: str
    each: Callable[[Float], Array]
    together: Callable[[Array], Array]
    at_input: bool = False


def _same(maps: Float) -> Array:
    return maps


def _scaled(maps: Float) -> Array:
    """tanh(gamma M): what is weak becomes stronger, nothing exceeds 1."""
    scaled: Array = np.tanh(np.float32(GAMMA) * maps)
    return scaled


def _last(maps: Array) -> Array:
    """The map of the last layer that has one: of a detector, that in front of the head that made the box."""
    there: Array = np.asarray(maps.any((3, 4)))
    last = np.where(there.any(0), len(maps) - 1 - there[::-1].argmax(0), 0)
    own: Array = np.take_along_axis(maps, last[None, :, :, None, None], axis=0)[0]
    return own


def _at_place(maps: Array) -> Array:
    """The same times the map of the first layer, which is finer; where the two share no place, by itself."""
    own = _last(maps[1:] if len(maps) > 1 else maps)
    sharpened = own * maps[0]
    return np.where(sharpened.any((2, 3), keepdims=True), sharpened, own)


FUSIONS: dict[Fuse, Fusion] = {
    "max": Fusion("max_l M_l", "torch-cam's fuse_cams", _same, lambda maps: maps.max(0)),
    "mean": Fusion("mean_l M_l", "as pytorch-grad-cam joins layers", _same, lambda maps: maps.mean(0)),
    "layercam": Fusion(
        "max_l tanh(2 M_l)", "Jiang et al. 2021, TIP 30, equation 9; torch-cam", _scaled, lambda maps: maps.max(0)
    ),
    "last": Fusion("M_l, l the last layer with a map", "FastCAM, for detectors of several levels", _same, _last),
    "place": Fusion("M_1 M_l, the same sharpened", "FastCAM; multiplied as in RefineCAM", _same, _at_place),
    "refinecam": Fusion(
        "prod_l M_l", "Domeniconi et al. 2026, 2605.14641; pytorch-grad-cam", _same, lambda maps: maps.prod(0), True
    ),
}


def fuse(name: str, maps: Sequence[Float], size: tuple[int, ...]) -> Float:
    """The maps of several layers as one.

    Maps are enlarged as heatmaps are: linear along each axis, half-pixel centres. A layer whose map has no positive
    value counts as zeros; what is not finite stays so.

    Args:
        name: of :data:`FUSIONS`. LayerCAM's scaling is applied to the maps of all layers, as torch-cam does; it matters
            for shallow ones, whose maps are strong in few places only.
        maps: of each layer [N, T, h, w], not negative, with any maximum; h and w may differ. Of clips and volumes
            [N, T, t, h, w].
        size: (height, width) of the network's input; (times, height, width).

    Returns:
        float32 [N, T, h, w] or [N, T, t, h, w]: at the largest sides of the maps, or at ``size`` (refinecam).

    Raises:
        FastcamError: no such fusion, or nothing to fuse.
    """
    rule = fusion(name)
    if not maps:
        raise FastcamError("there are no maps to fuse; name the layers")
    k = kernels.get()
    sides = [each.shape[2:] for each in maps]
    target = tuple(size) if rule.at_input else tuple(map(max, zip(*sides, strict=True)))
    positions = tuple(range(2, maps[0].ndim))
    broken = np.stack([~np.isfinite(each).all(positions) for each in maps]).any(0)
    scaled = [np.asarray(rule.each(k.normalize(under_rows(each))), np.float32).reshape(each.shape) for each in maps]
    fused = np.asarray(rule.together(np.stack([under_rows(enlarged(each, target)) for each in scaled])), np.float32)
    fused[broken] = np.nan
    return fused.reshape(*fused.shape[:2], *target)


def fusion(name: str) -> Fusion:
    """The fusion called ``name``.

    Raises:
        FastcamError: there is none of this name.
    """
    if name not in NAMES:
        raise FastcamError(f"no fusion {name!r}; use one of: {', '.join(NAMES)}")
    return FUSIONS[name]
