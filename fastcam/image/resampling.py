"""Pictures and maps at other sizes, and in grey: by OpenCV, and where that is not installed by NumPy.

NumPy computes the same formulas. Of bytes the results lie at most one level apart where a picture grows.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastcam.errors import FastcamError

Size: TypeAlias = tuple[int, int]
_GREY = (9798, 19235, 3735)
"""0.299, 0.587, 0.114 in 32768ths."""


def opencv() -> ModuleType:
    """The cv2 module.

    Raises:
        FastcamError: OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise FastcamError(
            f"drawing and writing pictures needs OpenCV ({error}); run: pip install opencv-python"
        ) from error
    return cv2


@cache
def has_opencv() -> bool:
    """Whether cv2 can be imported."""
    try:
        opencv()
    except FastcamError:
        return False
    return True


def resize(array: NDArray[Any], size: Size) -> NDArray[Any]:
    """[h, w] or [h, w, C] -> [H, W] or [H, W, C]: area average along an axis that shrinks, bilinear where it grows.

    OpenCV's INTER_AREA does neither where one axis shrinks and the other grows; hence the two steps.
    """
    height, width = array.shape[:2]
    shrunk = (min(height, size[0]), min(width, size[1]))
    for step, way in ((shrunk, "INTER_AREA"), (size, "INTER_LINEAR")):
        if step != array.shape[:2]:
            array = _by_opencv(array, step, way) if has_opencv() else _by_numpy(array, step)
    return array


def _by_opencv(array: NDArray[Any], size: Size, way: str) -> NDArray[Any]:
    cv2 = opencv()
    resized: NDArray[Any] = cv2.resize(array, size[::-1], interpolation=getattr(cv2, way))
    return resized


def _by_numpy(array: NDArray[Any], size: Size) -> NDArray[Any]:
    """:func:`resize` where both axes grow, or both shrink."""
    values = array
    for axis in (0, 1):
        if array.shape[axis] != size[axis]:
            weights = _weights(array.shape[axis], size[axis])
            values = np.moveaxis(np.tensordot(weights, values, (1, axis)), 0, axis)
    if array.dtype == np.uint8:
        values = np.clip(np.rint(values), 0, 255)
    return np.ascontiguousarray(values, array.dtype)


def _weights(old: int, new: int) -> NDArray[np.float32]:
    """float32 [new, old]: how much of each old sample is in a new one."""
    samples, step = np.arange(old), old / new
    if new < old:
        first = np.arange(new)[:, None] * step
        shares = np.clip(np.minimum(first + step, samples + 1) - np.maximum(first, samples), 0, None)
        shares /= shares.sum(1, keepdims=True)
    else:
        at = np.clip((np.arange(new) + 0.5) * step - 0.5, 0, old - 1)
        shares = np.clip(1 - np.abs(at[:, None] - samples), 0, None)
    weights: NDArray[np.float32] = shares.astype(np.float32)
    return weights


def grey(image: NDArray[Any]) -> NDArray[Any]:
    """RGB [h, w, 3], uint8 or float32 -> [h, w, 1]: 0.299 R + 0.587 G + 0.114 B."""
    if has_opencv():
        cv2 = opencv()
        made: NDArray[Any] = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
        return made[..., None]
    if image.dtype == np.uint8:
        weighed: NDArray[Any] = image.astype(np.int32) @ np.array(_GREY, np.int32)[:, None]
        return (weighed + (1 << 14) >> 15).astype(np.uint8)
    shade: NDArray[Any] = image.astype(np.float32) @ np.array([[0.299], [0.587], [0.114]], np.float32)
    return shade
