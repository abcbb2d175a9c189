"""What a picture shows, in the data set's words and in the model's classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fastcam.evaluation.protocols.regions import counted
from fastcam.evaluation.samples import Sample
from fastcam.image.preprocess import Float

Classes = Mapping[str, frozenset[int]]
"""Which of the model's classes each label of the data set stands for."""


@dataclass(frozen=True)
class Shown:
    """A class that a picture shows.

    Attributes:
        label: in the data set's words.
        target: the class of the model for it that has the highest score.
    """

    label: str
    target: int


def shown(sample: Sample, classes: Classes, scores: Float) -> list[Shown]:
    """The marked classes that the model knows, the one with the highest score first; crowds alone show nothing.

    Args:
        scores: float32 [classes] of this picture.
    """
    found = []
    for label in dict.fromkeys(each.label for each in counted(sample.annotations)):
        known = sorted(index for index in classes.get(label, ()) if index < len(scores))
        if known:
            found.append(Shown(label, known[int(np.argmax(scores[known]))]))
    return sorted(found, key=lambda each: -float(scores[each.target]))
