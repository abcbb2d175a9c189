"""The runs of the check: the source, and its export with what the check reads among its outputs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from fastcam import schema
from fastcam.errors import listed
from fastcam.schema import Cotangent, FastcamError, FurtherInput
from fastcam_export.autodiff.core.builder import HALF
from fastcam_export.autodiff.core.straight_through import is_code
from fastcam_export.graph.broken_weights import broken_weights
from fastcam_export.graph.query import is_added
from fastcam_export.layers.explained_layer import ExplainedLayer
from fastcam_export.verify import pictures, stop_gradient
from fastcam_export.verify.equal_outputs import difference, is_half, is_quantised, other_outputs, output_tolerance
from fastcam_export.verify.finite_differences import DIRECTIONS, LAYER, Point
from fastcam_export.verify.sample import Sample, sizes, that_runs
from fastcam_export.verify.session import quiet_session
from fastcam_export.verify.without_quantization import numbers_of

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class SourceRun:
    """The source on the check's images.

    Attributes:
        sample: what it was given.
        outputs: by name.
    """

    sample: Sample
    outputs: Mapping[str, Array]

    @property
    def missing(self) -> list[str]:
        """Explained outputs that are empty: a detector found nothing."""
        return [about.output for about in self.sample.cotangents if not self.outputs[about.output].size]


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


# ---- the source


class Source:
    """The source model in one session at a time.

    Args:
        proto: the model as it was given.
        model: as it was loaded.
        image: its image input.
        cotangents: the outputs whose cotangents the export takes.
        further: what the metadata say of further inputs.
        size: (height, width) of the images, where it is known.
    """

    def __init__(
        self,
        proto: onnx.ModelProto,
        model: ir.Model,
        image: ir.Value,
        cotangents: Sequence[Cotangent],
        further: Sequence[FurtherInput] = (),
        size: Sequence[int] | None = None,
    ) -> None:
        self._proto, self._model, self._image, self._cotangents, self._further = (
            proto,
            model,
            image,
            cotangents,
            further,
        )
        self._size = size
        own = [value.name for value in proto.graph.output]
        self._set_aside = [one.output for one in cotangents if one.output not in own]
        self._names = [*own, *self._set_aside]
        self._drawn = stop_gradient.drawn(model.graph)
        self._session: Any = None
        self._open()

    def _open(self) -> Any:
        if self._session is None:
            try:
                self._session = quiet_session(stop_gradient.with_inputs(self._proto, self._drawn, self._set_aside))
            except Exception as error:  # onnxruntime's exceptions have no common base but Exception
                raise self._refusal(error, "") from error
        return self._session

    def close(self) -> None:
        """Let the weights go, which another session may need the room of; the next run reads them again."""
        self._session = None

    def first(self) -> SourceRun:
        """The first run on usual images; of a detector that finds nothing in noise on others, of the last if in none.

        Raises:
            FastcamError: the runtime refuses the model.
        """
        runs: list[SourceRun] = []
        graph = self._model.graph
        try:
            sample = that_runs(
                graph, self._image, self._cotangents, lambda one: runs.append(self.run(one)), self._further, self._size
            )
        except FastcamError:
            raise
        except Exception as error:  # as above
            raise self._refusal(error, self._tried(getattr(error, "sizes_tried", 1))) from error
        names = [one.output for one in self._cotangents]
        for kind in range(1, len(pictures.KINDS)):
            if not runs[-1].missing and (len(runs) == 1 or not _broken(runs[-1], names)):
                return runs[-1]
            runs.append(self.run(sample.of_kind(kind, graph, self._image)))
        return runs[-1] if not runs[-1].missing and not _broken(runs[-1], names) else runs[0]

    def of_numbers(self, run: SourceRun, names: Sequence[str]) -> SourceRun:
        """A run in which outputs are numbers: this one, else one on other pictures.

        Raises:
            FastcamError: on every picture some of them are NaN.
        """
        there = [name for name in names if name in run.outputs]
        if not _broken(run, there):
            return run
        broken = broken_weights(self._model.graph)
        weights = f" (weights with NaN or infinity: {broken})" if broken else ""
        for other in [run, *self.others(run)]:
            nan = _broken(other, there, np.isnan)
            if not nan and not weights:
                return other
        raise FastcamError(
            f"output {_broken(run, there)!r} of the model is NaN or infinite on every picture that the check tried, so "
            f"that it has no gradient{weights}; repair the model, or export with --no-check"
        )

    def others(self, run: SourceRun) -> list[SourceRun]:
        """The same on other pictures of the same size."""
        samples = [run.sample.of_kind(kind, self._model.graph, self._image) for kind in range(1, len(pictures.KINDS))]
        return [self.run(sample) for sample in samples]

    def run(self, sample: Sample) -> SourceRun:
        """One run."""
        drawn = dict(zip(self._drawn, stop_gradient.values(self._model, self._drawn, sample.feeds)))
        sample = replace(sample, drawn=drawn)
        outputs = self._open().run(self._names, dict(sample.with_drawn))
        return SourceRun(sample, dict(zip(self._names, outputs)))

    def _tried(self, number: int) -> str:
        """What it was run on, for people: the first of a number of sizes."""
        tried = [self._size] if self._size is not None else sizes(self._model.graph, self._image)
        try:
            feeds = Sample.of(self._model.graph, self._image, self._cotangents, self._further, tried[0]).feeds
        except MemoryError:
            return ""
        first = listed(f"{name} {list(array.shape)}" for name, array in feeds.items())
        return f" on {first}" + (f", nor on {number - 1} other sizes" if number > 1 else "")

    def _refusal(self, error: Exception, tried: str) -> FastcamError:
        free = len(sizes(self._model.graph, self._image)) > 1
        advice = (
            "say the size that it takes (--size HEIGHTxWIDTH), or export with --no-check"
            if free
            else "repair the model, or export with --no-check"
        )
        return FastcamError(f"ONNX Runtime cannot run the model itself{tried} ({said(error)}); {advice}")


def _broken(run: SourceRun, names: Sequence[str], how: Callable[[Array], Array] = lambda y: ~np.isfinite(y)) -> str:
    """The first of some outputs that holds what is no number, or infinite; "" where none does."""
    for name in names:
        if run.outputs[name].dtype.kind == "f" and how(run.outputs[name]).any():
            return name
    return ""


def said(error: BaseException) -> str:
    """The reason that the runtime gives, in one line."""
    why = re.split(r"\[ONNXRuntimeError\] : \d+ : \w+ : ", " ".join(str(error).split()))[-1]
    return why[:200].rstrip(" .")


# ---- both


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
