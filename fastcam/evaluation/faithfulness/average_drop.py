"""Average drop, increase in confidence and average gain: the class in what the map leaves of the picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam.evaluation.faithfulness.masking import Score
from fastcam.image.preprocess import Float


@dataclass(frozen=True)
class Drop:
    """The probability of a class in a picture, and in what the map leaves of it.

    Attributes:
        whole, shown: the two.
    """

    whole: float
    shown: float

    @property
    def drop(self) -> float:
        """The share that is lost, 0 where nothing is; its mean over pictures is the average drop."""
        return max(0.0, self.whole - self.shown) / self.whole if self.whole else 0.0

    @property
    def increase(self) -> bool:
        """Whether the class became more probable; its mean is the increase in confidence."""
        return self.shown > self.whole

    @property
    def gain(self) -> float:
        """The share of the missing probability that is won, 0 where none is; its mean is the average gain."""
        return max(0.0, self.shown - self.whole) / (1 - self.whole) if self.whole < 1 else 0.0


def average_drop(score: Score, x: Float, heat: NDArray[Any], baseline: Float) -> Drop:
    """Run the picture and heat * x + (1 - heat) * baseline.

    Chattopadhay et al. 2018, "Grad-CAM++" (arXiv 1710.11063), section 4.1, with a black baseline: the picture times the
    map. Zhang et al. 2024, "Opti-CAM" (arXiv 2301.07002), section 4.2: the gain.

    Args:
        score: a probability.
        heat: in 0..1.
    """
    share = np.asarray(heat, np.float32)
    whole, shown = score(np.stack([x, share * x + (1 - share) * baseline]))
    return Drop(float(whole), float(shown))
