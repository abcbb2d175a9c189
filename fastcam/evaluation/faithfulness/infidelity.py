"""Infidelity: how far the map's prediction of the fall of the score is from the fall, for a set of perturbations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam.evaluation.faithfulness.masking import Floats, Score, scores
from fastcam.evaluation.faithfulness.occlusion import corners
from fastcam.image.preprocess import Float


@dataclass(frozen=True)
class Infidelity:
    """Of one map.

    Attributes:
        raw: mean squared error of the map as it is, which depends on its unit.
        scaled: of the map times ``scale``, the number that makes it smallest.
        of_none: of a map of zeros: the mean square of the falls.
        scale: the paper's beta.
    """

    raw: float
    scaled: float
    of_none: float
    scale: float

    @property
    def unexplained(self) -> float:
        """The share of ``of_none`` that is left, 0 to 1: it can be compared between pictures and models."""
        return self.scaled / self.of_none if self.of_none else float("nan")


def infidelity(
    score: Score,
    x: Float,
    heat: NDArray[Any],
    perturbed: Iterable[Float],
    binary: bool = True,
    batch_size: int = 16,
) -> Infidelity:
    """Mean over perturbed pictures of (what the map predicts - the fall of the score) squared.

    Yeh et al. 2019, "On the (In)fidelity and Sensitivity of Explanations" (arXiv 1901.09392), definition 2.1, and the
    authors' code, which scales each map by the best beta before it measures.

    Args:
        perturbed: pictures [C, H, W].
        binary: whether the map predicts the sum of its values at the pixels that changed, as the authors' code has it
            for maps that share the score out among pixels; otherwise the sum of its values times the changes of the
            input, summed over channels, which is the definition and fits gradients.
    """
    predicted: list[float] = []
    flat = np.asarray(heat, np.float64)

    def through() -> Iterator[Float]:
        yield x
        for one in perturbed:
            change: Any = (x != one).any(0) if binary else (x.astype(np.float64) - one).sum(0)
            predicted.append(float((flat * change).sum()))
            yield one

    found = scores(score, through(), batch_size)
    return of_falls(found[0] - found[1:], np.array(predicted))


def of_falls(falls: Floats, predicted: Floats) -> Infidelity:
    """Of the falls of the score and what the map predicts, each [perturbations]."""
    square = float(predicted @ predicted)
    scale = float(falls @ predicted) / square if square else 0.0
    raw, scaled, of_none = (float(np.mean((falls - factor * predicted) ** 2)) for factor in (1.0, scale, 0.0))
    return Infidelity(raw, scaled, of_none, scale)


def squares(x: Float, baseline: Float, side: int, stride: int, add_up: bool = False) -> Iterator[Float]:
    """``x`` without a square each time: the paper's "square removal", here of all places on a grid.

    Args:
        side, stride: of a square, and from one to the next, in pixels; the last ones end at the border.
        add_up: whether squares stay away, as Quantus has it.
    """
    tops, lefts = corners(x.shape[1:], side, stride)
    one = x
    for top in tops:
        for left in lefts:
            one = (one if add_up else x).copy()
            place = np.s_[:, top : top + side, left : left + side]
            one[place] = baseline[place]
            yield one


def noisy(x: Float, deviation: float, samples: int, rng: np.random.Generator) -> Iterator[Float]:
    """``x`` less Gaussian noise, ``samples`` times: the paper's Gaussian perturbation."""
    for _ in range(samples):
        yield x - (deviation * rng.standard_normal(x.shape)).astype(np.float32)
