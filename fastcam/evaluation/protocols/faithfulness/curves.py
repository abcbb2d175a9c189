"""Insertion and deletion (RISE), of pixels of the picture or of positions of the layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fastcam.errors import FastcamError
from fastcam.evaluation import faithfulness as formulas
from fastcam.evaluation.protocols.faithfulness.subject import Faithfulness, Subject

AT_LAYER = ("zero", "mean")
"""Baselines that mean something for activations."""


@dataclass(frozen=True)
class _Curve(Faithfulness):
    at: Literal["picture", "layer"] = "picture"
    baseline: str = "zero"
    step: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.at == "layer" and self.baseline not in AT_LAYER:
            raise FastcamError(f"{self.name}.baseline is {self.baseline}; at the layer give {' or '.join(AT_LAYER)}")

    def given(self, subject: Subject) -> tuple[Any, ...]:
        """Arguments of the formula: at the layer one position after the other, and the head alone runs."""
        if self.at == "layer":
            layer, size = subject.activations, subject.case.probe.layer_batch
            end = formulas.baseline(layer, self.baseline)
            return subject.layer_probability, layer, subject.layer_heat, end, self.step or 1, size
        end = subject.baseline(self.baseline)
        return subject.probability, subject.x, subject.heat, end, self.step, subject.batch_size


@dataclass(frozen=True)
class Insertion(_Curve):
    """The area under the class's probability while a baseline gets the hottest pixels of the picture; higher is better.

    Attributes:
        at: "layer" takes positions of the layer's activations, by the map at its own resolution, in place of pixels; a
            file with its head then runs that alone.
        baseline: the start, see :data:`fastcam.evaluation.faithfulness.BASELINES`; at the layer "zero" or "mean".
        step: pixels at once; 0 is as many as a row of the input has. At the layer 0 is one position.
    """

    baseline: str = "blur"

    name = "insertion"
    title = "probability while the hottest pixels come in, area (RISE; 225 predictions at 224 pixels)"

    def values(self, subject: Subject) -> Mapping[str, float]:
        """The area."""
        return {"insertion": formulas.area(formulas.insertion(*self.given(subject)))}


@dataclass(frozen=True)
class Deletion(_Curve):
    """The area under the class's probability while the hottest pixels become those of a baseline; lower is better.

    Attributes:
        at, step: see :class:`Insertion`.
        baseline: the end.
    """

    name = "deletion"
    title = "probability while the hottest pixels go, area (RISE; 225 predictions at 224 pixels)"

    def values(self, subject: Subject) -> Mapping[str, float]:
        """The area."""
        return {"deletion": formulas.area(formulas.deletion(*self.given(subject)))}
