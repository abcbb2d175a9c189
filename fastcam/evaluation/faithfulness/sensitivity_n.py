"""Sensitivity-n: does the sum of the map over some pixels say how much the score falls without them?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam.evaluation.faithfulness.masking import Order, Score, scores
from fastcam.evaluation.faithfulness.rank_correlation import pearson
from fastcam.image.preprocess import Float


def sensitivity_n(
    score: Score,
    x: Float,
    heat: NDArray[Any],
    baseline: Float,
    subsets: Iterable[Order],
    batch_size: int = 16,
) -> float:
    """Pearson's coefficient of the sums of the map over each subset of pixels and of the falls of the score without it.

    Ancona et al. 2018, "Towards better understanding of gradient-based attribution methods for Deep Neural Networks"
    (arXiv 1711.06104), section 4: 100 random subsets of n pixels, for many n. NaN where all sums, or all falls, are
    alike.

    Args:
        subsets: pixels by number, all of whose channels go.
    """
    every = [np.asarray(one) for one in subsets]
    flat = np.asarray(heat, np.float64).ravel()

    def without() -> Iterator[Float]:
        yield x
        for subset in every:
            one = x.copy()
            one.reshape(len(x), -1)[:, subset] = baseline.reshape(len(x), -1)[:, subset]
            yield one

    found = scores(score, without(), batch_size)
    return pearson(np.array([flat[subset].sum() for subset in every]), found[0] - found[1:])


def random_subsets(
    rng: np.random.Generator, size: tuple[int, ...], count: int, samples: int, cell: int = 1
) -> Iterator[Order]:
    """``samples`` random subsets of ``count`` pixels; with a ``cell`` above 1 of so many squares of that side."""
    height, width = size
    across = -(-width // cell)
    number = ((np.arange(height)[:, None] // cell) * across + np.arange(width) // cell).ravel()
    cells = int(number.max()) + 1
    for _ in range(samples):
        chosen = np.zeros(cells, np.bool_)
        chosen[rng.choice(cells, min(count, cells), replace=False)] = True
        yield np.flatnonzero(chosen[number])
