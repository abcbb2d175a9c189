"""The check that ends every export: same outputs as the source, and gradients that central differences confirm."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from fastcam import schema
from fastcam.schema import FastcamError
from fastcam_export.autodiff.core.builder import HALF
from fastcam_export.autodiff.core.straight_through import QUANTIZE
from fastcam_export.layers.explained_layer import ExplainedLayer
from fastcam_export.verify import finite_differences, stop_gradient
from fastcam_export.verify.finite_differences import DIRECTIONS, LAYER, Point, score_session
from fastcam_export.verify.sample import Sample, predicted_class
from fastcam_export.verify.session import quiet_session

Array = npt.NDArray[Any]
OUTPUT_TOLERANCE = {"float32": 1e-4, "float16": 1e-2}
"""Largest accepted difference of an output, as a share of its largest value, where fusions changed the last bits."""
GRADIENT_TOLERANCE = {"float32": 1e-2, "float16": 5e-2, "rounded": 1.0}
"""Largest accepted error of a directional derivative, as a share of the gradient's norm.

"rounded" is for quantised and float16 models with kinks behind the layer: without rounding, as the differences are
taken, a share of the values lies on another side of a kink, more of them the deeper the layer. This finds gross errors
only.
"""
KINKS = frozenset({"Clip", "HardSigmoid", "HardSwish", "LeakyRelu", "Max", "MaxPool", "Min", "PRelu", "Relu"})


@dataclass(frozen=True)
class LayerRun:
    """A target layer in a run of the exported model: what central differences are compared with.

    Attributes:
        layer: the target layer.
        point: its value and the classes or cotangents explained.
        gradient: [N, K, h, w], or its mean over positions [N, K].
        feeds: the inputs of that run, for the images of ``point``.
    """

    layer: ExplainedLayer
    point: Point
    gradient: Array
    feeds: Mapping[str, Array]

    @property
    def pooled(self) -> bool:
        """Whether the gradient is a mean over positions."""
        return self.gradient.ndim == 2

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
    """

    identical: bool
    difference: float
    layers: tuple[LayerRun, ...]


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


@dataclass(frozen=True)
class Check:
    """What the check measured.

    Attributes:
        bit_identical: every output of the source equals the exported file's bit for bit.
        output_difference: largest difference, as a share of that output's largest absolute value.
        gradient_error: per direction, |<v, g> - central difference| / scale, the worst of them, over all layers.
        directions: number of random directions at the default layer.
    """

    bit_identical: bool
    output_difference: float
    gradient_error: float
    directions: int

    def to_dict(self) -> dict[str, Any]:
        """For the metadata."""
        return dict(vars(self))


def difference(before: Sequence[Array], after: Sequence[Array]) -> tuple[bool, float]:
    """Whether two lists of arrays are equal bit for bit, and the largest difference as a share of the largest value.

    Sequences and maps count by what is in them; of texts it only counts whether they are the same.
    """
    identical, worst = True, 0.0
    for a, b in zip(_numbers(before), _numbers(after)):
        identical &= a.shape == b.shape and a.tobytes() == b.tobytes()
        if a.shape != b.shape or not np.array_equal(np.isfinite(a), np.isfinite(b)):
            return False, float("inf")
        finite = np.isfinite(a)
        x, y = a[finite].astype(np.float64), b[finite].astype(np.float64)
        worst = max(worst, float(np.abs(x - y).max(initial=0) / max(np.abs(x).max(initial=0), 1e-30)))
    return identical, worst


def _numbers(values: Any) -> list[Array]:
    """All arrays in outputs, those in sequences and maps too; of a text its bytes."""
    if isinstance(values, np.ndarray) and values.dtype.kind not in "OUS":
        return [values]
    if isinstance(values, str | bytes):
        return [np.frombuffer(values.encode() if isinstance(values, str) else values, np.uint8)]
    if isinstance(values, Mapping):
        return _numbers([*values.keys(), *values.values()])
    if isinstance(values, np.ndarray):
        values = values.ravel().tolist()
    if isinstance(values, list | tuple):
        return [array for value in values for array in _numbers(value)]
    return [np.asarray(values)]


def run_both(
    source: onnx.ModelProto,
    exported: onnx.ModelProto,
    sample: Sample,
    values: Mapping[str, str],
    layers: Sequence[ExplainedLayer],
) -> Comparison:
    """Run source and exported file on the same inputs and compare their outputs.

    Args:
        source, exported: the two models.
        sample: the inputs.
        values: the names of the values that the export adds, by contract name.
        layers: the target layers, the default one first.

    Raises:
        FastcamError: the runtime refuses a model, outputs differ, or a target's gradient depends on other targets.
    """
    own = [value.name for value in source.graph.output]
    probe = _probe(exported, values, layers)
    shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in sample.feeds.items())
    before = _run(
        source,
        own,
        [sample.feeds],
        f"ONNX Runtime cannot run the model itself on {shapes}",
        "repair the model; if it takes only one image, its batch must be 1, not free",
    )[0]
    targets = sample.targets(exported, before)
    inputs = [{**sample.feeds, **targets}]
    if not sample.cotangents and any(value.name == schema.TARGETS for value in exported.graph.input):
        inputs.append({**sample.feeds, schema.TARGETS: np.array([[-1, 0]])})
    runs = _run(
        probe.model,
        [*own, *probe.emitted.values(), *probe.layers.values()],
        inputs,
        "the check could not run the exported model",
        "this is a defect of FastCAM: please report it with the model's operators (fastcam inspect)",
    )
    identical, worst = difference(list(before.values()), [runs[0][name] for name in own])
    if worst > output_tolerance(source):
        raise _other_outputs(worst, _is_quantised(source))
    for layer in layers:
        _refuse_mixed(source, *(run[probe.emitted[layer.output(_gradient(exported))]][:, 0] for run in runs))
    cotangents = tuple(targets.values()) if sample.cotangents else ()
    ran = (_layer_run(source, probe, layer, runs[0], inputs[0], cotangents) for layer in layers)
    return Comparison(identical, worst, tuple(ran))


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
    gradient = run[probe.emitted[layer.output(_gradient(probe.model))]][:, 0]
    classes = np.zeros((len(gradient), 1), np.int64) if cotangents else run[probe.emitted[schema.CLASSES]]
    maps = run[probe.emitted[layer.output(schema.ACTIVATIONS)]]
    point = Point(run[probe.layers[layer.number]], layer.layout, maps, classes, cotangents)
    if layer.value.name is not None:
        point.fit(layer.value.name)
    if layer.number is not None and not cotangents and _is_free(source, feeds):
        point, gradient = point.first(), gradient[:1]  # each step takes most of the model in float64
        feeds = {name: array[:1] for name, array in feeds.items()}
    if is_half(source) and not np.isfinite(gradient).all():
        raise FastcamError(
            "the check failed: gradients on the way to this layer exceed float16's range; name a later layer (fastcam "
            "inspect lists them), or give the float32 model"
        )
    return LayerRun(layer, point, gradient, feeds)


def layer_error(source: onnx.ModelProto, tail: onnx.ModelProto, run: LayerRun) -> float:
    """The error of the gradient at one layer, see :func:`fastcam_export.verify.finite_differences.gradient_error`.

    Args:
        source: the source model.
        tail: the part of it behind the layer, see :func:`fastcam_export.verify.tail.tail`.
        run: the layer in the exported model's run.

    Raises:
        FastcamError: the gradient is zero because the score does not depend on the layer's positions at all.
    """
    feeds = stop_gradient.fed(source, tail, run.feeds)
    if not run.gradient.any():
        _refuse_unread(tail, feeds, run.point, run.layer)
    return finite_differences.gradient_error(tail, feeds, run.point, run.gradient, directions=run.directions)


def whole_gradient_error(
    source: onnx.ModelProto, tail: onnx.ModelProto, run: LayerRun, whole: onnx.ModelProto
) -> float:
    """The error of the whole gradient, and of the pooled one as its mean, where differences do not tell the latter.

    A step that is the same at all positions also moves those that are zero, and with them sums of zeros alone, which
    lie on the kink of a ReLU behind: there is no derivative in that direction. Steps of the whole gradient leave them.

    Args:
        source, tail, run: as in :func:`layer_error`.
        whole: an export of the layer alone that emits the whole gradient.
    """
    feeds = stop_gradient.fed(source, tail, run.feeds)
    targets = {} if run.point.cotangents else predicted_class(whole)
    gradient = np.asarray(quiet_session(whole).run([schema.GRADIENTS], {**feeds, **targets})[0])[:, 0]
    mean = gradient.mean(tuple(range(2, gradient.ndim)), dtype=np.float64)
    apart = difference([run.gradient], [mean])[1]
    if apart > output_tolerance(source):
        return apart
    error = finite_differences.gradient_error(tail, feeds, run.point, gradient, directions=run.directions)
    return max(apart, error)


def _gradient(exported: onnx.ModelProto) -> str:
    """The contract's name of what the file holds of the gradient."""
    names = {value.name for value in exported.graph.output}
    return schema.GRADIENTS if schema.GRADIENTS in names else schema.WEIGHTS


def _is_free(source: onnx.ModelProto, feeds: Mapping[str, Array]) -> bool:
    """Whether the first axis of each input counts the images, and any number of them."""
    dims = (value.type.tensor_type.shape.dim for value in source.graph.input if value.name in feeds)
    return all(dim and not dim[0].HasField("dim_value") for dim in dims)


def output_tolerance(source: onnx.ModelProto) -> float:
    """What :data:`OUTPUT_TOLERANCE` allows for this model."""
    return OUTPUT_TOLERANCE["float16" if is_half(source) else "float32"]


def tolerance(source: onnx.ModelProto, tail: onnx.ModelProto) -> float:
    """What :data:`GRADIENT_TOLERANCE` allows for this model."""
    half, quantised = is_half(source), _is_quantised(source)
    kinked = any(node.op_type in KINKS for node in tail.graph.node)
    return GRADIENT_TOLERANCE["rounded" if (quantised or half) and kinked else "float16" if half else "float32"]


def refuse_error(error: float, source: onnx.ModelProto, tail: onnx.ModelProto, what: str) -> None:
    """Raise where the error of a gradient is larger than :func:`tolerance`."""
    if not error <= tolerance(source, tail):
        raise FastcamError(
            f"the check failed: {what} differs from central differences by {error:.1e} of its size; "
            "please report the model's operators (fastcam inspect)"
        )


def is_half(model: onnx.ModelProto) -> bool:
    """Whether a model has float16 weights."""
    return any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in model.graph.initializer)


def _is_quantised(model: onnx.ModelProto) -> bool:
    return any(node.op_type == QUANTIZE for node in model.graph.node)


def _other_outputs(worst: float, quantised: bool) -> FastcamError:
    """What to say of an export whose outputs differ from the source's by ``worst`` of their largest value."""
    if quantised:
        return FastcamError(
            "the check failed: reading this layer makes the runtime take other kernels than for a quantised model; an "
            f"output differs by {worst:.1e} of its largest value; name another layer (fastcam inspect lists them)"
        )
    return FastcamError(
        f"the check failed: an output of the exported model differs from the source's by {worst:.1e} of its "
        "largest value; please report the model's operators (fastcam inspect)"
    )


def _refuse_mixed(source: onnx.ModelProto, alone: Array, *among_others: Array) -> None:
    """Raise where a target's gradient is another one when a second target is asked for."""
    for among in among_others:
        apart = difference([alone], [among])[1]
        if apart > output_tolerance(source):
            raise FastcamError(
                f"the check failed: with two targets the gradient of the first differs by {apart:.1e} of its size; "
                "please report the model's operators (fastcam inspect)"
            )


def _run(
    model: onnx.ModelProto, names: Sequence[str], inputs: Sequence[Mapping[str, Array]], what: str, advice: str
) -> list[dict[str, Array]]:
    """The named values for each of several inputs, in one session."""
    try:
        runner = quiet_session(model)
        runs = [runner.run(list(names), dict(feeds)) for feeds in inputs]
        return [dict(zip(names, run)) for run in runs]
    except Exception as error:  # onnxruntime's exceptions have no common base but Exception
        why = re.split(r"\[ONNXRuntimeError\] : \d+ : \w+ : ", " ".join(str(error).split()))[-1]
        raise FastcamError(f"{what} ({why[:200].rstrip(' .')}); {advice}") from error


def _probe(exported: onnx.ModelProto, values: Mapping[str, str], layers: Sequence[ExplainedLayer]) -> Probe:
    """The exported model with activations, gradients and layers among its outputs."""
    outputs = {value.name for value in exported.graph.output}
    wanted = [schema.CLASSES] if schema.CLASSES in values else []  # not of a cotangent
    wanted += [layer.output(plain) for layer in layers for plain in (schema.ACTIVATIONS, _gradient(exported))]
    emitted = {name: values[name] for name in wanted}
    probe = onnx.ModelProto()
    probe.CopyFrom(exported)
    raw = {layer.number: _readable(probe, layer, f"{LAYER}{i or ''}") for i, layer in enumerate(layers)}
    hidden = {*emitted.values(), *raw.values()} - outputs
    probe.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in sorted(hidden)
    )
    return Probe(probe, emitted, raw)


def _readable(probe: onnx.ModelProto, layer: ExplainedLayer, name: str) -> str:
    """The name of a value that holds the layer; of half precision it is read as :mod:`fastcam_export.graph.float16` has
    it."""
    raw = layer.value.name or ""
    if layer.value.dtype not in HALF:
        return raw
    probe.graph.node.append(onnx.helper.make_node("Sum", [raw], [f"{name}.half"]))
    probe.graph.node.append(onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT))
    return name


def _refuse_unread(tail: onnx.ModelProto, feeds: Mapping[str, Array], point: Point, layer: ExplainedLayer) -> None:
    """Raise where other positions of the layer leave every class score as it is, whatever is in them."""
    scores, _ = score_session(tail, feeds, point.cotangents)
    rng = np.random.default_rng(2)
    spread = float(np.abs(point.maps).mean()) or 1.0
    before = scores(point.moved(np.zeros_like(point.maps)))
    others = (scores(point.moved(spread * rng.standard_normal(point.maps.shape))) for _ in range(DIRECTIONS))
    if all(np.array_equal(before, other) for other in others):
        raise FastcamError(
            f"the score does not depend on the image positions of layer {layer.value.name!r}, so its gradient is zero "
            "everywhere; name an earlier layer (fastcam inspect lists them)"
        )
