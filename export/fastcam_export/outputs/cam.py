"""Adds what the contract promises: targets in; classes, activations and weights, gradients or the map out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import onnx_ir as ir

from fastcam import schema
from fastcam.schema import Emit, Engine, FastcamError, of_layer
from fastcam_export.autodiff.core.batching import BatchedBuilder
from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.core.codes import as_numbers
from fastcam_export.autodiff.core.shapes import cast_like, product, reshape_to, sizes, vector, wide
from fastcam_export.autodiff.core.straight_through import unquantised
from fastcam_export.autodiff.pooled import sparse_seeds
from fastcam_export.autodiff.pooled.spatial_mean import pooled_gradient, spatial_sum
from fastcam_export.autodiff.pooled.spatial_sum import summed_gradient
from fastcam_export.autodiff.reverse import backward, path
from fastcam_export.graph import cleanup
from fastcam_export.graph.query import dims_of
from fastcam_export.graph.symbolic_dims import targets_axis
from fastcam_export.layers.explained_layer import ExplainedLayer
from fastcam_export.layers.layout import Layout
from fastcam_export.outputs import class_targets

Targets = Literal["default", "required", "constant", "cotangent"]
TARGETS_MODES: tuple[Targets, ...] = ("default", "required", "constant", "cotangent")
FLOAT, INT64 = int(ir.DataType.FLOAT), ir.DataType.INT64
Values: TypeAlias = Mapping[ir.Value, ir.Value]
"""Values of the model, and of each its cotangent, or the sum of that over positions."""
HALF_SCALE = 2.0**10
"""What cotangents are multiplied by where they pass through float16 (Micikevicius et al. 2018, section 3.2).

The gradient of a mean-pooled logit is about w / (h w), 2^-10 to 2^-20: float16 is exact down to 2^-14 and zero below
2^-25. Times 2^10, entries down to 2^-24 keep their precision, and one may still grow to 64 times the score's before it
exceeds float16's 65504; then it is infinite or NaN in the output too, never a plausible number.
"""


@dataclass(frozen=True)
class FurtherOutput:
    """What an export emits of the same seed beside the layers' outputs.

    Attributes:
        name: in the contract.
        wrt: the value that it is taken at.
        build: (builder, {score: seed}) -> [N, ...], once per target as seeds are; of cotangents one for each output.
        scaled: whether it is proportional to the seed.
    """

    name: str
    wrt: ir.Value
    build: Callable[[Builder, Values], ir.Value]
    scaled: bool = True


def attach(
    graph: ir.Graph,
    layers: Sequence[ExplainedLayer],
    score: ir.Value,
    *,
    targets: Targets,
    emit: Emit,
    engine: Engine = "onnxruntime",
    further: FurtherOutput | None = None,
    more_outputs: Callable[[Builder], Mapping[str, ir.Value]] | None = None,
) -> dict[str, ir.Value]:
    """Append the backward pass of ``score`` to ``layers``.

    Args:
        graph: a loaded model's; nodes are appended, none is changed.
        layers: the target layers, the default one first. The passes to all of them share what they have in common.
            What is added has the form [N, K, h, w].
        score: [N, classes] or [N, classes, ...]; of maps the sum over their positions is explained.
        targets: "default" adds the input ``fastcam.targets`` with default [[-1]], "required" without a default,
            "constant" fixes the predicted class in the graph.
        emit: the emit level; the whole gradient is built for "gradients" only.
        engine: whose operators are added. In a form for another engine than ONNX Runtime in general, whose errors are
            its own, a target that is no class of the model gives the class -1 and weights, gradients or map of NaN.
        further: what else is made of the same seed.
        more_outputs: makes what else is emitted, by its names.

    Returns:
        The values of that level, and those they are made of, by their names in the contract; :func:`make_outputs`
        makes them outputs.

    Raises:
        FastcamError: the score does not depend on the layer, an operator between them has no gradient rule, or the
            engine needs to know the number of classes and the file does not say it.
    """
    op = BatchedBuilder(graph, engine=engine)
    scores = per_class(op, score)
    resolve = class_targets.resolve if engine == "onnxruntime" else class_targets.resolve_within
    classes, number = resolve(op, scores, class_targets.targets_input(graph, op, targets))
    if targets != "constant":
        op.copies = number
    rows = class_targets.target_rows(op, classes)
    explained = unquantised(score)
    ends = [layer.value for layer in layers] + ([further.wrt] if further is not None else [])
    scale = seed_scale(graph, ends, explained)
    hot = class_targets.one_hot(op, explained, scores, rows)
    seed = class_targets.seed(op, hot, explained, scale)
    values, gradients = {schema.CLASSES: classes}, {}
    for layer in layers:
        values[layer.output(schema.ACTIVATIONS)] = activations(op, layer)
        cotangents, sums = _narrowed(op, explained, layer.value, classes, hot, scale)
        name, gradient = handed_back(op, cotangents, sums, layer.value, layer.layout, emit)
        gradients[layer.output(name)] = gradient
    values |= more_outputs(op) if more_outputs is not None else {}
    if further is not None:
        gradients[further.name] = further.build(op, {explained: seed})
    gathered = class_targets.gather_rows(op, hot, rows)
    for name, gradient in gradients.items():
        factor = 1.0 if further is not None and name == further.name and not further.scaled else scale
        shape = ir.Shape((op.dims(gradient)[0], targets_axis(graph), *op.dims(gradient)[1:]))
        values[name] = class_targets.per_image(op, gathered.get(gradient, gradient), classes, rows, factor)
        values[name].shape = shape
    if emit == "cam":
        add_maps(op, values, layers)
    if engine != "onnxruntime":
        _mark_unknown_classes(op, values, layers, emit, further)
    return values


def _mark_unknown_classes(
    op: Builder,
    values: dict[str, ir.Value],
    layers: Sequence[ExplainedLayer],
    emit: Emit,
    further: FurtherOutput | None,
) -> None:
    """Put NaN in place of what is emitted of targets that are no class."""
    classes, last = values[schema.CLASSES], schema.OUTPUTS[emit][-1]
    for layer in layers:
        value = values[layer.output(last)]
        values[layer.output(last)] = _only_of_classes(op, value, classes, op.rank(value) - 2)
    if further is not None:
        value = values[further.name]
        values[further.name] = _only_of_classes(op, value, classes, op.rank(value) - 2)


def add_maps(op: Builder, values: dict[str, ir.Value], layers: Sequence[ExplainedLayer]) -> None:
    """Add the map of each layer to ``values``, which have their activations and weights."""
    for layer in layers:
        maps, weights = (values[layer.output(name)] for name in (schema.ACTIVATIONS, schema.WEIGHTS))
        values[layer.output(schema.CAM)] = (cam_of_each if layer.layout.folded else cam)(op, maps, weights)


def seed_scale(graph: ir.Graph, sources: Sequence[ir.Value], score: ir.Value) -> float:
    """The power of two that the seed carries and the outputs undo: 1 unless a value on the way is float16."""
    between = path(graph, sources, [score])
    types = {value.dtype for node in between for value in (*node.inputs, *node.outputs) if value is not None}
    return HALF_SCALE if ir.DataType.FLOAT16 in types else 1.0


def per_class(op: Builder, score: ir.Value) -> ir.Value:
    """[N, classes]: a map of class scores summed over its positions."""
    dims = op.dims(score)
    if all(dim == 1 for dim in dims[2:]):
        return op.Flatten(score, axis=1) if len(dims) > 2 else score
    return op.ReduceSum(wide(op, score), list(range(2, len(dims))), keepdims=0)


def _narrowed(
    op: Builder, score: ir.Value, layer: ir.Value, classes: ir.Value, hot: ir.Value, scale: float
) -> tuple[Values, Values]:
    """Cotangents behind the class's own channel, and of maps their sums over positions."""
    cotangents: Values = {score: class_targets.seed(op, hot, score, scale)}
    sums: Values = {}
    of_class = sparse_seeds.of_class(op, score, layer, classes, hot, scale) if op.engine == "onnxruntime" else None
    if of_class is not None:
        cotangents = of_class.cotangents
        channels = wide(op, sparse_seeds.on_axis(op, hot, 1, 2))
        maps = {v: gradient for v, (gradient, axis) in of_class.slices.items() if axis == 1 and op.rank(v) > 2}
        sums = {v: op.Mul(channels, spatial_sum(op, g, g, 1)) for v, g in maps.items()}
    return cotangents, sums


def activations(op: Builder, layer: ExplainedLayer) -> ir.Value:
    """float32 [N, K, h, w]: the layer's maps."""
    maps = layer.layout.maps(op, as_numbers(op, layer.value), layer.value)
    return op.Cast(maps, to=FLOAT) if maps.dtype != ir.DataType.FLOAT else op.Identity(maps)


def handed_back(
    op: Builder, cotangents: Values, sums: Values, layer: ir.Value, layout: Layout, level: Emit
) -> tuple[str, ir.Value]:
    """What an emit level needs of the gradient at the layer, and its name: all of it, or its mean over positions.

    ``sums``: of those cotangents of which they are known, the sums over positions, [N, channels].
    """
    token = sparse_seeds.of_token(op, cotangents, layer)
    if token is not None:
        cotangents, sums = token.cotangents, {}
    if level == "gradients":
        gradient = _reached(layer, backward(op, cotangents, [layer])[layer])
        return schema.GRADIENTS, layout.maps(op, gradient, layer)
    return schema.WEIGHTS, _reached(layer, _pooled(op, cotangents, sums, token, layer, layout))


def _pooled(
    op: Builder, cotangents: Values, sums: Values, token: sparse_seeds.Narrowed | None, layer: ir.Value, layout: Layout
) -> ir.Value | None:
    """The gradient's mean over the layer's positions, [N, K]; of pictures folded into the batch over each one's, [N, K,
    t]."""
    mean = _mean(op, cotangents, sums, token, layer, layout)
    return layout.by_image(op, mean) if layout.folded and mean is not None else mean


def _mean(
    op: Builder, cotangents: Values, sums: Values, token: sparse_seeds.Narrowed | None, layer: ir.Value, layout: Layout
) -> ir.Value | None:
    """The gradient's mean over the layer's positions, for each row of its batch."""
    if layout.order in ("NCHW", "NCTHW", "FCHW"):
        return pooled_gradient(op, cotangents, layer, sums)
    summed = _summed(op, cotangents, token, layer, layout)
    if summed is None:
        return None
    grid = layout.sides(op) if "L" in layout.order else [sizes(op, layer)[axis] for axis in layout.spatial]
    positions = product(op, grid)
    if isinstance(positions, int):
        return op.Mul(summed, 1 / positions)
    return op.Div(summed, cast_like(op, positions, summed))


def _summed(
    op: Builder, cotangents: Values, token: sparse_seeds.Narrowed | None, layer: ir.Value, layout: Layout
) -> ir.Value | None:
    """The gradient's sum over the layer's positions, [N, K]."""
    grid = layout.fixed_grid
    part = (layout.prefix, math.prod(grid)) if "L" in layout.order and grid is not None else None
    whole = layout.prefix == 0 and layout.suffix == 0
    if part is not None or whole:
        outside = token is not None and part is not None and token.place not in range(part[0], sum(part))
        elsewhere = {v: axis for v, (_, axis) in token.slices.items()} if token is not None and outside else {}
        total = summed_gradient(op, cotangents, layer, layout.spatial, None if whole else part, elsewhere)
        kept = [size for axis, size in enumerate(sizes(op, layer)) if axis not in layout.spatial]
        return reshape_to(op, total, kept) if total is not None else None
    gradient = backward(op, cotangents, [layer])[layer]
    if gradient is None:
        return None
    return op.ReduceSum(layout.positions(op, wide(op, gradient)), layout.spatial, keepdims=0)


def _reached(layer: ir.Value, gradient: ir.Value | None) -> ir.Value:
    if gradient is None:
        raise FastcamError(
            f"the score does not depend on layer {layer.name!r}; name a layer between image and score (fastcam inspect)"
        )
    return gradient


def make_outputs(graph: ir.Graph, values: Mapping[str, ir.Value], emit: Emit, layers: Sequence[ExplainedLayer]) -> None:
    """Make the values of one emit level outputs, under their contract names, and tidy up what was added.

    Args:
        graph: the graph that :func:`attach` appended to.
        values: what it returned.
        emit: the emit level.
        layers: the target layers.
    """
    further = [name for name in (schema.INPUT_GRADIENT, schema.RELEVANCE, schema.TOKENS) if name in values]
    further += [name for name in values if name.startswith(schema.KEPT)]
    ordered = sorted(layers, key=lambda layer: layer.number or 0)  # the default layer, which has no number, first
    names = dict.fromkeys(layer.output(name) for layer in ordered for name in schema.OUTPUTS[emit])
    # no classes of a cotangent, nor of a further layer
    for name in (*(name for name in names if name in values), *further):
        value = values[name]
        if value.is_graph_output():  # what is the same for two layers, on the two sides of a Dropout
            value = _again(graph, value)
        value.name = name
        if name not in further:
            value.shape = ir.Shape(_contract_dims(name, values, targets_axis(graph)))
        graph.outputs.append(value)
    cleanup.tidy(graph, values.values())


def _again(graph: ir.Graph, value: ir.Value) -> ir.Value:
    """A copy of a value that is an output already."""
    copy = ir.Value(type=value.type)
    graph.append(ir.Node("", "Identity", [value], outputs=[copy], name=f"{schema.PREFIX}again_{len(graph.outputs)}"))
    return copy


def _contract_dims(name: str, values: Mapping[str, ir.Value], t: str) -> tuple[int | str | None, ...]:
    name, _, number = name.removeprefix(schema.PREFIX).partition(".")
    name = schema.PREFIX + name
    n, k, *grid = dims_of(values[of_layer(schema.ACTIVATIONS, int(number) if number else None)])
    return {
        schema.CLASSES: (n, t),
        schema.ACTIVATIONS: (n, k, *grid),
        schema.WEIGHTS: (n, t, k, *grid[:1]) if _of_each(name, number, values) else (n, t, k),
        schema.GRADIENTS: (n, t, k, *grid),
        schema.CAM: (n, t, *grid),
    }[name]


def _of_each(name: str, number: str, values: Mapping[str, ir.Value]) -> bool:
    """Whether the weights are those of each picture of a sequence."""
    value = values.get(f"{name}.{number}" if number else name)
    return value is not None and value.shape is not None and len(value.shape) == 4


def _only_of_classes(op: Builder, value: ir.Value, classes: ir.Value, axes: int) -> ir.Value:
    """``value`` [N, T, and ``axes`` more] where the class [N, T] is one; NaN, no plausible zero, where it is -1."""
    known = op.Unsqueeze(op.GreaterOrEqual(classes, 0), list(range(2, 2 + axes)))
    return op.Where(known, value, float("nan"))


def cam(op: Builder, activations: ir.Value, weights: ir.Value) -> ir.Value:
    """ReLU(sum_k alpha_k A^k), equation 2 of the paper: float32 [N, T, h, w]."""
    area = vector(product(op, sizes(op, activations)[2:]))
    flat = op.Reshape(activations, op.concat([[-1], op.shape(activations, 1, 2), area]))  # open is N, which may be zero
    maps = op.Relu(op.MatMul(weights, flat))
    number = op.copies if op.copies is not None else [1]
    return op.Reshape(maps, op.concat([[-1], number, op.shape(activations, 2)]))


def cam_of_each(op: Builder, activations: ir.Value, weights: ir.Value) -> ir.Value:
    """The same for each picture of a sequence with its own weights: [N, K, t, h, w] and [N, T, K, t] -> [N, T, t, h,
    w]."""
    return op.Relu(op.Einsum(weights, activations, equation="ntkf,nkfhw->ntfhw"))
