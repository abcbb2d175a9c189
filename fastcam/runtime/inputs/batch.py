"""Batches: images on their way to the network."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastcam.image.preprocess import Geometry
from fastcam.runtime.inputs.further_inputs import NONE, FurtherValues, join_values
from fastcam.runtime.io_binding import DeviceTensor

Empty: TypeAlias = "Callable[[Sequence[int]], NDArray[np.float32]]"
"""A shape to an array that its values are written to."""
MOST = 256 << 20
"""Bytes of an array of :class:`Rows`."""


def empty(shape: Sequence[int]) -> NDArray[np.float32]:
    """An array of its own."""
    return np.empty(shape, np.float32)


class Rows:
    """An array for pictures that may run together: each is prepared in its row, and none is copied to join them.

    Safe to share between threads.

    Args:
        count: of rows.
    """

    def __init__(self, count: int) -> None:
        self._count, self._whole = count, np.empty(0, np.float32)
        self._lock = threading.Lock()

    def row(self, number: int) -> Empty:
        """What gives a picture's array: the row, where that fits."""

        def made(shape: Sequence[int]) -> NDArray[np.float32]:
            with self._lock:
                if not self._whole.size and 4 * self._count * math.prod(shape) <= MOST:
                    self._whole = empty((self._count, *shape[1:]))
            return self._whole[number : number + 1] if (1, *self._whole.shape[1:]) == tuple(shape) else empty(shape)

        return made


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
    """Batches of one image each as one batch; one alone is it. Tensors that lie beside each other are not copied."""
    if len(parts) == 1:
        return parts[0]
    tensor = _joined([part.tensor for part in parts])
    images, geometry, files = (
        tuple(getattr(part, name)[0] for part in parts) for name in ("images", "geometry", "files")
    )
    return Batch(tensor, images, geometry, files, join_values([part.further for part in parts]))


def _joined(tensors: Sequence[Any]) -> NDArray[Any]:
    first = tensors[0]
    whole, step = first.base, first.nbytes
    if isinstance(whole, np.ndarray) and whole.shape[1:] == first.shape[1:] and whole.flags.c_contiguous:
        start = (_address(first) - _address(whole)) // step
        rows = whole[start : start + len(tensors)]
        if all(one.base is whole and _address(one) == _address(rows) + i * step for i, one in enumerate(tensors)):
            return rows
    return np.concatenate(tensors)


def _address(array: NDArray[Any]) -> int:
    address: int = array.__array_interface__["data"][0]
    return address
