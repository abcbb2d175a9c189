"""Operators that write elements into places that indices name, and the sum into such places that other rules need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from fastcam_export.autodiff.core.builder import HALF, Builder
from fastcam_export.autodiff.core.errors import UnsupportedOperator
from fastcam_export.autodiff.core.rule import Gradients, Node, rule
from fastcam_export.autodiff.core.shapes import (
    Size,
    adopt_dims,
    cast_like,
    crop,
    product,
    reshape_like,
    reshape_to,
    sizes,
    spread,
    vector,
    wide,
)


@dataclass(frozen=True)
class Scatter:
    """y = data with ``updates[i]`` brought to the place ``index[i]`` along ``axis``, in the form of ScatterElements.

    Attributes:
        op: builder.
        node: the node.
        axis: of the places.
        index: int64 or int32, in the shape of the updates.
        places: data, y or dy in that form.
        listed: updates in that form.
    """

    op: Builder
    node: Node
    axis: int
    index: ir.Value
    places: Callable[[ir.Value], ir.Value]
    listed: Callable[[ir.Value], ir.Value]

    def gradients(self, dy: ir.Value) -> tuple[Callable[[], ir.Value], Callable[[], ir.Value]]:
        """What emits the gradient of data, and of the updates."""
        data, update = {
            "none": (self._kept, self._taken),
            "add": (lambda dy: dy, self._taken),
            "mul": (self._times_updates, self._times_others),
            "max": (self._share, self._share_of_updates),
            "min": (self._share, self._share_of_updates),
        }[self.node.string("reduction", "none")]
        return lambda: data(self.places(dy)), lambda: update(self.places(dy))

    def _kept(self, dy: ir.Value) -> ir.Value:
        """dy where nothing was written."""
        true = self.op.Expand(np.array(True), self.op.shape(self.places(self.node.y)))
        false = self.op.Expand(np.array(False), self.op.shape(self.index))
        return self.op.Where(self._scatter(true, false, "none"), dy, 0.0)

    def _taken(self, dy: ir.Value) -> ir.Value:
        return self.op.GatherElements(dy, self.index, axis=self.axis)

    def _times_updates(self, dy: ir.Value) -> ir.Value:
        ones = spread(self.op, np.ones((), _numpy(dy)), sizes(self.op, self._data))
        return self.op.Mul(dy, self._scatter(ones, self._updates, "mul"))

    def _times_others(self, dy: ir.Value) -> ir.Value:
        """dy times the product of all that are not zero, without the update itself; zero where another is zero"""
        op = self.op
        (zero, factor), (own_zero, own) = (self._without_zeros(x) for x in (self._data, self._updates))
        elsewhere = op.Sub(self._taken(self._scatter(zero, own_zero, "add")), own_zero)
        others = op.Div(self._taken(self._scatter(factor, own, "mul")), own)
        return op.Mul(self._taken(dy), op.Where(op.Equal(elsewhere, 0.0), others, 0.0))

    def _without_zeros(self, x: ir.Value) -> tuple[ir.Value, ir.Value]:
        zero = self.op.Equal(x, 0.0)
        return cast_like(self.op, zero, x), self.op.Where(zero, 1.0, x)

    def _share(self, dy: ir.Value) -> ir.Value:
        hits, _, number = self._hits()
        return self.op.Mul(dy, self.op.Div(hits, number))

    def _share_of_updates(self, dy: ir.Value) -> ir.Value:
        _, hits, number = self._hits()
        return self.op.Mul(self._taken(dy), self.op.Div(hits, self._taken(number)))

    def _hits(self) -> tuple[ir.Value, ir.Value, ir.Value]:
        """One where data, and where updates, equal the result; how many do, at each place."""
        y = self.places(self.node.y)
        data, updates = self.op.Equal(self._data, y), self.op.Equal(self._updates, self._taken(y))
        first, second = cast_like(self.op, data, y), cast_like(self.op, updates, y)
        return first, second, self._scatter(first, second, "add")

    def _scatter(self, data: ir.Value, updates: ir.Value, reduction: str) -> ir.Value:
        return scatter(self.op, data, self.index, updates, self.axis, reduction)

    @property
    def _data(self) -> ir.Value:
        return self.places(self.node.inputs[0])

    @property
    def _updates(self) -> ir.Value:
        return self.listed(self.node.inputs[2])


@rule("ScatterElements")
def scatter_elements(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """y = data, with every update put, added, multiplied in or compared at the place that its index names.

    - none: d updates are the elements of dy in their places, d data is dy without them. Of updates to one place, of
      which ONNX allows no more than one, each gets the gradient, as in PyTorch.
    - add: d data = dy.
    - mul: each factor gets dy times the product of the others, also where one of them is zero.
    - max, min: data and updates that equal the result share its gradient evenly, as torch.scatter_reduce does.
    """
    data, index, _ = node.inputs
    axis = node.integer("axis", 0) % op.rank(data)
    to_data, to_updates = Scatter(op, node, axis, index, lambda x: x, lambda x: x).gradients(dy)
    return {0: to_data, 2: to_updates}


@rule("ScatterND")
def scatter_nd(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """As ScatterElements, of the rows of a matrix [places, slice]

    Not by ScatterND itself: ONNX Runtime's adds updates to one place in parallel, without a lock.
    """
    data, indices, updates = node.inputs
    depth, shape = index_depth(op, indices), sizes(op, data)
    places, width = product(op, shape[:depth]), product(op, shape[depth:])
    rows = product(op, sizes(op, indices)[:-1])
    flat = reshape_to(op, linear_index(op, indices, shape[:depth]), [rows, 1])
    to_data, to_updates = Scatter(
        op,
        node,
        0,
        spread(op, flat, [rows, width]),
        lambda x: reshape_to(op, x, [places, width]),
        lambda x: reshape_to(op, x, [rows, width]),
    ).gradients(dy)
    return {0: lambda: reshape_like(op, to_data(), data), 2: lambda: reshape_like(op, to_updates(), updates)}


@rule("TensorScatter")
def tensor_scatter(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """y[b, .., w[b] + i, ..] = update[b, .., i, ..], modulo the cache's length where it is circular: d update are the
    elements of dy in these places, d past is dy without them"""
    past, update = node.inputs[:2]
    rank = op.rank(past)
    axis = node.integer("axis", -2) % rank
    length, number = (op.shape(x, axis, axis + 1) for x in (past, update))
    begin = node.input(2) or op.Expand(np.zeros(1, np.int64), op.shape(past, 0, 1))
    place = op.Add(op.Unsqueeze(begin, [1]), op.Range(0, op.Reshape(number, np.zeros(0, np.int64)), 1))
    if node.string("mode", "linear") == "circular":
        place = op.Mod(place, length)
    view = [size if at in (0, axis) else 1 for at, size in enumerate(sizes(op, update))]
    index = spread(op, reshape_to(op, place, view), sizes(op, update))
    to_past, to_update = Scatter(op, node, axis, index, lambda x: x, lambda x: x).gradients(dy)
    return {0: to_past, 1: to_update}


def scatter(op: Builder, data: ir.Value, index: ir.Value, updates: ir.Value, axis: int, reduction: str) -> ir.Value:
    """ScatterElements. Half precision is reduced in float32: it is exact for longer, and ONNX Runtime asks for it."""
    if reduction == "add" and op.engine != "onnxruntime":
        return op.Add(data, _compared_and_summed(op, sizes(op, data), index, updates, axis))
    if data.dtype not in HALF or reduction == "none":
        return op.ScatterElements(data, index, updates, axis=axis, reduction=reduction)
    reduced = op.ScatterElements(wide(op, data), index, wide(op, updates), axis=axis, reduction=reduction)
    return cast_like(op, reduced, data)


def scatter_add(op: Builder, shape: Sequence[Size], index: ir.Value, dy: ir.Value, axis: int) -> ir.Value:
    """Zeros of ``shape``, with every element of ``dy`` added at the place that ``index``, of its shape, names."""
    if op.engine != "onnxruntime":
        return _compared_and_summed(op, shape, index, dy, axis)
    return scatter(op, spread(op, np.zeros((), _numpy(dy)), shape), index, dy, axis, "add")


def _compared_and_summed(op: Builder, shape: Sequence[Size], index: ir.Value, updates: ir.Value, axis: int) -> ir.Value:
    """As :func:`scatter_add`, for engines that do not add what they scatter: at each place of the axis the sum of the
    updates whose index it is."""
    rank, size = len(shape), vector(shape[axis])
    index = index if index.dtype == ir.DataType.INT64 else op.Cast(index, to=int(ir.DataType.INT64))
    positive = op.Where(op.Less(index, 0), op.Add(index, size), index)
    places = op.Range(0, op.Reshape(size, np.zeros(0, np.int64)), 1)
    places = op.Reshape(places, [-1, *[1] * (rank - axis - 1)])
    named = op.Equal(op.Unsqueeze(positive, [axis + 1]), places)
    total = op.ReduceSum(op.Where(named, op.Unsqueeze(updates, [axis + 1]), 0.0), [axis], keepdims=0)
    dims = [(s,) if isinstance(s, int) else op.contents(s) for s in shape]
    short = [at for at in range(rank) if at != axis and (op.dims(index)[at],) != dims[at]]
    if short:  # the index may end before the array does
        missing = op.concat([op.Sub(vector(shape[at]), op.shape(index, at, at + 1)) for at in short])
        total = crop(op, total, short, op.constant(np.zeros(len(short), np.int64)), missing)
    return adopt_dims(op, total, tuple(dim for each in dims for dim in each))


def index_depth(op: Builder, indices: ir.Value) -> int:
    """How many axes each index tuple of a GatherND or ScatterND names."""
    depth = op.dims(indices)[-1]
    if not isinstance(depth, int):
        raise UnsupportedOperator("the length of its index tuples is only known at run time")
    return depth


def linear_index(op: Builder, indices: ir.Value, shape: Sequence[Size]) -> ir.Value:
    """[...]: the place in an array of ``shape``, its axes as one, that each tuple of ``indices`` [..., axes] names."""
    limits = op.concat([vector(size) for size in shape])
    positive = op.Where(op.Less(indices, 0), op.Add(indices, limits), indices)
    steps = op.concat([vector(product(op, shape[axis + 1 :])) for axis in range(len(shape))])
    return op.ReduceSum(op.Mul(positive, steps), [-1], keepdims=0)


def _numpy(x: ir.Value) -> np.dtype[Any]:
    return (x.dtype or ir.DataType.FLOAT).numpy()
