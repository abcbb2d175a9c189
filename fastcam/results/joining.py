"""Explanations of several runs as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam.results.explanation import Explanation
from fastcam.results.explanation_data import ARRAYS, OPTIONAL, TUPLES
from fastcam.runtime.run import join_outputs
from fastcam.targets.resolved import NOT_ASKED


def join(parts: Sequence[Explanation]) -> Explanation:
    """Explanations of several runs of one file as one."""
    if len(parts) == 1:
        return parts[0]
    most = max(part.classes.shape[1] for part in parts)
    parts = [_widened(part, most) for part in parts]
    joined: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS}
    there = [name for name in OPTIONAL if getattr(parts[0], name) is not None]
    joined |= {name: np.concatenate([getattr(part, name) for part in parts]) for name in there}
    joined |= {name: tuple(row for part in parts for row in getattr(part, name)) for name in TUPLES}
    joined["layers"] = tuple(map(join, zip(*(part.layers for part in parts), strict=True)))
    joined["outputs"] = join_outputs([(part.outputs, len(part)) for part in parts])
    return replace(parts[0], **joined)


def _widened(part: Explanation, most: int) -> Explanation:
    """An explanation with room for ``most`` targets an image; what it was not asked is marked so."""
    missing = most - part.classes.shape[1]
    if not missing:
        return part

    def wide(array: NDArray[Any], fill: int = 0) -> NDArray[Any]:
        return np.pad(array, [(0, 0), (0, missing), *[(0, 0)] * (array.ndim - 2)], constant_values=fill)

    names = ("maps", "heatmaps", "boxes", "scores", *(name for name in OPTIONAL if name != "inputs"))
    changes: dict[str, Any] = {name: wide(getattr(part, name)) for name in names if getattr(part, name) is not None}
    changes["classes"] = wide(part.classes, -1)
    changes["status"] = tuple((*row, *[NOT_ASKED] * missing) for row in part.status)
    changes["components"] = tuple(
        (*row, *[np.zeros((0, part.boxes.shape[-1] + 1), np.float32)] * missing) for row in part.components
    )
    return replace(part, **changes)
