"""Insertion and deletion: how the score falls and rises with the pixels that the map calls the most important ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam.evaluation.faithfulness.masking import Floats, Score, descending, exchanged, scores
from fastcam.image.preprocess import Float


def deletion(
    score: Score, x: Float, heat: NDArray[Any], baseline: Float, step: int = 0, batch_size: int = 16
) -> Floats:
    """Scores while the hottest pixels become those of ``baseline``: [1 + steps], from the whole picture to none.

    Petsiuk et al. 2018, "RISE" (arXiv 1806.07421), section 4: the lower the area under it, the better. There the score
    is a probability, the baseline zero in the normalised input, and a step one row's number of pixels.

    Args:
        step: pixels at once; 0 is as many as a row has.
    """
    return scores(score, exchanged(x, baseline, descending(heat), step or x.shape[2]), batch_size)


def insertion(
    score: Score, x: Float, heat: NDArray[Any], baseline: Float, step: int = 0, batch_size: int = 16
) -> Floats:
    """Scores while ``baseline`` gets the hottest pixels of the picture: [1 + steps], from none to the whole picture.

    The same paper: the higher the area under it, the better; its baseline is the blurred picture.
    """
    return scores(score, exchanged(baseline, x, descending(heat), step or x.shape[2]), batch_size)


def area(curve: NDArray[Any]) -> float:
    """The area under a curve over 0..1, by the trapezoidal rule, with equal steps (the last may be shorter)."""
    ends = (float(curve[0]) + float(curve[-1])) / 2
    return (float(np.sum(curve, dtype=np.float64)) - ends) / (len(curve) - 1)
