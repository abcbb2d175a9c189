"""Rank correlation with the occlusion map: does the map say where a grey patch hurts the score?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam.errors import FastcamError
from fastcam.evaluation.faithfulness.masking import Floats, Score, scores
from fastcam.evaluation.faithfulness.rank_correlation import spearman
from fastcam.image.preprocess import Float


def occlusion_correlation(
    score: Score,
    x: Float,
    heat: NDArray[Any],
    baseline: Float,
    patch: int = 15,
    stride: int = 15,
    batch_size: int = 16,
) -> float:
    """Spearman's coefficient of the falls of the score under patches and of the mean heat in each of them.

    Selvaraju et al., "Grad-CAM", section 5.3 (arXiv 1610.02391): as a proxy for faithfulness, the rank correlation of
    the map with the occlusion map (Zeiler and Fergus 2014). Both are taken at the patches, at which alone the occlusion
    map is known. The last row and column of patches end at the border. NaN where the map, or the score, is the same
    everywhere.
    """
    falls = patch_falls(score, x, baseline, patch, stride, batch_size)
    return spearman(falls, patch_means(heat, patch, stride))


def patch_falls(score: Score, x: Float, baseline: Float, patch: int, stride: int, batch_size: int) -> Floats:
    """By how much the score falls under each patch of ``baseline``, float64 [rows, columns]."""
    tops, lefts = corners(x.shape[1:], patch, stride)

    def covered() -> Iterator[Float]:
        yield x
        for top in tops:
            for left in lefts:
                place = np.s_[:, top : top + patch, left : left + patch]
                one = x.copy()
                one[place] = baseline[place]
                yield one

    every = scores(score, covered(), batch_size)
    falls: Floats = (every[0] - every[1:]).reshape(len(tops), len(lefts))
    return falls


def patch_means(heat: NDArray[Any], patch: int, stride: int) -> Floats:
    """The mean of a map in each patch, float64 [rows, columns]."""
    tops, lefts = corners(heat.shape, patch, stride)
    parts = [[heat[top : top + patch, left : left + patch].mean(dtype=np.float64) for left in lefts] for top in tops]
    return np.array(parts)


def corners(size: tuple[int, ...], patch: int, stride: int) -> tuple[list[int], list[int]]:
    """Where patches begin, downwards and across."""
    if not 1 <= patch <= min(size) or not 1 <= stride <= patch:
        raise FastcamError(
            f"patches of {patch} pixels, {stride} apart, on an input of {size[0]} x {size[1]}: a patch must fit in it, "
            "and patches stand at least 1 pixel apart and at most their own side"
        )
    tops, lefts = ([*range(0, side - patch, stride), side - patch] for side in size)
    return tops, lefts
