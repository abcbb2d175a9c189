"""Pixel flipping and region perturbation (Bach et al., Samek et al.)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fastcam.evaluation import faithfulness as formulas
from fastcam.evaluation.protocols.faithfulness.subject import Faithfulness, Subject


@dataclass(frozen=True)
class PixelFlipping(Faithfulness):
    """The mean fall of the class's probability while regions are taken away (AOPC).

    With the most important regions first higher is better, with the least important ones first lower; their difference
    ("area between the curves") is higher for better maps and 0 for random ones. Samek et al. take 100 regions of 9 x 9
    pixels away; with ``region=1`` it is pixel flipping as Bach et al. have it.

    Attributes:
        region: side of a region in pixels of the input.
        step: regions at once.
        most: regions that go; 0 is all.
        baseline: what they become, see :data:`fastcam.evaluation.faithfulness.BASELINES`.
    """

    region: int = 9
    step: int = 1
    most: int = 100
    baseline: str = "zero"

    name = "pixel-flipping"
    title = "fall of the probability while 100 regions go (pixel flipping, AOPC; 202 predictions)"

    def values(self, subject: Subject) -> Mapping[str, float]:
        """Both means, and their difference."""
        given = subject.probability, subject.x, subject.heat, subject.baseline(self.baseline), self.region, self.step
        most, least = (
            formulas.aopc(formulas.pixel_flipping(*given, self.most, coldest, subject.batch_size))
            for coldest in (False, True)
        )
        return {"AOPC, hottest first": most, "AOPC, coldest first": least, "difference": most - least}
