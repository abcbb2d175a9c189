"""ROAD: accuracy while pixels are removed and their place is filled (Rong et al.)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fastcam.evaluation import faithfulness as formulas
from fastcam.evaluation.protocols.faithfulness.subject import NO_MAP, Faithfulness, Subject


@dataclass(frozen=True)
class Road(Faithfulness):
    """How often the class is still the model's first, the mean over percentages of the picture that go.

    Of the hottest pixels first ("hottest") lower is better, of the coldest first ("coldest") higher; their difference,
    from -1 to 1, is higher for better maps and 0 for random ones. So are the class's probabilities.

    Attributes:
        percentages: how much goes.
        curve: whether the accuracy at each of the percentages is a figure too.
        noise: standard deviation of what is added to filled pixels, in units of the network's input.
    """

    hits: ClassVar[tuple[str, ...]] = (NO_MAP, "accuracy without")

    percentages: tuple[float, ...] = formulas.PERCENTAGES
    noise: float = 0.01
    curve: bool = False

    name = "road"
    title = "accuracy while the hottest, or coldest, pixels are filled in (ROAD; 18 predictions, each behind a filling)"

    def values(self, subject: Subject) -> Mapping[str, float]:
        """Means over the percentages, and of each the first figure."""
        rng, row, curves = subject.random(self.name), {}, {}
        for least, which in ((False, "hottest"), (True, "coldest")):
            given = subject.x, subject.heat, self.percentages, least, self.noise, rng
            pictures = np.stack(list(formulas.removed(*given)))
            first = subject.is_first(pictures)
            row[f"accuracy without the {which}"] = float(first.mean())
            row[f"probability without the {which}"] = float(subject.probability(pictures).mean())
            for share, one in zip(self.percentages, first, strict=True):
                curves[f"accuracy without the {which} {share:g} %"] = float(one)
        for what in ("accuracy", "probability"):
            row[f"{what}, difference"] = row[f"{what} without the coldest"] - row[f"{what} without the hottest"]
        return row | (curves if self.curve else {})
