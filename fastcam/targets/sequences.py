"""Scalars of sequences of scores [N, L, V]: the words of a caption, one by one or together. Text in pictures: ctc."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastcam.errors import FastcamError
from fastcam.image.preprocess import Float
from fastcam.targets.arrays import Double, Scalars, are_probabilities, log_softmax, numbers, one_hot, softmax

WordScore = Literal["log_probability", "logit"]
WORD_SCORES: tuple[WordScore, ...] = ("log_probability", "logit")


def words(logits: ArrayLike, tokens: ArrayLike, kind: WordScore = "log_probability") -> Float:
    """s = log p(token_i) at position i, one target for each word: [N, L, L, V]; see :func:`caption`."""
    return word_scores(numbers(logits, "scores"), tokens, kind)[0]


def caption(logits: ArrayLike, tokens: ArrayLike, kind: WordScore = "log_probability") -> Float:
    """s = sum_i log p(token_i): a caption's log probability, as Selvaraju et al. explain captions (section 8.1).

    Args:
        logits: [N, L, V], each position's scores of all words for the caption's words as input, before the softmax; or
            behind it, where they sum to one: p is then taken as it is, with d log p / dp = 1 / p.
        tokens: [L] or [N, L], the caption; -1 where there is no word.
        kind: "logit" sums the words' scores instead.

    Returns:
        [N, 1, L, V].
    """
    return np.asarray(words(logits, tokens, kind).sum(axis=1, keepdims=True))


def step_scores(
    y: Double, token: NDArray[np.int64], kind: str, probabilities: bool | None = None
) -> tuple[Double, Double]:
    """The score of one token at each step [..., V] of scores or probabilities, [...], and its derivative, [..., V].

    Args:
        kind: "log_probability" or "logit", the score as it is.
        probabilities: whether ``y`` has passed a softmax or sigmoid; None sees it in the values.
    """
    slope = one_hot(token, y.shape[-1])
    picked = np.take_along_axis(y, token[..., None], -1)
    if kind == "logit":
        return slope, picked[..., 0]
    if are_probabilities(y) if probabilities is None else probabilities:
        p = np.maximum(picked, 1e-30)
        return slope / p, np.log(p[..., 0])
    return slope - softmax(y), np.take_along_axis(log_softmax(y), token[..., None], -1)[..., 0]


def word_scores(y: Double, tokens: ArrayLike, kind: str, probabilities: bool | None = None) -> Scalars:
    """The cotangents and values of :func:`words`, [N, L, L, V] and [N, L].

    Raises:
        FastcamError: scores that are no sequence, tokens that do not fit them, an unknown kind.
    """
    if y.ndim != 3:
        raise FastcamError(f"scores of a sequence are [N, positions, words], got {list(y.shape)}")
    wanted = numbers(tokens, "tokens")
    wanted = wanted[None] if wanted.ndim == 1 else wanted
    fits = wanted.ndim == 2 and wanted.shape[0] in (1, len(y)) and wanted.shape[1] == y.shape[1]
    if not fits or not (wanted == np.floor(wanted)).all() or wanted.max(initial=0) >= y.shape[2]:
        raise FastcamError(f"tokens must be [{y.shape[1]}] or [N, {y.shape[1]}] below {y.shape[2]}, -1 for no word")
    if kind not in WORD_SCORES:
        raise FastcamError(f"a word is explained by its log_probability or its logit, got {kind!r}")
    wanted = np.broadcast_to(wanted.astype(np.int64), y.shape[:2])
    there = wanted >= 0
    slope, scores = step_scores(y, np.maximum(wanted, 0), kind, probabilities)
    cotangent = np.zeros((*y.shape[:2], *y.shape[1:]), np.float32)
    position = np.arange(y.shape[1])
    cotangent[:, position, position] = slope * there[:, :, None]
    return cotangent, scores * there
