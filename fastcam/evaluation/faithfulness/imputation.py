"""Noisy linear imputation: pixels that go become the weighted mean of their neighbours, and a little noise."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam.evaluation.faithfulness.masking import Floats
from fastcam.image.preprocess import Float

NOISE = 0.01
"""The paper's standard deviation."""
TOLERANCE = 1e-5
"""How far the largest residual of the equations may be from zero, in units of the picture: far below the noise."""
MOST = 2000
"""Steps after which the solver gives what it has."""


def imputed(
    x: Float,
    known: NDArray[np.bool_],
    noise: float = NOISE,
    rng: np.random.Generator | None = None,
    tolerance: float = TOLERANCE,
) -> Float:
    """``x`` [C, H, W] with new values where ``known`` [H, W] is False: float32.

    Each unknown pixel is the mean of its eight neighbours, those beside it with weight 1/6, those at its corners with
    1/12, as many of them as the picture has; all equations are solved together. Then Gaussian noise is added. So a
    model cannot see the shape of what was taken away. The equations are symmetric and positive definite, and are
    solved by conjugate gradients: from the mean colours of larger and larger squares of known pixels, and with a
    correction at every scale in each step (Bramble, Pasciak and Xu 1990), so that large holes take few steps.

    Source: Rong et al. 2022, "A Consistent and Efficient Evaluation Strategy for Attribution Methods" (arXiv
    2202.00449), section 4.2 and the authors' code.

    Args:
        rng: of the noise; None adds none.
        tolerance: see :data:`TOLERANCE`.
    """
    unknown = ~np.asarray(known, np.bool_)
    whole: Floats = np.where(unknown, 0, x).astype(np.float64)
    if not unknown.any():
        return np.array(x, np.float32)
    values = _filled(whole, ~unknown)
    if not unknown.all():
        values = _solved(values, whole, unknown, tolerance)
    if rng is not None:
        values = values + noise * rng.standard_normal(values.shape)
    return np.where(unknown, values, x).astype(np.float32)


def neighbours(values: Floats) -> Floats:
    """The sum of the eight neighbours with weights 1/6 and 1/12, without what lies beyond the border: [..., H, W]."""
    padded = np.pad(values, [(0, 0)] * (values.ndim - 2) + [(1, 1), (1, 1)])
    rows = padded[..., :-2, :] + 2 * padded[..., 1:-1, :] + padded[..., 2:, :]
    both = rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]  # (1 2 1) x (1 2 1), whose middle is 4
    return np.asarray((both - 4 * values) / 12, np.float64)


def _solved(start: Floats, whole: Floats, unknown: NDArray[np.bool_], tolerance: float) -> Floats:
    """The values [C, H, W] that are their neighbours' means where unknown; elsewhere those of ``whole``.

    Conjugate gradients for all channels side by side.
    """
    diagonal = neighbours(np.ones(unknown.shape))
    free = _free(unknown)
    values = np.where(unknown, start, whole)
    residual = unknown * (neighbours(values) - diagonal * values)
    step = _corrected(residual, free)
    product = (residual * step).sum((1, 2), keepdims=True)
    for _ in range(MOST):
        if np.abs(residual).max() <= tolerance:
            break
        image = unknown * (diagonal * step - neighbours(step))
        curvature = (step * image).sum((1, 2), keepdims=True)
        length = np.divide(product, curvature, out=np.zeros_like(product), where=curvature > 0)
        values += length * step
        residual -= length * image
        scaled = _corrected(residual, free)
        last, product = product, (residual * scaled).sum((1, 2), keepdims=True)
        step = scaled + np.divide(product, last, out=np.zeros_like(product), where=last > 0) * step
    return values


def _free(unknown: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """The unknown pixels; then the squares of 2, 4, 8 ... pixels whose neighbours, and they themselves, hold no known
    one: what is added to such a square and fades out in its neighbours changes no known pixel."""
    levels, whole = [unknown], unknown
    while levels[-1].any() and min(whole.shape) > 2:
        inside = np.pad(whole, _odd(whole.shape), constant_values=True)
        whole = inside[::2, ::2] & inside[1::2, ::2] & inside[::2, 1::2] & inside[1::2, 1::2]
        around = np.pad(whole, 1, constant_values=True)
        rows = around[:-2] & around[1:-1] & around[2:]
        levels.append(rows[:, :-2] & rows[:, 1:-1] & rows[:, 2:])
    return levels


def _corrected(residual: Floats, free: list[NDArray[np.bool_]]) -> Floats:
    """The residual, and what its means in larger and larger squares add, where these are free: [C, H, W].

    A pixel and a square of any size have about the same energy, so all scales count alike.
    """
    own = residual * free[0]
    if len(free) == 1:
        return own
    height, width = residual.shape[1:]
    padded = np.pad(residual, [(0, 0), *_odd((height, width))])
    coarse = _corrected(_gathered(_gathered(padded, 1), 2), free[1:])
    return own + _doubled(_doubled(coarse, 1), 2)[:, :height, :width]


def _odd(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """What makes sides even."""
    return [(0, side % 2) for side in shape]


def _filled(whole: Floats, known: NDArray[np.bool_]) -> Floats:
    """A first guess: an unknown pixel is the mean of the known ones in the smallest square of 2, 4, 8 ... that has any,
    between whose middles values are interpolated."""
    height, width = known.shape
    if known.all() or min(height, width) < 2:
        mean: Any = whole.sum((1, 2)) / max(1, int(known.sum()))
        return np.where(known, whole, np.broadcast_to(mean[:, None, None], whole.shape))
    sums = _halved(np.pad(np.where(known, whole, 0), [(0, 0), *_odd(known.shape)]))
    counts = _halved(np.pad(known.astype(np.float64), _odd(known.shape)))
    means = sums / np.maximum(counts, 1)
    coarse = _filled(means, counts > 0)
    fine = _doubled(_doubled(coarse, 1), 2)[:, :height, :width]
    return np.where(known, whole, fine)


def _halved(values: Floats) -> Floats:
    return np.asarray(
        values[..., ::2, ::2] + values[..., 1::2, ::2] + values[..., ::2, 1::2] + values[..., 1::2, 1::2], np.float64
    )


def _doubled(values: Floats, axis: int) -> Floats:
    """Linear interpolation between the middles of squares, along an axis; constant at the border."""
    values = np.moveaxis(values, axis, 0)
    before, after = np.concatenate([values[:1], values[:-1]]), np.concatenate([values[1:], values[-1:]])
    pairs = np.stack([0.75 * values + 0.25 * before, 0.75 * values + 0.25 * after], 1)
    return np.moveaxis(pairs.reshape(-1, *values.shape[1:]), 0, axis)


def _gathered(values: Floats, axis: int) -> Floats:
    """The transpose of :func:`_doubled`."""
    values = np.moveaxis(values, axis, 0)
    even, odd = values[::2], values[1::2]
    after, before = np.concatenate([even[1:], odd[-1:]]), np.concatenate([even[:1], odd[:-1]])
    return np.moveaxis(0.75 * (even + odd) + 0.25 * (after + before), 0, axis)
