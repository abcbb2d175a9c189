"""Average drop, increase in confidence and average gain (Grad-CAM++, Opti-CAM)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from fastcam.evaluation import faithfulness as formulas
from fastcam.evaluation.protocols.faithfulness.subject import NO_MAP, Faithfulness, Subject


@dataclass(frozen=True)
class AverageDrop(Faithfulness):
    """What becomes of the class's probability when only what the map shows is left: the picture times the map.

    A lower drop, a higher increase and a higher gain are better. Maps that are hot everywhere win here.

    Attributes:
        baseline: what a pixel without heat becomes, see :data:`fastcam.evaluation.faithfulness.BASELINES`.
    """

    hits: ClassVar[tuple[str, ...]] = (NO_MAP, "increase in confidence")

    baseline: str = "black"

    name = "average-drop"
    title = "average drop, increase in confidence, average gain (Grad-CAM++, Opti-CAM; 2 predictions)"

    def values(self, subject: Subject) -> Mapping[str, float]:
        """Shares of 1; the papers print them as percent."""
        end = subject.baseline(self.baseline)
        drop = formulas.average_drop(subject.probability, subject.x, subject.heat, end)
        return {
            "average drop": drop.drop,
            "increase in confidence": float(drop.increase),
            "average gain": drop.gain,
        }
