"""Insertion and deletion (RISE)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fastcam.evaluation import faithfulness as formulas
from fastcam.evaluation.protocols.faithfulness.subject import Faithfulness, Subject


@dataclass(frozen=True)
class Insertion(Faithfulness):
    """The area under the class's probability while a baseline gets the hottest pixels of the picture; higher is better.

    Attributes:
        baseline: the start, see :data:`fastcam.evaluation.faithfulness.BASELINES`.
        step: pixels at once; 0 is as many as a row of the input has.
    """

    baseline: str = "blur"
    step: int = 0

    name = "insertion"
    title = "probability while the hottest pixels come in, area (RISE; 225 predictions at 224 pixels)"

    def values(self, subject: Subject) -> Mapping[str, float]:
        """The area."""
        start = subject.baseline(self.baseline)
        given = subject.probability, subject.x, subject.heat, start, self.step, subject.batch_size
        return {"insertion": formulas.area(formulas.insertion(*given))}


@dataclass(frozen=True)
class Deletion(Faithfulness):
    """The area under the class's probability while the hottest pixels become those of a baseline; lower is better.

    Attributes:
        baseline: the end, see :data:`fastcam.evaluation.faithfulness.BASELINES`.
        step: pixels at once; 0 is as many as a row of the input has.
    """

    baseline: str = "zero"
    step: int = 0

    name = "deletion"
    title = "probability while the hottest pixels go, area (RISE; 225 predictions at 224 pixels)"

    def values(self, subject: Subject) -> Mapping[str, float]:
        """The area."""
        end = subject.baseline(self.baseline)
        given = subject.probability, subject.x, subject.heat, end, self.step, subject.batch_size
        return {"deletion": formulas.area(formulas.deletion(*given))}
