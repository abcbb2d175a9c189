"""Exports whose target is a cotangent: any linear functional of the model's outputs, given at run time.

The inputs ``fastcam.cotangent`` float32 [N, T, *output without N] take the place of ``fastcam.targets``: what is
explained by target t of image n is sum_i cotangent[n, t, i] output[n, i]. The backward pass is the one of classes, its
seed is given.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fastcam import schema
from fastcam.schema import COTANGENT, Cotangent, Emit, Engine, FastcamError, Mode, Score
from fastcam_export.autodiff.core import batching
from fastcam_export.autodiff.core.builder import FLOATS, Builder
from fastcam_export.autodiff.core.straight_through import unquantised
from fastcam_export.autodiff.reverse import path
from fastcam_export.layers import target_layer
from fastcam_export.layers.axis_semantics import IMAGE
from fastcam_export.layers.axis_tracing import Known, trace
from fastcam_export.layers.layout import Layout
from fastcam_export.layers.score import classes
from fastcam_export.outputs import cam

Array = npt.NDArray[Any]
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
    def score(self) -> Score:
        """The first of them, as the metadata names it."""
        first = self.about[0]
        of_classes = first.batched and len(first.shape) == 1
        return Score(first.output, first.output, "raw", classes(self.values[0]) if of_classes else None)

    def of_one(self, feeds: Mapping[str, Array], image: ir.Value) -> dict[str, Array]:
        """Inputs for the check: of one image where an output has no axis of images."""
        if all(about.batched for about in self.about):
            return dict(feeds)
        return {name: value[:1] if name == image.name else value for name, value in feeds.items()}

    def random(self, outputs: Mapping[str, Array], images: int) -> dict[str, Array]:
        """Random cotangents of one target for outputs as a run of ``images`` gave them, by the names of their inputs.

        Each output has the same share in what is explained, a box in pixels and its score.

        Raises:
            FastcamError: an output does not have one row per image, as was supposed.
        """
        rng = np.random.default_rng(3)
        made = {}
        for about in self.about:
            have = outputs[about.output].shape
            if about.batched and have[:1] != (images,):
                raise FastcamError(
                    f"output {about.output!r} has shape {list(have)} for {images} images, so its first axis does not "
                    "count them; export a model whose batch is 1"
                )
            shape = (images, 1, *have[1:]) if about.batched else (1, 1, *have)
            largest = float(np.abs(outputs[about.output]).max(initial=0)) or 1.0
            made[about.input] = (rng.standard_normal(shape) / largest).astype(np.float32)
        return made


def find(graph: ir.Graph, image: ir.Value, names: str | Sequence[str] | None) -> Functional:
    """The outputs ``names`` (default: the only float output).

    Raises:
        FastcamError: no such output, one that is named twice, or that is no float tensor of known rank.
    """
    floats = {value.name or "": value for value in graph.outputs if value.dtype in FLOATS}
    wanted = [names] if isinstance(names, str) else list(names or floats)
    known = f"float outputs: {', '.join(map(_described, floats.values())) or 'none'}"
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
    axes = trace(graph, image)
    values = tuple(floats[name] for name in wanted)
    inputs = [COTANGENT if len(wanted) == 1 else f"{COTANGENT}.{name}" for name in wanted]
    return Functional(tuple(_about(axes, image, *pair) for pair in zip(inputs, values)), values)


def _described(value: ir.Value) -> str:
    return f"{value.name} {'of unknown shape' if value.shape is None else list(_dims(value))}"


def _dims(value: ir.Value) -> tuple[int | str, ...]:
    return tuple(d if isinstance(d, int) else str(d.value or "?") for d in value.shape or ())


def _about(axes: Known, image: ir.Value, name: str, output: ir.Value) -> Cotangent:
    dims = _dims(output)
    batched = _has_images(axes, image, output)
    return Cotangent(name, output.name or "", dims[1:] if batched else dims, batched)


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


def choose_layer(graph: ir.Graph, image: ir.Value, asked: Functional) -> tuple[ir.Value, str, Layout | None]:
    """The deepest map that every path from the image to each of the outputs passes through, and why.

    Maps that already have the channels of an output which is a map itself are left out as
    :func:`fastcam_export.layers.target_layer.choose` does, and so is what no convolution or matrix product has made
    yet.

    Raises:
        FastcamError: there is none, so that one has to be named.
    """
    learned = learned_layers(graph, image, asked)
    if not learned:
        outputs = ", ".join(repr(value.name) for value in asked.values)
        raise FastcamError(
            f"no feature map lies on every path from the image to {outputs}; name a layer with --layer (a value, node "
            "or scope of the model)"
        )
    chosen, reason = target_layer.choose(learned)
    return chosen.value, reason, chosen.layout


def learned_layers(graph: ir.Graph, image: ir.Value, asked: Functional) -> list[target_layer.Layer]:
    """The maps that every path from the image to each of the outputs passes through, behind a first convolution."""
    found: list[target_layer.Layer] = []
    for index, output in enumerate(asked.values):
        maps = target_layer.Maps.of(graph, image, output)
        channels = classes(output) if len(asked.about[index].shape) > 2 else None
        those = target_layer.find_layers(maps, channels)
        found = those if index == 0 else [layer for layer in those if layer.value in {one.value for one in found}]
    return [layer for layer in found if layer.value not in asked.values and is_learned(graph, image, layer.value)]


def is_learned(graph: ir.Graph, image: ir.Value, value: ir.Value) -> bool:
    """Whether a convolution or a matrix product lies between the image and a value."""
    return any(node.op_type in target_layer.LINEAR for node in path(graph, [image], [value]))


def refuse_unreached(graph: ir.Graph, image: ir.Value, layer: ir.Value, asked: Functional) -> None:
    """Raise where an output does not depend on the layer, or only on other tokens than its positions."""
    for output in asked.explained:
        if not path(graph, [layer], [output]):
            raise FastcamError(
                f"output {output.name!r} cannot be reached from layer {layer.name!r}; name a layer between image and "
                "output (fastcam inspect --output-name lists them), or leave the output out"
            )
        if not target_layer.Maps.of(graph, image, output).live(layer):
            raise FastcamError(
                f"output {output.name!r} does not depend on the image positions of layer {layer.name!r}, only on its "
                "other tokens, so its gradient is zero everywhere; name an earlier layer"
            )


# ---- the graph


def attach(
    graph: ir.Graph,
    image: ir.Value,
    layer: ir.Value,
    layout: Layout,
    asked: Functional,
    level: Emit,
    engine: Engine = "onnxruntime",
    further: cam.Further | None = None,
    others: cam.Places = cam.NO_PLACES,
) -> Mapping[str, ir.Value]:
    """Append the backward pass of linear functionals of outputs to ``layer``.

    Args:
        graph, layer, layout, level, engine, further, others: as in :func:`fastcam_export.outputs.cam.attach`.
        image: the image input; its batch is the cotangents'.
        asked: the outputs.

    Returns:
        The values of that level, and those they are made of, by their names in the contract.

    Raises:
        FastcamError: no output depends on the layer, or an operator between them has no gradient rule.
    """
    op = batching.BatchedBuilder(graph, engine=engine)
    given = [_input(graph, image, about, value) for about, value in zip(asked.about, asked.values)]
    op.copies = op.Shape(given[0], start=1, end=2)
    places: dict[int | None, tuple[ir.Value, Layout]] = {None: (layer, layout)}
    places.update(others.items())
    ends = [value for value, _ in places.values()] + ([] if further is None else [further.wrt])
    scale = max(cam.seed_scale(graph, ends, output) for output in asked.explained)
    seeds: dict[ir.Value, ir.Value] = {}
    for value, about, output in zip(given, asked.about, asked.explained):
        seeds[output] = _seed(op, value, about, output, scale)
    values: dict[str, ir.Value] = {}
    for number, (value, how) in places.items():
        values[schema.of_layer(schema.ACTIVATIONS, number)] = cam.activations(op, value, how)
        name, gradient = cam.handed_back(op, seeds, {}, value, how, level)
        values[schema.of_layer(name, number)] = _per_image(op, gradient, scale)
    if further is not None:
        values[further.name] = _per_image(op, further.made(op, seeds), scale if further.scaled else 1.0)
    if level == "cam":
        cam.add_maps(op, values, others)
    return values


def _input(graph: ir.Graph, image: ir.Value, about: Cotangent, output: ir.Value) -> ir.Value:
    """The input of one output's cotangents."""
    assert image.shape is not None
    first = image.shape[0] if about.batched else 1
    shape = ir.Shape((first, "T", *(d if isinstance(d, int) or d != "?" else None for d in about.shape)))
    value = ir.Value(name=about.input, type=ir.TensorType(FLOAT), shape=shape)
    graph.inputs.append(value)
    return value


def _seed(op: Builder, given: ir.Value, about: Cotangent, output: ir.Value, scale: float) -> ir.Value:
    """The cotangents [N, T, ...] as one cotangent of ``output`` per target, T outermost."""
    seed = op.Mul(given, scale) if scale != 1 else given
    if output.dtype != FLOAT:
        seed = op.Cast(seed, to=int(output.dtype or FLOAT))
    outermost = op.Transpose(seed, perm=[1, 0, *range(2, op.rank(given))])
    dims = op.dims(output)
    known = all(isinstance(d, int) for d in dims[1:])
    merged = op.Reshape(outermost, [-1, *dims[1:]] if known else op.concat([[-1], op.shape(output, 1)]))
    return op.lift_value(merged, dims)


def _per_image(op: Builder, value: ir.Value, scale: float) -> ir.Value:
    """float32 [N, T, ...] of a lifted gradient [N, ...] that was multiplied by ``scale``."""
    n, *rest = op.dims(value)
    rank = op.rank(value)
    made = op.Transpose(batching.unmerge(op, value, rank), perm=[1, 0, *range(2, rank + 1)])
    made = op.Cast(made, to=int(FLOAT)) if made.dtype != FLOAT else made
    made = op.Mul(made, 1 / scale) if scale != 1 else made
    made.shape = ir.Shape((n, "T", *rest))
    return made
