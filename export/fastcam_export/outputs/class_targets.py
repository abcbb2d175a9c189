"""Targets and the seed of the backward pass: which class of which image, and its products, which are rows of matrices.

The cotangent of the scores is one at the target class and zero elsewhere. Wherever a product of it with a matrix is
asked for, the matrix's row is gathered instead.
"""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir

from fastcam.schema import TARGETS, FastcamError
from fastcam_export.autodiff.core import batching
from fastcam_export.autodiff.core.builder import Builder, same_dim
from fastcam_export.autodiff.core.shapes import cast_like, expand_like, scalar, wide
from fastcam_export.graph.constants import constant_array
from fastcam_export.graph.query import is_added
from fastcam_export.graph.symbolic_dims import targets_axis

FLOAT, INT64 = int(ir.DataType.FLOAT), ir.DataType.INT64
FEW = 64
"""Classes that are all ranked: no dearer than to find out how many ranks are asked for."""
DEEPEST_RANK = 3839
"""The deepest rank in an engine form: TensorRT's TopK finds fewer than 3840."""


def targets_input(graph: ir.Graph, op: Builder, mode: str) -> ir.Value:
    """The value of ``fastcam.targets``, int64 [N, T] or [1, T]: an input, with or without default, or a constant."""
    value = ir.Value(name=TARGETS, type=ir.TensorType(INT64))
    if mode == "constant":
        return op.constant(np.array([[-1]], np.int64))
    value.shape = ir.Shape(("targets_N", targets_axis(graph)))
    graph.inputs.append(value)
    if mode == "default":
        value.const_value = ir.tensor(np.array([[-1]], np.int64), name=TARGETS)
        graph.register_initializer(value)
    return value


def resolve(op: Builder, scores: ir.Value, targets: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Class indices [N, T] (the r-th highest score for a target -r), and T as int64 [1]."""
    number = op.Shape(targets, start=1, end=2)
    if constant_array(targets) is not None:
        return op.ArgMax(wide(op, scores), axis=1, keepdims=1), number
    each = op.Expand(targets, op.concat([op.shape(scores, 0, 1), [1]]))
    rank = op.Max(op.Sub(-1, each), 0)
    count = op.dims(scores)[1]
    if isinstance(count, int) and count <= FEW:
        depth = op.constant(np.array([count], np.int64))
    else:
        deepest = op.Add(op.ReduceMax(rank, keepdims=0), [1])
        depth = op.Min(deepest, op.shape(scores, 1, 2))  # of a rank beyond, GatherElements says so
    _, order = op.emit_all("TopK", wide(op, scores), depth, axis=1, outputs=2)
    return op.Where(op.Less(each, 0), op.GatherElements(order, rank, axis=1), each), number


def resolve_within(op: Builder, scores: ir.Value, targets: ir.Value) -> tuple[ir.Value, ir.Value]:
    """As :func:`resolve` with a constant number of ranks; the class -1 where a target is no class and no such rank."""
    count = op.dims(scores)[1]
    if not isinstance(count, int):
        raise FastcamError(
            f"the number of classes of {scores.name!r} is not in the file, which this engine needs to rank them; "
            "export the model with a fixed number of classes, or for ONNX Runtime"
        )
    number = op.Shape(targets, start=1, end=2)
    each = op.Expand(targets, op.concat([op.shape(scores, 0, 1), number]))
    fixed = constant_array(targets)
    depth = min(count, DEEPEST_RANK if fixed is None else max(1, -int(fixed.min())))
    _, order = op.emit_all("TopK", wide(op, scores), [depth], axis=1, outputs=2)
    rank = op.Min(op.Max(op.Sub(op.Neg(each), 1), 0), depth - 1)
    found = op.Where(op.Less(each, 0), op.GatherElements(order, rank, axis=1), each)
    known = op.And(op.GreaterOrEqual(each, -depth), op.Less(each, count))
    return op.Where(known, found, -1), number


def target_rows(op: Builder, classes: ir.Value) -> ir.Value:
    """int64 [T * N]: the classes [N, T], T outermost, as gradients of several targets lie."""
    return op.Reshape(op.Transpose(classes, perm=[1, 0]), [-1])


def one_hot(op: Builder, score: ir.Value, scores: ir.Value, rows: ir.Value) -> ir.Value:
    """One in the place of the target class, once per target: [N, classes, 1, ...], of rank and type of ``score``.

    A scatter where the runtime reports a class index out of range, which is then an error, not a silent zero; a
    comparison for engines without scatter, where the caller sees to that.
    """
    column = op.Reshape(rows, [-1, 1])
    if op.engine == "onnxruntime":
        dtype = score.dtype.numpy()  # type: ignore[union-attr]
        zeros = op.Expand(np.zeros((1, 1), dtype), op.concat([op.Shape(rows), op.shape(scores, 1, 2)]))
        ones = op.Expand(np.ones((1, 1), dtype), op.Shape(column))
        hot = op.ScatterElements(zeros, column, ones, axis=1)
    else:
        hot = cast_like(op, op.Equal(column, op.Range(0, scalar(op, op.shape(scores, 1, 2)), 1)), score)
    dims = op.dims(score)
    if len(dims) > 2:
        hot = op.Reshape(hot, op.concat([[-1], op.shape(scores, 1, 2), [1] * (len(dims) - 2)]))
    single = (*dims[:2], *[1] * (len(dims) - 2))
    if op.copies is not None:
        return op.lift_value(hot, single)
    hot.shape = ir.Shape(single)
    return hot


def seed(op: Builder, hot: ir.Value, score: ir.Value, scale: float) -> ir.Value:
    """``scale`` in the place of the target class, at all positions of ``score``."""
    scaled = op.Mul(hot, scale) if scale != 1 else hot
    return expand_like(op, scaled, score) if op.dims(hot) != op.dims(score) else scaled


# ---- rows in place of products


def gather_rows(op: Builder, hot: ir.Value, rows: ir.Value) -> dict[ir.Value, ir.Value]:
    """Replace each product of the one-hot rows with a matrix by Gather; the values replaced.

    What was cast, scaled, or has a factor per row, is still one-hot.
    """
    replaced: dict[ir.Value, ir.Value] = {}
    waiting: list[tuple[ir.Value, tuple[ir.Value, ...]]] = [(hot, ())]
    while waiting:
        value, factors = waiting.pop()
        for node, index in list(value.uses()):
            other = node.inputs[1 - index] if len(node.inputs) == 2 else None
            same = node.outputs[0].shape is not None and op.dims(node.outputs[0])[:2] == op.dims(hot)[:2]
            if node.op_type in ("Cast", "Reshape") and index == 0 and same:
                waiting.append((node.outputs[0], factors))
            elif node.op_type == "Mul" and other is not None and _per_row(op, other):
                waiting.append((node.outputs[0], (*factors, other)))
            elif node.op_type == "MatMul" and index == 0 and other is not None and op.rank(other) == 2:
                replaced[node.outputs[0]] = _row_of_product(op, node, rows, factors)
    return replaced


def _per_row(op: Builder, value: ir.Value) -> bool:
    """Whether a factor is one number, or one for each row."""
    if value.shape is None:
        return False
    first, *rest = (*op.dims(value), 1)[: max(op.rank(value), 1)]
    return all(dim == 1 for dim in rest) and (first == 1 or op.lifted(value) or op.copies is None)


def _row_of_product(op: Builder, node: ir.Node, rows: ir.Value, factors: tuple[ir.Value, ...]) -> ir.Value:
    matrix, product = node.inputs[1], node.outputs[0]
    assert matrix is not None
    last = op.graph[-1]
    made = matrix.producer()
    ours = made is not None and is_added(made)
    source = made.inputs[0] if made is not None else None

    def gathered(x: ir.Value, axis: int) -> ir.Value:
        found = op.Gather(x, rows, axis=axis)
        return (
            op.lift_value(found, (op.dims(product)[0], *op.dims(x)[1:])) if op.lifted(product) and not axis else found
        )

    if ours and source is not None and made is not None and made.op_type == "Transpose":
        picked = op.Transpose(gathered(source, 1), perm=[1, 0])  # not the whole transposed
    elif ours and source is not None and made is not None and made.op_type == "Reshape" and _keeps_rows(op, made):
        picked = op.Reshape(gathered(source, 0), [-1, op.dims(matrix)[1]])
    else:
        picked = gathered(matrix, 0)
    if op.lifted(product):
        op.lift_value(picked, op.dims(product))
    picked = cast_like(op, picked, product)
    for factor in factors:
        flat = factor if op.rank(factor) in (0, 2) else op.Reshape(factor, [-1, 1])  # of a map's score: [N, 1, 1, 1]
        picked = op.Mul(picked, cast_like(op, flat, picked))
    ir.convenience.replace_all_uses_with(product, picked)
    added = _nodes_after(op.graph, last)
    op.graph.remove(added)
    op.graph.insert_before(node, added)
    return picked


def _keeps_rows(op: Builder, reshape: ir.Node) -> bool:
    (before, _), after = reshape.inputs, reshape.outputs[0]
    return before is not None and same_dim(op.dims(before)[0], op.dims(after)[0])


def _nodes_after(graph: ir.Graph, last: ir.Node) -> list[ir.Node]:
    """The nodes after ``last``."""
    return list(itertools.takewhile(lambda node: node is not last, reversed(graph)))[::-1]


# ---- gradients per image


def per_image(op: Builder, value: ir.Value, classes: ir.Value, rows: ir.Value, scale: float) -> ir.Value:
    """float32 [N, T, ...] of a gradient [N, ...] that was multiplied by ``scale`` and may be lifted."""
    rank = op.rank(value)
    picked = _picked(op, value, classes, rows) if rank == 2 else None
    if picked is not None:
        value = picked
    elif op.lifted(value):
        value = op.Transpose(batching.unmerge(op, value, rank), perm=[1, 0, *range(2, rank + 1)])
    else:
        value = op.Unsqueeze(value, [1])
    value = op.Cast(value, to=FLOAT) if value.dtype != ir.DataType.FLOAT else value
    return op.Mul(value, 1 / scale) if scale != 1 else value


def _picked(op: Builder, value: ir.Value, classes: ir.Value, rows: ir.Value) -> ir.Value | None:
    """[N, T, K] where all that was done is to gather rows of a matrix and to scale them: gathered in that shape."""
    node = value.producer()
    if node is None or not is_added(node):
        return None
    first, second = (*node.inputs, None, None)[:2]
    assert first is not None
    if node.op_type == "Gather" and second is rows:
        axis = node.attributes.get_int("axis", 0)
        if op.rank(first) != 2:
            return None
        found = op.Gather(first, classes, axis=axis)
        return found if axis == 0 else op.Transpose(found, perm=[1, 2, 0])
    if node.op_type == "Transpose" and list(node.attributes.get_ints("perm", ())) == [1, 0]:
        made = first.producer()
        gathers = made is not None and made.op_type == "Gather" and made.attributes.get_int("axis", 0) == 1
        return _picked(op, first, classes, rows) if gathers else None
    if node.op_type == "Mul" and second is not None and op.rank(second) == 0 and not op.lifted(second):
        inner = _picked(op, first, classes, rows)
        return op.Mul(inner, second) if inner is not None else None
    return None
