"""ROAD: remove and debias. Whether a class stays the best one when pixels go and a filling hides their shape."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam.evaluation.faithfulness.imputation import NOISE, imputed
from fastcam.evaluation.faithfulness.masking import descending
from fastcam.image.preprocess import Float

PERCENTAGES = (10, 20, 30, 40, 50, 60, 70, 80, 90)
"""How much of the picture goes, as in the paper."""


def removed(
    x: Float,
    heat: NDArray[Any],
    percentages: Sequence[float] = PERCENTAGES,
    least: bool = False,
    noise: float = NOISE,
    rng: np.random.Generator | None = None,
) -> Iterator[Float]:
    """``x`` [C, H, W] without so many percent of its pixels, imputed noisily and linearly, one picture a percentage.

    Rong et al. 2022, "A Consistent and Efficient Evaluation Strategy for Attribution Methods" (arXiv 2202.00449). The
    accuracy of the model on these pictures is ROAD: of the most important pixels first the lower the better, of the
    least important ones the higher.

    Args:
        least: whether the coldest pixels go first, in place of the hottest.
        rng: of the noise; None adds none.
    """
    order = descending(heat)[::-1] if least else descending(heat)
    for percentage in percentages:
        known = np.ones(order.size, np.bool_)
        known[order[: int(order.size * percentage / 100)]] = False
        yield imputed(x, known.reshape(x.shape[1:]), noise, rng)
