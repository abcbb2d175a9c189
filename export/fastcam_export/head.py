"""Adds what the contract promises: targets in; classes, activations and weights, gradients or the map out."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Literal

import numpy as np
import onnx_ir as ir

from fastcam import schema
from fastcam.schema import Emit, Engine, FastcamError
from fastcam_export.autodiff import lift
from fastcam_export.autodiff.constants import constant_array
from fastcam_export.autodiff.driver import backward, path
from fastcam_export.autodiff.emitter import Emitter
from fastcam_export.autodiff.pooled import pooled_gradient
from fastcam_export.autodiff.quantized import unquantised
from fastcam_export.autodiff.shapes import cast_like, expand_like, product, scalar, sizes, vector, wide
from fastcam_export.layout import Layout

Targets = Literal["default", "required", "constant"]
TARGETS_MODES: tuple[Targets, ...] = ("default", "required", "constant")
FLOAT, INT64 = int(ir.DataType.FLOAT), ir.DataType.INT64
HALF_SCALE = 2.0**10
"""What cotangents are multiplied by where they pass through float16 (Micikevicius et al. 2018, section 3.2).

The gradient of a mean-pooled logit is about w / (h w), 2^-10 to 2^-20: float16 is exact down to 2^-14 and zero below
2^-25. Times 2^10, entries down to 2^-24 keep their precision, and one may still grow to 64 times the score's before it
exceeds float16's 65504; then it is infinite or NaN in the output too, never a plausible number.
"""
DEEPEST_RANK = 3839
"""The deepest rank in an engine form: TensorRT's TopK finds fewer than 3840."""


def attach(
    graph: ir.Graph,
    layer: ir.Value,
    layout: Layout,
    score: ir.Value,
    targets: Targets,
    level: Emit,
    engine: Engine = "onnxruntime",
) -> Mapping[str, ir.Value]:
    """Append the backward pass of ``score`` to ``layer``.

    Args:
        graph: a loaded model's; nodes are appended, none is changed.
        layer: the target layer.
        layout: how its positions lie; what is added has the form [N, K, h, w].
        score: [N, classes] or [N, classes, ...]; of maps the sum over their positions is explained.
        targets: "default" adds the input ``fastcam.targets`` with default [[-1]], "required" without a default,
            "constant" fixes the predicted class in the graph.
        level: the emit level; the whole gradient is built for "gradients" only.
        engine: whose operators are added. In a form for another engine than ONNX Runtime, whose errors are its own, a
            target that is no class of the model gives the class -1 and weights, gradients or map of NaN.

    Returns:
        The values of that level, and those they are made of, by their names in the contract; :func:`emit` makes them
        outputs.

    Raises:
        FastcamError: the score does not depend on the layer, an operator between them has no gradient rule, or the
            engine needs to know the number of classes and the file does not say it.
    """
    op = Emitter(graph, engine=engine)
    scores = _per_class(op, score)
    resolve = _resolve if engine == "onnxruntime" else _resolve_within
    classes, number = resolve(op, scores, _targets_input(graph, op, targets))
    if targets != "constant":
        op.copies = number
    rows = op.Reshape(op.Transpose(classes, perm=[1, 0]), [-1])  # T outermost, as gradients of several targets lie
    explained = unquantised(score)
    scale = seed_scale(graph, layer, explained)
    seed = _seed(op, explained, scores, rows, scale)
    maps = layout.maps(op, layer, layer)
    activations = op.Cast(maps, to=FLOAT) if layer.dtype != ir.DataType.FLOAT else op.Identity(maps)
    values = {schema.CLASSES: classes, schema.ACTIVATIONS: activations}
    if level == "gradients":
        gradient = _reached(layer, backward(op, {explained: seed}, [layer])[layer])
        values[schema.GRADIENTS] = _per_image(op, layout.maps(op, gradient, layer), scale)
    else:
        pooled = _reached(layer, _pooled(op, {explained: seed}, layer, layout))
        values[schema.WEIGHTS] = _per_image(op, pooled, scale)
        if level == "cam":
            values[schema.CAM] = _cam(op, activations, values[schema.WEIGHTS])
    _gather_rows(op, seed, rows, scale)
    if engine != "onnxruntime":
        last, rank = schema.OUTPUTS[level][-1], op.rank(activations)
        behind = {schema.WEIGHTS: 1, schema.GRADIENTS: rank - 1, schema.CAM: rank - 2}[last]
        values[last] = _only_of_classes(op, values[last], classes, behind)
    return values


def seed_scale(graph: ir.Graph, layer: ir.Value, score: ir.Value) -> float:
    """The power of two that the seed carries and the outputs undo: 1 unless a value from layer to score is float16."""
    between = path(graph, [layer], [score])
    types = {value.dtype for node in between for value in (*node.inputs, *node.outputs) if value is not None}
    return HALF_SCALE if ir.DataType.FLOAT16 in types else 1.0


def _per_class(op: Emitter, score: ir.Value) -> ir.Value:
    """[N, classes]: a map of class scores summed over its positions."""
    dims = op.dims(score)
    if all(dim == 1 for dim in dims[2:]):
        return op.Flatten(score, axis=1) if len(dims) > 2 else score
    return op.ReduceSum(wide(op, score), list(range(2, len(dims))), keepdims=0)


def _pooled(op: Emitter, cotangents: Mapping[ir.Value, ir.Value], layer: ir.Value, layout: Layout) -> ir.Value | None:
    """The gradient's mean over the layer's positions, [N, K]."""
    if layout.order in ("NCHW", "NCTHW"):
        return pooled_gradient(op, cotangents, layer)
    gradient = backward(op, cotangents, [layer])[layer]
    if gradient is None:
        return None
    summed = op.ReduceSum(layout.positions(op, wide(op, gradient)), layout.spatial, keepdims=0)
    grid = layout.sides(op) if "L" in layout.order else [sizes(op, layer)[axis] for axis in layout.spatial]
    positions = product(op, grid)
    if isinstance(positions, int):
        return op.Mul(summed, 1 / positions)
    return op.Div(summed, cast_like(op, positions, summed))


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
    n, k, *grid = (d if isinstance(d, int) else d.value for d in shape)
    return {
        schema.CLASSES: (n, "T"),
        schema.ACTIVATIONS: (n, k, *grid),
        schema.WEIGHTS: (n, "T", k),
        schema.GRADIENTS: (n, "T", k, *grid),
        schema.CAM: (n, "T", *grid),
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
    _, order = op.emit_all("TopK", wide(op, scores), depth, axis=1, outputs=2)
    rank = op.Max(op.Sub(op.Neg(each), 1), 0)
    return op.Where(op.Less(each, 0), op.GatherElements(order, rank, axis=1), each), number


def _resolve_within(op: Emitter, scores: ir.Value, targets: ir.Value) -> tuple[ir.Value, ir.Value]:
    """As :func:`_resolve` with a constant number of ranks; the class -1 where a target is no class and no such rank."""
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


def _only_of_classes(op: Emitter, value: ir.Value, classes: ir.Value, axes: int) -> ir.Value:
    """``value`` [N, T, and ``axes`` more] where the class [N, T] is one; NaN, no plausible zero, where it is -1."""
    known = op.Unsqueeze(op.GreaterOrEqual(classes, 0), list(range(2, 2 + axes)))
    return op.Where(known, value, float("nan"))


def _seed(op: Emitter, score: ir.Value, scores: ir.Value, rows: ir.Value, scale: float) -> ir.Value:
    """``scale`` in the place of the target class, in the shape of ``score`` and its type; once per target.

    A scatter where the runtime reports a class index out of range, which is then an error, not a silent zero; a
    comparison for engines without scatter, where :func:`_only_of_classes` sees to that.
    """
    column = op.Reshape(rows, [-1, 1])
    if op.engine == "onnxruntime":
        dtype = score.dtype.numpy()  # type: ignore[union-attr]
        zeros = op.Expand(np.zeros((1, 1), dtype), op.concat([op.Shape(rows), op.shape(scores, 1, 2)]))
        ones = op.Expand(np.ones((1, 1), dtype), op.Shape(column))
        seed = op.ScatterElements(zeros, column, ones, axis=1)
    else:
        seed = cast_like(op, op.Equal(column, op.Range(0, scalar(op, op.shape(scores, 1, 2)), 1)), score)
    dims = op.dims(score)
    if len(dims) > 2:
        seed = op.Reshape(seed, op.concat([[-1], op.shape(scores, 1, 2), [1] * (len(dims) - 2)]))
    single = (*dims[:2], *[1] * (len(dims) - 2))
    if op.copies is not None:
        op.lift_value(seed, single)
    else:
        seed.shape = ir.Shape(single)
    seed = op.Mul(seed, scale) if scale != 1 else seed
    return expand_like(op, seed, score) if dims != single else seed


def _gather_rows(op: Emitter, seed: ir.Value, rows: ir.Value, scale: float) -> None:
    """A product of the seed, which is one-hot, with a matrix is a row of the matrix: Gather in place of MatMul."""
    casts = [node.outputs[0] for node, _ in seed.uses() if node.op_type == "Cast"]
    for node, index in [use for value in (seed, *casts) for use in value.uses()]:
        matrix = node.inputs[1] if node.op_type == "MatMul" and index == 0 else None
        if matrix is None or op.rank(matrix) != 2:
            continue
        last = op.graph[-1]
        made = matrix.producer()
        if made is not None and made.op_type == "Transpose" and (made.name or "").startswith(schema.PREFIX):
            picked = op.Transpose(op.Gather(made.inputs[0], rows, axis=1), perm=[1, 0])  # not the whole transposed
        else:
            picked = op.Gather(matrix, rows, axis=0)
        picked = op.Mul(picked, scale) if scale != 1 else picked
        ir.convenience.replace_all_uses_with(node.outputs[0], picked)
        added = _behind(op.graph, last)
        op.graph.remove(added)
        op.graph.insert_before(node, added)


def _behind(graph: ir.Graph, last: ir.Node) -> list[ir.Node]:
    """The nodes after ``last``."""
    return list(itertools.takewhile(lambda node: node is not last, reversed(graph)))[::-1]


def _per_image(op: Emitter, value: ir.Value, scale: float) -> ir.Value:
    """float32 [N, T, ...] of a gradient [N, ...] that was multiplied by ``scale`` and may be lifted."""
    rank = op.rank(value)
    if op.lifted(value):
        value = op.Transpose(lift.unmerge(op, value, rank), perm=[1, 0, *range(2, rank + 1)])
    else:
        value = op.Unsqueeze(value, [1])
    value = op.Cast(value, to=FLOAT) if value.dtype != ir.DataType.FLOAT else value
    return op.Mul(value, 1 / scale) if scale != 1 else value


def _cam(op: Emitter, activations: ir.Value, weights: ir.Value) -> ir.Value:
    """ReLU(sum_k alpha_k A^k), equation 2 of the paper: float32 [N, T, h, w]."""
    area = vector(product(op, sizes(op, activations)[2:]))
    flat = op.Reshape(activations, op.concat([[-1], op.shape(activations, 1, 2), area]))  # open is N, which may be zero
    maps = op.Relu(op.MatMul(weights, flat))
    number = op.copies if op.copies is not None else [1]
    return op.Reshape(maps, op.concat([[-1], number, op.shape(activations, 2)]))
