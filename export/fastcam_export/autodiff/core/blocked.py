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


def _one_tap(op: Builder, x: ir.Value, factor: float, **window: list[int]) -> ir.Value:
    channels = op.dims(x)[1]
    w = op.Expand(cast_like(op, np.full((1, 1, 1, 1), factor), x), [channels, 1, 1, 1])
    return op.Conv(x, w, kernel_shape=[1, 1], group=channels, **window)


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
