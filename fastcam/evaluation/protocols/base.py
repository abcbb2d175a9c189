"""What every protocol has, and what it is given of a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, TypeAlias

import numpy as np

from fastcam.evaluation.model_input import model_input
from fastcam.evaluation.protocols.regions import Boxes, boxes_of, counted
from fastcam.evaluation.samples import Annotation, Sample
from fastcam.evaluation.statistics import Tally
from fastcam.explainer import Explainer
from fastcam.image.preprocess import Float
from fastcam.methods.context import Probe
from fastcam.results.explanation import Explanation

Row: TypeAlias = "dict[str, Any]"
"""What a protocol keeps of a picture: numbers, texts and lists of them, small, as JSON holds them."""


@dataclass(frozen=True, eq=False)
class Present:
    """A class that is marked in a picture and that the model knows.

    Attributes:
        label: in the words of the data set.
        target: the model's class that is explained for it: of several that stand for the label the one with the highest
            score.
        classes: all of the model's classes that stand for it.
        annotations: the marks.
    """

    label: str
    target: int
    classes: frozenset[int]
    annotations: tuple[Annotation, ...]

    @cached_property
    def counted(self) -> tuple[Annotation, ...]:
        """The marks that count, see :func:`fastcam.evaluation.protocols.regions.counted`."""
        return counted(self.annotations)

    @cached_property
    def boxes(self) -> Boxes:
        """The boxes of the marks that count, float64 [n, 4], to be read."""
        return boxes_of(self.counted)


@dataclass(frozen=True, eq=False)
class Case:
    """A sample, what it shows in the model's words, and its explanation.

    Attributes:
        sample: as the data set gives it.
        present: the marked classes that the model knows.
        explanation: of this one picture, of all targets that some protocol asked for.
        columns: which of its targets each was, by what was asked: a class, or a rank from -1.
        explainer: that made it, at its layer, for protocols that run the model again.
        method, options: with which it was made.
    """

    sample: Sample
    present: tuple[Present, ...]
    explanation: Explanation
    columns: Mapping[int, int]
    explainer: Explainer
    method: str
    options: Mapping[str, Any]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the picture, in whose pixels annotations are."""
        return self.explanation.geometry[0].original

    @cached_property
    def probe(self) -> Probe:
        """The picture in the model once more, and changed pictures, for all targets of the explanation, in its order.

        Made when the first protocol asks for it, by one run.
        """
        classes = [int(index) for index in self.explanation.classes[0]]
        given = model_input(self.sample, self.explainer)
        return self.explainer.probes(given, classes)[0]

    def heatmap(self, target: int) -> Float:
        """The heatmap of a target, float32 [height, width] of the picture, in 0..1.

        Args:
            target: what was asked: a class, or a rank from -1.
        """
        geometry = self.explanation.geometry[0]
        return geometry.heatmap_to_original(self.explanation.heatmaps[0, self.columns[target]])

    def ok(self, target: int) -> bool:
        """Whether there is a map of the target."""
        return self.explanation.status[0][self.columns[target]] == "ok"

    def predicted(self, most: int = 1) -> list[int]:
        """The classes with the highest scores, the best first; of equals the one with the lower index."""
        return [int(index) for index in np.argsort(-self.explanation.scores[0], kind="stable")[:most]]


class Protocol:
    """Measures the maps of one picture after another, and says what the rows of all of them mean.

    A protocol keeps nothing between pictures. Rows are what is written down, so that a run can be resumed.

    Attributes:
        name: by which people ask for it.
        title: one line for ``fastcam evaluate --help`` and for tables.
    """

    name: ClassVar[str]
    title: ClassVar[str]

    def __repr__(self) -> str:
        """Its name and settings, which a resumed run must share."""
        return f"{self.name}({', '.join(f'{key}={value!r}' for key, value in sorted(vars(self).items()))})"

    def targets(self, present: Sequence[Present]) -> list[int]:
        """What is explained of a picture: classes of the model, or ranks from -1."""
        return [each.target for each in present]

    def measure(self, case: Case) -> Row | None:
        """What is kept of a picture; None where the protocol says nothing of it."""
        raise NotImplementedError

    def tally(self) -> Tally:
        """Takes rows, and says what they mean."""
        raise NotImplementedError
