"""Faithfulness of maps to the model: each protocol applies a formula of :mod:`fastcam.evaluation.faithfulness`.

All of them ask the model again, so that a picture costs some hundred predictions; the titles say how many.
"""

from fastcam.evaluation.protocols.base import Protocol
from fastcam.evaluation.protocols.faithfulness.confidence import AverageDrop
from fastcam.evaluation.protocols.faithfulness.curves import Deletion, Insertion
from fastcam.evaluation.protocols.faithfulness.flipping import PixelFlipping
from fastcam.evaluation.protocols.faithfulness.occlusion import OcclusionCorrelation
from fastcam.evaluation.protocols.faithfulness.randomisation import Randomisation
from fastcam.evaluation.protocols.faithfulness.road import Road
from fastcam.evaluation.protocols.faithfulness.sensitivity import InfidelityOfMaps, MaxSensitivity, SensitivityN

FAITHFULNESS: tuple[type[Protocol], ...] = (
    OcclusionCorrelation,
    Insertion,
    Deletion,
    AverageDrop,
    Road,
    PixelFlipping,
    SensitivityN,
    InfidelityOfMaps,
    MaxSensitivity,
    Randomisation,
)
"""All of them."""
