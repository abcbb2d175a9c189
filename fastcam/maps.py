"""What of a mode's map is shown: attention rollout, LeGrad and FullGrad from their minimum on, all else from zero."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastcam.schema import Mode

FROM_MINIMUM: tuple[Mode, ...] = ("rollout", "rollout-max", "rollout-min", "legrad", "fullgrad")
"""Maps that are nowhere negative and nowhere near zero: what tells is by how much a position exceeds the least one."""


def shown(mode: str, maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Maps [..., h, w] as they are then divided by their maximum.

    So those of :data:`FROM_MINIMUM` are brought from their minimum and maximum to 0 and 1, as LeGrad's paper and
    FullGrad's authors do; of others what speaks for the class counts.
    """
    if mode in FROM_MINIMUM:
        return np.asarray(maps - maps.min((-2, -1), keepdims=True), np.float32)
    return np.maximum(maps, 0)
