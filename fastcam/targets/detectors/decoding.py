"""From the numbers that a detector gives for a box to its corners in pixels of the network's input.

Every formula takes complex numbers as well, so its derivative is exact by one complex step (Squire and Trapp 1998).
Priors are [..., 4]: a point x, y, and the unit in which numbers are counted, w, h: the stride of a level, an anchor's
size, or the picture's, of relative numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastcam.targets.arrays import Double

Array: TypeAlias = NDArray[Any]
Decode: TypeAlias = Callable[[Array, Array], Array]
"""(numbers [..., k], priors [..., 4]) -> corners x0, y0, x1, y1 [..., 4]."""
STEP = 1e-20


def corners(numbers: Array, priors: Array) -> Array:
    """x0, y0, x1, y1."""
    point, unit = _split(priors)
    return _joined(point + numbers[..., :2] * unit, point + numbers[..., 2:4] * unit)


def rows_first(numbers: Array, priors: Array) -> Array:
    """y0, x0, y1, x1, as TensorFlow has them."""
    return corners(numbers[..., [1, 0, 3, 2]], priors)


def centre(numbers: Array, priors: Array) -> Array:
    """Centre and size."""
    point, unit = _split(priors)
    return _around(point + numbers[..., :2] * unit, numbers[..., 2:4] * unit)


def size_alone(numbers: Array, priors: Array) -> Array:
    """Size, around the middle of the cell."""
    point, unit = _split(priors)
    return _around(point + 0.5 * unit, numbers[..., :2] * unit)


def turned(numbers: Array, priors: Array) -> Array:
    """Centre, size and angle, as the upright box around the turned one."""
    point, unit = _split(priors)
    size, angle = numbers[..., 2:4] * unit, numbers[..., 4:5]
    flat, steep = size * np.cos(angle), size * np.sin(angle)
    around = _absolute(flat) + _absolute(steep[..., ::-1])
    return _around(point + numbers[..., :2] * unit, around)


def distances(numbers: Array, priors: Array) -> Array:
    """Distances of the left, upper, right and lower side from the point (FCOS)."""
    point, unit = _split(priors)
    return _joined(point - numbers[..., :2] * unit, point + numbers[..., 2:4] * unit)


def bins(numbers: Array, priors: Array) -> Array:
    """The same, each the mean of a distribution over 0, 1, 2, ... (Li et al. 2020, generalised focal loss)."""
    each = numbers.reshape(*numbers.shape[:-1], 4, -1)
    weights = np.exp(each - each.real.max(-1, keepdims=True))
    mean = (weights * np.arange(each.shape[-1])).sum(-1) / weights.sum(-1)
    return distances(mean, priors)


def exponential(numbers: Array, priors: Array) -> Array:
    """Offset of the centre, and logarithm of the size (YOLOX, YuNet; with anchors as priors RetinaNet)."""
    point, unit = _split(priors)
    return _around(point + numbers[..., :2] * unit, np.exp(numbers[..., 2:4]) * unit)


def ssd(numbers: Array, priors: Array) -> Array:
    """The same in units of 0.1 and 0.2, its variances (Liu et al. 2016)."""
    return exponential(numbers * np.array([0.1, 0.1, 0.2, 0.2]), priors)


def squashed(size: tuple[int, int]) -> Decode:
    """tanh of the offset, and sigmoid of the share of the picture, whose height and width is ``size`` (FastestDet)."""

    def decode(numbers: Array, priors: Array) -> Array:
        point, unit = _split(priors)
        share = 1 / (1 + np.exp(-numbers[..., 2:4]))
        return _around(point + np.tanh(numbers[..., :2]) * unit, share * np.array([size[1], size[0]]))

    return decode


def slope(decode: Decode, numbers: Double, priors: Double, side: int) -> Double:
    """The derivative of one of the corners by each of a box's numbers [k]."""
    moved = numbers + 1j * STEP * np.eye(len(numbers))
    return np.asarray(decode(moved, priors)[:, side].imag / STEP)


def _split(priors: Array) -> tuple[Array, Array]:
    return priors[..., :2], priors[..., 2:]


def _joined(first: Array, last: Array) -> Array:
    return np.concatenate([first, last], axis=-1)


def _around(middle: Array, size: Array) -> Array:
    return _joined(middle - size / 2, middle + size / 2)


def _absolute(values: Array) -> Array:
    """The absolute value, which keeps an imaginary part along."""
    return np.asarray(np.where(values.real < 0, -values, values))
