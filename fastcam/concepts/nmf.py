"""Non-negative matrix factorisation (NMF): X = W H with nothing negative, by multiplicative updates."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam.errors import FastcamError

Array = NDArray[Any]
TINY = float(np.finfo(np.float32).eps)
EVERY = 10
"""Updates between two looks at the error."""


def nmf(x: Array, rank: int, iterations: int = 500, tolerance: float = 1e-4) -> tuple[Array, Array]:
    """Minimise ||X - W H||^2 over W >= 0 and H >= 0.

    W <- W * (X H^T) / (W H H^T), then H <- H * (W^T X) / (W^T W H), elementwise: the error never grows. The start is
    :func:`start`, so that equal matrices give equal factors.

    Source: Lee and Seung, "Algorithms for Non-negative Matrix Factorization", NIPS 2001.

    Args:
        x: [rows, columns], finite and not negative.
        rank: columns of W and rows of H, at most the smaller side of X.
        iterations: updates of both at most; it ends when :data:`EVERY` of them make the error smaller by less than
            ``tolerance`` times the error at the start.

    Returns:
        W [rows, rank] and H [rank, columns], float64.

    Raises:
        FastcamError: a negative or not finite number, or a rank out of range.
    """
    x = np.asarray(x, np.float64)
    if not np.isfinite(x).all() or (x < 0).any():
        raise FastcamError("a non-negative factorisation is of finite numbers, none of them negative")
    if not 1 <= rank <= min(x.shape):
        raise FastcamError(f"a matrix {x.shape[0]} x {x.shape[1]} has between 1 and {min(x.shape)} factors, not {rank}")
    return updated(x, *start(x, rank), iterations, tolerance)


def updated(x: Array, w: Array, h: Array, iterations: int, tolerance: float) -> tuple[Array, Array]:
    """The factors after the updates of :func:`nmf`, which begin with ``w``."""
    first = before = error(x, w, h)
    for step in range(1, iterations + 1):
        w = w * _ratio(x @ h.T, w @ (h @ h.T))
        h = h * _ratio(w.T @ x, (w.T @ w) @ h)
        if step % EVERY == 0:
            now = error(x, w, h)
            if before - now < tolerance * first:
                break
            before = now
    return w, h


def _ratio(above: Array, below: Array) -> Array:
    ratio: Array = above / np.where(below == 0, TINY, below)
    return ratio


def error(x: Array, w: Array, h: Array) -> float:
    """||X - W H||, Frobenius."""
    return float(np.linalg.norm(x - w @ h))


def start(x: Array, rank: int) -> tuple[Array, Array]:
    """Factors to begin with, from the singular value decomposition: NNDSVD, zeros filled with the mean of X.

    Of each pair of singular vectors u, v the parts of one sign are taken, u+ v+ or u- v-, whichever product is larger:
    the best non-negative approximation of u v^T of rank one. Zeros would stay zero under multiplicative updates.

    Source: Boutsidis and Gallopoulos, "SVD based initialization", Pattern Recognition 41, 2008 (NNDSVDa).
    """
    u, s, v = np.linalg.svd(x, full_matrices=False)
    w, h = np.zeros((len(x), rank)), np.zeros((rank, x.shape[1]))
    for j in range(rank):
        left, right, size = max((_part(sign * u[:, j], sign * v[j]) for sign in (1, -1)), key=lambda part: part[2])
        w[:, j], h[j] = np.sqrt(s[j] * size) * left, np.sqrt(s[j] * size) * right
    mean = float(x.mean())
    return np.where(w < TINY, mean, w), np.where(h < TINY, mean, h)


def _part(left: Array, right: Array) -> tuple[Array, Array, float]:
    """The positive parts of two vectors, each of length one, and the product of their lengths before."""
    a, b = np.maximum(left, 0), np.maximum(right, 0)
    lengths = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    return a / (lengths[0] or 1), b / (lengths[1] or 1), lengths[0] * lengths[1]
