"""Adds what the contract promises: targets in; classes, activations and weights, gradients or the map out."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Literal

import numpy as np
import onnx_ir as ir

from fastcam import schema
from fastcam.schema import Emit, FastcamError
from fastcam_export.autodiff import lift
from fastcam_export.autodiff.driver import backward
from fastcam_export.autodiff.emitter import Emitter
from fastcam_export.autodiff.pooled import pooled_gradient
from fastcam_export.autodiff.quantized import unquantised

Targets = Literal["default", "required", "constant"]
TARGETS_MODES: tuple[Targets, ...] = ("default", "required", "constant")
FLOAT, INT64 = int(ir.DataType.FLOAT), ir.DataType.INT64


def attach(graph: ir.Graph, layer: ir.Value, score: ir.Value, targets: Targets, level: Emit) -> Mapping[str, ir.Value]:
    """Append the backward pass of ``score`` to ``layer``.

    Args:
        graph: a loaded model's; nodes are appended, none is changed.
        layer: the target layer, [N, K, h, w].
        score: [N, classes] or [N, classes, 1, ...].
        targets: "default" adds the input ``fastcam.targets`` with default [[-1]], "required" without a default,
            "constant" fixes the predicted class in the graph.
        level: the emit level; the whole gradient is built for "gradients" only.

    Returns:
        The values of that level, and those they are made of, by their names in the contract; :func:`emit` makes them
        outputs.

    Raises:
        FastcamError: the score does not depend on the layer, or an operator between them has no gradient rule.
    """
    op = Emitter(graph)
    scores = op.Flatten(score, axis=1) if op.rank(score) > 2 else score
    classes, number = _resolve(op, scores, _targets_input(graph, op, targets))
    if targets != "constant":
        op.copies = number
    rows = op.Reshape(op.Transpose(classes, perm=[1, 0]), [-1])  # T outermost, as gradients of several targets lie
    explained = unquantised(score)
    seed = _seed(op, explained, scores, rows)
    activations = op.Cast(layer, to=FLOAT) if layer.dtype != ir.DataType.FLOAT else op.Identity(layer)
    values = {schema.CLASSES: classes, schema.ACTIVATIONS: activations}
    if level == "gradients":
        values[schema.GRADIENTS] = _per_image(op, _reached(layer, backward(op, {explained: seed}, [layer])[layer]))
    else:
        pooled = _reached(layer, pooled_gradient(op, {explained: seed}, layer))
        values[schema.WEIGHTS] = _per_image(op, pooled)
        if level == "cam":
            values[schema.CAM] = _cam(op, layer, activations, values[schema.WEIGHTS])
    _gather_rows(op, seed, rows)
    return values


def _reached(layer: ir.Value, gradient: ir.Value | None) -> ir.Value:
    if gradient is None:
        raise FastcamError(
            f"the score does not depend on layer {layer.name!r}; name a layer between image and score (fastcam inspect)"
        )
    return gradient


def emit(graph: ir.Graph, values: Mapping[str, ir.Value], level: Emit) -> None:
    """Make the values of one emit level outputs, under their contract names, and drop what no output needs."""
    for name in schema.OUTPUTS[level]:
        value = values[name]
        value.name = name
        value.shape = ir.Shape(_contract_dims(name, values))
        graph.outputs.append(value)
    remove_unused(graph)


def remove_unused(graph: ir.Graph) -> None:
    """Remove nodes and constants that FastCAM added and no output needs. The model's own stay, used or not."""
    outputs = set(graph.outputs)
    for node in reversed(graph):
        ours = (node.name or "").startswith(schema.PREFIX)
        if ours and not any(value in outputs or value.uses() for value in node.outputs):
            graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if name.startswith(schema.PREFIX) and not value.uses() and value not in outputs:
            del graph.initializers[name]


def _contract_dims(name: str, values: Mapping[str, ir.Value]) -> tuple[int | str | None, ...]:
    shape = values[schema.ACTIVATIONS].shape
    assert shape is not None
    n, k, h, w = (d if isinstance(d, int) else d.value for d in shape)
    return {
        schema.CLASSES: (n, "T"),
        schema.ACTIVATIONS: (n, k, h, w),
        schema.WEIGHTS: (n, "T", k),
        schema.GRADIENTS: (n, "T", k, h, w),
        schema.CAM: (n, "T", h, w),
    }[name]


def _targets_input(graph: ir.Graph, op: Emitter, mode: Targets) -> ir.Value:
    value = ir.Value(name=schema.TARGETS, type=ir.TensorType(INT64))
    if mode == "constant":
        return op.constant(np.array([[-1]], np.int64))
    value.shape = ir.Shape(("targets_N", "T"))
    graph.inputs.append(value)
    if mode == "default":
        value.const_value = ir.tensor(np.array([[-1]], np.int64), name=schema.TARGETS)
        graph.register_initializer(value)
    return value


def _resolve(op: Emitter, scores: ir.Value, targets: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Class indices [N, T] (the r-th highest score for a target -r), and T as int64 [1]."""
    number = op.Shape(targets, start=1, end=2)
    each = op.Expand(targets, op.concat([op.shape(scores, 0, 1), number]))
    lowest = op.Reshape(op.ReduceMin(each, keepdims=0), [1])
    depth = op.Min(op.Max(op.Neg(lowest), [1]), op.shape(scores, 1, 2))
    _, order = op.emit_all("TopK", scores, depth, axis=1, outputs=2)
    rank = op.Max(op.Sub(op.Neg(each), 1), 0)
    return op.Where(op.Less(each, 0), op.GatherElements(order, rank, axis=1), each), number


def _seed(op: Emitter, score: ir.Value, scores: ir.Value, rows: ir.Value) -> ir.Value:
    """One in the place of the target class, in the shape of ``score`` and its type; once per target.

    A scatter, not a comparison: a class index out of range is then an error of the runtime, not a silent zero.
    """
    dtype = score.dtype.numpy()  # type: ignore[union-attr]
    column = op.Reshape(rows, [-1, 1])
    zeros = op.Expand(np.zeros((1, 1), dtype), op.concat([op.Shape(rows), op.shape(scores, 1, 2)]))
    ones = op.Expand(np.ones((1, 1), dtype), op.Shape(column))
    seed = op.ScatterElements(zeros, column, ones, axis=1)
    dims = op.dims(score)
    if len(dims) > 2:
        seed = op.Reshape(seed, op.concat([[-1], op.shape(scores, 1, 2), [1] * (len(dims) - 2)]))
    if op.copies is not None:
        return op.lift_value(seed, dims)
    seed.shape = ir.Shape(dims)
    return seed


def _gather_rows(op: Emitter, seed: ir.Value, rows: ir.Value) -> None:
    """A product of the seed, which is one-hot, with a matrix is a row of the matrix: Gather in place of MatMul."""
    for node, index in list(seed.uses()):
        matrix = node.inputs[1] if node.op_type == "MatMul" and index == 0 else None
        if matrix is None or op.rank(matrix) != 2:
            continue
        last = op.graph[-1]
        made = matrix.producer()
        if made is not None and made.op_type == "Transpose" and (made.name or "").startswith(schema.PREFIX):
            picked = op.Transpose(op.Gather(made.inputs[0], rows, axis=1), perm=[1, 0])  # not the whole transposed
        else:
            picked = op.Gather(matrix, rows, axis=0)
        ir.convenience.replace_all_uses_with(node.outputs[0], picked)
        added = _behind(op.graph, last)
        op.graph.remove(added)
        op.graph.insert_before(node, added)


def _behind(graph: ir.Graph, last: ir.Node) -> list[ir.Node]:
    """The nodes after ``last``."""
    return list(itertools.takewhile(lambda node: node is not last, reversed(graph)))[::-1]


def _per_image(op: Emitter, value: ir.Value) -> ir.Value:
    """float32 [N, T, ...] of a gradient [N, ...] that may be lifted."""
    rank = op.rank(value)
    if op.lifted(value):
        value = op.Transpose(lift.unmerge(op, value, rank), perm=[1, 0, *range(2, rank + 1)])
    else:
        value = op.Unsqueeze(value, [1])
    return op.Cast(value, to=FLOAT) if value.dtype != ir.DataType.FLOAT else value


def _cam(op: Emitter, layer: ir.Value, activations: ir.Value, weights: ir.Value) -> ir.Value:
    """ReLU(sum_k alpha_k A^k), equation 2 of the paper: float32 [N, T, h, w]."""
    n, k, h, w = (op.shape(layer, axis, axis + 1) for axis in range(4))
    flat = op.Reshape(activations, op.concat([n, k, op.Mul(h, w)]))
    maps = op.Relu(op.MatMul(weights, flat))
    return op.Reshape(maps, op.concat([n, [-1], h, w]))
