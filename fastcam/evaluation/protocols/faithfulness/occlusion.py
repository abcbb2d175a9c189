"""Rank correlation with occlusion maps (the Grad-CAM paper's section 5.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fastcam.evaluation import faithfulness as formulas
from fastcam.evaluation.protocols.faithfulness.subject import Faithfulness, Subject


@dataclass(frozen=True)
class OcclusionCorrelation(Faithfulness):
    """Spearman's coefficient of the heat in patches and of the fall of the class's score under them; higher is better.

    The score is the model's output for the class, which for most files is before the softmax, as in the paper. A map
    that is the same in all patches has no coefficient.

    Attributes:
        patch, stride: side of a patch, and how far patches are apart, in pixels of the input.
        baseline: what covers, see :data:`fastcam.evaluation.faithfulness.BASELINES`.
    """

    patch: int = 15
    stride: int = 15
    baseline: str = "grey"

    name = "occlusion-correlation"
    title = "rank correlation with the occlusion map (Grad-CAM paper, 5.3; 226 predictions at 224 pixels)"

    def values(self, subject: Subject) -> Mapping[str, float]:
        """The coefficient."""
        cover = subject.baseline(self.baseline)
        given = subject.score, subject.x, subject.heat, cover, self.patch, self.stride, subject.batch_size
        return {"rank correlation": formulas.occlusion_correlation(*given)}
