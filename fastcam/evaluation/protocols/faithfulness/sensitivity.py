"""Sensitivity-n (Ancona et al.), infidelity and max-sensitivity (Yeh et al.)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np

from fastcam.evaluation import faithfulness as formulas
from fastcam.evaluation.protocols.faithfulness.subject import Faithfulness, Subject
from fastcam.image.preprocess import Float
from fastcam.methods.perturbation import windows


@dataclass(frozen=True)
class SensitivityN(Faithfulness):
    """Correlation of the map's sum over random pixels and of the fall of the score without them; higher is better.

    Attributes:
        shares: of the picture's pixels (or cells) that a subset has, each a figure.
        samples: subsets of each.
        cell: side of the squares that go as one; 1 is the paper's pixels, of which random subsets leave coarse maps
            nothing to be right about.
        baseline: what pixels become, see :data:`fastcam.evaluation.faithfulness.BASELINES`.
    """

    shares: tuple[float, ...] = (0.01, 0.05, 0.2, 0.5, 0.8)
    samples: int = 100
    cell: int = 1
    baseline: str = "zero"

    name = "sensitivity-n"
    title = "correlation of heat and fall over random subsets of pixels (sensitivity-n; 505 predictions)"

    def values(self, subject: Subject) -> Mapping[str, float]:
        """The coefficient of each share, and the mean of those that there are."""
        rng, size = subject.random(self.name), subject.heat.shape
        cells = -(-size[0] // self.cell) * -(-size[1] // self.cell)
        given = subject.score, subject.x, subject.heat, subject.baseline(self.baseline)
        each = {}
        for share in self.shares:
            count = max(1, round(share * cells))
            subsets = formulas.random_subsets(rng, size, count, self.samples, self.cell)
            each[f"{100 * share:g} % of the pixels"] = formulas.sensitivity_n(*given, subsets, subject.batch_size)
        there = [one for one in each.values() if np.isfinite(one)]
        return {"mean correlation": float(np.mean(there)) if there else float("nan")} | each


@dataclass(frozen=True)
class InfidelityOfMaps(Faithfulness):
    """How badly the map predicts the fall of the class's score under perturbations; lower is better.

    The map is scaled by the number that suits it best, as in the authors' code, since a heatmap has no unit. The share
    that stays unexplained is 1 for a map that says nothing, 0 for one that predicts every fall.

    Attributes:
        perturbation: "squares" (the paper's square removal, on a grid; the map predicts its sum over the square) or
            "noise" (Gaussian; the map predicts its sum times the noise).
        side, stride: of squares in pixels; 0 is a seventh of the input's side, and half of the square.
        baseline: what squares become, see :data:`fastcam.evaluation.faithfulness.BASELINES`.
        deviation, samples: of the noise.
    """

    perturbation: Literal["squares", "noise"] = "squares"
    side: int = 0
    stride: int = 0
    baseline: str = "zero"
    deviation: float = 0.2
    samples: int = 200

    name = "infidelity"
    title = "error of the falls that the map predicts (infidelity; 170 predictions at 224 pixels)"

    def values(self, subject: Subject) -> Mapping[str, float]:
        """Of the scaled map, in squares of the score's unit, and as a share of a zero map's."""
        squares = self.perturbation == "squares"
        found = formulas.infidelity(
            subject.score, subject.x, subject.heat, self._perturbed(subject), squares, subject.batch_size
        )
        return {"infidelity": found.scaled, "unexplained share": found.unexplained}

    def _perturbed(self, subject: Subject) -> Iterator[Float]:
        if self.perturbation == "noise":
            return formulas.noisy(subject.x, self.deviation, self.samples, subject.random(self.name))
        (height, width), _ = windows((subject.x.shape[1], subject.x.shape[2]))
        side = self.side or min(height, width)
        return formulas.squares(subject.x, subject.baseline(self.baseline), side, self.stride or max(1, side // 2))


@dataclass(frozen=True)
class MaxSensitivity(Faithfulness):
    """The largest change of the map, in units of its norm, when the input moves a little; lower is better.

    A map that never changes has 0, and says nothing of the model: read it beside a figure of faithfulness.

    Attributes:
        radius: how far a number of the network's input moves at most.
        samples: pictures around the given one.
    """

    radius: float = 0.02
    samples: int = 10

    name = "max-sensitivity"
    title = "largest change of the map near the picture (max-sensitivity; 10 explanations)"

    def values(self, subject: Subject) -> Mapping[str, float]:
        """The change; a map that vanishes there counts as zeros."""
        around = formulas.neighbours(subject.x, self.radius, self.samples, subject.random(self.name))
        heats = []
        while part := list(islice(around, subject.batch_size)):
            heats.append(subject.heats(np.stack(part)))
        return {"max-sensitivity": formulas.max_sensitivity(subject.heat, np.concatenate(heats))}
