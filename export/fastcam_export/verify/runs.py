"""The run of an export beside its source's: same outputs, and what central differences are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from fastcam import schema
from fastcam.schema import FastcamError
from fastcam_export.autodiff.core.builder import HALF
from fastcam_export.autodiff.core.straight_through import is_code
from fastcam_export.graph.query import is_added
from fastcam_export.layers.explained_layer import ExplainedLayer
from fastcam_export.verify import stop_gradient
from fastcam_export.verify.equal_outputs import difference, is_half, is_quantised, other_outputs, output_tolerance
from fastcam_export.verify.finite_differences import DIRECTIONS, LAYER, Point
from fastcam_export.verify.session import quiet_session, said
from fastcam_export.verify.source_runs import SourceRun
from fastcam_export.verify.without_quantization import numbers_of

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class LayerRun:
    """A target layer in a run of the exported model: what central differences are compared with.

    Attributes:
        layer: the target layer.
        point: its value and the classes or cotangents explained.
        gradient: [N, K, h, w], or its mean over positions [N, K], [N, K, t] over those of each picture of a sequence.
        feeds: the inputs of that run, for the images of ``point``.
        emitted: the name of the gradient's value in the exported model.
    """

    layer: ExplainedLayer
    point: Point
    gradient: Array
    feeds: Mapping[str, Array]
    emitted: str

    @property
    def pooled(self) -> bool:
        """Whether the gradient is a mean over positions."""
        return self.gradient.ndim < self.point.maps.ndim

    @property
    def directions(self) -> int:
        """How many random directions are compared: fewer at the layers beside the default one."""
        return DIRECTIONS if self.layer.number is None else 1


@dataclass(frozen=True)
class Comparison:
    """A run of the source and one of its export on the same inputs.

    Attributes:
        identical: every output of the source equals the exported file's bit for bit.
        difference: largest difference, as a share of that output's largest absolute value.
        layers: the target layers in the exported model's run.
        note: what is to be said of the difference.
    """

    identical: bool
    difference: float
    layers: tuple[LayerRun, ...]
    note: str = ""


@dataclass(frozen=True)
class Probe:
    """An exported model whose target layers, activations and gradients are outputs.

    Attributes:
        model: the model.
        emitted: contract names of what the check reads, and the names of these values.
        layers: the names of the values of the target layers, by the layers' numbers.
    """

    model: onnx.ModelProto
    emitted: Mapping[str, str]
    layers: Mapping[int | None, str]


def run_both(
    source: onnx.ModelProto,
    exported: onnx.ModelProto,
    run: SourceRun,
    values: Mapping[str, str],
    layers: Sequence[ExplainedLayer],
) -> Comparison:
    """Run the exported file on the inputs of a run of the source and compare its outputs.

    Args:
        source, exported: the two models.
        run: the source's run. Where an explained output is empty, outputs alone are compared.
        values: the names of the values that the export adds, by contract name.
        layers: the target layers, the default one first.

    Raises:
        FastcamError: the runtime refuses the export, outputs differ, or a target's gradient depends on other targets.
    """
    own, sample = list(run.outputs), run.sample
    if run.missing:
        plain = _run(_without_added(exported), own, [sample.with_drawn])[0]
        identical, worst, note = _same_outputs(source, run, plain)
        return Comparison(identical, worst, (), note)
    probe = _probe(exported, values, layers, list(sample.drawn))
    targets = sample.targets(exported, run.outputs)
    inputs = [{**sample.with_drawn, **targets}]
    mixed = not sample.cotangents and any(value.name == schema.TARGETS for value in exported.graph.input)
    if mixed:
        inputs.append({**sample.with_drawn, schema.TARGETS: np.array([[-1, 0]])})
    alone = len(layers) > 1 and not sample.cotangents and not sample.drawn and _is_free(source, sample.feeds)
    if alone:  # each step takes most of the model in float64: of the further layers one image is enough
        inputs.append({**sample.of_one_image().feeds, **targets})
    runs = _run(probe.model, [*own, *probe.emitted.values(), *probe.layers.values()], inputs)
    found = runs[0]
    if is_quantised(source) and not difference(list(run.outputs.values()), [found[name] for name in own])[0]:
        found = _plain(exported, run)
    identical, worst, note = _same_outputs(source, run, found)
    for layer in layers:
        name = probe.emitted[layer.output(_gradient(exported))]
        _refuse_mixed(source, *(one[name][:, 0] for one in runs[: 1 + mixed]))
    cotangents = tuple(targets.values()) if sample.cotangents else ()
    which = [-1 if alone and layer.number is not None else 0 for layer in layers]
    ran = (_layer_run(source, probe, layer, runs[i], inputs[i], cotangents) for layer, i in zip(layers, which))
    return Comparison(identical, worst, tuple(ran), note)


def same_bits(exported: onnx.ModelProto, run: SourceRun) -> bool:
    """Whether the exported file gives the outputs of a run of its source, bit for bit."""
    return difference(list(run.outputs.values()), list(_plain(exported, run).values()))[0]


def _plain(exported: onnx.ModelProto, run: SourceRun) -> dict[str, Array]:
    """The source's outputs in a run of the exported file as it is: what a probe reads besides may disturb fusions."""
    feeds = {**run.sample.with_drawn, **run.sample.targets(exported, run.outputs)}
    return _run(stop_gradient.with_inputs(exported, list(run.sample.drawn)), list(run.outputs), [feeds])[0]


def _same_outputs(source: onnx.ModelProto, run: SourceRun, after: Mapping[str, Array]) -> tuple[bool, float, str]:
    """Whether outputs are the same, their largest difference, and what is to be said of it.

    Raises:
        FastcamError: they differ by more than the runtime's own ways to run the model do.
    """
    before = list(run.outputs.values())
    identical, worst = difference(before, [after[name] for name in run.outputs])
    if worst <= output_tolerance(source):
        return identical, worst, ""
    own = 0.0
    if is_quantised(source):
        feeds, names = run.sample.with_drawn, list(run.outputs)
        session = quiet_session(stop_gradient.with_inputs(source, list(run.sample.drawn)), plain=True)
        taken = {value.name for value in session.get_inputs()}
        plain = session.run(names, {name: array for name, array in feeds.items() if name in taken})
        own = difference(before, plain)[1]
    if not worst <= 1.5 * own:
        raise other_outputs(worst, is_quantised(source))
    return identical, worst, OTHER_KERNELS.format(worst=worst, own=own)


OTHER_KERNELS = (
    "outputs differ by {worst:.1e} of the largest value: reading this layer makes the runtime take other kernels for "
    "integers; its own results for the model, with and without optimisation, differ by {own:.1e}"
)


def _without_added(exported: onnx.ModelProto) -> onnx.ModelProto:
    """An exported model without what was added to it."""
    made = onnx.ModelProto()
    made.CopyFrom(exported)
    asked = {value.name for value in exported.graph.input if is_added(value)}
    for field in (made.graph.output, made.graph.input, made.graph.node):
        kept = [each for each in field if not is_added(each)]
        del field[:]
        field.extend(kept)
    constants = [tensor for tensor in made.graph.initializer if tensor.name not in asked]
    del made.graph.initializer[:]
    made.graph.initializer.extend(constants)
    return made


def _layer_run(
    source: onnx.ModelProto,
    probe: Probe,
    layer: ExplainedLayer,
    run: Mapping[str, Array],
    feeds: Mapping[str, Array],
    cotangents: tuple[Array, ...],
) -> LayerRun:
    """A target layer in the probe's run.

    Raises:
        FastcamError: the layer is a sequence of another length than its layout says, or gradients overflow float16.
    """
    emitted = probe.emitted[layer.output(_gradient(probe.model))]
    gradient = run[emitted][:, 0]
    classes = np.zeros((len(gradient), 1), np.int64) if cotangents else run[probe.emitted[schema.CLASSES]]
    maps = run[probe.emitted[layer.output(schema.ACTIVATIONS)]]
    point = Point(run[probe.layers[layer.number]], layer.layout, maps, classes, cotangents)
    if layer.value.name is not None:
        point.fit(layer.value.name)
    if is_half(source) and not np.isfinite(gradient).all():
        raise FastcamError(
            "the check failed: gradients on the way to this layer exceed float16's range; name a later layer (fastcam "
            "inspect lists them), or give the float32 model"
        )
    return LayerRun(layer, point, gradient, feeds, emitted)


def _gradient(exported: onnx.ModelProto) -> str:
    """The contract's name of what the file holds of the gradient."""
    names = {value.name for value in exported.graph.output}
    return schema.GRADIENTS if schema.GRADIENTS in names else schema.WEIGHTS


def _is_free(source: onnx.ModelProto, feeds: Mapping[str, Array]) -> bool:
    """Whether the first axis of each input counts the images, and any number of them."""
    dims = (value.type.tensor_type.shape.dim for value in source.graph.input if value.name in feeds)
    return all(dim and not dim[0].HasField("dim_value") for dim in dims)


def _refuse_mixed(source: onnx.ModelProto, alone: Array, *among_others: Array) -> None:
    """Raise where a target's gradient is another one when a second target is asked for."""
    for among in among_others:
        apart = difference([alone], [among])[1]
        if apart > output_tolerance(source):
            raise FastcamError(
                f"the check failed: with two targets the gradient of the first differs by {apart:.1e} of its size; "
                "please report the model's operators (fastcam inspect)"
            )


def _run(model: onnx.ModelProto, names: Sequence[str], inputs: Sequence[Mapping[str, Array]]) -> list[dict[str, Array]]:
    """The named values for each of several inputs, in one session."""
    try:
        runner = quiet_session(model)
        runs = [runner.run(list(names), dict(feeds)) for feeds in inputs]
        return [dict(zip(names, run)) for run in runs]
    except Exception as error:  # onnxruntime's exceptions have no common base but Exception
        raise FastcamError(
            f"the check could not run the exported model ({said(error)}); this is a defect of FastCAM: please report "
            "it with the model's operators (fastcam inspect)"
        ) from error


def _probe(
    exported: onnx.ModelProto, values: Mapping[str, str], layers: Sequence[ExplainedLayer], drawn: Sequence[str]
) -> Probe:
    """The exported model with activations, gradients and layers among its outputs."""
    wanted = [schema.CLASSES] if schema.CLASSES in values else []  # not of a cotangent
    wanted += [layer.output(plain) for layer in layers for plain in (schema.ACTIVATIONS, _gradient(exported))]
    emitted = {name: values[name] for name in wanted}
    probe = onnx.ModelProto()
    probe.CopyFrom(stop_gradient.with_inputs(exported, drawn))
    raw = {layer.number: _readable(probe, layer, f"{LAYER}{i or ''}") for i, layer in enumerate(layers)}
    there = {value.name for value in (*probe.graph.output, *probe.graph.input)}
    hidden = {*emitted.values(), *raw.values()} - there
    probe.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in sorted(hidden)
    )
    return Probe(probe, emitted, raw)


def _readable(probe: onnx.ModelProto, layer: ExplainedLayer, name: str) -> str:
    """The name of a value that holds the layer; of half precision it is read as :mod:`fastcam_export.graph.float16` has
    it, of integers as the numbers that they stand for."""
    raw = layer.value.name or ""
    if is_code(layer.value):
        probe.graph.node.append(numbers_of(layer.value, name))
        return name
    if layer.value.dtype not in HALF:
        return raw
    probe.graph.node.append(onnx.helper.make_node("Sum", [raw], [f"{name}.half"]))
    probe.graph.node.append(onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT))
    return name
