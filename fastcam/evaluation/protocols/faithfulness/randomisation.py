"""The sanity checks of Adebayo et al.: a map of a model must change when the model's weights become random."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np

from fastcam.errors import FastcamError
from fastcam.evaluation.faithfulness import spearman, ssim
from fastcam.evaluation.protocols.faithfulness import randomised_copy
from fastcam.evaluation.protocols.faithfulness.subject import Faithfulness, Subject
from fastcam.explainer import Explainer
from fastcam.methods.registry import EIGEN, METHODS

Copies = list[tuple[str, Explainer]]


@dataclass(frozen=True)
class Randomisation(Faithfulness):
    """How alike the map and the same class's map of a model with random weights are; lower is better.

    Layers become random from the logits down ("cascading"), or one alone ("independent"), at some depths, each a
    figure: "50 %" is the copy in which about the upper half of all layers is random, or the layer there. Likeness is
    Spearman's coefficient of the two heatmaps, and their SSIM. A map that vanishes under random weights has a
    coefficient of 0: nothing is left of it.

    Copies are made once for each model, by onnx, and kept in memory: as many as there are depths.

    Biases and normalisations keep their numbers.

    Source: Adebayo et al. 2018, "Sanity Checks for Saliency Maps" (arXiv 1810.03292), section 3.

    Attributes:
        order: see above.
        depths: how many; 0 takes every layer.
        draw: "normal" (mean and deviation of the layer's own weights), or "shuffle".
        seed: of the weights.
    """

    order: Literal["cascading", "independent"] = "cascading"
    depths: int = 4
    draw: Literal["normal", "shuffle"] = "normal"
    seed: int = 0
    _copies: WeakKeyDictionary[Explainer, Copies] = field(
        default_factory=WeakKeyDictionary, init=False, repr=False, compare=False
    )
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    name = "randomisation"
    title = "likeness to the maps of models with random weights (Adebayo's sanity checks; 4 explanations)"

    def values(self, subject: Subject) -> Mapping[str, float]:
        """Both likenesses at each depth."""
        method = METHODS[subject.case.method.removesuffix(EIGEN)]
        if method.runs == "layer":
            raise FastcamError(
                f"{method.title} asks what lies behind the layer, which is a file of its own and keeps its weights; "
                "measure randomisation of other methods"
            )
        row = {}
        for depth, explainer in self.copies(subject.case.explainer):
            heat = subject.heats(subject.x[None], explainer)[0]
            likeness = spearman(subject.heat, heat)
            row[f"{depth}, rank correlation"] = likeness if np.isfinite(likeness) else 0.0
            row[f"{depth}, SSIM"] = ssim(subject.heat, heat)
        return row

    def copies(self, explainer: Explainer) -> Copies:
        """The models with random weights, by depth.

        Raises:
            FastcamError: onnx is missing, or a file without weights that could be random.
        """
        with self._lock:
            if explainer not in self._copies:
                self._copies[explainer] = list(self._randomised(explainer))
            return self._copies[explainer]

    def _randomised(self, explainer: Explainer) -> Iterator[tuple[str, Explainer]]:
        model = randomised_copy.opened(randomised_copy.model_of(explainer))
        layers = randomised_copy.layers(model)
        if not layers:
            raise FastcamError("the file holds no kernel or matrix as an initializer, which could be made random")
        draw = randomised_copy.drawn(self.draw, self.seed)
        count = min(self.depths or len(layers), len(layers))
        for number in range(1, count + 1):
            last = round(number * len(layers) / count)
            chosen = layers[:last] if self.order == "cascading" else layers[last - 1 : last]
            made = explainer.with_model(randomised_copy.randomised(model, chosen, draw))
            yield f"{self.order} {100 * number / count:.0f} %", made
