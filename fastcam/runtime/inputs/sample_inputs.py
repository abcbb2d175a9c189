"""What goes into networks of signals and volumes: arrays, and files of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam.errors import FastcamError
from fastcam.image import nifti
from fastcam.image import preprocess as images_
from fastcam.image.preprocess import Geometry
from fastcam.runtime.inputs.base import Inputs, Sources
from fastcam.runtime.inputs.batch import Batch
from fastcam.runtime.inputs.further_inputs import read_array

Array = NDArray[Any]
VOLUMES = (".nii", ".nii.gz")
FILES = (".npy", ".csv", ".txt", ".json", *VOLUMES)
"""Files of samples, by their endings."""


class SampleInputs(Inputs):
    """Turns signals or volumes into batches: float tensors, single samples, lists of those, or files.

    A sample lies as the model takes it, without the axis of samples; the axis of a single channel may be missing, and a
    signal may lie as [samples, channels]. What the file's preprocessing says (scale, mean, std) is done to all of them.
    """

    @property
    def layout(self) -> str:
        """The order of the input's axes."""
        return self._metadata.order

    @property
    def kind(self) -> str:
        """What a sample is called."""
        return self._metadata.kind

    def _sources(self, images: Any) -> Sources:
        several = isinstance(images, list | tuple) and bool(images) and not isinstance(images[0], int | float)
        given = list(images) if several else [images]
        if isinstance(images, list | tuple) and not images:
            raise FastcamError(f"no {self.kind} given; give at least one")
        files = [str(one) if isinstance(one, str | Path) else None for one in given]
        arrays = [read(one) if isinstance(one, str | Path) else images_.as_array(one) for one in given]
        if not several and files[0] is None and arrays[0].ndim == len(self.shape):
            return Sources(self._checked(self._prepared(arrays[0])), [None] * len(arrays[0]))
        samples = [self._one(array) for array in arrays]
        if len({sample.shape for sample in samples}) > 1:
            raise FastcamError(f"the {self.kind}s of one call must have one size; give them one by one")
        return Sources(self._checked(self._prepared(np.stack(samples))), files)

    def _one(self, array: Array) -> Array:
        """A sample as the model takes it, without the axis of samples."""
        rank = len(self.shape) - 1
        if array.ndim == rank + 1 and len(array) == 1:
            array = array[0]
        if array.ndim == rank - 1 and "C" in self.layout:
            array = np.expand_dims(array, self.layout.index("C") - 1)
        if array.ndim == rank and "C" in self.layout and not self._fits(array):  # channels on the other side
            moved = np.moveaxis(array, *((0, -1) if self.layout.endswith("C") else (-1, 0)))
            array = moved if self._fits(moved) else array
        return array

    def _fits(self, array: Array) -> bool:
        """Whether this is a sample as the model takes it."""
        same_rank = array.ndim == len(self.shape) - 1
        return same_rank and all(
            not isinstance(a, int) or a == b for a, b in zip(self.shape[1:], array.shape, strict=True)
        )

    def _prepared(self, batch: Array) -> Array:
        """The samples as numbers, scaled and normalised as the preprocessing says.

        Raises:
            FastcamError: they are no numbers, or do not fit the model's input.
        """
        if batch.dtype.kind not in "biuf":
            raise FastcamError(f"a {self.kind} is an array of numbers, got {batch.dtype} {list(batch.shape)}")
        if not len(batch) or not self._fits(batch[0]):
            raise FastcamError(
                f"a {self.kind} of {self._name} is [{', '.join(map(str, self.shape[1:]))}] ({self.layout}), got "
                f"{list(batch.shape[1:])}; cut or resample it"
            )
        values: Array = batch if batch.dtype.kind == "f" else batch.astype(np.float32)
        how = self.preprocessing
        if how is None:
            return values
        count = batch.shape[self.layout.index("C")] if "C" in self.layout else 1
        if not {len(how.mean), len(how.std)} <= {1, count}:
            raise FastcamError(
                f"mean {how.mean} and std {how.std} do not fit the {count} channels of a {self.kind}; give one number "
                f"or {count} (--mean, --std)"
            )
        shape = [-1 if letter == "C" else 1 for letter in self.layout] if "C" in self.layout else [1]
        mean, std = (np.reshape(np.asarray(numbers, np.float32), shape) for numbers in (how.mean, how.std))
        return np.asarray((values * np.float32(how.scale) - mean) / std, np.float32)

    def _refuse_range(self, tensor: Array) -> None:
        """Any number is one that a sample may hold."""

    def _batch(self, sources: Sources) -> Batch:
        """One run's samples as the network's input; ``images`` of the batch are [C, L] or [C, D, H, W]."""
        tensor, order = sources.images, self.layout
        first = np.moveaxis(tensor, order.index("C"), 1) if "C" in order else tensor[:, None]
        rows = tuple(np.ascontiguousarray(first, np.float32))
        size = rows[0].shape[-2:] if "H" in order else (1, rows[0].shape[-1])
        geometry = (Geometry.unchanged((int(size[0]), int(size[1]))),) * len(rows)
        return Batch(tensor, rows, geometry, tuple(sources.files))


def read(path: str | Path) -> Array:
    """The sample in a file: a .npy, .csv, .txt or .json array, or a NIfTI volume [x, y, z].

    Raises:
        FastcamError: it cannot be read.
    """
    if not str(path).lower().endswith(FILES):
        raise FastcamError(f"{path}: not a file of numbers; give {', '.join(FILES)}")
    return nifti.read(path) if str(path).lower().endswith(VOLUMES) else read_array(path)
