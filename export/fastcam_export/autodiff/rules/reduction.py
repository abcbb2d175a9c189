"""Reductions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir

from fastcam_export.autodiff.emitter import Emitter
from fastcam_export.autodiff.registry import Gradients, Node, rule
from fastcam_export.autodiff.shapes import (
    cast_like,
    expand_like,
    keep_axes,
    product,
    reshape_like,
    reshape_to,
    scalar,
    sizes,
)


@rule("ReduceSum")
def reduce_sum(op: Emitter, node: Node, dy: ir.Value) -> Gradients:
    """dx = dy, broadcast back over the reduced axes"""
    return expand_like(op, keep_axes(op, dy, node.x, _axes(op, node)), node.x)


@rule("ReduceMean")
def reduce_mean(op: Emitter, node: Node, dy: ir.Value) -> Gradients:
    """dx = dy / n, broadcast back over the n reduced elements"""
    x, axes = node.x, _axes(op, node)
    return expand_like(op, _divided_by_size(op, keep_axes(op, dy, x, axes), x, axes), x)


@rule("GlobalAveragePool")
def global_average_pool(op: Emitter, node: Node, dy: ir.Value) -> Gradients:
    """dx = dy / (h w), broadcast back over the spatial axes"""
    x = node.x
    return expand_like(op, _divided_by_size(op, dy, x, range(2, op.rank(x))), x)


@rule("ReduceMax", "ReduceMin")
def reduce_extremum(op: Emitter, node: Node, dy: ir.Value) -> Gradients:
    """The gradient is shared evenly between the elements that equal the result, as torch.amax and torch.amin do"""
    x, axes = node.x, _axes(op, node)
    equal = cast_like(op, op.Equal(x, keep_axes(op, node.y, x, axes)), x)
    share = op.Div(equal, op.ReduceSum(equal, axes, keepdims=1)) if axes else equal
    return op.Mul(keep_axes(op, dy, x, axes), share)


@rule("GlobalMaxPool")
def global_max_pool(op: Emitter, node: Node, dy: ir.Value) -> Gradients:
    """The gradient goes to the first maximum in scan order"""
    x = node.x
    n, c, *spatial = sizes(op, x)
    area = product(op, spatial)
    first = op.ArgMax(reshape_to(op, x, [n, c, area]), axis=2, keepdims=1)
    count = scalar(op, area) if isinstance(area, ir.Value) else area
    mask = cast_like(op, op.Equal(op.Range(0, count, 1), first), x)
    return op.Mul(dy, reshape_like(op, mask, x))


def _axes(op: Emitter, node: Node) -> list[int]:
    """The non-negative axes that a Reduce* node reduces."""
    rank = op.rank(node.x)
    axes = node.constant(1, "axes")
    if axes is None or axes.size == 0:
        return [] if node.integer("noop_with_empty_axes", 0) else list(range(rank))
    return sorted(int(axis) % rank for axis in axes)


def _divided_by_size(op: Emitter, dy: ir.Value, x: ir.Value, axes: Sequence[int]) -> ir.Value:
    """``dy`` divided by the number of elements of ``x`` along ``axes``."""
    dims = [op.dims(x)[axis] for axis in axes]
    known = [dim for dim in dims if isinstance(dim, int)]
    if len(known) == len(dims):
        return op.Mul(dy, 1 / math.prod(known))
    count = op.ReduceProd(op.concat([op.shape(x, axis, axis + 1) for axis in axes]), [0], keepdims=0)
    return op.Div(dy, cast_like(op, count, x))
