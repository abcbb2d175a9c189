"""The scores of many changed inputs, in batches that are made on the way, so that memory holds one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeAlias

import numpy as np

from fastcam.errors import FastcamError
from fastcam.methods.registry import Array, Float

Score: TypeAlias = Callable[[Float], Array]
"""A batch of inputs [M, ...] -> their scores [M, classes]."""


def score_all(score: Score, inputs: Iterable[Float], classes: Sequence[int], batch_size: int = 16) -> Float:
    """The scores of ``classes`` for every input: float32 [M, T], in runs of ``batch_size``.

    Raises:
        FastcamError: there are no inputs.
    """

    def batches() -> Iterator[Float]:
        rest = iter(inputs)
        while batch := list(islice(rest, batch_size)):
            yield np.stack(batch)

    scores = scores_of_batches(score, batches(), classes)
    if not len(scores):
        raise FastcamError("there is nothing to run: the target layer has no channels or positions")
    return scores


def scores_of_batches(score: Score, batches: Iterable[Float], classes: Sequence[int]) -> Float:
    """The scores of ``classes`` for every input of all batches: float32 [M, T]."""
    rows = [np.asarray(score(batch), np.float32)[:, list(classes)] for batch in batches]
    return np.concatenate(rows) if rows else np.zeros((0, len(classes)), np.float32)


def chunks(indices: Array, count: int) -> Iterator[Array]:
    """``indices``, ``count`` at a time."""
    return (indices[start : start + count] for start in range(0, len(indices), count))
