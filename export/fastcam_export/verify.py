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
import onnxruntime as ort
from onnx_ir.passes import common as common_passes

from fastcam import schema
from fastcam.schema import FastcamError
from fastcam_export.autodiff import constants
from fastcam_export.autodiff.constants import constant_array
from fastcam_export.autodiff.emitter import HALF
from fastcam_export.autodiff.quantized import DEQUANTIZE, QUANTIZE, same_scale, saturation
from fastcam_export.double import in_double, without_convolutions
from fastcam_export.layout import Layout
from fastcam_export.trace import image_order

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
DIRECTIONS = 4
DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}
LAYER = "fastcam_check.layer"
FREE_SIZE = 224
FREE_FRAMES = 16
"""Height and width of the check's image, and frames of its video, where the model takes any."""


@dataclass(frozen=True)
class Check:
    """What the check measured.

    Attributes:
        bit_identical: every output of the source equals the exported file's bit for bit.
        output_difference: largest difference, as a share of that output's largest absolute value.
        gradient_error: per direction, |<v, g> - central difference| / scale, the worst of them.
        directions: number of random directions.
    """

    bit_identical: bool
    output_difference: float
    gradient_error: float
    directions: int

    def to_dict(self) -> dict[str, Any]:
        """For the metadata."""
        return dict(vars(self))


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    """A quiet CPU session."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


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


def _needs_targets(model: onnx.ModelProto) -> bool:
    defaults = {tensor.name for tensor in model.graph.initializer}
    return any(value.name == schema.TARGETS and value.name not in defaults for value in model.graph.input)


def tail(model: ir.Model, layer: ir.Value, score: ir.Value) -> onnx.ModelProto:
    """The part of the model behind ``layer``: the layer's value becomes the input LAYER, ``score`` the only output.

    What is quantised there is not rounded, see :func:`_without_rounding`.
    """
    part = model.clone()
    _without_rounding(part.graph, layer.name)
    values = {value.name: value for node in part.graph for value in node.outputs}
    cut = ir.Value(name=LAYER, type=layer.type, shape=layer.shape)
    ir.convenience.replace_all_uses_with(values[layer.name], cut)
    part.graph.inputs.append(cut)
    del part.graph.outputs[:]
    part.graph.outputs.append(values[score.name])
    common_passes.RemoveUnusedNodesPass()(part)
    return ir.to_proto(part)


def check(
    source: onnx.ModelProto,
    exported: onnx.ModelProto,
    behind: onnx.ModelProto,
    feeds: Mapping[str, Array],
    values: Mapping[str, ir.Value],
    layer: ir.Value,
    layout: Layout,
) -> Check:
    """Run source and exported file on the same inputs; compare outputs, and gradients with central differences.

    Args:
        source, exported: the two models.
        behind: :func:`tail` of the source.
        feeds: inputs of the source.
        values: what :func:`fastcam_export.head.attach` returned, by contract name.
        layer: the target layer, and
        layout: how its positions lie.

    Raises:
        FastcamError: the runtime refuses a model, outputs differ, or a gradient is wrong, or zero because the score
            does not depend on the layer's positions at all.
    """
    names = [value.name for value in source.graph.output]
    probe, wanted, raw = _probe(exported, values, layer)
    extra = {schema.TARGETS: np.array([[-1]])} if _needs_targets(exported) else {}
    shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feeds.items())
    before = _run(
        source,
        names,
        feeds,
        f"ONNX Runtime cannot run the model itself on {shapes}",
        "repair the model; if it takes only one image, its batch must be 1, not free",
    )
    results = _run(
        probe,
        [*names, *(values[name].name for name in wanted), raw],
        {**feeds, **extra},
        "the check could not run the exported model",
        "this is a defect of FastCAM: please report it with the model's operators (fastcam inspect)",
    )
    identical, worst = difference(before, results[: len(names)])
    half = any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in source.graph.initializer)
    quantised = any(node.op_type == QUANTIZE for node in source.graph.node)
    kinked = any(node.op_type in KINKS for node in behind.graph.node)
    precision = "float16" if half else "float32"
    if worst > OUTPUT_TOLERANCE[precision]:
        raise _other_outputs(worst, quantised)
    ran = dict(zip(wanted, results[len(names) :]))
    gradient = ran[wanted[-1]][:, 0]
    point = Point(results[-1], layout, ran[schema.ACTIVATIONS], ran[schema.CLASSES])
    if layer.name is not None:
        point.fit(layer.name)
    if half and not np.isfinite(gradient).all():
        raise FastcamError(
            "the check failed: gradients on the way to this layer exceed float16's range; name a later layer (fastcam "
            "inspect lists them), or give the float32 model"
        )
    if not gradient.any():
        _refuse_unread(behind, feeds, point, layer)
    error = gradient_error(behind, feeds, point, gradient)
    if not error <= GRADIENT_TOLERANCE["rounded" if (quantised or half) and kinked else precision]:
        raise FastcamError(
            f"the check failed: the gradient differs from central differences by {error:.1e} of its size; "
            "please report the model's operators (fastcam inspect)"
        )
    return Check(identical, worst, error, DIRECTIONS)


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


def _run(
    model: onnx.ModelProto, names: Sequence[str | None], feeds: Mapping[str, Array], what: str, advice: str
) -> list[Array]:
    try:
        return [np.asarray(value) for value in session(model).run(names, dict(feeds))]
    except Exception as error:  # onnxruntime's exceptions have no common base but Exception
        why = re.split(r"\[ONNXRuntimeError\] : \d+ : \w+ : ", " ".join(str(error).split()))[-1]
        raise FastcamError(f"{what} ({why[:200].rstrip(' .')}); {advice}") from error


def _probe(
    exported: onnx.ModelProto, values: Mapping[str, ir.Value], layer: ir.Value
) -> tuple[onnx.ModelProto, list[str], str]:
    """The exported model with activations, gradient and layer among its outputs, and the names of these: in the
    contract, and of the layer."""
    names = {value.name for value in exported.graph.output}
    wanted = [schema.CLASSES, schema.ACTIVATIONS, schema.GRADIENTS if schema.GRADIENTS in names else schema.WEIGHTS]
    raw = layer.name or ""
    probe = onnx.ModelProto()
    probe.CopyFrom(exported)
    if layer.dtype in HALF:  # read as fastcam_export.half has it read
        probe.graph.node.append(onnx.helper.make_node("Sum", [raw], [f"{LAYER}.half"]))
        probe.graph.node.append(onnx.helper.make_node("Cast", [f"{LAYER}.half"], [LAYER], to=onnx.TensorProto.FLOAT))
        raw = LAYER
    hidden = {*(values[name].name or "" for name in wanted), raw} - names
    probe.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in sorted(hidden)
    )
    return probe, wanted, raw


@dataclass(frozen=True)
class Point:
    """Where the check takes its differences.

    Attributes:
        raw: the layer's value, as it is laid out.
        layout: how.
        maps: its positions, [N, K, h, w].
        classes: [N, 1], the explained class of each image.
    """

    raw: Array
    layout: Layout
    maps: Array
    classes: Array

    def fit(self, name: str) -> None:
        """Raise where the sequence is not as long as its layout says."""
        order, layout = self.layout.order, self.layout
        if "L" in order:
            length = self.raw.shape[order.index("L")]
            total = layout.prefix + int(np.prod(self.maps.shape[2:])) + (layout.suffix or 0)
            if length != total:
                raise FastcamError(
                    f"layer {name!r} has {length} tokens, but its layout ({layout.found}) makes {total}; give "
                    "prefix_tokens and grid (--prefix-tokens, --grid)"
                )

    def moved(self, step: Array) -> Array:
        """The layer's value with its positions moved by ``step``, [N, K, h, w]; float64."""
        return self.layout.write(self.raw.astype(np.float64), self.maps.astype(np.float64) + step)


def _score_session(behind: onnx.ModelProto, feeds: Mapping[str, Array]) -> tuple[Callable[[Array], Array], Array]:
    """The class scores [N, classes] behind the layer as a function of its value, and step widths for differences."""
    run, widths = _tail_session(behind)
    types = {value.name: DTYPES[value.type] for value in run.get_inputs()}
    fixed = {name: array.astype(types[name]) for name, array in feeds.items() if name in types}

    def scores(at: Array) -> Array:
        out = np.asarray(run.run(None, {**fixed, LAYER: at.astype(types[LAYER])})[0], np.float64)
        return np.asarray(out.reshape(*out.shape[:2], -1).sum(2))

    return scores, widths


def _refuse_unread(behind: onnx.ModelProto, feeds: Mapping[str, Array], point: Point, layer: ir.Value) -> None:
    """Raise where other positions of the layer leave every class score as it is, whatever is in them."""
    scores, _ = _score_session(behind, feeds)
    rng = np.random.default_rng(2)
    spread = float(np.abs(point.maps).mean()) or 1.0
    before = scores(point.moved(np.zeros_like(point.maps)))
    others = (scores(point.moved(spread * rng.standard_normal(point.maps.shape))) for _ in range(DIRECTIONS))
    if all(np.array_equal(before, other) for other in others):
        raise FastcamError(
            f"the score does not depend on the image positions of layer {layer.name!r}, so its gradient is zero "
            "everywhere; name an earlier layer (fastcam inspect lists them)"
        )


def gradient_error(
    behind: onnx.ModelProto, feeds: Mapping[str, Array], point: Point, gradient: Array, seed: int = 1
) -> float:
    """Compare a gradient with central differences of the part of the model behind the layer.

    Args:
        behind: :func:`tail`.
        feeds: the model's inputs.
        point: the layer's value there.
        gradient: [N, K, h, w], or [N, K] where only its spatial mean is in the file; then directions are constant
            over space.

    Returns:
        The worst error over directions and images, as a share of the gradient's norm. Of several step widths the best
        counts: a network is smooth only piecewise, so a wide step meets kinks and a narrow one rounding. The
        differences are taken in float64 where the runtime has the operators behind the layer in it.
    """
    scores, widths = _score_session(behind, feeds)
    rng = np.random.default_rng(seed)
    maps = point.maps
    pooled = gradient.ndim == 2
    area = int(np.prod(maps.shape[2:])) if pooled else 1

    def score(step: Array) -> Array:
        return np.asarray(np.take_along_axis(scores(point.moved(step)), point.classes, axis=1)[:, 0])

    spread = float(np.abs(maps.astype(np.float64)).mean()) or 1.0
    norm = np.sqrt((gradient.astype(np.float64) ** 2).reshape(len(gradient), -1).sum(1)) * area
    worst = 0.0
    for _ in range(DIRECTIONS):
        v = rng.standard_normal(gradient.shape)
        if not pooled:
            v *= maps != 0  # ReLU maps are full of ties at zero, where a MaxPool behind has no derivative
        step = np.broadcast_to(v.reshape(*v.shape[:2], *[1] * (maps.ndim - 2)) if pooled else v, maps.shape)
        expected = (v * gradient).reshape(len(v), -1).sum(1) * area
        slopes = [(score(h * step) - score(-h * step)) / (2 * h) for h in widths * spread]
        errors = np.abs(np.array(slopes) - expected) / np.maximum(norm, 1e-30)
        worst = max(worst, float(errors.min(axis=0).max()))
    return worst


def _tail_session(behind: onnx.ModelProto) -> tuple[ort.InferenceSession, Array]:
    """A session of the tail, in float64 if the runtime can, and the step widths that suit its precision."""
    try:
        return session(without_convolutions(in_double(behind))), np.array([1e-2, 1e-4, 1e-6])
    except Exception:  # no float64 kernel for an operator; the runtime has no narrower exception
        return session(behind), np.array([1e2, 10, 1, 1e-1, 3e-2, 1e-2, 3e-3, 1e-3])


def _without_rounding(graph: ir.Graph, layer: str | None) -> None:
    """Replace QuantizeLinear and DequantizeLinear behind ``layer`` by what they do but for rounding.

    Weights are dequantised for good; of x -> integer -> y only the limits of the integer's range remain. The derivative
    of that is the straight-through one. Where a scale is not in the file, the pair stays as it is.
    """
    pairs = [node for node in graph if node.op_type == DEQUANTIZE and node.outputs[0].name != layer]
    ends = {node: saturation(quantize) for node in pairs if (quantize := _quantize_before(node)) is not None}
    for node in pairs:
        made = _between(graph, node, ends[node]) if node in ends else _weights(graph, node)
        if made is not None:
            ir.convenience.replace_all_uses_with(node.outputs[0], made, replace_graph_outputs=True)


def _quantize_before(node: ir.Node) -> ir.Node | None:
    """The QuantizeLinear whose output a DequantizeLinear of the same, constant scale reads."""
    quantize = node.inputs[0].producer() if node.inputs[0] is not None else None
    paired = quantize is not None and quantize.op_type == QUANTIZE and same_scale(quantize, node)
    return quantize if paired else None


def _between(graph: ir.Graph, node: ir.Node, ends: tuple[Array | None, Array | None]) -> ir.Value | None:
    quantize, y = _quantize_before(node), node.outputs[0]
    assert quantize is not None
    value = quantize.inputs[0]
    for operator, end in zip(("Max", "Min"), ends):
        if end is not None:
            limit = _constant(graph, f"{LAYER}.{operator}.{y.name}", end.astype(np.float32))
            limited = ir.Node("", operator, [value, limit], outputs=[ir.Value(type=y.type, shape=y.shape)])
            graph.insert_before(node, limited)
            value = limited.outputs[0]
    return value


def _weights(graph: ir.Graph, node: ir.Node) -> ir.Value | None:
    arrays = [constant_array(value) for value in node.inputs]
    if any(array is None and value is not None for array, value in zip(arrays, node.inputs)):
        return None
    content = constants.evaluate(ir.to_proto(node), arrays, graph.opset_imports[""])
    return _constant(graph, f"{LAYER}.{node.outputs[0].name}", content)


def _constant(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    content = ir.tensor(array, name=name)
    value = ir.Value(name=name, type=ir.TensorType(content.dtype), shape=ir.Shape(array.shape), const_value=content)
    graph.register_initializer(value)
    return value
