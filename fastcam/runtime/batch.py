"""Batches and runs: images on their way through the network, and what the network made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam.image.preprocess import Float, Geometry
from fastcam.runtime.exported_model import Forward
from fastcam.runtime.further_inputs import NONE, FurtherValues, join_values
from fastcam.runtime.io_binding import DeviceTensor


@dataclass(frozen=True)
class Batch:
    """One run's worth of images: the network's input, what was given, how the one became the other, and the values of
    the model's further inputs."""

    tensor: NDArray[Any] | DeviceTensor
    images: tuple[NDArray[Any], ...]
    geometry: tuple[Geometry, ...]
    files: tuple[str | None, ...]
    further: FurtherValues = NONE


def join_batches(parts: Sequence[Batch]) -> Batch:
    """Batches of one image each as one batch."""
    tensor = np.concatenate([part.tensor for part in parts])
    images, geometry, files = (
        tuple(getattr(part, name)[0] for part in parts) for name in ("images", "geometry", "files")
    )
    return Batch(tensor, images, geometry, files, join_values([part.further for part in parts]))


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
