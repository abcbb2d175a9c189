"""The check that ends every export: same outputs as the source, and gradients that central differences confirm."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx_ir.passes import common as common_passes

from fastcam import schema
from fastcam.schema import FastcamError
from fastcam_export.autodiff.core.builder import HALF
from fastcam_export.autodiff.core.straight_through import QUANTIZE
from fastcam_export.layers.axis_tracing import image_order
from fastcam_export.layers.layout import Layout
from fastcam_export.verify import stop_gradient
from fastcam_export.verify.finite_differences import DIRECTIONS, LAYER, Point, gradient_error, score_session, session
from fastcam_export.verify.without_quantization import without_rounding

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
FREE_SIZE = 224
FREE_FRAMES = 16
"""Height and width of the check's image, and frames of its video, where the model takes any."""


@dataclass(frozen=True)
class Examined:
    """A target layer that the check looks at.

    Attributes:
        layer: its value.
        layout: how its positions lie.
        behind: gives :func:`tail` of the source.
        full: gives an export of it alone that emits the whole gradient.
        number: of its outputs, see :func:`fastcam.schema.of_layer`.
        directions: how many random directions.
    """

    layer: ir.Value
    layout: Layout
    behind: Callable[[], onnx.ModelProto]
    full: Callable[[], onnx.ModelProto]
    number: int | None = None
    directions: int = DIRECTIONS

    def name(self, plain: str) -> str:
        """Its output that is called ``plain`` for the default layer."""
        return schema.of_layer(plain, self.number)


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


def random_inputs(graph: ir.Graph, image: ir.Value, seed: int = 0) -> dict[str, Array]:
    """Standard normal images (two where the batch is free) and zeros for any further input that has no default."""
    rng = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for value in graph.inputs:
        if value.name in graph.initializers or value.name == schema.TARGETS:
            continue
        dims = [d if isinstance(d, int) else None for d in value.shape or ()]
        free = {"N": 2, "C": 3, "T": FREE_FRAMES, "H": FREE_SIZE, "W": FREE_SIZE}
        fill = [free[axis] for axis in image_order(image)] if value is image else [2] * len(dims)
        shape = [d if d is not None else fill[axis] for axis, d in enumerate(dims)]
        dtype = value.dtype.numpy()  # type: ignore[union-attr]
        if value is image:
            sample = rng.standard_normal(shape) if dtype.kind == "f" else rng.integers(0, 256, shape)
        else:
            sample = np.zeros(shape)
        feeds[value.name or ""] = sample.astype(dtype)
    return feeds


def difference(before: Sequence[Array], after: Sequence[Array]) -> tuple[bool, float]:
    """Whether two lists of arrays are equal bit for bit, and the largest difference as a share of the largest value."""
    identical, worst = True, 0.0
    for a, b in zip(before, after):
        identical &= a.shape == b.shape and a.tobytes() == b.tobytes()
        if a.shape != b.shape or not np.array_equal(np.isfinite(a), np.isfinite(b)):
            return False, float("inf")
        finite = np.isfinite(a)
        x, y = a[finite].astype(np.float64), b[finite].astype(np.float64)
        worst = max(worst, float(np.abs(x - y).max(initial=0) / max(np.abs(x).max(initial=0), 1e-30)))
    return identical, worst


def targets(model: onnx.ModelProto) -> dict[str, Array]:
    """The predicted class, where an exported model needs to be told its targets."""
    defaults = {tensor.name for tensor in model.graph.initializer}
    needed = any(value.name == schema.TARGETS and value.name not in defaults for value in model.graph.input)
    return {schema.TARGETS: np.array([[-1]])} if needed else {}


def tail(model: ir.Model, layer: ir.Value, *scores: ir.Value) -> onnx.ModelProto:
    """The part of the model behind ``layer`` (or all of it, behind the image): its value becomes the input LAYER,
    ``scores`` the only outputs.

    What is quantised there is not rounded, see :func:`fastcam_export.verify.without_quantization.without_rounding`, and
    what gradients hold is an input too, see :mod:`fastcam_export.verify.stop_gradient`.
    """
    part = model.clone()
    without_rounding(part.graph, layer.name)
    values = {value.name: value for value in (*part.graph.inputs, *(y for node in part.graph for y in node.outputs))}
    cut = ir.Value(name=LAYER, type=layer.type, shape=layer.shape)
    ir.convenience.replace_all_uses_with(values[layer.name], cut)
    part.graph.inputs.append(cut)
    stop_gradient.cut(part.graph)
    for value in [value for value in part.graph.inputs if (value.name or "").startswith(schema.PREFIX)]:
        part.graph.inputs.remove(value)  # where the export is finished already
    del part.graph.outputs[:]
    part.graph.outputs.extend(values[score.name] for score in scores)
    common_passes.RemoveUnusedNodesPass()(part)
    return ir.to_proto(part)


def check(
    source: onnx.ModelProto,
    exported: onnx.ModelProto,
    feeds: Mapping[str, Array],
    values: Mapping[str, ir.Value],
    examined: Sequence[Examined],
    cotangents: Callable[[Mapping[str, Array]], Mapping[str, Array]] | None = None,
) -> Check:
    """Run source and exported file on the same inputs; compare outputs, and gradients with central differences.

    Args:
        source, exported: the two models.
        feeds: inputs of the source.
        values: what :func:`fastcam_export.outputs.cam.attach` returned, by contract name.
        examined: the target layers, the default one first.
        cotangents: where targets are cotangents: the source's outputs by name -> those of one target for each output of
            the source's tail, [N, 1, ...], by the names of their inputs.

    Raises:
        FastcamError: the runtime refuses a model, outputs differ, or a gradient is wrong, or zero because the score
            does not depend on the layer's positions at all.
    """
    names = [value.name for value in source.graph.output]
    probe, wanted, raw = _probe(exported, values, examined)
    shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feeds.items())
    before = _run(
        source,
        names,
        feeds,
        f"ONNX Runtime cannot run the model itself on {shapes}",
        "repair the model; if it takes only one image, its batch must be 1, not free",
    )
    extra = targets(exported) if cotangents is None else cotangents(dict(zip(names, before)))
    each = [{**feeds, **extra}]
    if cotangents is None and any(value.name == schema.TARGETS for value in exported.graph.input):
        each.append({**feeds, schema.TARGETS: np.array([[-1, 0]])})
    everything = [*names, *(values[name].name for name in wanted), *raw]
    results, *again = _run_each(
        probe,
        everything,
        each,
        "the check could not run the exported model",
        "this is a defect of FastCAM: please report it with the model's operators (fastcam inspect)",
    )
    identical, worst = difference(before, results[: len(names)])
    half, quantised = _is_half(source), _is_quantised(source)
    if worst > OUTPUT_TOLERANCE["float16" if half else "float32"]:
        raise _other_outputs(worst, quantised)
    ran, *others = (dict(zip(wanted, found[len(names) :])) for found in (results, *again))
    given = tuple(extra.values()) if cotangents is not None else ()
    error = 0.0
    for place, lies in zip(examined, results[len(results) - len(examined) :]):
        alone, *among = (found[place.name(_gradient(exported))][:, 0] for found in (ran, *others))
        for other in among:
            _refuse_mixed(alone, other, half)
        classes = np.zeros((len(alone), 1), np.int64) if given else ran[schema.CLASSES]
        point = Point(lies, place.layout, ran[place.name(schema.ACTIVATIONS)], classes, given)
        error = max(error, _gradient_error(source, place, {**feeds, **extra}, point, alone))
    return Check(identical, worst, error, DIRECTIONS)


def _gradient(exported: onnx.ModelProto) -> str:
    """The contract's name of what the file holds of the gradient."""
    names = {value.name for value in exported.graph.output}
    return schema.GRADIENTS if schema.GRADIENTS in names else schema.WEIGHTS


def _gradient_error(
    source: onnx.ModelProto, place: Examined, feeds: Mapping[str, Array], point: Point, gradient: Array
) -> float:
    """The error of the gradient at one layer.

    Raises:
        FastcamError: it is too large, or the gradient is not finite or zero.
    """
    if place.layer.name is not None:
        point.fit(place.layer.name)
    if place.number is not None and not point.cotangents and _is_free(source, feeds):
        point, gradient = point.first(), gradient[:1]  # each step takes most of the model in float64
        feeds = {name: array[:1] for name, array in feeds.items()}
    if _is_half(source) and not np.isfinite(gradient).all():
        raise FastcamError(
            "the check failed: gradients on the way to this layer exceed float16's range; name a later layer (fastcam "
            "inspect lists them), or give the float32 model"
        )
    behind = place.behind()
    feeds = stop_gradient.fed(source, behind, feeds)
    if not gradient.any():
        _refuse_unread(behind, feeds, point, place.layer)
    error = gradient_error(behind, feeds, point, gradient, directions=place.directions)
    if gradient.ndim == 2 and not error <= tolerance(source, behind):
        error = _error_of_full(source, place, feeds, point, behind, gradient)
    which = "" if place.number is None else f" at layer {place.layer.name!r}"
    refuse_error(error, source, behind, f"the gradient{which}")
    return error


def _is_free(source: onnx.ModelProto, feeds: Mapping[str, Array]) -> bool:
    """Whether the first axis of each input counts the images, and any number of them."""
    dims = (value.type.tensor_type.shape.dim for value in source.graph.input if value.name in feeds)
    return all(dim and not dim[0].HasField("dim_value") for dim in dims)


def _error_of_full(
    source: onnx.ModelProto,
    place: Examined,
    feeds: Mapping[str, Array],
    point: Point,
    behind: onnx.ModelProto,
    pooled: Array,
) -> float:
    """The error of the whole gradient, and of the pooled one as its mean, where differences do not tell the latter.

    A step that is the same at all positions also moves those that are zero, and with them sums of zeros alone, which
    lie on the kink of a ReLU behind: there is no derivative in that direction. Steps of the whole gradient leave them.
    """
    full = place.full()
    name = schema.GRADIENTS
    whole = np.asarray(session(full).run([name], {**feeds, **({} if point.cotangents else targets(full))})[0])[:, 0]
    apart = difference([pooled], [whole.mean(tuple(range(2, whole.ndim)), dtype=np.float64)])[1]
    if apart > OUTPUT_TOLERANCE["float16" if _is_half(source) else "float32"]:
        return apart
    return max(apart, gradient_error(behind, feeds, point, whole, directions=place.directions))


def tolerance(source: onnx.ModelProto, behind: onnx.ModelProto) -> float:
    """What :data:`GRADIENT_TOLERANCE` allows for this model."""
    half, quantised = _is_half(source), _is_quantised(source)
    kinked = any(node.op_type in KINKS for node in behind.graph.node)
    return GRADIENT_TOLERANCE["rounded" if (quantised or half) and kinked else "float16" if half else "float32"]


def refuse_error(error: float, source: onnx.ModelProto, behind: onnx.ModelProto, what: str) -> None:
    """Raise where the error of a gradient is larger than :func:`tolerance`."""
    if not error <= tolerance(source, behind):
        raise FastcamError(
            f"the check failed: {what} differs from central differences by {error:.1e} of its size; "
            "please report the model's operators (fastcam inspect)"
        )


def _is_half(model: onnx.ModelProto) -> bool:
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


def _refuse_mixed(alone: Array, among: Array, half: bool) -> None:
    """Raise where a target's gradient is another one when a second target is asked for."""
    apart = difference([alone], [among])[1]
    if apart > OUTPUT_TOLERANCE["float16" if half else "float32"]:
        raise FastcamError(
            f"the check failed: with two targets the gradient of the first differs by {apart:.1e} of its size; "
            "please report the model's operators (fastcam inspect)"
        )


def _run(
    model: onnx.ModelProto, names: Sequence[str | None], feeds: Mapping[str, Array], what: str, advice: str
) -> list[Array]:
    return _run_each(model, names, [feeds], what, advice)[0]


def _run_each(
    model: onnx.ModelProto, names: Sequence[str | None], each: Sequence[Mapping[str, Array]], what: str, advice: str
) -> list[list[Array]]:
    """The named values for each of several inputs, in one session."""
    try:
        made = session(model)
        return [[np.asarray(value) for value in made.run(names, dict(feeds))] for feeds in each]
    except Exception as error:  # onnxruntime's exceptions have no common base but Exception
        why = re.split(r"\[ONNXRuntimeError\] : \d+ : \w+ : ", " ".join(str(error).split()))[-1]
        raise FastcamError(f"{what} ({why[:200].rstrip(' .')}); {advice}") from error


def _probe(
    exported: onnx.ModelProto, values: Mapping[str, ir.Value], examined: Sequence[Examined]
) -> tuple[onnx.ModelProto, list[str], list[str]]:
    """The exported model with activations, gradients and layers among its outputs, and the names of these: in the
    contract, and of the layers."""
    names = {value.name for value in exported.graph.output}
    wanted = [schema.CLASSES] if schema.CLASSES in values else []  # not of a cotangent
    wanted += [place.name(plain) for place in examined for plain in (schema.ACTIVATIONS, _gradient(exported))]
    probe = onnx.ModelProto()
    probe.CopyFrom(exported)
    raw = [_readable(probe, place.layer, f"{LAYER}{i or ''}") for i, place in enumerate(examined)]
    hidden = {*(values[name].name or "" for name in wanted), *raw} - names
    probe.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in sorted(hidden)
    )
    return probe, wanted, raw


def _readable(probe: onnx.ModelProto, layer: ir.Value, name: str) -> str:
    """The name of a value that holds the layer; of half precision it is read as :mod:`fastcam_export.graph.float16` has
    it."""
    raw = layer.name or ""
    if layer.dtype not in HALF:
        return raw
    probe.graph.node.append(onnx.helper.make_node("Sum", [raw], [f"{name}.half"]))
    probe.graph.node.append(onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT))
    return name


def _refuse_unread(behind: onnx.ModelProto, feeds: Mapping[str, Array], point: Point, layer: ir.Value) -> None:
    """Raise where other positions of the layer leave every class score as it is, whatever is in them."""
    scores, _ = score_session(behind, feeds, point.cotangents)
    rng = np.random.default_rng(2)
    spread = float(np.abs(point.maps).mean()) or 1.0
    before = scores(point.moved(np.zeros_like(point.maps)))
    others = (scores(point.moved(spread * rng.standard_normal(point.maps.shape))) for _ in range(DIRECTIONS))
    if all(np.array_equal(before, other) for other in others):
        raise FastcamError(
            f"the score does not depend on the image positions of layer {layer.name!r}, so its gradient is zero "
            "everywhere; name an earlier layer (fastcam inspect lists them)"
        )
