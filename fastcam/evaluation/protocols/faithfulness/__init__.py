"""Faithfulness of maps to the model: each protocol applies a formula of :mod:`fastcam.evaluation.faithfulness`.

All of them ask the model again, so that a picture costs some hundred predictions; the titles say how many.
"""

from fastcam.evaluation.protocols.base import Protocol
from fastcam.evaluation.protocols.faithfulness.confidence import AverageDrop
from fastcam.evaluation.protocols.faithfulness.curves import Deletion, Insertion
from fastcam.evaluation.protocols.faithfulness.occlusion import OcclusionCorrelation

FAITHFULNESS: tuple[type[Protocol], ...] = (OcclusionCorrelation, Insertion, Deletion, AverageDrop)
"""All of them."""
