"""Pixel flipping and region perturbation: the score while the most, or the least, important places are taken away."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam.evaluation.faithfulness.masking import Floats, Order, Score, descending, exchanged_in_parts, scores
from fastcam.image.preprocess import Float


def pixel_flipping(
    score: Score,
    x: Float,
    heat: NDArray[Any],
    baseline: Float,
    region: int = 1,
    step: int = 1,
    most: int = 0,
    least: bool = False,
    batch_size: int = 16,
) -> Floats:
    """Scores while regions become those of ``baseline``, the most important first: [1 + steps].

    Of single pixels Bach et al. 2015, "On Pixel-Wise Explanations for Non-Linear Classifier Decisions by Layer-Wise
    Relevance Propagation" (PLOS ONE 10(7)); of regions Samek et al. 2017, "Evaluating the Visualization of What a Deep
    Neural Network Has Learned" (arXiv 1509.06321), which takes 100 regions of 9 x 9 pixels by the sum of the map in
    each. Regions are a grid from the top left corner; those at the other borders may be smaller.

    Args:
        region: side of a region, in pixels.
        step: regions at once.
        most: regions that go; 0 is all.
        least: whether the least important regions go first.
    """
    parts = ordered_regions(heat, region, least)
    parts = parts[: most or len(parts)]
    joined = [np.concatenate(parts[first : first + step]) for first in range(0, len(parts), step)]
    return scores(score, exchanged_in_parts(x, baseline, joined), batch_size)


def aopc(curve: NDArray[Any]) -> float:
    """The mean fall of the score over the curve ("area over the perturbation curve"): Samek et al., equation 12.

    The first value, at which nothing has gone, counts as a fall of 0.
    """
    return float(np.mean(np.asarray(curve[0] - curve, np.float64)))


def ordered_regions(heat: NDArray[Any], region: int, least: bool = False) -> list[Order]:
    """The pixels of each region, the region with the largest sum of the map first; of equals row by row."""
    height, width = heat.shape
    across = -(-width // region)
    number = (np.arange(height)[:, None] // region) * across + np.arange(width) // region
    sums = np.bincount(number.ravel(), np.asarray(heat, np.float64).ravel())
    by_region = np.argsort(number.ravel(), kind="stable")
    parts = np.split(by_region, np.cumsum(np.bincount(number.ravel()))[:-1])
    return [parts[index] for index in descending(-sums if least else sums)]
