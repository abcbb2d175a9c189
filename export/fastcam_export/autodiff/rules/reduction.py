"""Reductions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir

from fastcam_export.autodiff.core.blocked import enlarged, entered, fits
from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.core.rule import Gradients, Node, rule
from fastcam_export.autodiff.core.shapes import (
    adopt_dims,
    cast_like,
    expand_like,
    keep_axes,
    product,
    reshape_like,
    reshape_to,
    scalar,
    sizes,
    wide,
)
from fastcam_export.graph.query import is_added


@rule("ReduceSum")
def reduce_sum(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx = dy, broadcast back over the reduced axes"""
    return expand_like(op, keep_axes(op, dy, node.x, _axes(op, node)), node.x)


@rule("ReduceMean")
def reduce_mean(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx = dy / n, broadcast back over the n reduced elements"""
    x, axes = node.x, _axes(op, node)
    return _spread(op, divided_by_size(op, keep_axes(op, dy, x, axes), x, axes), x, axes)


@rule("GlobalAveragePool")
def global_average_pool(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx = dy / (h w), broadcast back over the spatial axes"""
    x, axes = node.x, range(2, op.rank(node.x))
    return _spread(op, divided_by_size(op, dy, x, axes), x, axes)


def _spread(op: Builder, mean: ir.Value, x: ir.Value, axes: Sequence[int]) -> ir.Value:
    """``mean`` broadcast over ``axes`` to the shape of ``x``; over positions of maps that nothing else reads in blocks,
    as the gradients before it will be."""
    sizes = [size for size in op.dims(x)[2:] if isinstance(size, int)]
    readers = [node for node, _ in x.uses() if not is_added(node)]
    if list(axes) == [2, 3] and len(sizes) == 2 and fits(op, x) and op.copies is None and len(readers) == 1:
        return adopt_dims(op, enlarged(op, entered(op, mean), sizes), op.dims(x))
    return expand_like(op, mean, x)


@rule("ReduceMax", "ReduceMin")
def reduce_extremum(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """The gradient is shared evenly between the elements that equal the result, as torch.amax and torch.amin do"""
    x, axes = wide(op, node.x), _axes(op, node)
    if not axes:
        return dy
    if x is not node.x:  # runtimes leave roundings to half out here and there, and y would not be found in x
        y = op.emit(node.node.op_type, x, axes, keepdims=1)
    else:
        y = keep_axes(op, node.y, x, axes)
    equal = cast_like(op, op.Equal(x, y), x)
    share = op.Div(equal, op.ReduceSum(equal, axes, keepdims=1))
    return op.Mul(keep_axes(op, dy, node.x, axes), cast_like(op, share, dy))


@rule("ReduceL1")
def reduce_l1(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx = sign(x) dy"""
    return op.Mul(keep_axes(op, dy, node.x, _axes(op, node)), op.Sign(node.x))


@rule("ReduceL2")
def reduce_l2(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx = x / y dy, zero where y is, as torch.linalg.vector_norm"""
    x, axes = node.x, _axes(op, node)
    y = keep_axes(op, node.y, x, axes)
    return op.Mul(keep_axes(op, dy, x, axes), op.Div(x, op.Where(op.Equal(y, 0.0), 1.0, y)))


@rule("ReduceSumSquare")
def reduce_sum_square(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx = 2 x dy"""
    return op.Mul(keep_axes(op, dy, node.x, _axes(op, node)), op.Mul(node.x, 2.0))


@rule("ReduceLogSum")
def reduce_log_sum(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """y = log(sum(x)): dx = dy / exp(y), broadcast back"""
    x, axes = node.x, _axes(op, node)
    return expand_like(op, keep_axes(op, op.Mul(dy, op.Exp(op.Neg(node.y))), x, axes), x)


@rule("ReduceLogSumExp")
def reduce_log_sum_exp(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx = exp(x - y) dy"""
    x, axes = node.x, _axes(op, node)
    return op.Mul(keep_axes(op, dy, x, axes), op.Exp(op.Sub(x, keep_axes(op, node.y, x, axes))))


@rule("ReduceProd")
def reduce_prod(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx is dy times the product of the other elements: that of all that are not zero, without x itself; zero where
    one of the others is zero"""
    x, axes = node.x, _axes(op, node)
    if not axes:
        return dy
    empty = op.Equal(x, 0.0)
    factors = op.Where(empty, 1.0, x)
    zero = cast_like(op, empty, x)
    elsewhere = op.Sub(op.ReduceSum(zero, axes, keepdims=1), zero)  # zeros among the others
    others = op.Div(op.ReduceProd(factors, axes, keepdims=1), factors)
    return op.Mul(keep_axes(op, dy, x, axes), op.Where(op.Equal(elsewhere, 0.0), others, 0.0))


@rule("GlobalLpPool")
def global_lp_pool(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """y = (sum |x|^p)^(1/p): dx = sign(x) |x|^(p-1) y^(1-p) dy, zero where y is"""
    p = node.integer("p", 2)
    return op.Mul(op.Mul(dy, lp_outer(op, node.y, p)), lp_inner(op, node.x, p))


def lp_inner(op: Builder, x: ir.Value, p: int) -> ir.Value:
    """sign(x) |x|^(p-1)"""
    if p <= 2:
        return op.Sign(x) if p == 1 else x
    return op.Mul(op.Sign(x), op.Pow(op.Abs(x), float(p - 1)))


def lp_outer(op: Builder, y: ir.Value, p: int) -> ir.Value:
    """y^(1-p), and zero where y is zero"""
    safe = op.Where(op.Equal(y, 0.0), 1.0, y)  # all of x is zero there, and so is the other factor, but for p = 1
    return op.Where(op.Equal(y, 0.0), 0.0, op.Pow(safe, float(1 - p)))


@rule("GlobalMaxPool")
def global_max_pool(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """The gradient goes to the first maximum in scan order"""
    x = node.x
    n, c, *spatial = sizes(op, x)
    area = product(op, spatial)
    first = op.ArgMax(reshape_to(op, x, [n, c, area]), axis=2, keepdims=1)
    count = scalar(op, area) if isinstance(area, ir.Value) else area
    mask = cast_like(op, op.Equal(op.Range(0, count, 1), first), x)
    return op.Mul(dy, reshape_like(op, mask, x))


def _axes(op: Builder, node: Node) -> list[int]:
    """The non-negative axes that a Reduce* node reduces."""
    rank = op.rank(node.x)
    axes = node.constant(1, "axes")
    if axes is None or axes.size == 0:
        return [] if node.integer("noop_with_empty_axes", 0) else list(range(rank))
    return sorted(int(axis) % rank for axis in axes)


def divided_by_size(op: Builder, dy: ir.Value, x: ir.Value, axes: Sequence[int]) -> ir.Value:
    """``dy`` divided by the number of elements of ``x`` along ``axes``."""
    dims = [op.dims(x)[axis] for axis in axes]
    known = [dim for dim in dims if isinstance(dim, int)]
    if len(known) == len(dims):
        return op.Mul(dy, 1 / math.prod(known))
    count = op.ReduceProd(op.concat([op.shape(x, axis, axis + 1) for axis in axes]), [0], keepdims=0)
    broad = wide(op, dy)  # a float16 counts to 65504
    return cast_like(op, op.Div(broad, cast_like(op, count, broad)), dy)
