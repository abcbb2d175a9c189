"""Runs: what the network made of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastcam.image.preprocess import Float
from fastcam.runtime.exported_model import Forward
from fastcam.runtime.inputs.batch import Batch


@dataclass(frozen=True, eq=False)
class Run:
    """Images that ran together, and what they gave."""

    batch: Batch
    forward: Forward
    scores: Float

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it holds, about."""
        forward, further = self.forward, self.batch.further
        named = [forward.outputs, forward.explained, forward.carried, further.rows, further.shared]
        each = [self.batch.tensor, *self.batch.images, *(value for values in named for value in values.values())]
        return sum(value.nbytes if isinstance(value, np.ndarray) else 0 for value in each)

    def __getitem__(self, rows: slice) -> Run:
        """The images from ``rows.start`` to ``rows.stop``."""
        batch = Batch(
            *(getattr(self.batch, name)[rows] for name in ("tensor", "images", "geometry", "files", "further"))
        )
        return Run(batch, self.forward[rows], self.scores[rows])

    def moved(self, forward: Forward) -> Run:
        """The same images, whose memory is now that of ``forward``."""
        return Run(replace(self.batch, tensor=forward.tensor), forward, self.scores.copy())


def join_outputs(parts: Sequence[tuple[dict[str, Any], int]]) -> dict[str, Any]:
    """Outputs by name of several runs, given with the number of images of each."""
    return {name: _join_output([(outputs[name], count) for outputs, count in parts]) for name in parts[0][0]}


def _join_output(parts: Sequence[tuple[Any, int]]) -> Any:
    """One row per image where the output has that; else a list with one entry per run, of one run its value."""
    values = [value for value, _ in parts]
    if len(values) == 1:
        return values[0]
    if not all(per_image(value, count) for value, count in parts):
        return values
    if all(isinstance(value, np.ndarray) for value in values):
        return np.concatenate(values)
    return [row for value in values for row in value]


def per_image(value: Any, images: int) -> bool:
    """Whether an output has one row (or, for sequences, one entry) per image."""
    if isinstance(value, np.ndarray):
        return value.ndim > 0 and len(value) == images
    return isinstance(value, list) and len(value) == images
