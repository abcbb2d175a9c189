"""Pictures for the check: noise, and where a model finds nothing in noise, smooth blobs and the bundled picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib.resources import as_file, files
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
DRAWN = 15_485_863
"""Numbers that are drawn for pictures at most."""


def noise(rng: np.random.Generator, shape: Sequence[int], order: str) -> Array:
    """Standard normal numbers; of more than :data:`DRAWN` those again and again, a prime number, so never in line."""
    return rng.standard_normal(shape) if math.prod(shape) <= DRAWN else np.resize(rng.standard_normal(DRAWN), shape)


def blobs(rng: np.random.Generator, shape: Sequence[int], order: str) -> Array:
    """Smooth blobs in 0 .. 1: a few random numbers a side, interpolated."""
    height, width = (shape[order.index(letter)] for letter in "HW")
    coarse = rng.random((6, 6, 3))
    rows, columns = _hats(6, height), _hats(6, width)
    return _laid_out(np.einsum("hi,ijc,wj->hwc", rows, coarse, columns), shape, order)


def photo(rng: np.random.Generator, shape: Sequence[int], order: str) -> Array:
    """The bundled picture in 0 .. 1; blobs where nothing that reads pictures is installed."""
    try:
        import cv2

        with as_file(files("fastcam") / "data" / "scene.jpg") as path:
            picture = cv2.imread(str(path))
    except ImportError:
        picture = None
    if picture is None:
        return blobs(rng, shape, order)
    height, width = (shape[order.index(letter)] for letter in "HW")
    rows, columns = (np.arange(n) * size // n for n, size in zip((height, width), picture.shape))
    return _laid_out(picture[rows][:, columns, ::-1] / 255.0, shape, order)


def _hats(have: int, want: int) -> Array:
    """[want, have]: linear interpolation of ``have`` numbers at ``want`` places."""
    places = np.linspace(0, have - 1, want)
    hats: Array = np.maximum(1 - np.abs(places[:, None] - np.arange(have)), 0)
    return hats


def _laid_out(picture: Array, shape: Sequence[int], order: str) -> Array:
    """A picture [H, W, 3] in the shape of an input, every image and frame the same."""
    channels = shape[order.index("C")]
    picture = picture if channels == 3 else picture.mean(2, keepdims=True).repeat(channels, 2)
    axes = [letter for letter in order if letter in "CHW"]
    picture = picture.transpose(["HWC".index(letter) for letter in axes])
    for axis, letter in enumerate(order):
        if letter not in "CHW":
            picture = np.expand_dims(picture, axis)
    return np.broadcast_to(picture, shape)


Picture = Callable[[np.random.Generator, Sequence[int], str], Array]
RANGES: dict[str, Callable[[Array], Array]] = {
    "standardised": lambda x: (x - x.mean()) / max(float(x.std()), 1e-12),
    "0..1": lambda x: x,
    "0..255": lambda x: x * 255,
}
"""What models are given as pictures; which one a model wants, the file does not say."""
KINDS: tuple[tuple[Picture, str], ...] = (
    (noise, "0..1"),
    (photo, "standardised"),
    (photo, "0..1"),
    (photo, "0..255"),
    (blobs, "standardised"),
    (blobs, "0..1"),
    (blobs, "0..255"),
)
"""What is tried, the first by default."""


def picture(kind: int, rng: np.random.Generator, shape: Sequence[int], order: str, dtype: np.dtype[Any]) -> Array:
    """The images of one of :data:`KINDS` in the shape and type of an input; integers are 0 .. 255."""
    make, range_ = KINDS[kind] if {"C", "H", "W"} <= set(order) else KINDS[0]
    if dtype.kind == "f":
        return RANGES[range_](make(rng, shape, order)).astype(dtype)
    if make is noise:
        return rng.integers(0, 256, shape).astype(dtype)
    return (make(rng, shape, order) * 255).astype(dtype)
