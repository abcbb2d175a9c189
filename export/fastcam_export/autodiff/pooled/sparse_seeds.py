"""Where the score depends on one slice of a value alone, that slice alone is differentiated.

A class's score hangs on one channel of a class map, as far back as every operator works channel by channel; behind the
last attention of a vision transformer it hangs on the class token. The gradient is zero in all other places. So the
nodes of such a region are swept in slices: for each a stand-in is made, of the same operator, whose values have size
one along the axis. What the gradient then reads of a stand-in's values is taken from the model's own. At the edge of
the region the gradient is put back in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.core.shapes import Size, crop, reshape_to, sizes, vector
from fastcam_export.autodiff.core.straight_through import is_code
from fastcam_export.autodiff.pooled.axis_maps import POOLS, REDUCTIONS, WHOLE, along, groups
from fastcam_export.autodiff.reverse import backward, path, sweep
from fastcam_export.graph.constants import constant_array
from fastcam_export.graph.query import VIEWS, Dim, Dims, captured, dims_of, in_default_domain, input_at
from fastcam_export.graph.symbolic_dims import divided, from_dim, times, to_dim

PER_CLASS = frozenset({"AveragePool", "Clip", "GlobalAveragePool", "Identity", "LeakyRelu", "ReduceMean", "ReduceSum"})
PER_CLASS |= {"Dropout", "HardSigmoid", "HardSwish", "Relu", "Sigmoid", "Tanh", "Transpose"} | VIEWS
"""Operators that are followed back from a class's score: all that their gradients read can be had once per target."""
Take = Callable[[ir.Value, int], ir.Value]
"""(value, axis) -> its slice."""


@dataclass(frozen=True)
class Narrowed:
    """What is left to differentiate.

    Attributes:
        cotangents: of the values at the region's edge.
        slices: of those whose gradient is zero but for a slice: that slice's, of size one along the axis, and the axis.
        place: which slice it is; -1 for that of the target class.
    """

    cotangents: Mapping[ir.Value, ir.Value]
    slices: Mapping[ir.Value, tuple[ir.Value, int]]
    place: int = -1


def of_class(
    op: Builder, score: ir.Value, layer: ir.Value, classes: ir.Value, hot: ir.Value, scale: float
) -> Narrowed | None:
    """Narrow the gradient of the target classes' scores to their channels.

    Args:
        op: builder.
        score: [N, classes] or [N, classes, 1, ...].
        layer: the target layer.
        classes: int64 [N, T].
        hot: one in the place of the class, in the shape of ``score``, once per target.
        scale: the cotangent of a target's score.

    Returns:
        None where there is nothing to gain: the score's own node reads all channels.
    """
    dims = op.dims(score)
    if any(dim != 1 for dim in dims[2:]):
        return None
    nodes, count = path(op.graph, [layer], [score]), dims[1]
    if not isinstance(count, int):
        return None
    region = _Region(op, nodes, {score: 1}, count, layer, _keeps_class)
    if not region.nodes:
        return None
    start = _of_each_target(op, score, scale)
    slices, whole = region.sweep({score: start}, lambda value, axis: _class_slice(op, value, axis, classes))
    return _narrowed(op, slices, whole, lambda v, g, axis: op.Mul(on_axis(op, hot, axis, op.rank(v)), g))


def _keeps_class(node: ir.Node) -> bool:
    """Whether a node may lie between a class's channel and its score: images stay on the first axis.

    A score that is written as the transpose of one number per text and image has them on the last; of several models'
    scores, laid one on the other and averaged, they come from the second; the scores of a model of one picture have no
    axis of images until one is put in front of them.
    """
    if node.op_type not in PER_CLASS:
        return False
    if node.op_type == "Transpose":
        return list(node.attributes.get_ints("perm", ()))[:1] == [0]
    dims, made = dims_of(node.inputs[0]), dims_of(node.outputs[0])
    if node.op_type in REDUCTIONS | {"Squeeze", "Unsqueeze"}:
        axes, rank = constant_array(input_at(node, 1)), len(made if node.op_type == "Unsqueeze" else dims)
        return axes is not None and axes.size > 0 and rank > 0 and all(axis % rank for axis in axes.reshape(-1))
    return node.op_type not in VIEWS or (len(dims) > 1 and dims[:1] == made[:1] != (None,))


def of_token(op: Builder, cotangents: Mapping[ir.Value, ir.Value], layer: ir.Value) -> Narrowed | None:
    """Narrow a gradient to the one place of an axis that a Gather or Slice behind the layer takes.

    Args:
        op, cotangents: as for :func:`fastcam_export.autodiff.reverse.backward`.
        layer: the target layer.

    Returns:
        None where no such node is on every path, or nothing in front of it works place by place.
    """
    nodes = path(op.graph, [layer], cotangents)
    at, axis, place = _pick(op, nodes, layer, cotangents)
    value = nodes[at].inputs[0] if axis else None  # axis 0 is that of the images
    if value is None:
        return None
    picked = nodes[at].outputs[0]
    size = op.dims(value)[axis]
    assert isinstance(size, int)
    region = _Region(op, nodes[:at], {value: axis}, size, layer, lambda node: node.op_type not in POOLS)
    dy = backward(op, cotangents, [picked])[picked] if region.nodes else None
    if dy is None:
        return None
    start = reshape_to(op, dy, [1 if a == axis else size for a, size in enumerate(sizes(op, value))])
    slices, whole = region.sweep({value: start}, lambda v, a: _part(op, v, a, size, place))
    return replace(_narrowed(op, slices, whole, lambda v, g, a: _placed(op, v, g, a, size, place)), place=place)


def token(op: Builder, tokens: ir.Value, score: ir.Value, axis: int) -> int | None:
    """The one place along ``axis`` of ``tokens`` that all paths to the score lead through, as the graph picks it."""
    nodes = path(op.graph, [tokens], [score])
    at, picked, place = _pick(op, nodes, tokens, [score])
    value = nodes[at].inputs[0] if picked else None
    same = value is not None and picked == axis and op.dims(value)[axis] == op.dims(tokens)[axis]
    return place if same else None


def _pick(op: Builder, nodes: Sequence[ir.Node], layer: ir.Value, sinks: Iterable[ir.Value]) -> tuple[int, int, int]:
    """The first node on every path that takes one place of an axis: its index, the axis, the place; else axis 0."""
    sinks = list(sinks)
    found = ((at, _picked(op, node)) for at, node in enumerate(nodes))
    picks = ((at, *picked) for at, picked in found if picked is not None)
    return next((pick for pick in picks if not _avoids(nodes, pick[0], layer, sinks)), (0, 0, 0))


def _avoids(nodes: Sequence[ir.Node], at: int, layer: ir.Value, sinks: Iterable[ir.Value]) -> bool:
    """Whether a path leads around one of the nodes."""
    return bool(path([*nodes[:at], *nodes[at + 1 :]], [layer], sinks))


Slices = dict[ir.Value, tuple[ir.Value, int]]
Whole = dict[ir.Value, ir.Value]


def _narrowed(
    op: Builder, slices: Slices, whole: Whole, placed: Callable[[ir.Value, ir.Value, int], ir.Value]
) -> Narrowed:
    full = dict(whole)
    for value, (gradient, axis) in slices.items():
        here = placed(value, gradient, axis)
        full[value] = op.Add(full[value], here) if value in full else here
    return Narrowed(full, {value: found for value, found in slices.items() if value not in whole})


def on_axis(op: Builder, hot: ir.Value, axis: int, rank: int) -> ir.Value:
    """[N, classes, 1, ...] with the classes on another axis of a value of another rank."""
    n, classes = op.dims(hot)[:2]
    if axis == 1 and rank == op.rank(hot):
        return hot
    dims = [1] * rank
    dims[0], dims[axis] = -1, classes if isinstance(classes, int) else 0
    flat = op.Reshape(hot, np.array(dims, np.int64))
    return op.lift_value(flat, (n, *dims[1:])) if op.lifted(hot) else flat


def _picked(op: Builder, node: ir.Node) -> tuple[int, int] | None:
    """The axis and the one place that a Gather or Slice takes; None if it is none that takes one."""
    value = node.inputs[0] if node.inputs else None
    if node.op_type not in ("Gather", "Slice") or not in_default_domain(node) or value is None:
        return None
    arrays = [constant_array(v) for v in node.inputs[1:]]
    if any(array is None for array in arrays) or any(array is not None and array.size != 1 for array in arrays):
        return None
    numbers = [int(array.item()) for array in arrays if array is not None]
    rank = op.rank(value)
    if node.op_type == "Gather":
        axis, place, step = node.attributes.get_int("axis", 0) % rank, numbers[0], 1
    else:
        start, stop, axis, step = [*numbers, 0, 1][:4] if len(numbers) > 2 else [*numbers, 0, 1]
        axis, place = axis % rank, start
        if stop != start + 1 and not (stop == 0 and start == -1):
            return None
    size = op.dims(value)[axis]
    if step != 1 or not isinstance(size, int) or axis == 0 or size == 1:
        return None
    return axis, place % size


class _Region:
    """The nodes behind which a gradient is zero but for a slice.

    Args:
        op: builder.
        between: the path from the layer to the values in ``start``.
        start: values whose gradient is that of a slice, and the slice's axis.
        count: of how many slices it is one; an axis may hold them as its outer part (tokens times images).
        layer: the target layer.
        allowed: which nodes may be taken in.

    Attributes:
        nodes: those taken in.
        sliced: the values that they read or give in slices, and the axis of these.
    """

    def __init__(
        self,
        op: Builder,
        between: Sequence[ir.Node],
        start: Mapping[ir.Value, int],
        count: int,
        layer: ir.Value,
        allowed: Callable[[ir.Node], bool],
    ) -> None:
        self.op, self.count, self.allowed = op, count, allowed
        self.nodes: list[ir.Node] = []
        self.sliced = dict(start)
        self.flowing = {layer, *(value for node in between for value in node.outputs)}
        asked: dict[ir.Value, set[int | None]] = {value: {axis} for value, axis in start.items()}
        for node in reversed(between):
            reads = self._reads(node, asked)
            if reads is not None:
                self.nodes.insert(0, node)
            for index, value in enumerate(node.inputs):
                if value in self.flowing and value is not None:
                    axis = reads[index] if reads is not None else None
                    asked.setdefault(value, set()).add(axis)
                    if axis not in (None, WHOLE):
                        self.sliced[value] = axis
            for value in captured(node):
                asked.setdefault(value, set()).add(None)
        self.made = {node.outputs[0] for node in self.nodes}

    def _reads(self, node: ir.Node, asked: Mapping[ir.Value, set[int | None]]) -> dict[int, int] | None:
        """The axis in which each input is read if the node is taken in; None if it is not."""
        wanted = asked.get(node.outputs[0], set())
        axis = next(iter(wanted), None)
        if len(wanted) != 1 or axis is None or axis == WHOLE or not self.allowed(node):
            return None
        if any(output.uses() for output in node.outputs[1:]) or any(True for _ in captured(node)):
            return None
        if any(is_code(value) for value in (*node.inputs, *node.outputs) if value is not None):
            return None  # what integers stand for is read off what made them, which a stand-in has not
        reads: dict[int, int] = {}
        for index, value in enumerate(node.inputs):
            if value is None or _only_shape(node, index):
                continue
            found = self._along(node, index, axis)
            clash = value in self.flowing and found != WHOLE and self.sliced.get(value, found) != found
            if found is None or clash:
                return None
            reads[index] = found
        return reads

    def _along(self, node: ir.Node, index: int, axis: int) -> int | None:
        """As :func:`along`, also through views that keep the slice in one piece."""
        if node.op_type not in VIEWS:
            return along(self.op, node, index).get(axis)
        value, out = node.inputs[index], node.outputs[0]
        if value is None or value.shape is None or out.shape is None:
            return None
        have, want = self.op.dims(value), self.op.dims(out)
        for left, right in groups(have, want):
            outer = [next((a for a in run if dims[a] != 1), None) for run, dims in ((left, have), (right, want))]
            if outer[1] == axis and outer[0] is not None and share(have[outer[0]], self.count) is not None:
                return outer[0]
        return None

    def sweep(self, cotangents: Mapping[ir.Value, ir.Value], take: Take) -> tuple[Slices, Whole]:
        """The gradients at the edge: of slices, and of values that the region reads whole."""
        op = self.op
        taken = {value: take(value, axis) for value, axis in self.sliced.items()}
        standing = {value: _like(op, one) for value, one in taken.items()}
        made, whole = [], []
        for node in self.nodes:
            inputs = []
            for index, value in enumerate(node.inputs):
                only_shape = value is None or _only_shape(node, index)
                axis = WHOLE if only_shape else self._along(node, index, self.sliced[node.outputs[0]])
                assert axis is not None
                whole += [value] if value is not None and axis == WHOLE and value in self.flowing else []
                inputs.append(value if value is None or axis == WHOLE else standing.get(value) or take(value, axis))
            attributes = list(node.attributes.values())
            made.append(ir.Node(node.domain, node.op_type, inputs, attributes, outputs=[standing[node.outputs[0]]]))
        edge = {value: standing[value] for value in self.sliced if value in self.flowing and value not in self.made}
        op.variables.update([*edge.values(), *whole])
        seeds = {standing[value]: seed for value, seed in cotangents.items()}
        found = sweep(op, made, seeds, [*edge.values(), *whole])
        for node in made:
            for index in range(len(node.inputs)):
                node.replace_input_with(index, None)
        for value, one in taken.items():
            ir.convenience.replace_all_uses_with(standing[value], one)
        slices = {v: (g, self.sliced[v]) for v, stand in edge.items() if (g := found[stand]) is not None}
        return slices, {v: g for v in whole if (g := found[v]) is not None}


def _only_shape(node: ir.Node, index: int) -> bool:
    """Whether an input only says a shape or which elements are taken."""
    return index > 0 and node.op_type in VIEWS | REDUCTIONS | {"Gather", "Pad", "Slice"}


def _like(op: Builder, one: ir.Value) -> ir.Value:
    """A value of the type and shape of ``one`` that nothing computes."""
    value = ir.Value(name=op.name("slice"), type=one.type, shape=ir.Shape(one.shape or ()))
    return op.lift_value(value, op.dims(one)) if op.lifted(one) else value


def share(dim: Dim, count: int) -> Dim:
    """One slice's part of an axis that holds ``count`` of them; None where it holds another number."""
    size = from_dim(dim)
    return (
        to_dim(divided(size, count)) if size is not None and times(divided(size, count) or 0, count) == size else None
    )


def _block(op: Builder, value: ir.Value, axis: int, count: int) -> Size:
    """How long one of ``count`` slices of an axis is."""
    part = share(op.dims(value)[axis], count)
    return part if isinstance(part, int) else op.Div(op.shape(value, axis, axis + 1), [count])


def _part(op: Builder, value: ir.Value, axis: int, count: int, place: int) -> ir.Value:
    """The slice at one place."""
    dims, block = op.dims(value), _block(op, value, axis, count)
    if block == 1:
        return op.Gather(value, [place], axis=axis)
    start, stop = (op.Mul(block, [at]) if isinstance(block, ir.Value) else [block * at] for at in (place, place + 1))
    part = op.Slice(value, start, stop, [axis])
    part.shape = ir.Shape([share(dim, count) if a == axis else dim for a, dim in enumerate(dims)])
    return part


def _placed(op: Builder, value: ir.Value, gradient: ir.Value, axis: int, count: int, place: int) -> ir.Value:
    """A gradient of the shape of ``value`` that is zero but for one place of an axis."""
    block = vector(_block(op, value, axis, count))
    begin, end = (op.Mul(block, [number]) for number in (place, count - 1 - place))
    return crop(op, gradient, [axis], begin, end, op.dims(value))


def _of_each_target(op: Builder, score: ir.Value, scale: float) -> ir.Value:
    """``scale`` as [N, 1, ...], once per target."""
    dims = op.dims(score)
    single: Dims = (dims[0], *[1] * (len(dims) - 1))
    number = np.full((1,) * len(dims), scale, score.dtype.numpy())  # type: ignore[union-attr]
    images = op.shape(score, 0, 1)
    rows = images if op.copies is None else op.Mul(op.copies, images)
    seed = op.Expand(number, op.concat([rows, [1] * (len(dims) - 1)]))
    if op.copies is not None:
        return op.lift_value(seed, single)
    seed.shape = ir.Shape(single)
    return seed


def _class_slice(op: Builder, value: ir.Value, axis: int, classes: ir.Value) -> ir.Value:
    """The target classes' places of an axis, once per target: [N, ..., 1, ...]."""
    dims = op.dims(value)
    rank = len(dims)
    single: Dims = tuple(1 if a == axis else dim for a, dim in enumerate(dims))
    others = [a for a in range(1, rank) if a != axis]
    if axis == 1:
        picked = op.GatherND(value, op.Unsqueeze(classes, [2]), batch_dims=1)  # [N, T, ...]
    else:
        ones = op.Unsqueeze(classes, others)
        index = op.Expand(ones, op.concat([op.shape(value, a, a + 1) if a in others else [1] for a in range(rank)]))
        picked = op.Transpose(op.GatherElements(value, index, axis=axis), perm=[0, axis, *others])
    if op.copies is not None and dims[0] != 1:
        picked = op.Transpose(picked, perm=[1, 0, *range(2, rank)])
    sides = [op.shape(value, a, a + 1) if a in others else [1] for a in range(1, rank)]
    flat = op.Reshape(picked, op.concat([[-1], *sides]))
    if op.copies is not None:
        return op.lift_value(flat, single)
    flat.shape = ir.Shape(single)
    return flat
