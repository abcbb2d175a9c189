"""The rows of a run, one for each image: filled up to a fixed batch, and taken out again."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def filled(array: Any, after: int, before: int = 0) -> Any:
    """``array`` with its first row repeated ``before`` times in front, and its last ``after`` times behind it."""
    if not before and not after:
        return array
    return np.concatenate([np.repeat(array[:1], before, axis=0), array, np.repeat(array[-1:], after, axis=0)])


def image_rows(value: Any, rows: slice, ran: int) -> Any:
    """``rows`` of an output that has one row for each of ``ran`` images; others as they are."""
    batched = isinstance(value, list) or (hasattr(value, "__dlpack__") and value.ndim > 0)
    return value[rows] if batched and len(value) == ran else value


def class_rows(targets: NDArray[np.int64]) -> tuple[tuple[int, ...], ...]:
    """Targets [N, T] as tuples."""
    return tuple(map(tuple, targets.tolist()))
