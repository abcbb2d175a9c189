"""Quantisation, straight through (Bengio, Leonard, Courville 2013), clipped: rounding counts as the identity.

The gradient of an integer is meant per unit of the real number that it stands for, so that QuantizeLinear and
DequantizeLinear of one scale need no arithmetic.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fastcam_export.autodiff.core import straight_through
from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.core.codes import masked, passes
from fastcam_export.autodiff.core.errors import UnsupportedOperator
from fastcam_export.autodiff.core.rule import Gradients, Node, rule
from fastcam_export.autodiff.core.shapes import along, cast_like, one_hot, reshape_like, scalar
from fastcam_export.graph.constants import Array


@rule("QuantizeLinear")
def quantize_linear(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """y = saturate(round(x / scale) + zero): where y was not saturated dx = dy, and dscale = -sum(x / scale dy).

    For dx, x is not read, see :mod:`fastcam_export.autodiff.core.straight_through`, so a y at an end of its range
    counts as saturated, unless the graph shows that x stays within. (Where quantisers left out a Relu, because the
    range begins at zero, y at the lower end is Relu'(0) = 0.) Together with that of DequantizeLinear, dscale is the
    gradient of a learned step size (Esser et al. 2020).
    """
    mask = inside(op, node)
    dx = cast_like(op, dy, node.x)
    dx = masked(op, mask, dx)

    def step() -> ir.Value:
        x, scale = node.inputs[:2]
        share = op.Div(x, cast_like(op, _beside(op, node, scale), x))
        return op.Neg(cast_like(op, _total(op, node, op.Mul(dx, share), scale), scale))

    return {0: dx, 1: step}


@rule("DequantizeLinear")
def dequantize_linear(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """y = (x - zero) scale: the gradient of the number that x stands for is dy; dscale = sum (x - zero) dy"""
    return {0: lambda: decoded(op, node, dy), 1: lambda: _scale_gradient(op, node, dy)}


def inside(op: Builder, node: Node) -> ir.Value | None:
    """Where a QuantizeLinear was not saturated, bool in the shape of its output; None where that cannot happen.

    Raises:
        UnsupportedOperator: it quantises to something that is not an integer.
    """
    found = straight_through.limits(node.node)
    if found is None:
        raise UnsupportedOperator(f"it quantises to {node.y.dtype}, which is no integer")
    below, above = (_limit(op, node, end) for end in found)
    return passes(op, node.y, below, above)


def decoded(op: Builder, node: Node, dy: ir.Value) -> ir.Value:
    """The gradient of the number that the input of a DequantizeLinear stands for.

    Raises:
        UnsupportedOperator: the integers come from elsewhere, or were quantised with another scale per channel.
    """
    known = straight_through.coding(node.x)
    if known is None:
        made = node.x.producer()
        by = f" {made.op_type}" if made is not None else ""
        raise UnsupportedOperator(f"the operator{by} before it computes with quantised integers")
    direct = node.x.producer() is known.node
    scale = node.inputs[1]
    single = all(dim == 1 for each in (scale, known.scale) if each is not None for dim in op.dims(each))
    if _same(node, known) and (direct or single):
        return dy
    if not (direct or single):
        raise UnsupportedOperator("its scale differs, channel by channel, from that of the QuantizeLinear before it")
    ratio = _beside(op, node, scale)
    if known.scale is not None:
        ratio = op.Div(ratio, _beside(op, Node(known.node, (None,)), known.scale))
    return op.Mul(dy, cast_like(op, ratio, dy))


def _same(node: Node, known: straight_through.Coding) -> bool:
    """Whether a DequantizeLinear has the scale and zero point of what it reads."""
    if known.node.op_type == straight_through.QUANTIZE:
        return straight_through.same_scale(known.node, node.node)
    return known.scale is not None and known.same(node.inputs[1], node.input(2))


def _scale_gradient(op: Builder, node: Node, dy: ir.Value) -> ir.Value:
    scale, zero = node.inputs[1], node.input(2)
    x = cast_like(op, node.x, dy)
    if zero is not None:
        x = op.Sub(x, _beside(op, node, cast_like(op, zero, dy)))
    return cast_like(op, _total(op, node, op.Mul(dy, x), scale), scale)


def _beside(op: Builder, node: Node, parameter: ir.Value) -> ir.Value:
    """A scale or zero point (one number, one to a channel, or one to a block) in a form that broadcasts with x."""
    if node.integer("block_size", 0):
        return op.Gather(parameter, _blocks(op, node), axis=_axis(op, node))
    if all(dim == 1 for dim in op.dims(parameter)):
        return op.Reshape(parameter, np.zeros(0, np.int64)) if op.rank(parameter) else parameter
    return op.Reshape(parameter, _column(op, node))


def _total(op: Builder, node: Node, gradient: ir.Value, scale: ir.Value) -> ir.Value:
    """``gradient``, in the shape of x, summed over all elements that one element of ``scale`` is for."""
    axis = _axis(op, node)
    if node.integer("block_size", 0):
        number = op.shape(scale, axis, axis + 1)
        return along(op, gradient, one_hot(op, _blocks(op, node), number, gradient), axis)
    kept = axis if op.rank(scale) == 1 and op.dims(scale)[0] != 1 else None
    axes = [each for each in range(op.rank(gradient)) if each != kept]
    return reshape_like(op, op.ReduceSum(gradient, axes, keepdims=0), scale)


def _blocks(op: Builder, node: Node) -> ir.Value:
    """int64 [size]: the block that each element along the axis belongs to."""
    size = op.shape(node.x, _axis(op, node), _axis(op, node) + 1)
    return op.Div(op.Range(0, scalar(op, size), 1), node.integer("block_size"))


def _axis(op: Builder, node: Node) -> int:
    """The axis of scales that differ; 0 where x has none."""
    return node.integer("axis", 1) % max(op.rank(node.x), 1)


def _column(op: Builder, node: Node) -> list[int]:
    """The shape that a vector over the channels has beside x."""
    return [-1] + [1] * (op.rank(node.x) - 1 - _axis(op, node))


def _limit(op: Builder, node: Node, end: Array | None) -> ir.Value | Array | None:
    """A limit of codes, flat where there are several, in a form that broadcasts with y."""
    if end is None or end.ndim == 0:
        return end
    if not node.integer("block_size", 0):
        return end.reshape(_column(op, node))
    shape = [int(dim) for dim in op.dims(node.inputs[1]) if isinstance(dim, int)]
    return _beside(op, node, op.constant(end.reshape(shape).astype(np.float32)))
