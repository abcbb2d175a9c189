"""What is done to pictures that are predicted now and explained later, if somebody asks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from fastcam.results.prediction import Prediction
from fastcam.runtime.inputs.batch import Batch


@dataclass(frozen=True)
class PredictionSteps:
    """A picture to its part of a batch, and a batch through the model.

    Attributes:
        prepare: a picture to its part of a batch.
        run: a batch to the prediction of each of its pictures, which holds nothing of the others.
        weight: about how many bytes a picture and its part of a batch take.
    """

    prepare: Callable[[Any], Batch]
    run: Callable[[Batch], list[Prediction]]
    weight: Callable[[Any], int]

    def each_within(self, context: Callable[[], AbstractContextManager[None]]) -> PredictionSteps:
        """The same steps, each inside a context of its own."""

        def prepare(source: Any) -> Batch:
            with context():
                return self.prepare(source)

        def run(batch: Batch) -> list[Prediction]:
            with context():
                return self.run(batch)

        return replace(self, prepare=prepare, run=run)
