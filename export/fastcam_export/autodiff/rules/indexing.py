"""Operators that pick or reorder elements by index, mask or rank."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.core.rule import ZERO, Gradients, Node, rule
from fastcam_export.autodiff.core.shapes import (
    cast_like,
    crop,
    product,
    reshape_like,
    reshape_to,
    scalar,
    sizes,
    spread,
)
from fastcam_export.autodiff.rules.scatter import index_depth, linear_index, scatter_add

INT64 = int(ir.DataType.INT64)


@rule("GatherElements")
def gather_elements(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx sums each element of dy into the place that its index names"""
    x, index = node.inputs
    return {0: scatter_add(op, sizes(op, x), index, dy, node.integer("axis", 0) % op.rank(x))}


@rule("GatherND")
def gather_nd(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx sums each slice of dy into the place that its index tuple names: of [batch, places, slice], along places"""
    x, indices = node.inputs
    batches, depth = node.integer("batch_dims", 0), index_depth(op, indices)
    shape, rest = sizes(op, x), sizes(op, indices)[batches:-1]
    named = shape[batches : batches + depth]
    batch, number = product(op, shape[:batches]), product(op, rest)
    width = product(op, shape[batches + depth :])
    flat = reshape_to(op, linear_index(op, indices, named), [batch, number, 1])
    slices = reshape_to(op, dy, [batch, number, width])
    index = spread(op, flat, [batch, number, width])
    return {0: reshape_like(op, scatter_add(op, [batch, product(op, named), width], index, slices, 1), x)}


@rule("TopK")
def top_k(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx places each value's gradient where the value was found"""
    x = node.x
    axis = node.integer("axis", -1) % op.rank(x)
    return {0: scatter_add(op, sizes(op, x), node.outputs[1], dy, axis)}


@rule("Unique")
def unique(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx places the gradient of each value, or slice, where it is first found"""
    x, axis = node.x, node.node.attributes.get_int("axis", None)
    given = {"axis": axis, "sorted": node.integer("sorted", 1)}
    _, first = op.emit_all("Unique", x, outputs=2, **given)
    if axis is None:
        return reshape_like(op, scatter_add(op, [product(op, sizes(op, x))], first, dy, 0), x)
    axis %= op.rank(x)
    ones = [1] * op.rank(x)
    ones[axis] = -1
    index = op.Expand(op.Reshape(first, np.array(ones)), op.shape(node.y))
    return scatter_add(op, sizes(op, x), index, dy, axis)


@rule("Compress")
def compress(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx takes, where an element was kept, as many elements of dy as were kept before it, and zero elsewhere: a Gather
    from dy with a zero in front"""
    x, condition = node.inputs
    given = node.node.attributes.get_int("axis", None)
    axis = 0 if given is None else given % op.rank(x)
    size = product(op, sizes(op, x)) if given is None else sizes(op, x)[axis]
    kept = op.Cast(condition, to=INT64)
    missing = op.Sub(size, op.shape(condition)) if isinstance(size, ir.Value) else op.Sub([size], op.shape(condition))
    kept = op.Pad(kept, op.concat([[0], missing]), 0)  # it may be shorter than the axis
    source = op.Mul(op.CumSum(kept, np.array(0)), kept)
    dx = op.Gather(crop(op, dy, [axis], op.constant(np.array([1])), op.constant(np.array([0]))), source, axis=axis)
    return {0: reshape_like(op, dx, x)}


@rule("ReverseSequence")
def reverse_sequence(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx is dy reversed in the same way, which undoes it"""
    lengths, batch_first = node.inputs[1], node.integer("batch_axis", 1) == 0
    swap = [1, 0, *range(2, op.rank(dy))]
    rows = dy if batch_first else op.Transpose(dy, perm=swap)
    back = op.ReverseSequence(rows, lengths, batch_axis=0, time_axis=1)
    return {0: back if batch_first else op.Transpose(back, perm=swap)}


@rule("CenterCropPad")
def center_crop_pad(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx is dy cropped where x was padded and padded where x was cropped; of an odd difference the end has one more"""
    x, rank = node.x, op.rank(node.x)
    axes = [axis % rank for axis in node.integers("axes") or range(rank)]
    size, target = (op.concat([op.shape(v, axis, axis + 1) for axis in axes]) for v in (x, node.y))
    begin = op.Div(op.Sub(size, target), 2)  # rounds towards zero
    return {0: crop(op, dy, axes, begin, op.Sub(op.Sub(size, target), begin), op.dims(x))}


@rule("OneHot", ignores=[0, 1])
def one_hot_(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """y = values[1] where the index says so, values[0] elsewhere: each gets the sum of dy over its places"""
    indices, depth, values = node.inputs
    numbers = op.constant(np.array([0, 1], (values.dtype or ir.DataType.FLOAT).numpy()))
    on = op.OneHot(indices, scalar(op, depth), numbers, axis=node.integer("axis", -1))
    parts = (op.Mul(dy, op.Sub(1.0, on)), op.Mul(dy, on))
    sums = [op.Reshape(op.ReduceSum(part, list(range(op.rank(dy))), keepdims=0), [1]) for part in parts]
    return {0: ZERO, 1: ZERO, 2: op.Concat(*sums, axis=0)}


@rule("CumProd")
def cum_prod(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx_i = sum_k dy_k y_k / x_i over the k whose product holds x_i, and, where x_i is the first zero of its line, the
    same with one in its place: every later product is zero"""
    x, at = node.x, node.constant(1, "axis")
    assert at is not None
    axis = np.array(int(at.item()) % op.rank(x))
    given = {"reverse": node.integer("reverse", 0), "exclusive": node.integer("exclusive", 0)}
    back = {**given, "reverse": 1 - given["reverse"]}
    empty = op.Equal(x, 0.0)
    zeros = cast_like(op, empty, x)
    first = op.And(empty, op.Equal(op.CumSum(zeros, axis, reverse=given["reverse"]), 1.0))
    others = op.CumProd(op.Where(first, 1.0, x), axis, **given)
    behind = op.CumSum(op.Mul(dy, node.y), axis, **back)
    through = op.CumSum(op.Mul(dy, others), axis, **back)
    return {0: op.Where(first, through, op.Div(behind, op.Where(empty, 1.0, x)))}


@rule("Range")
def range_(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """y_i = start + i delta: dstart = sum dy, ddelta = sum i dy_i"""
    delta = node.inputs[2]
    steps = cast_like(op, op.Range(0, scalar(op, op.shape(node.y)), 1), delta)
    return {
        0: lambda: op.ReduceSum(dy, [0], keepdims=0),
        1: ZERO,
        2: lambda: op.ReduceSum(op.Mul(dy, steps), [0], keepdims=0),
    }


@rule("Hardmax", "Bernoulli")
def constant_almost_everywhere(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """The derivative is zero wherever there is one; of a random choice, as in PyTorch, it is taken as zero."""
    return {0: ZERO}


@rule("EyeLike", "RandomNormalLike", "RandomUniformLike", ignores=[0])
def only_the_shape(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """Only the shape of x matters."""
    return {0: ZERO}
