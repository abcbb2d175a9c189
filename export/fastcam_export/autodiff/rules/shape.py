"""Operators that move, repeat or select elements: their gradient moves, sums or places the elements back."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx_ir as ir

from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.core.rule import ZERO, Gradients, Node, rule
from fastcam_export.autodiff.core.shapes import (
    Size,
    adopt_dims,
    along,
    crop,
    one_hot,
    product,
    reshape_like,
    reshape_to,
    scalar,
    sizes,
    sum_to,
)
from fastcam_export.autodiff.rules.strided_slice import in_order
from fastcam_export.graph.constants import Array, constant_array

INT64 = int(ir.DataType.INT64)


@rule("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """The elements keep their order: dx is dy in the shape of x"""
    return reshape_like(op, dy, node.x)


@rule("Expand")
def expand(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx = dy summed over the axes along which x was repeated"""
    return sum_to(op, dy, node.x)


@rule("Transpose")
def transpose(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx = dy with the inverse permutation"""
    perm = node.integers("perm") or list(range(op.rank(dy)))[::-1]
    return op.Transpose(dy, perm=[int(i) for i in np.argsort(perm)])


@rule("Concat")
def concat(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """Each input gets its slice of dy"""
    axis = node.integer("axis") % op.rank(dy)
    bounds = [op.constant(np.zeros(1, np.int64))]
    for value in node.inputs:
        bounds.append(op.Add(bounds[-1], op.shape(value, axis, axis + 1)))
    return {index: partial(op.Slice, dy, *bounds[index : index + 2], [axis]) for index in range(len(node.inputs))}


@rule("Split", several=True)
def split(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx is the concatenation of the outputs' gradients; where some lead nowhere, the others among zeros"""
    x = node.x
    axis = node.integer("axis", 0) % op.rank(x)
    parts = [part for part in node.dys if part is not None]
    if len(parts) == len(node.outputs):
        return op.Concat(*parts, axis=axis)
    total, begin, terms = op.shape(x, axis, axis + 1), op.constant(np.zeros(1, np.int64)), []
    for part, y in zip(node.dys, node.outputs):
        stop = op.Add(begin, op.shape(y, axis, axis + 1))
        if part is not None:
            terms.append(crop(op, part, [axis], begin, op.Sub(total, stop), op.dims(x)))
        begin = stop
    return terms[0] if len(terms) == 1 else op.Sum(*terms)


@rule("Slice")
def slice_(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx places dy back among zeros: reversed where the step is negative, spread where it is not one"""
    x, y, starts = node.x, node.y, node.inputs[1]
    dx, at = dy, sizes(op, y)
    for index, (axis, step) in enumerate(_slice_axes(op, node)):
        size, count = op.shape(x, axis, axis + 1), op.shape(y, axis, axis + 1)
        start = op.Cast(op.Slice(starts, [index], [index + 1]), to=INT64)
        first = op.Where(op.Less(start, 0), op.Add(start, size), start)
        first = op.Min(op.Max(first, [0]), size)
        if step < 0:
            first = op.Add(op.Min(first, op.Sub(size, 1)), op.Mul(op.Sub(count, 1), step))  # the lowest index taken
            dx = op.Slice(dx, [-1], [-(1 << 62)], [axis], [-1])
        if abs(step) > 1:
            dx = _dilate(op, dx, axis, abs(step), at)
            count = op.Add(op.Mul(op.Sub(count, 1), abs(step)), 1)
        at[axis] = sizes(op, x)[axis]
        dims = tuple(d for s in at for d in ((s,) if isinstance(s, int) else op.contents(s)))
        dx = crop(op, dx, [axis], first, op.Sub(size, op.Add(first, count)), dims)
    return dx


def _slice_axes(op: Builder, node: Node) -> list[tuple[int, int]]:
    """(axis, step) of a Slice. Its bounds may be computed at run time, these not."""
    axes, steps = node.constant(3, "axes"), node.constant(4, "steps")
    number = len(op.contents(node.inputs[1]))
    along_axes = range(number) if axes is None else [int(axis) % op.rank(node.x) for axis in axes]
    return list(zip(along_axes, [1] * number if steps is None else [int(step) for step in steps]))


def _dilate(op: Builder, x: ir.Value, axis: int, step: int, at: list[Size]) -> ir.Value:
    """``x`` of shape ``at`` with step - 1 zeros between its elements along ``axis``: [a, b] -> [a, 0, b] for step 2."""
    among = op.Pad(op.Unsqueeze(x, [axis + 1]), [0, step - 1], 0.0, [axis + 1], mode="constant")
    target = [product(op, [size, step]) if index == axis else size for index, size in enumerate(at)]
    return op.Slice(reshape_to(op, among, target), [0], [-(step - 1)], [axis])


@rule("Pad")
def pad_(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """Constant: dx is dy without the padding, and with zeros where a negative pad had cropped x; dvalue is the sum of
    dy over the padding. Other modes repeat elements of x: along each axis a product with the one-hot matrix of the
    indices that were taken."""
    rank, given = op.rank(node.x), node.constant(3, "axes")
    axes = [int(axis) % rank for axis in (range(rank) if given is None else given)]
    pads = op.Cast(node.inputs[1], to=INT64)
    if node.string("mode", "constant") != "constant":
        return {0: _unrepeated(op, node, dy, axes, pads), 2: ZERO}
    return {
        0: lambda: op.Pad(dy, op.Neg(pads), 0.0, axes, mode="constant"),
        2: lambda: sum_to(op, _outside(op, node, dy, axes, pads), node.inputs[2]),
    }


def _outside(op: Builder, node: Node, dy: ir.Value, axes: list[int], pads: ir.Value) -> ir.Value:
    """``dy`` in the padding, zero where y is an element of x."""
    inside = op.constant(np.array(True))
    for index, axis in enumerate(axes):
        begin, end = (op.Slice(pads, [i], [i + 1]) for i in (index, index + len(axes)))
        size = op.shape(node.y, axis, axis + 1)
        place = op.Range(0, scalar(op, size), 1)
        within = op.And(op.GreaterOrEqual(place, begin), op.Less(place, op.Sub(size, end)))
        inside = op.And(inside, op.Reshape(within, [-1] + [1] * (op.rank(dy) - 1 - axis)))
    return adopt_dims(op, op.Where(inside, 0.0, dy), op.dims(dy))


def _unrepeated(op: Builder, node: Node, dy: ir.Value, axes: list[int], pads: ir.Value) -> ir.Value:
    """The gradient of what a Pad repeats."""
    x, mode, dx = node.x, node.string("mode", "constant"), dy
    for index, axis in enumerate(axes):
        both = [op.Slice(pads, [i], [i + 1]) for i in (index, index + len(axes))]
        if all(constant_array(pad) == 0 for pad in both):
            continue
        size = op.shape(x, axis, axis + 1)
        begin, end = (scalar(op, op.Max(op.Neg(pad), 0)) for pad in both)  # cut off before anything is repeated
        left = op.Range(begin, op.Sub(scalar(op, size), end), 1)
        taken = op.Pad(left, op.Max(op.concat(both), 0), mode=mode)
        dx = along(op, dx, one_hot(op, taken, size, x), axis)
    return dx


@rule("Gather")
def gather(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx sums each slice of dy into the place that its index names: a product with the indices' one-hot matrix"""
    x, indices = node.inputs
    axis = node.integer("axis", 0) % op.rank(x)
    if in_order(node.node):
        return reshape_like(op, dy, x)
    run, size = _run(op, node, axis), op.dims(x)[axis]
    if run is not None and isinstance(size, int):
        kept = reshape_to(op, dy, [len(run) if a == axis else d for a, d in enumerate(sizes(op, x))])
        return crop(op, kept, [axis], op.constant(run[:1]), op.constant(size - 1 - run[-1:]), op.dims(x))
    flat = op.Reshape(op.Cast(indices, to=INT64), [-1])
    if op.rank(indices) != 1:  # its axes as one
        shape = sizes(op, x)
        dy = reshape_to(op, dy, [*shape[:axis], product(op, sizes(op, indices)), *shape[axis + 1 :]])
    return along(op, dy, one_hot(op, flat, op.shape(x, axis, axis + 1), x), axis)


def _run(op: Builder, node: Node, axis: int) -> Array | None:
    """Indices known to name neighbours in their order; None if they do not, or are not known."""
    known, size = constant_array(node.inputs[1]), op.dims(node.x)[axis]
    if known is None or known.size == 0 or not isinstance(size, int):
        return None
    flat = np.where(known < 0, known + size, known).reshape(-1).astype(np.int64)
    return flat if np.array_equal(flat, np.arange(flat[0], flat[0] + flat.size)) else None


@rule("DepthToSpace")
def depth_to_space(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx takes each block of dy back into the channels"""
    n, c, h, w = sizes(op, node.x)
    b = node.integer("blocksize")
    channels = c // b**2 if isinstance(c, int) else op.Div(c, b**2)
    blocks = reshape_to(op, dy, [n, channels, h, b, w, b])
    dcr = node.string("mode", "DCR") == "DCR"
    return reshape_like(op, op.Transpose(blocks, perm=[0, 3, 5, 1, 2, 4] if dcr else [0, 1, 3, 5, 2, 4]), node.x)


@rule("SpaceToDepth")
def space_to_depth(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx takes the channels of dy back into blocks"""
    (n, c, _, _), (_, _, h, w) = sizes(op, node.x), sizes(op, node.y)
    b = node.integer("blocksize")
    dcr = node.string("mode", "DCR") == "DCR"
    blocks = reshape_to(op, dy, [n, b, b, c, h, w] if dcr else [n, c, b, b, h, w])
    return reshape_like(op, op.Transpose(blocks, perm=[0, 3, 4, 1, 5, 2] if dcr else [0, 1, 4, 2, 5, 3]), node.x)


@rule("Tile")
def tile(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx sums the copies, which lie along an axis of their own in front of each axis of x"""
    x, repeats = node.x, node.inputs[1]
    view: list[Size] = []
    for axis, (number, size) in enumerate(zip(op.contents(repeats), sizes(op, x))):
        view += [number if isinstance(number, int) else op.Slice(repeats, [axis], [axis + 1]), size]
    axes = [axis for axis, number in enumerate(view) if axis % 2 == 0 and number != 1]
    return reshape_like(op, op.ReduceSum(reshape_to(op, dy, view), axes, keepdims=0) if axes else dy, x)


@rule("Trilu")
def trilu(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx is dy where x was kept"""
    return op.Trilu(dy, node.input(1), upper=node.integer("upper", 1))


@rule("CumSum")
def cum_sum(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx is the cumulative sum of dy from the other end"""
    axis = node.constant(1, "axis")
    assert axis is not None
    reverse, exclusive = 1 - node.integer("reverse", 0), node.integer("exclusive", 0)
    return op.CumSum(dy, np.array(int(axis.item()) % op.rank(dy)), reverse=reverse, exclusive=exclusive)
