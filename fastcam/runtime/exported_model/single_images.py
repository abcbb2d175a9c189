"""One image of several that ran together, without the others: less to keep, and less to explain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

ROWS, COUNT, SHARED = "rows", "count", "shared"
"""What a value of a run is: one row for each image, the number of images, or the same for any images."""


def kinds(together: Mapping[str, Any], images: int, one: Mapping[str, Any]) -> dict[str, str] | None:
    """What each value is; None where one of them is neither, so that images cannot be parted.

    Args:
        together, images: values by name of a run of several images, and how many they are.
        one: the values of a run of one of them.
    """
    found: dict[str, str] = {}
    for name, value in together.items():
        alone = one[name]
        if not isinstance(value, np.ndarray) or not isinstance(alone, np.ndarray):
            return None
        if value.ndim and value.shape == (images, *alone.shape[1:]) and alone.shape[:1] == (1,):
            found[name] = ROWS
        elif value.shape != alone.shape:
            return None
        elif value.dtype == np.int64 and value.size == 1 and int(value.flat[0]) == images and int(alone.flat[0]) == 1:
            found[name] = COUNT
        elif np.array_equal(value, alone):
            found[name] = SHARED
        else:
            return None
    return found


def part(values: Mapping[str, Any], of: Mapping[str, str], row: int) -> dict[str, Any]:
    """The values of one image, in memory of their own.

    Args:
        of: see :func:`kinds`.
        row: of the image.
    """

    def own(name: str, value: Any) -> Any:
        if of[name] == ROWS:
            return value[row : row + 1].copy()
        return np.ones_like(value) if of[name] == COUNT else value

    return {name: own(name, value) for name, value in values.items()}


def own_memory(value: Any) -> Any:
    """An array that is no view of another, so that keeping it keeps nothing else."""
    return value.copy() if isinstance(value, np.ndarray) and value.base is not None else value
