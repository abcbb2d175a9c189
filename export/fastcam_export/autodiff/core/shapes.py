"""Shape vocabulary of rules and driver: reshape, broadcast and sum a gradient to the value that it belongs to."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from fastcam_export.autodiff.core import batching
from fastcam_export.autodiff.core.builder import HALF, Builder, same_dim
from fastcam_export.graph.constants import Array, constant_array
from fastcam_export.graph.query import Dim, Dims

Size = int | ir.Value
"""A dimension: a number, or an int64 [1] value where it is only known at run time."""


def sizes(op: Builder, x: ir.Value) -> list[Size]:
    """The dimensions of a forward value."""
    return [d if isinstance(d, int) else op.shape(x, axis, axis + 1) for axis, d in enumerate(op.dims(x))]


def product(op: Builder, factors: Sequence[Size]) -> Size:
    """The product of dimensions."""
    if all(isinstance(f, int) for f in factors):
        return math.prod(f for f in factors if isinstance(f, int))
    return op.ReduceProd(op.concat([vector(f) for f in factors]), [0], keepdims=1)


def cast_like(op: Builder, value: ir.Value | Array, x: ir.Value) -> ir.Value:
    """``value`` in the element type of ``x``."""
    if isinstance(value, ir.Value) and value.dtype == x.dtype:
        return value
    return op.Cast(value, to=int(x.dtype or ir.DataType.FLOAT))


def wide(op: Builder, x: ir.Value) -> ir.Value:
    """``x`` in float32 where it is of half precision."""
    return op.Cast(x, to=int(ir.DataType.FLOAT)) if x.dtype in HALF else x


def reshape_to(op: Builder, x: ir.Value, target: Sequence[Size]) -> ir.Value:
    """``x`` in the shape ``target``."""
    dims = tuple(dim for s in target for dim in ((s,) if isinstance(s, int) else op.contents(s)))
    if sum(not isinstance(s, int) for s in target) == 1 and 0 not in target:
        shape = op.constant(np.array([s if isinstance(s, int) else -1 for s in target], np.int64))
    else:
        shape = op.concat([vector(s) for s in target])
    # in a shape that is all constant a zero would mean "as it was"
    return adopt_dims(op, op.Reshape(x, shape, allowzero=1 if 0 in target else None), dims)


def reshape_like(op: Builder, dy: ir.Value, x: ir.Value) -> ir.Value:
    """``dy`` with the elements in the same order and the shape of the forward value ``x``."""
    return adopt_dims(op, reshape_to(op, dy, sizes(op, x)), op.dims(x))


def expand_like(op: Builder, dy: ir.Value, x: ir.Value) -> ir.Value:
    """``dy``, of as many axes as the forward value ``x``, broadcast to its shape."""
    # 1 where the axis is already as long as it should be: most targets are constants then
    target = [1 if same_dim(h, w) else size for h, w, size in zip(op.dims(dy), op.dims(x), sizes(op, x))]
    if all(isinstance(size, int) and size == 1 for size in target):
        return dy
    return adopt_dims(op, op.Expand(dy, op.concat([vector(s) for s in target])), op.dims(x))


def spread(op: Builder, x: ir.Value | Array, target: Sequence[Size]) -> ir.Value:
    """``x`` broadcast to the shape ``target``."""
    return op.Expand(x, op.concat([vector(size) for size in target]))


def keep_axes(op: Builder, dy: ir.Value, x: ir.Value, axes: Sequence[int]) -> ir.Value:
    """The result ``dy`` of a reduction of ``x``, with the reduced ``axes`` at size one where they were dropped."""
    if op.rank(dy) == op.rank(x):
        return dy
    return reshape_to(op, dy, [1 if axis in axes else size for axis, size in enumerate(sizes(op, x))])


def crop(
    op: Builder,
    x: ir.Value,
    axes: Sequence[int],
    begin: ir.Value,
    end: ir.Value,
    dims: Dims | None = None,
    fill: float = 0.0,
) -> ir.Value:
    """``x`` with ``begin`` and ``end`` (int64, one an axis) elements added before and after; removed where negative.

    ``dims`` is the shape of the result where inference does not see it.
    """
    pads = op.concat([begin, end])
    known = constant_array(pads)
    if known is not None and not known.any():
        return x if dims is None else adopt_dims(op, x, dims)
    padded = op.Pad(x, pads, fill, list(axes), mode="constant")
    return padded if dims is None else adopt_dims(op, padded, dims)


def along(op: Builder, x: ir.Value, matrix: ir.Value, axis: int) -> ir.Value:
    """``x`` times a [have, want] ``matrix`` along one axis: y[.. j ..] = sum_i x[.. i ..] matrix[i, j]."""
    rank = op.rank(x)
    if axis == rank - 1:
        return op.MatMul(x, matrix)
    if axis == rank - 2 and rank > 2:
        return op.MatMul(op.Transpose(matrix, perm=[1, 0]), x)
    order = [*(a for a in range(rank) if a != axis), axis]
    back = [int(i) for i in np.argsort(order)]
    return op.Transpose(op.MatMul(op.Transpose(x, perm=order), matrix), perm=back)


def one_hot(op: Builder, indices: ir.Value, size: ir.Value, like: ir.Value) -> ir.Value:
    """[indices, size] in the type of ``like``: row i is one at indices[i]; a negative index counts from the end.

    Args:
        op: builder.
        indices: int64 [indices].
        size: int64 [1].
        like: a floating point value.
    """
    positive = op.Where(op.Less(indices, 0), op.Add(indices, size), indices)
    return cast_like(op, op.Equal(op.Unsqueeze(positive, [1]), op.Range(0, scalar(op, size), 1)), like)


def vector(size: Size) -> ir.Value | Array:
    """A dimension as int64 [1]."""
    return np.array([size], np.int64) if isinstance(size, int) else size


def scalar(op: Builder, size: ir.Value) -> ir.Value:
    """An int64 [1] value as int64 []."""
    return op.Reshape(size, np.zeros(0, np.int64))


def sum_to(op: Builder, dy: ir.Value, x: ir.Value) -> ir.Value:
    """``dy`` summed over the axes along which ``x`` was broadcast to ``dy``'s shape."""
    have, want = op.dims(dy), op.dims(x)
    padded: Dims = (*(1,) * (len(have) - len(want)), *want)
    if any(_unclear(h, w) for h, w in zip(have, padded)):
        return _sum_at_run_time(op, dy, x)
    axes = [axis for axis, (h, w) in enumerate(zip(have, padded)) if w == 1 and h != 1]
    if axes:
        dy = op.ReduceSum(dy, axes, keepdims=1)
    return reshape_like(op, dy, x) if len(want) < len(have) else dy


def adopt_dims(op: Builder, value: ir.Value, dims: Dims) -> ir.Value:
    """``value`` with the dimensions that inference lost on the way."""
    have = op.dims(value)
    dims = tuple(h if isinstance(h, int) or d is None else d for h, d in zip(have, dims))
    if have == dims:
        return value
    if op.lifted(value):
        return op.lift_value(value, dims)
    value.shape = ir.Shape(dims)
    return value


def _unclear(have: Dim, want: Dim) -> bool:
    """Whether it takes the run time to know if this axis was broadcast."""
    return not same_dim(have, want) and not isinstance(want, int)


def _sum_at_run_time(op: Builder, dy: ir.Value, x: ir.Value) -> ir.Value:
    """An axis of h becomes two of h / w and w, of which the first is summed: of h where w is one, and of one where w is
    h. So the axes of the sum are constants, as OpenVINO and others want them."""
    if op.lifted(dy):
        return cast_like(op, batching.sum_to(op, wide(op, dy), x, split_axes), dy)
    target, axes = split_axes(op, op.dims(dy), sizes(op, dy), x)
    # there may be no elements: a zero does not mean "as it was"
    parts = op.Reshape(dy, op.concat([vector(size) for size in target]), allowzero=1)
    return adopt_dims(op, op.ReduceSum(parts, axes, keepdims=0), op.dims(x))


def split_axes(op: Builder, have: Dims, whole: Sequence[Size], x: ir.Value) -> tuple[list[Size], list[int]]:
    """How a gradient of dimensions ``have``, of sizes ``whole``, is reshaped so that sums over axes give that of ``x``.

    Returns:
        The sizes, and the axes of them.
    """
    lead = len(have) - op.rank(x)
    target: list[Size] = [*whole[:lead]]
    axes = [*range(lead)]
    for h, w, large, small in zip(have[lead:], op.dims(x), whole[lead:], sizes(op, x)):
        if not same_dim(h, w) and (w == 1 or not isinstance(w, int)):
            axes.append(len(target))
            target.append(op.Div(vector(large), op.Max(small, [1])) if isinstance(small, ir.Value) else large)
        target.append(small)
    return target, axes
