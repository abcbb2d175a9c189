"""What keeps maps in the layout that ONNX Runtime's convolutions read and write: blocks of channels, on x86 of 16 or 8.

The runtime stores a map so between convolutions, and through the Add, Mul, HardSigmoid and nearest Resize of such maps.
Any other operator has it put back, elements apart, and the next convolution has it blocked again. Each way costs as
much as the operator itself, and along a residual stream one map that is not blocked costs both at every block.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.core.shapes import adopt_dims, cast_like

BLOCK = 16
"""Channels that a convolution computes together where the processor has AVX-512 (8 with AVX2)."""


def fits(op: Builder, x: ir.Value) -> bool:
    """Whether ``x`` is a map [N, C, H, W] that the runtime may keep in blocks, and its gradient."""
    if op.engine != "onnxruntime" or x.dtype != ir.DataType.FLOAT or op.rank(x) != 4:
        return False
    channels = op.dims(x)[1]
    return isinstance(channels, int) and channels > 0 and channels % BLOCK == 0


def scaled(op: Builder, x: ir.Value, factor: float) -> ir.Value:
    """``x`` times a number, in blocks: a convolution of each channel with one tap."""
    return adopt_dims(op, _one_tap(op, x, factor), op.dims(x))


def taken(op: Builder, x: ir.Value, factor: float, stride: int, pads: Sequence[int], size: Sequence[int]) -> ir.Value:
    """Every ``stride``-th element of the padded ``x`` along both axes, ``size`` of them, times a number; in blocks."""
    y = _one_tap(op, x, factor, strides=[stride, stride], pads=list(pads))
    return adopt_dims(op, y, (*op.dims(x)[:2], *size))


def picked(op: Builder, x: ir.Value, axis: int, first: int, step: int, count: int, factor: float = 1.0) -> ir.Value:
    """The elements first + step j of ``x``, j < count, along axis 2 or 3, times a number; zero where ``x`` has none.

    In blocks: a convolution, whose kernel is longer than one tap where elements in front or at the end are left out.
    """
    size = op.dims(x)[axis]
    assert isinstance(size, int)
    if (first, step, count, factor) == (0, 1, size, 1.0):
        return x
    at, begin = max(first, 0), max(-first, 0)
    length = max(at + 1, size + begin - step * count + 1)
    end = max(step * (count - 1) + length - begin - size, 0)
    own, pads, dims = axis - 2, [0, 0, 0, 0], list(op.dims(x))
    pads[own], pads[own + 2], dims[axis] = begin, end, count
    strides = [step if each == own else 1 for each in range(2)]
    return adopt_dims(op, _one_tap(op, x, factor, own, at, length, strides=strides, pads=pads), tuple(dims))


def _one_tap(
    op: Builder, x: ir.Value, factor: float, axis: int = 0, at: int = 0, length: int = 1, **window: list[int]
) -> ir.Value:
    """A convolution of each channel, whose kernel is ``length`` long along one axis and zero but for one tap."""
    channels = op.dims(x)[1]
    taps = factor * np.eye(1, length, at).reshape(1, 1, *((length, 1) if axis == 0 else (1, length)))
    w = op.Expand(cast_like(op, taps, x), [channels, 1, 1, 1])
    return op.Conv(x, w, kernel_shape=list(taps.shape[2:]), group=channels, **window)


def entered(op: Builder, x: ir.Value) -> ir.Value:
    """``x`` as it is, in blocks from here on.

    Not with several targets: their gradients meet the model's maps with one axis more, which no block has.
    """
    return scaled(op, x, 1.0) if op.copies is None and fits(op, x) else x


def enlarged(op: Builder, x: ir.Value, factors: Sequence[int]) -> ir.Value:
    """[N, C, H, W] with every element repeated along the last two axes."""
    how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    y = op.Resize(x, None, op.constant(np.array([1, 1, *factors], np.float32)), **how)
    sizes = [size * factor if isinstance(size, int) else None for size, factor in zip(op.dims(x)[2:], factors)]
    return adopt_dims(op, y, (*op.dims(x)[:2], *sizes))
