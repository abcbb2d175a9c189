"""Quantisation, straight through (Bengio, Leonard, Courville 2013), clipped: rounding counts as the identity.

The gradient of an integer is meant per unit of the real number that it stands for, so that QuantizeLinear and
DequantizeLinear of one scale need no arithmetic.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fastcam_export.autodiff import quantized
from fastcam_export.autodiff.emitter import Emitter
from fastcam_export.autodiff.registry import Gradients, Node, UnsupportedOperator, rule
from fastcam_export.autodiff.shapes import cast_like, reshape_like


@rule("QuantizeLinear")
def quantize_linear(op: Emitter, node: Node, dy: ir.Value) -> Gradients:
    """y = saturate(round(x / scale) + zero): dx = dy where y was not saturated.

    x is not read, see :mod:`fastcam_export.autodiff.quantized`, so a y at an end of its range counts as saturated,
    unless the graph shows that x stays within. (Where quantisers left out a Relu, because the range begins at zero, y
    at the lower end is Relu'(0) = 0.)
    """
    mask = inside(op, node)
    dy = cast_like(op, dy, node.x)
    return {0: dy if mask is None else masked(op, mask, dy)}


@rule("DequantizeLinear")
def dequantize_linear(op: Emitter, node: Node, dy: ir.Value) -> Gradients:
    """y = (x - zero) scale: the gradient of the number that x stands for is dy; dscale = sum (x - zero) dy"""
    return {0: lambda: decoded(op, node, dy), 1: lambda: _scale_gradient(op, node, dy)}


def inside(op: Emitter, node: Node) -> ir.Value | None:
    """Where a QuantizeLinear was not saturated, bool in the shape of its output; None where that cannot happen.

    Raises:
        UnsupportedOperator: it quantises to something that is not an integer, or in blocks.
    """
    found = quantized.limits(node.node)
    if found is None:
        raise UnsupportedOperator(f"it quantises to {node.y.dtype}, which is no integer")
    if node.integer("block_size", 0):
        raise UnsupportedOperator("it quantises in blocks")
    code = op.Cast(node.y, to=int(ir.DataType.FLOAT))
    below, above = (_along_axis(op, node, end) for end in found)
    parts = [] if below is None else [op.Greater(code, below)]
    parts += [] if above is None else [op.Less(code, above)]
    return op.And(*parts) if len(parts) == 2 else parts[0] if parts else None


def masked(op: Emitter, mask: ir.Value, dy: ir.Value) -> ir.Value:
    """``dy`` where ``mask``, else zero."""
    return op.Where(mask, dy, op.constant(np.zeros((), (dy.dtype or ir.DataType.FLOAT).numpy())))


def decoded(op: Emitter, node: Node, dy: ir.Value) -> ir.Value:
    """The gradient of the number that the input of a DequantizeLinear stands for.

    Raises:
        UnsupportedOperator: the integers come from elsewhere, or were quantised with another scale per channel.
    """
    quantize = quantized.origin(node.x)
    if quantize is None:
        made = node.x.producer()
        by = f" {made.op_type}" if made is not None else ""
        raise UnsupportedOperator(f"the operator{by} before it computes with quantised integers")
    direct = node.x.producer() is quantize
    scale, coarse = node.inputs[1], quantize.inputs[1]
    sizes = [1 if op.rank(s) == 0 else op.dims(s)[0] for s in (scale, coarse) if s is not None]
    if quantized.same_scale(quantize, node.node) and (direct or sizes == [1, 1]):
        return dy
    if coarse is None or sizes != [1, 1]:
        raise UnsupportedOperator("its scale differs, channel by channel, from that of the QuantizeLinear before it")
    return op.Mul(dy, op.Reshape(op.Div(scale, coarse), np.zeros(0, np.int64)))


def _scale_gradient(op: Emitter, node: Node, dy: ir.Value) -> ir.Value:
    scale, zero = node.inputs[1], node.input(2)
    if node.integer("block_size", 0):
        raise UnsupportedOperator("it dequantises in blocks")
    x = cast_like(op, node.x, scale)
    if zero is not None:
        zero = cast_like(op, zero, scale)
        x = op.Sub(x, op.Reshape(zero, _per_channel(op, node)) if op.rank(zero) else zero)
    axis = node.integer("axis", 1) % op.rank(dy) if _channels(op, scale) else None
    axes = [each for each in range(op.rank(dy)) if each != axis]
    return reshape_like(op, op.ReduceSum(op.Mul(dy, x), axes, keepdims=0), scale)


def _channels(op: Emitter, scale: ir.Value) -> bool:
    """Whether there is a scale for each channel."""
    return op.rank(scale) == 1 and op.dims(scale)[0] != 1


def _per_channel(op: Emitter, node: Node) -> list[int]:
    """The shape that a vector over the channels has beside x."""
    rank, axis = op.rank(node.x), node.integer("axis", 1)
    return [-1] + [1] * (rank - 1 - axis % rank) if _channels(op, node.inputs[1]) else [1] * rank


def _along_axis(
    op: Emitter, node: Node, end: np.ndarray[tuple[int, ...], np.dtype[np.float64]] | None
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]] | None:
    return end if end is None or end.ndim == 0 else end.reshape(_per_channel(op, node))
