"""Batches: images on their way to the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam.image.preprocess import Geometry
from fastcam.runtime.inputs.further_inputs import NONE, FurtherValues, join_values
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
    """Batches of one image each as one batch; one alone is it."""
    if len(parts) == 1:
        return parts[0]
    tensor = np.concatenate([part.tensor for part in parts])
    images, geometry, files = (
        tuple(getattr(part, name)[0] for part in parts) for name in ("images", "geometry", "files")
    )
    return Batch(tensor, images, geometry, files, join_values([part.further for part in parts]))
