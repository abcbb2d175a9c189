"""Pictures that raters see: a map of one class over the picture, without a word that says which."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fastcam.errors import FastcamError
from fastcam.evaluation.report.truth import Classes, Shown, shown
from fastcam.evaluation.samples import Sample
from fastcam.explainer import Explainer
from fastcam.image.preprocess import Uint8
from fastcam.labels import short_label
from fastcam.methods.registry import METHODS
from fastcam.render import web
from fastcam.results.explanation import OK, Explanation

SIDE, BYTES = 360, 48_000
"""Of a stimulus: pixels of its longer side, and bytes of its JPEG."""


@dataclass(frozen=True, eq=False)
class Model:
    """A model of a study.

    Attributes:
        name: for the key and the scores; raters never see it.
        explainer: of its exported file.
        classes: which of its classes each label of the data stands for; None of pictures without annotations.
    """

    name: str
    explainer: Explainer
    classes: Classes | None = None

    def candidates(self, sample: Sample, most: int) -> list[Shown]:
        """Classes of a picture: the marked ones, the surest first; without annotations those with the best scores."""
        scores = self.explainer.predict(sample.picture).scores[0]
        if self.classes is not None:
            return shown(sample, self.classes, scores)[:most]
        best = np.argsort(-scores, kind="stable")[:most]
        return [Shown(self.label(int(index)), int(index)) for index in best]

    def agrees(self, sample: Sample) -> Shown | None:
        """The predicted class, where it is marked, or nothing is known."""
        scores = self.explainer.predict(sample.picture).scores[0]
        best = int(np.argmax(scores))
        if self.classes is None:
            return Shown(self.label(best), best)
        for each in shown(sample, self.classes, scores):
            if best in self.classes[each.label]:
                return Shown(each.label, best)
        return None

    def label(self, index: int) -> str:
        """The name of a class."""
        labels = self.explainer.metadata.labels
        return short_label(labels[index]) if labels is not None and index < len(labels) else f"class {index}"

    def stimuli(self, sample: Sample, targets: Sequence[int], method: str) -> list[str] | None:
        """A data URI for each target; None where one of them has no map."""
        found = self.explainer(sample.picture, targets=list(targets), method=method)
        if any(status != OK for status in found.status[0]):
            return None
        return [web.jpeg_uri(_drawn(found, t, method), SIDE, BYTES) for t in range(len(targets))]


def _drawn(found: Explanation, target: int, method: str) -> Uint8:
    """Pixel methods that do not add up are shown around grey, as in the paper; others over the picture."""
    if found.attributions is not None and not METHODS[method].adds_up:
        return found.attribution_image(0, target)
    return found.overlay(0, target, annotate=False)


def usable(samples: Iterator[Sample], most: int) -> Iterator[Sample]:
    """Samples that are read: at most twenty times as many as are wanted, lest a search for rare ones never ends."""
    for i, sample in enumerate(samples):
        if i >= 20 * most:
            return
        yield sample


def checked(models: Sequence[Model], methods: Sequence[str]) -> None:
    """Refuse what no study can be made of.

    Raises:
        FastcamError: no method, one that there is not or that a file does not serve, a file that explains no classes of
            pictures, twice the same file.
    """
    if not methods or len({*methods}) < len(methods):
        raise FastcamError("a study compares methods; give at least one, each once")
    for name in methods:
        if name not in METHODS:
            raise FastcamError(f"no method {name!r}; fastcam methods lists them")
    for model in models:
        metadata, prompts = model.explainer.metadata, model.explainer.prompts
        if (metadata.cotangents and not prompts) or metadata.kind in (
            "video",
            "signal",
            "volume",
            "text",
        ):
            raise FastcamError(f"{model.name}: a study shows classes of pictures, and this file explains others")
        for name in methods:
            model.explainer.stream((), method=name)
    if len({model.name for model in models}) < len(models):
        raise FastcamError("the same model was given twice; which is the more trustworthy is asked of two")
