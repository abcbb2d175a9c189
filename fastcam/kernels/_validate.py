"""What every backend asks of its arguments, so that all raise the same errors; returns them ready for the kernel."""

from __future__ import annotations

import functools
import operator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastcam.errors import FastcamError, shown
from fastcam.kernels.arrays import Activations, Bytes, Floats, Ints

_SMALLEST = np.float32(2**-149)
_MAX_LABEL = 2**31 - 1


@dataclass(frozen=True)
class OnDevice:
    """An array of CuPy's, which has what the checks ask of a NumPy array; only the CUDA backend hands such in."""

    array: Any


def maps(value: Any) -> Floats:
    """float32 [..., h, w] with h, w >= 1, contiguous."""
    checked = _array(value, "maps", np.float32, "[..., h, w]")
    if checked.ndim < 2 or 0 in checked.shape[-2:]:
        raise _shape_error("maps", "[..., h, w] with h, w >= 1", checked)
    return checked


def weigh(activations: Any, weights: Any) -> tuple[Activations, Floats]:
    """activations [N, K, h, w], and weights [N, T, K] that belong to them."""
    a = _array(activations, "activations", np.float16 if _is_half(activations) else np.float32, "[N, K, h, w]")
    w = _array(weights, "weights", np.float16 if _is_half(weights) else np.float32, "[N, T, K]")
    if a.ndim != 4 or 0 in a.shape[-2:]:
        raise _shape_error("activations", "[N, K, h, w] with h, w >= 1", a)
    if w.ndim != 3:
        raise _shape_error("weights", "[N, T, K]", w)
    if w.shape[0] != a.shape[0] or w.shape[2] != a.shape[1]:
        raise FastcamError(
            f"weights [N, T, K] {w.shape} do not fit activations [N, K, h, w] {a.shape}: N and K must be the same"
        )
    return a, w.astype(np.float32, copy=False)


def signed_maps(value: Any) -> Floats:
    """float32 [N, T, h, w] with h, w >= 1, in place of activations and weights."""
    checked = _array(value, "activations without weights", np.float32, "[N, T, h, w]")
    if checked.ndim != 4 or 0 in checked.shape[-2:]:
        raise _shape_error("activations without weights", "[N, T, h, w] with h, w >= 1", checked)
    return checked


def target_size(value: Any) -> tuple[int, int]:
    """A size whose pixels can be counted in an int32."""
    height, width = size(value)
    if height * width > _MAX_LABEL:
        raise FastcamError(f"size {(height, width)} has more than 2**31 - 1 pixels; choose a smaller one")
    return height, width


def windows(value: Any, images: int) -> Ints | None:
    """One row x0, y0, x1, y1 per image."""
    if value is None:
        return None
    checked = _array(value, "windows", np.int32, "[N, 4]")
    if checked.shape != (images, 4):
        raise _shape_error("windows", f"[{images}, 4], one x0, y0, x1, y1 per image", checked)
    return checked


def size(value: Any, name: str = "size") -> tuple[int, int]:
    """A pair of whole numbers >= 1."""
    try:
        height, width = (operator.index(extent) for extent in value)
    except (TypeError, ValueError):
        raise FastcamError(f"{name} must be two whole numbers (height, width), got {shown(repr(value))}") from None
    if height < 1 or width < 1:
        raise FastcamError(f"{name} must be (height, width) with both >= 1, got {(height, width)}")
    return height, width


def fraction(value: Any) -> np.float32:
    """A number in (0, 1], rounded to float32 as the comparison is, but never to 0."""
    number = _number(value, "fraction")
    if not 0 < number <= 1:
        raise FastcamError(f"fraction must lie in (0, 1], got {shown(repr(value))}")
    return max(np.float32(number), _SMALLEST)


def alpha(value: Any) -> float:
    """A number in [0, 1]."""
    number = _number(value, "alpha")
    if not 0 <= number <= 1:
        raise FastcamError(f"alpha must lie in [0, 1], got {shown(repr(value))}")
    return number


def mask(value: Any) -> Bytes:
    """uint8 [..., H, W], contiguous; bool is the same bytes."""
    if isinstance(value, np.ndarray) and value.dtype == np.bool_:
        value = value.view(np.uint8)
    elif isinstance(value, OnDevice) and value.array.dtype == np.bool_:
        value = OnDevice(value.array.view(np.uint8))
    checked = _array(value, "mask", np.uint8, "[..., H, W] (or bool)")
    if checked.ndim < 2 or 0 in checked.shape[-2:]:
        raise _shape_error("mask", "[..., H, W] with H, W >= 1", checked)
    if checked.shape[-2] * checked.shape[-1] > _MAX_LABEL:
        raise FastcamError(f"mask of {checked.shape[-2:]} has more than 2**31 - 1 pixels; label a smaller one")
    return checked


def connectivity(value: Any) -> int:
    """4 or 8."""
    if isinstance(value, (int, np.integer)) and value in (4, 8):
        return int(value)
    raise FastcamError(f"connectivity must be 4 or 8, got {shown(repr(value))}")


def boxes(labels: Any, count: Any) -> tuple[Ints, int]:
    """labels [H, W] and their number; that the labels lie in 0..count is found by the kernel."""
    checked = _array(labels, "labels", np.int32, "[H, W]")
    if checked.ndim != 2 or 0 in checked.shape:
        raise _shape_error("labels", "[H, W] with H, W >= 1", checked)
    try:
        number = operator.index(count)
    except TypeError:
        raise FastcamError(f"count must be a whole number, got {shown(repr(count))}") from None
    if checked.size > _MAX_LABEL:
        raise FastcamError(f"labels of {checked.shape} have more than 2**31 - 1 pixels; give a part of them")
    if not 0 <= number <= checked.size:
        raise FastcamError(f"count must lie in 0..{checked.size} for labels of shape {checked.shape}, got {number}")
    return checked, number


def label_error(count: int) -> FastcamError:
    """For labels with a value outside 0..count."""
    return FastcamError(f"labels must lie in 0..{count}; pass the count that label() returned with them")


def largest(value: Any) -> Ints:
    """boxes [count, 5] with at least one row."""
    checked = _array(value, "boxes", np.int32, "[count, 5]")
    if checked.ndim != 2 or checked.shape[1] != 5:
        raise _shape_error("boxes", "[count, 5]", checked)
    if len(checked) == 0:
        raise FastcamError("boxes is empty: there is no largest component; look at the count first")
    return checked


def overlay(image: Any, heatmap: Any, lut: Any) -> tuple[Bytes, Floats, Bytes]:
    """image [H, W, 3], heatmap [H, W], colour table [256, 3]."""
    pixels = _array(image, "image", np.uint8, "[H, W, 3]")
    heat = _array(heatmap, "heatmap", np.float32, "[H, W]")
    colors = _array(lut, "lut", np.uint8, "[256, 3]")
    if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise _shape_error("image", "[H, W, 3] with H, W >= 1", pixels)
    if heat.ndim != 2 or 0 in heat.shape:
        raise _shape_error("heatmap", "[H, W] with H, W >= 1", heat)
    if colors.shape != (256, 3):
        raise _shape_error("lut", "[256, 3]", colors)
    if heat.shape != pixels.shape[:2]:
        raise FastcamError(f"heatmap {heat.shape} and image {pixels.shape} differ in size; upsample the map first")
    return pixels, heat, colors


def sweep(values: Any, cuts: Any, connectivity_: Any, window: Any) -> tuple[Floats, Floats, int, Ints | None]:
    """values [H, W] and cuts [n]; window [4] or None."""
    plane = _array(values, "values", np.float32, "[H, W]")
    levels = _array(cuts, "cuts", np.float32, "[n]")
    if plane.ndim != 2 or 0 in plane.shape or plane.size > 2**31 - 1:
        raise _shape_error("values", "[H, W] with H, W >= 1 and at most 2**31 - 1 pixels", plane)
    if levels.ndim != 1:
        raise _shape_error("cuts", "[n]", levels)
    inside = None if window is None else _array(window, "window", np.int32, "[4]")
    if inside is not None and inside.shape != (4,):
        raise _shape_error("window", "[4]", inside)
    return plane, levels, connectivity(connectivity_), inside


def prepare(pixels: Any, factor: Any, shift: Any, out: Any) -> tuple[Bytes, Floats, Floats]:
    """pixels [h, w, 3] whose pixels lie side by side, factor and shift [3], and that out can be written."""
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise FastcamError("pixels must be a NumPy array, uint8 [h, w, 3]")
    if not isinstance(out, np.ndarray) or out.dtype != np.float32 or not out.flags.writeable or not out.flags.aligned:
        raise FastcamError("out must be a NumPy array of float32 that can be written")
    if out.ndim != 3 or out.shape[2] != 3 or 0 in out.shape:
        raise _shape_error("out", "[H, W, 3] with H, W >= 1", out)
    _check_shrinks(pixels.shape[:2], out.shape, out.strides)
    height, width = pixels.shape[:2]
    three = [_array(value, name, np.float32, "[3]") for name, value in (("factor", factor), ("shift", shift))]
    for name, value in zip(("factor", "shift"), three, strict=True):
        if value.shape != (3,):
            raise _shape_error(name, "[3]", value)
    together = pixels.strides[1:] == (3, 1) and (height == 1 or pixels.strides[0] >= 3 * width)
    return pixels if together else np.ascontiguousarray(pixels), three[0], three[1]


@functools.lru_cache(maxsize=64)
def _check_shrinks(size: tuple[int, int], shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
    """Raise where a picture of this size cannot be shrunk into floats of this shape, which lie at these strides."""
    if not _own_places(shape, strides):
        raise FastcamError(f"out must have a place for each of its values, got strides {strides}")
    (height, width), (rows, columns) = size, shape[:2]
    if rows > height or columns > width:
        raise FastcamError(f"a picture of {height} x {width} cannot be shrunk to {rows} x {columns}")
    whole = whole_scale(height, rows) and whole_scale(width, columns)
    if whole and height // rows * (width // columns) > 65536:
        raise FastcamError(f"{height} x {width} to {rows} x {columns} makes one of more than 65536 pixels")


def _own_places(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether each axis of an array of float32 steps over those of smaller strides, by whole values."""
    behind = size = np.dtype(np.float32).itemsize
    for stride, extent in sorted((abs(stride), extent) for stride, extent in zip(strides, shape, strict=True)):
        if stride % size or (extent > 1 and stride < behind):
            return False
        behind += (extent - 1) * stride
    return True


def whole_scale(size: int, out: int) -> bool:
    """Whether ``size`` is a multiple of ``out``, by the arithmetic that OpenCV decides with."""
    scale = 1 / (out / size)
    return bool(abs(scale - np.rint(scale)) < np.finfo(np.float64).eps)


def _is_half(value: Any) -> bool:
    array = value.array if isinstance(value, OnDevice) else value
    return isinstance(value, (np.ndarray, OnDevice)) and array.dtype == np.float16


def _array(value: Any, name: str, dtype: type[np.generic], shape: str) -> npt.NDArray[Any]:
    kind = np.dtype(dtype)
    array = value.array if isinstance(value, OnDevice) else value
    if not isinstance(value, (np.ndarray, OnDevice)):
        raise FastcamError(f"{name} must be a NumPy array, {kind} {shape}, got {type(value).__name__}")
    if array.dtype != kind:
        raise FastcamError(f"{name} must be {kind} {shape}, got {array.dtype}; convert with .astype(np.{kind})")
    if isinstance(value, OnDevice):
        on_device: npt.NDArray[Any] = array if array.flags.c_contiguous else array.copy()
        return on_device
    flags = value.flags
    return value if flags.c_contiguous and flags.aligned else np.require(value, requirements=("C", "A"))


def _shape_error(name: str, wanted: str, got: npt.NDArray[Any]) -> FastcamError:
    return FastcamError(f"{name} must be {wanted}, got shape {got.shape}")


def _number(value: Any, name: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise FastcamError(f"{name} must be a number, got {shown(repr(value))}") from None
