"""Where what the kernels find lies in the original pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastcam import kernels as kernels_
from fastcam.image import Float, Geometry


def in_original(
    explained: kernels_.Explained, geometry: Sequence[Geometry]
) -> tuple[Float, tuple[tuple[Float, ...], ...]]:
    """Boxes [N, T, 4] and components in original pixels; no component, a box of zeros."""
    boxes = np.zeros((*explained.counts.shape, 4), np.float32)
    components: list[list[Float]] = [[] for _ in geometry]
    start = 0
    for i, t in np.ndindex(*explained.counts.shape):
        count = int(explained.counts[i, t])
        found = explained.components[start : start + count]
        parts = np.empty((count, 5), np.float32)
        parts[:, :4], parts[:, 4] = geometry[i].to_original(found[:, :4]), found[:, 4]
        if count:
            boxes[i, t] = geometry[i].to_original(explained.largest[i, t : t + 1, :4])[0]
        components[i].append(parts)
        start += count
    return boxes, tuple(map(tuple, components))
