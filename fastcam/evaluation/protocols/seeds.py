"""Seeds for segmentation, measured against masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastcam.errors import FastcamError
from fastcam.evaluation.protocols.base import Case, Present, Protocol, Row
from fastcam.evaluation.protocols.regions import counted, pixels
from fastcam.evaluation.samples import Mask
from fastcam.evaluation.seeds import BACKGROUND, NO_CUE, Seeds, gradient_saliency, seed_mask
from fastcam.evaluation.statistics import Figure, Ratio, Ratios, Tally, Weights

_BACKGROUND = ""  # the background among labels, none of which is empty
CUES = "cues"
NO_GRADIENT = "saliency by the gradient needs a file of export --input-gradient gradient; export so, or say heatmap"


class SeedQuality(Protocol):
    """How far seeds are right: IoU, precision and recall of each class and of the background, as means over these.

    Seeds are those of :func:`fastcam.evaluation.seeds.seed_mask`. Pixels are counted over all pictures, for each class
    that the model knows: those of the seed, of the masks, and of both. A pixel without a cue is none of a seed, so it
    lowers IoU and recall. Truth of the background is what no mark covers, known to the model or not. What the data set
    ignores, and crowds and "difficult" objects, count for nothing. Pictures whose marks have no masks are left out.

    Args:
        threshold: of a class's maximum, above which its seed lies.
        background: share of the pixels that is the background's seed.
        saliency: "gradient" of files exported with ``--input-gradient gradient``, as in the paper; "heatmap": the
            largest of the classes' heatmaps; None: the gradient where the file has it.

    Source: Kolesnikov and Lampert, "Seed, Expand and Constrain", ECCV 2016.
    """

    name = "seeds"
    title = "seeds for segmentation: mean IoU, precision and recall against masks (SEC)"

    def __init__(self, threshold: float = 0.2, background: float = 0.1, saliency: str | None = None) -> None:
        for what, value in (("threshold", threshold), ("background", background)):
            if not 0 <= value < 1:
                raise FastcamError(f"{what} of seeds is {value}; give a share from 0 to less than 1")
        if saliency not in (None, "gradient", "heatmap"):
            raise FastcamError(f"saliency of seeds is {saliency!r}; give gradient or heatmap")
        self.threshold, self.background, self.saliency = threshold, background, saliency

    def measure(self, case: Case) -> Row | None:
        """Of each class, and of "" the background, [pixels of both, of the seed, of the truth]; and those of cues."""
        return self.row(case, self.seeds(case, {each.label: n for n, each in enumerate(case.present, 1)}))

    def seeds(self, case: Case, numbers: Mapping[str, int]) -> Seeds:
        """The seed mask of a picture, with the numbers of its classes."""
        shown = [each for each in case.present if case.ok(each.target)]
        size = case.size
        heat = np.stack([case.heatmap(each.target) for each in shown] or [np.zeros(size, np.float32)])
        known = [numbers[each.label] for each in shown]
        seen = np.zeros(size, np.bool_)
        left, top, right, bottom = case.explanation.geometry[0].source
        seen[top:bottom, left:right] = True
        saliency = heat.max(0) if self.by_heatmap(case) else self._of_gradient(case, shown)
        return seed_mask(heat[: len(known)], known, saliency, seen, self.threshold, self.background if shown else 0)

    def by_heatmap(self, case: Case) -> bool:
        """Whether saliency is the heatmaps', and not the gradient's.

        Raises:
            FastcamError: the gradient was asked for, and the file has none.
        """
        has = case.explanation.input_gradients is not None and case.explanation.metadata.input_gradient == "gradient"
        if self.saliency == "gradient" and not has:
            raise FastcamError(NO_GRADIENT)
        return self.saliency == "heatmap" or not has

    def _of_gradient(self, case: Case, shown: list[Present]) -> np.ndarray[Any, np.dtype[np.float32]]:
        gradients = case.explanation.input_gradients
        assert gradients is not None
        columns = [case.columns[each.target] for each in shown]
        if not columns:
            return np.zeros(case.size, np.float32)
        return case.explanation.geometry[0].heatmap_to_original(gradient_saliency(gradients[0, columns]))

    def row(self, case: Case, seeds: Seeds) -> Row | None:
        """The pixels of seeds that are numbered in the order of the case's classes, from 1."""
        marks = case.sample.annotations
        if not any(each.read_mask is not None for each in marks):
            return None
        counts = self._counts(case)
        found = {}
        for number, each in enumerate(case.present, 1):
            found[each.label] = _pixels(seeds == number, pixels(counted(each.annotations), case.size), counts)
        found[_BACKGROUND] = _pixels(seeds == BACKGROUND, ~pixels(marks, case.size), counts)
        return {"pixels": found, CUES: [int((seeds != NO_CUE).sum()), seeds.size]}

    @staticmethod
    def _counts(case: Case) -> Mask:
        """The pixels that count: not those of crowds, "difficult" objects or what the data set ignores."""
        kept = counted(case.sample.annotations)
        others = [each for each in case.sample.annotations if each not in kept]
        outside = pixels(others, case.size) & ~pixels(kept, case.size)
        if case.sample.read_ignored is not None:
            outside |= case.sample.read_ignored()
        return ~outside

    def tally(self) -> Tally:
        """Means over classes of what all pictures' pixels say."""
        return _Quality()


def _pixels(seed: Mask, truth: Mask, counts: Mask) -> list[int]:
    seed, truth = seed & counts, truth & counts
    return [int((seed & truth).sum()), int(seed.sum()), int(truth.sum())]


class _Quality:
    def __init__(self) -> None:
        self.by_name = {name: Ratios() for name in ("IoU", "precision", "recall")}
        self.cues = Ratio()

    def add(self, row: Mapping[str, Any], weights: Weights) -> None:
        for label, (both, seed, truth) in row["pixels"].items():
            for name, below in (("IoU", seed + truth - both), ("precision", seed), ("recall", truth)):
                if below:
                    self.by_name[name].add(label, both, weights, below)
        covered, of = row[CUES]
        self.cues.add(covered, weights, of)

    def figures(self) -> dict[str, Figure]:
        means = {f"mean {name}": ratios.mean() for name, ratios in self.by_name.items()}
        behind = {
            f"{name} of the background": ratios.by_name[_BACKGROUND].figure()
            for name, ratios in self.by_name.items()
            if _BACKGROUND in ratios.by_name
        }
        return {} if not self.cues.n else means | behind | {"share of pixels with a cue": self.cues.figure()}
