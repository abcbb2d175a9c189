"""Protocols: what is measured of each picture's maps, and what the rows of many pictures say; one file a benchmark."""

from __future__ import annotations

from fastcam.evaluation.protocols.attention import AttentionCorrelation
from fastcam.evaluation.protocols.base import Protocol
from fastcam.evaluation.protocols.energy import Energy
from fastcam.evaluation.protocols.faithfulness import FAITHFULNESS
from fastcam.evaluation.protocols.localization import GroundTruthLocalization, Localization
from fastcam.evaluation.protocols.pointing import Pointing, PointingRecall, PointingTorchray
from fastcam.evaluation.protocols.pxap import PxAP
from fastcam.evaluation.protocols.seeds import SeedQuality
from fastcam.evaluation.protocols.wsol import Wsol

_ALL: tuple[type[Protocol], ...] = (
    Localization,
    GroundTruthLocalization,
    Wsol,
    PxAP,
    Pointing,
    PointingRecall,
    PointingTorchray,
    Energy,
    AttentionCorrelation,
    SeedQuality,
    *FAITHFULNESS,
)

PROTOCOLS: dict[str, type[Protocol]] = {each.name: each for each in _ALL}
"""By the names that ``fastcam evaluate --protocol`` takes."""
