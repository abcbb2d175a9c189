"""What stands for a pixel that is taken away, in which order pixels go, and the scores of pictures without them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastcam.errors import FastcamError
from fastcam.image.preprocess import Float
from fastcam.preprocessing import Preprocessing

Floats: TypeAlias = "NDArray[np.float64]"
Order: TypeAlias = "NDArray[np.int64]"
"""Pixels of a picture by number, row by row."""
Score: TypeAlias = "Callable[[Float], NDArray[Any]]"
"""A batch of inputs [M, C, H, W] -> the score of one class in each, [M]."""

BASELINES = {
    "black": "black pixels",
    "grey": "pixels of the value 127.5",
    "zero": "0 in the network's input, which is the mean colour of the data set where the input is normalised by it",
    "mean": "the picture's own mean colour",
    "blur": "the picture, blurred by RISE's kernel (11 x 11, sigma 5)",
}
"""What may stand for a pixel that is taken away. The choice changes figures: compare only what has the same."""

KERNEL, SIGMA = 11, 5.0


def baseline(x: Float, kind: str, how: Preprocessing | None = None) -> Float:
    """A picture without content, float32 [C, H, W], by a name of :data:`BASELINES`.

    Args:
        how: how pixels became ``x``; only "black" and "grey" ask.

    Raises:
        FastcamError: no such name, or a colour where nobody knows how pixels become the input.
    """
    if kind not in BASELINES:
        raise FastcamError(f"no baseline {kind!r}; use one of: {', '.join(BASELINES)}")
    if kind == "blur":
        return blurred(x)
    if kind == "zero":
        return np.zeros_like(x)
    if kind == "mean":
        return np.broadcast_to(x.mean((1, 2), keepdims=True, dtype=np.float64), x.shape).astype(np.float32)
    if how is None:
        raise FastcamError(
            f"nobody says which number a {kind} pixel is in this model's input; give a preprocessing, or the baseline "
            "zero, mean or blur"
        )
    colours = np.array(how.of(0.0 if kind == "black" else 127.5), np.float32)
    return np.broadcast_to(colours[:, None, None], x.shape).copy()


def blurred(x: Float, size: int = KERNEL, sigma: float = SIGMA) -> Float:
    """RISE's blur of [C, H, W]: its border is zero, and the tails of its Gaussian are folded back into the kernel.

    Source: Petsiuk et al., RISE, the authors' evaluation.py: gkern and blur.
    """
    taps = folded_gaussian(size, sigma)
    return np.ascontiguousarray(_filtered(_filtered(x, taps, 1), taps, 2), np.float32)


def folded_gaussian(size: int, sigma: float) -> Floats:
    """[size]: what SciPy's gaussian_filter, which reflects at borders and ends at 4 sigma, makes of one 1 in the middle
    of zeros."""
    reach = int(4 * sigma + 0.5)
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    weights /= weights.sum()
    place = (np.arange(size)[:, None] + offsets) % (2 * size)
    place = np.where(place < size, place, 2 * size - 1 - place)
    taps: Floats = np.where(place == size // 2, weights, 0).sum(1)
    return taps


def _filtered(x: NDArray[Any], taps: Floats, axis: int) -> Floats:
    """Correlated with ``taps`` along an axis, with zeros beyond the border."""
    reach, side = len(taps) // 2, x.shape[axis]
    padding = [(reach, reach) if a == axis else (0, 0) for a in range(x.ndim)]
    padded = np.pad(x.astype(np.float64), padding)
    moved = (tap * np.take(padded, range(i, i + side), axis) for i, tap in enumerate(taps))
    return np.asarray(sum(moved), np.float64)


def descending(heat: NDArray[Any]) -> Order:
    """Pixels by falling heat, int64 [H W]; of equals the one that comes first row by row."""
    return np.argsort(-np.asarray(heat, np.float64).ravel(), kind="stable")


def exchanged(start: Float, end: Float, order: Order, step: int) -> Iterator[Float]:
    """``start`` [C, H, W] itself, and again and again with ``step`` more pixels, in their order, from ``end``.

    All channels of a pixel go at once. The last picture is ``end`` at all pixels of ``order``.
    """
    return exchanged_in_parts(start, end, (order[first : first + step] for first in range(0, len(order), step)))


def exchanged_in_parts(start: Float, end: Float, parts: Iterable[Order]) -> Iterator[Float]:
    """``start`` [C, H, W] itself, and with the pixels of each of ``parts`` more from ``end``."""
    now = np.array(start, np.float32)
    new = np.ascontiguousarray(end, np.float32).reshape(len(now), -1)
    yield now
    for part in parts:
        now = now.copy()
        now.reshape(len(now), -1)[:, part] = new[:, part]
        yield now


def scores(score: Score, pictures: Iterable[Float], batch_size: int) -> Floats:
    """The scores of all pictures, float64 [M], in runs of ``batch_size``, of which memory holds one."""
    rest, parts = iter(pictures), []
    while batch := list(islice(rest, batch_size)):
        parts.append(np.asarray(score(np.stack(batch)), np.float64))
    return np.concatenate(parts)
