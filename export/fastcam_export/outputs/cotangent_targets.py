"""Exports whose target is a cotangent: any linear functional of the model's outputs, given at run time.

The inputs ``fastcam.cotangent`` float32 [N, T, *output without N] take the place of ``fastcam.targets``: what is
explained by target t of image n is sum_i cotangent[n, t, i] output[n, i]. The backward pass is the one of classes, its
seed is given.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from fastcam import schema
from fastcam.errors import listed
from fastcam.schema import COTANGENT, Cotangent, Emit, Engine, FastcamError, Mode, Score
from fastcam_export.autodiff.core import batching
from fastcam_export.autodiff.core.builder import FLOATS, Builder
from fastcam_export.autodiff.core.straight_through import unquantised
from fastcam_export.autodiff.reverse import path
from fastcam_export.graph.query import dims_of, readable_dims
from fastcam_export.graph.symbolic_dims import targets_axis
from fastcam_export.layers import target_layer
from fastcam_export.layers.axis_semantics import IMAGE
from fastcam_export.layers.axis_tracing import Known, trace
from fastcam_export.layers.explained_layer import ExplainedLayer
from fastcam_export.layers.output_meaning import Meaning, output_meanings
from fastcam_export.layers.score import OutputLayout, classes, classes_last
from fastcam_export.layers.token_liveness import live
from fastcam_export.outputs import cam

FLOAT = ir.DataType.FLOAT
CLASS_MODES: tuple[Mode, ...] = ("excitation", "contrastive-excitation")
"""Backward modes that begin at one class. Others begin at the cotangents c_i, relevance at the addends c_i y_i."""


@dataclass(frozen=True)
class Functional:
    """Outputs whose linear functionals are explained.

    Attributes:
        about: what the contract says of each, in the order they were named.
        values: the graph's values of these outputs.
    """

    about: tuple[Cotangent, ...]
    values: tuple[ir.Value, ...]

    @property
    def explained(self) -> list[ir.Value]:
        """What is differentiated: the outputs, before a quantisation of their own."""
        return [unquantised(value) for value in self.values]

    @property
    def has_places(self) -> bool:
        """Whether numbers of an output belong to places of the picture: boxes, pixels, or positions."""
        return any(len(about.shape) > 1 or not about.batched for about in self.about)

    @property
    def score(self) -> Score:
        """The first of them, as the metadata names it."""
        first = self.about[0]
        of_classes = first.batched and len(first.shape) == 1
        return Score(first.output, first.output, "raw", classes(self.values[0]) if of_classes else None)


def find(
    graph: ir.Graph, image: ir.Value, names: str | Sequence[str] | None, layout: OutputLayout | None = None
) -> Functional:
    """The outputs ``names`` (default: the only float output); ``layout``: where the classes of a map lie.

    Raises:
        FastcamError: no such output, one that is named twice, or that is no float tensor of known rank.
    """
    floats = {value.name or "": value for value in graph.outputs if value.dtype in FLOATS}
    wanted = [names] if isinstance(names, str) else list(names or floats)
    known = f"float outputs: {listed(map(_described, floats.values())) or 'none'}"
    if names is None and len(floats) != 1:
        raise FastcamError(f"a cotangent is one of named outputs; name one or more with --output-name ({known})")
    for name in wanted:
        if name not in floats:
            near = difflib.get_close_matches(name, floats, 1, 0)
            nearest = f"; the nearest is {near[0]!r}" if near else ""
            raise FastcamError(f"the model has no float output {name!r}{nearest} ({known})")
        if wanted.count(name) > 1:
            raise FastcamError(f"output {name!r} is named twice; name each output once")
        if floats[name].shape is None or len(floats[name].shape or ()) == 0:
            raise FastcamError(f"output {name!r} ({_described(floats[name])}) has no axes; name another ({known})")
        if 0 in dims_of(floats[name]):
            raise FastcamError(f"output {name!r} ({_described(floats[name])}) is empty; name another ({known})")
    values = tuple(floats[name] for name in wanted)
    _tell_apart(graph, values)
    axes = trace(graph, image)
    inputs = [COTANGENT if len(wanted) == 1 else f"{COTANGENT}.{name}" for name in wanted]
    meanings = {one.output: one for one in output_meanings(graph, image)}
    about = (_about(axes, image, meanings[v.name or ""], n, v, layout) for n, v in zip(inputs, values))
    return Functional(tuple(about), values)


def _tell_apart(graph: ir.Graph, outputs: Sequence[ir.Value]) -> None:
    """Give free dimensions that several outputs call by one name, and no input has, names of their own.

    Exporters of detectors call the boxes of every level "dim", however many there are.
    """
    taken = {dim for value in graph.inputs for dim in dims_of(value)}
    called = [dim for value in outputs for dim in dims_of(value)[1:] if isinstance(dim, str)]
    for value in outputs:
        dims = list(dims_of(value))
        for axis, dim in enumerate(dims):
            if axis and isinstance(dim, str) and dim not in taken and called.count(dim) > 1:
                dims[axis] = f"{value.name}.{dim}"
        if tuple(dims) != dims_of(value):
            value.shape = ir.Shape(dims)


def _described(value: ir.Value) -> str:
    return f"{value.name} {'of unknown shape' if value.shape is None else list(readable_dims(value))}"


def _about(
    axes: Known, image: ir.Value, meaning: Meaning, name: str, output: ir.Value, layout: OutputLayout | None
) -> Cotangent:
    dims = readable_dims(output)
    if meaning.kind == "sequence" and meaning.steps == 0:
        alone = dims if isinstance(dims[1], int) else (dims[0], 1, dims[2])  # of one picture a run
        return Cotangent(name, output.name or "", alone, False, "LNC")
    batched = _has_images(axes, image, output)
    letters = ""
    if meaning.kind == "sequence" and batched:
        letters = "LC"
    elif meaning.kind == "map" and batched and not meaning.decided and classes_last(meaning, layout):
        letters = {3: "WC", 4: "HWC"}.get(len(dims), "THWC")
    elif meaning.kind == "map" and batched and len(dims) == 3:
        letters = "CW"
    return Cotangent(name, output.name or "", dims[1:] if batched else dims, batched, letters)


def _has_images(axes: Known, image: ir.Value, output: ir.Value) -> bool:
    """Whether the first axis of ``output`` counts the images; a detector's boxes of one image have no such axis.

    Of a free first axis that nothing tells anything about it is supposed; the check finds out.
    """
    first, images = (value.shape[0] for value in (output, image) if value.shape is not None)
    other = isinstance(first, int) and isinstance(images, int) and first != images
    traced = axes.get(output)
    if traced and any(atom.kind == IMAGE for atom in traced[0]) and not other:
        return True
    return first == images if isinstance(images, int) else not isinstance(first, int)


def refuse_options(score: str, input_gradient: str | None) -> None:
    """Raise for options that say something of class scores."""
    if score != "logit":
        raise FastcamError("a cotangent is of the output as the model gives it; leave score (--score) out")
    if input_gradient in CLASS_MODES:
        others = ", ".join(mode for mode in schema.MODES if mode not in CLASS_MODES)
        raise FastcamError(
            f"{input_gradient} begins at one class; of cotangents there are {others} (--input-gradient), or export "
            "with --targets default"
        )


# ---- the layer


def no_layer(functional: Functional) -> FastcamError:
    """What to say where no map lies on every path, so that a layer has to be named."""
    outputs = listed(repr(value.name) for value in functional.values)
    return FastcamError(
        f"no feature map lies on every path from the image to {outputs}; name a layer with --layer (a value, node "
        "or scope of the model)"
    )


def learned_layers(graph: ir.Graph, image: ir.Value, functional: Functional) -> list[target_layer.Layer]:
    """The maps that every path from the image to each of the outputs passes through, behind a first convolution.

    Maps that already have the channels of an output which is a map itself are noted as having one a class.
    What speaks against a layer for one of the outputs speaks against it for all: each has a gradient there or none.
    """
    common: dict[ir.Value, target_layer.Layer] = {}
    for index, output in enumerate(functional.values):
        maps = target_layer.Maps.of(graph, image, output)
        channels = _channels(functional.about[index], output)
        found = {layer.value: layer for layer in target_layer.find_layers(maps, channels)}
        common = found if index == 0 else {v: common[v].and_of(layer) for v, layer in found.items() if v in common}
    taken = [layer for value, layer in common.items() if value not in functional.values]
    return [layer for layer in taken if is_learned(graph, image, layer.value)]


def _channels(about: Cotangent, output: ir.Value) -> int | None:
    """The channels of a map; None of another output, or where the file does not say it."""
    if about.axes in ("WC", "HWC", "THWC"):
        return about.shape[-1] if isinstance(about.shape[-1], int) else None
    return classes(output) if len(about.shape) > 2 or about.axes == "CW" else None


def is_learned(graph: ir.Graph, image: ir.Value, value: ir.Value) -> bool:
    """Whether a convolution or a matrix product lies between the image and a value."""
    return any(node.op_type in target_layer.LINEAR for node in path(graph, [image], [value]))


def refuse_unreached(graph: ir.Graph, image: ir.Value, layers: Sequence[ir.Value], functional: Functional) -> None:
    """Raise where an output depends on none of the layers, or only on other tokens than their positions."""
    known = trace(graph, image)
    named = " or ".join(repr(layer.name) for layer in layers)
    for output in functional.explained:
        reached = [layer for layer in layers if path(graph, [layer], [output])]
        if not reached:
            raise FastcamError(
                f"output {output.name!r} cannot be reached from layer {named}; name a layer between image and "
                "output (fastcam inspect --output-name lists them), or leave the output out"
            )
        maps = target_layer.Maps(graph, image, output, known, live(graph, known, output))
        if not any(maps.live(layer) for layer in reached):
            raise FastcamError(
                f"output {output.name!r} does not depend on the image positions of layer {named}, only on its "
                "other tokens, so its gradient is zero everywhere; name an earlier layer"
            )


# ---- the graph


def attach(
    graph: ir.Graph,
    image: ir.Value,
    layers: Sequence[ExplainedLayer],
    functional: Functional,
    *,
    emit: Emit,
    engine: Engine = "onnxruntime",
    further: cam.FurtherOutput | None = None,
) -> dict[str, ir.Value]:
    """Append the backward pass of linear functionals of outputs to ``layers``.

    Args:
        graph, layers, emit, engine, further: as in :func:`fastcam_export.outputs.cam.attach`.
        image: the image input; its batch is the cotangents'.
        functional: the outputs.

    Returns:
        The values of that level, and those they are made of, by their names in the contract.

    Raises:
        FastcamError: no output depends on the layer, or an operator between them has no gradient rule.
    """
    op = batching.BatchedBuilder(graph, engine=engine)
    inputs = [_input(graph, image, about, value) for about, value in zip(functional.about, functional.values)]
    op.copies = op.Shape(inputs[0], start=1, end=2)
    ends = [layer.value for layer in layers] + ([] if further is None else [further.wrt])
    scale = max(cam.seed_scale(graph, ends, output) for output in functional.explained)
    seeds: dict[ir.Value, ir.Value] = {}
    for value, about, output in zip(inputs, functional.about, functional.explained):
        seeds[output] = _seed(op, value, about, output, scale)
    values: dict[str, ir.Value] = {}
    for layer in layers:
        values[layer.output(schema.ACTIVATIONS)] = cam.activations(op, layer)
        name, gradient = cam.handed_back(op, seeds, {}, layer.value, layer.layout, emit)
        values[layer.output(name)] = _per_image(op, gradient, scale)
    if further is not None:
        values[further.name] = _per_image(op, further.build(op, seeds), scale if further.scaled else 1.0)
    if emit == "cam":
        cam.add_maps(op, values, layers)
    return values


def _input(graph: ir.Graph, image: ir.Value, about: Cotangent, output: ir.Value) -> ir.Value:
    """The input of one output's cotangents."""
    assert image.shape is not None
    first = image.shape[0] if about.batched else 1
    shape = ir.Shape(
        (first, targets_axis(graph), *(d if isinstance(d, int) or d != "?" else None for d in about.shape))
    )
    value = ir.Value(name=about.input, type=ir.TensorType(FLOAT), shape=shape)
    graph.inputs.append(value)
    return value


def _seed(op: Builder, cotangents: ir.Value, about: Cotangent, output: ir.Value, scale: float) -> ir.Value:
    """The cotangents [N, T, ...] as one cotangent of ``output`` per target, T outermost."""
    seed = op.Mul(cotangents, scale) if scale != 1 else cotangents
    if output.dtype != FLOAT:
        seed = op.Cast(seed, to=int(output.dtype or FLOAT))
    outermost = op.Transpose(seed, perm=[1, 0, *range(2, op.rank(cotangents))])
    dims = op.dims(output)
    known = all(isinstance(d, int) for d in dims[1:])
    merged = op.Reshape(outermost, [-1, *dims[1:]] if known else op.concat([[-1], op.shape(output, 1)]))
    return op.lift_value(merged, dims)


def _per_image(op: Builder, value: ir.Value, scale: float) -> ir.Value:
    """float32 [N, T, ...] of a lifted gradient [N, ...] that was multiplied by ``scale``."""
    n, *rest = op.dims(value)
    rank = op.rank(value)
    images_first = op.Transpose(batching.unmerge(op, value, rank), perm=[1, 0, *range(2, rank + 1)])
    single = op.Cast(images_first, to=int(FLOAT)) if images_first.dtype != FLOAT else images_first
    gradient = op.Mul(single, 1 / scale) if scale != 1 else single
    gradient.shape = ir.Shape((n, targets_axis(op.graph), *rest))
    return gradient
