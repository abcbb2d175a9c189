"""Operators that ONNX dropped after opset 9, or does not have yet, and runtimes still run, in standard operators.

ONNX's version converter knows none of them, so they are put aside while it works. The definitions are those of ONNX
Runtime's kernels. What is neither known here nor to ONNX is left as it was: it may stand before the target layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import defs, helper, numpy_helper

from fastcam.errors import FastcamError
from fastcam_export.graph.reading.bodies import bodies

ASIDE = "fastcam.aside"
"""The domain of nodes that the version converter is not to see."""
GONE = 10
"""The opset in which the last of these operators were gone, in the standard and in ONNX Runtime."""
NORMS = {"LayerNormalization": 17, "SimplifiedLayerNormalization": None}
"""Norms that ONNX Runtime's optimiser writes into files of any opset, and the one since which ONNX has them so."""
RESIZED = 11
"""The opset in which Resize was told where its elements lie."""

Attributes = dict[str, Any]
Rewrite = Callable[["_Nodes", list[str], Attributes], str]


def put_aside(model: onnx.ModelProto, opset: int) -> None:
    """Move nodes of the default domain that the standard does not have at ``opset``, or not so, to another domain."""
    moved = [node for node in _all_nodes(model.graph) if node.domain in ("", "ai.onnx") and _is_aside(node, opset)]
    for node in moved:
        node.domain = ASIDE
    if moved:
        model.opset_import.append(helper.make_opsetid(ASIDE, 1))


def put_back(model: onnx.ModelProto) -> list[str]:
    """Write what was put aside in standard operators; what has no such form takes its old place again.

    Args:
        model: in the opset form of the exporter.

    Returns:
        The names of the operators that were rewritten.
    """
    if all(entry.domain != ASIDE for entry in model.opset_import):
        return []
    rewritten = _rewrite(model.graph)
    kept = [entry for entry in model.opset_import if entry.domain != ASIDE]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    return sorted(set(rewritten))


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for body in bodies(node):
            yield from _all_nodes(body)


def _is_aside(node: onnx.NodeProto, opset: int) -> bool:
    if node.op_type in NORMS:
        since = NORMS[node.op_type]
        return since is None or opset < since
    if opset >= GONE:
        return False
    if node.op_type == "BatchNormalization":
        return opset < 9 and any(a.name == "spatial" and a.i == 0 for a in node.attribute)
    try:
        defs.get_schema(node.op_type, opset, "")
    except defs.SchemaError:
        return True
    return False


def resize_as_it_was(model: onnx.ModelProto, opset: int) -> None:
    """Resize and Upsample of opset 10 and before began at the first element's corner, which the converter forgets.

    Of a nearest neighbour between two elements they took the lower one, or where they made a map smaller the upper one.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in _all_nodes(model.graph) if opset < RESIZED else ():
        names = {attribute.name for attribute in node.attribute}
        if (
            node.op_type == "Resize"
            and node.domain in ("", "ai.onnx")
            and "coordinate_transformation_mode" not in names
        ):
            how = {"coordinate_transformation_mode": "asymmetric"}
            scales = weights.get(node.input[2]) if len(node.input) > 2 else None
            smaller = scales is not None and bool((numpy_helper.to_array(scales) < 1).any())
            how |= {} if "nearest_mode" in names else {"nearest_mode": "ceil" if smaller else "floor"}
            node.attribute.extend(helper.make_attribute(name, value) for name, value in how.items())


def _rewrite(graph: onnx.GraphProto) -> list[str]:
    rewritten = []
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        for attribute in node.attribute:
            for body in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                rewritten += _rewrite(body)
        rewrite = REWRITES.get(node.op_type) if node.domain == ASIDE else None
        if rewrite is None:
            node.domain = "" if node.domain == ASIDE else node.domain
            graph.node.append(node)
            continue
        given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        made = _Nodes(graph, node)
        made.finish(rewrite(made, list(node.input), given))
        rewritten.append(node.op_type)
    return rewritten


class _Nodes:
    """Appends the nodes that stand for one."""

    def __init__(self, graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
        self._graph, self._node = graph, node
        self._count = 0

    def __call__(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        name = self._name()
        node = helper.make_node(op_type, list(inputs), [name], f"{name}_node", **attributes)
        node.metadata_props.extend(self._node.metadata_props)
        self._graph.node.append(node)
        return name

    def constant(self, array: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> str:
        """A constant."""
        name = self._name()
        self._graph.initializer.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def finish(self, result: str) -> None:
        """Give the last node the names of the node that is replaced, and its output."""
        last = self._graph.node[-1]
        assert last.output[0] == result
        last.output[0], last.name = self._node.output[0], self._node.name

    def _name(self) -> str:
        self._count += 1
        return f"{self._node.output[0]}.{self._node.op_type}_{self._count}"


def _affine(op: _Nodes, x: str, factor: float, shift: float | None) -> str:
    y = x if factor == 1 else op("Mul", x, op.constant(factor))
    return op("Add", y, op.constant(shift)) if shift is not None else y if y != x else op("Identity", x)


def _image_scaler(op: _Nodes, inputs: list[str], given: Attributes) -> str:
    """y = scale x + bias[channel]"""
    y = inputs[0] if given.get("scale", 1.0) == 1 else op("Mul", inputs[0], op.constant(given["scale"]))
    bias = np.asarray(given.get("bias", [0.0]), np.float32).reshape(-1, 1, 1)
    return op("Add", y, op.constant(bias))


def _parametric_softplus(op: _Nodes, inputs: list[str], given: Attributes) -> str:
    """y = alpha log(1 + exp(beta x))"""
    soft = op("Softplus", _affine(op, inputs[0], given["beta"], None))
    return _affine(op, soft, given["alpha"], None)


def _scaled_tanh(op: _Nodes, inputs: list[str], given: Attributes) -> str:
    """y = alpha tanh(beta x)"""
    return _affine(op, op("Tanh", _affine(op, inputs[0], given["beta"], None)), given["alpha"], None)


def _crop(op: _Nodes, inputs: list[str], given: Attributes) -> str:
    """y = x[:, :, top:end, left:end]: of the size ``scale`` where it is given, else to the borders (l, t, r, b)."""
    left, top, right, bottom = given.get("border", (0, 0, 0, 0))
    size = given.get("scale", ())
    last = np.iinfo(np.int64).max
    ends = [top + size[0], left + size[1]] if size else [-bottom or last, -right or last]
    slices = ([top, left], ends, [2, 3])
    return op("Slice", inputs[0], *(op.constant(each, np.int64) for each in slices))


def _normalised(op: _Nodes, inputs: list[str], given: Attributes) -> str:
    """y = (x - mean) / sqrt(var), over images and positions, and over channels where it says so."""
    axes = op.constant([0, 1, 2, 3] if given.get("across_channels", 0) else [0, 2, 3], np.int64)
    centred = op("Sub", inputs[0], op("ReduceMean", inputs[0], axes))
    if not given.get("normalize_variance", 1):
        return centred
    return op("Div", centred, op("Sqrt", op("ReduceMean", op("Mul", centred, centred), axes)))


def _root_mean_square(op: _Nodes, inputs: list[str], given: Attributes) -> str:
    """y = x scale / sqrt(mean(x^2) + epsilon), over the last axes"""
    if given.get("axis", -1) != -1:
        raise FastcamError(
            "SimplifiedLayerNormalization over several axes is not known; give the file from before that"
        )
    mean = op("ReduceMean", op("Mul", inputs[0], inputs[0]), op.constant([-1], np.int64))
    root = op("Sqrt", op("Add", mean, op.constant(given.get("epsilon", 1e-5))))
    return op("Mul", op("Div", inputs[0], root), inputs[1])


def _per_element(op: _Nodes, inputs: list[str], given: Attributes) -> str:
    """y = x s + (b - m s), s = scale / sqrt(var + epsilon): mean and variance of each position of each channel."""
    x, scale, bias, mean, variance = inputs
    deviation = op("Sqrt", op("Add", variance, op.constant(given.get("epsilon", 1e-5))))
    factor = op("Div", scale, deviation)
    return op("Add", op("Mul", x, factor), op("Sub", bias, op("Mul", mean, factor)))


def _thresholded(op: _Nodes, inputs: list[str], given: Attributes) -> str:
    """y = x where x > alpha, else 0"""
    return op("ThresholdedRelu", inputs[0], alpha=given.get("alpha", 1.0))


def _slice(op: _Nodes, inputs: list[str], given: Attributes) -> str:
    """y = x[starts:ends], as the later Slice has it"""
    return op("Slice", *inputs)


REWRITES: dict[str, Rewrite] = {
    "Affine": lambda op, inputs, given: _affine(op, inputs[0], given.get("alpha", 1.0), given.get("beta", 0.0)),
    "BatchNormalization": _per_element,
    "Crop": _crop,
    "DynamicSlice": _slice,
    "ImageScaler": _image_scaler,
    "MeanVarianceNormalization": _normalised,
    "ParametricSoftplus": _parametric_softplus,
    "Scale": lambda op, inputs, given: op("Mul", inputs[0], op.constant(given.get("scale", 1.0))),
    "SimplifiedLayerNormalization": _root_mean_square,
    "ScaledTanh": _scaled_tanh,
    "ThresholdedRelu": _thresholded,
}
"""Operator -> the nodes that stand for it."""


def said(rewritten: Iterable[str]) -> list[str]:
    """What a person is told of it."""
    names = ", ".join(rewritten)
    return [f"{names} written in operators of today's standard"] if names else []
