"""What every kind of target computes with: softmax, ranks, one-hot rows, linear scalars. All of it is float64."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastcam.errors import FastcamError
from fastcam.image.preprocess import Float

Double: TypeAlias = NDArray[np.float64]
Classes: TypeAlias = int | Sequence[int]
Scalars: TypeAlias = tuple[Float, Double]
"""Cotangents [N, T, *output without N], and the scalars themselves [N, T]."""


def linear(cotangent: Float, output: Double) -> Scalars:
    """The cotangents with their scalars sum_i c[n, t, i] y[n, i], of targets that are linear in the output."""
    c = cotangent.reshape(*cotangent.shape[:2], -1).astype(np.float64)
    return cotangent, np.asarray(np.einsum("nti,ni->nt", c, output.reshape(len(output), -1)))


def numbers(values: ArrayLike, what: str = "outputs") -> Double:
    """An array as float64.

    Raises:
        FastcamError: text, rows of different lengths, or other things that are no numbers.
    """
    try:
        return np.asarray(values, np.float64)
    except (ValueError, TypeError) as error:
        raise FastcamError(f"{what} are an array of numbers, every row of one length, got {values!r:.80}") from error


def class_rows(scores: ArrayLike) -> Double:
    """Class scores as float64 [N, classes].

    Raises:
        FastcamError: another shape.
    """
    y = numbers(scores, "class scores")
    if y.ndim != 2:
        raise FastcamError(f"class scores are [N, classes], got {list(y.shape)}; maps take region, sequences caption")
    return y


def are_probabilities(y: Double) -> bool:
    """Whether scores [..., classes] have visibly passed a softmax."""
    return bool(y.shape[-1] > 1 and (y >= 0).all() and np.allclose(y.sum(-1), 1, atol=1e-3))


def softmax(y: Double) -> Double:
    """Over the last axis."""
    e = np.exp(y - y.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def log_softmax(y: Double) -> Double:
    """Over the last axis, finite where a probability rounds to zero."""
    shifted = y - y.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def class_indices(y: Double, classes: Classes) -> NDArray[np.int64]:
    """Class indices [N, T]; -r is the r-th highest score of each image, the first of equals.

    Raises:
        FastcamError: no integers, or out of range.
    """
    count = y.shape[1]
    wanted = np.array(list(classes) if isinstance(classes, Iterable) and not isinstance(classes, str) else [classes])
    if wanted.ndim != 1 or not len(wanted) or wanted.dtype.kind not in "iu":
        raise FastcamError(f"classes are indices 0 to {count - 1} or ranks -1 to -{count}, got {classes!r}")
    if wanted.min() < -count or wanted.max() >= count:
        raise FastcamError(f"class {classes!r} is not one of {count}, 0 to {count - 1}, or -1 to -{count} by rank")
    order = np.argsort(-y, axis=1, kind="stable")
    return np.where(wanted < 0, order[:, np.maximum(-wanted - 1, 0)], wanted)


def one_hot(classes: NDArray[np.int64], count: int) -> Double:
    """[..., count]: 1 at each class."""
    rows = np.zeros((*classes.shape, count))
    np.put_along_axis(rows, classes[..., None], 1, axis=-1)
    return rows


def check_index(index: tuple[Any, ...], shape: tuple[int, ...]) -> None:
    """Raise unless there is one number per axis, from 0 and below its size."""
    whole = all(isinstance(i, int | np.integer) for i in index)
    if len(index) != len(shape) or not whole or not all(0 <= i < size for i, size in zip(index, shape, strict=True)):
        raise FastcamError(f"index {list(index)} is outside of {list(shape)}; give one number per axis, from 0")
