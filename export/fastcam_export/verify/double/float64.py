"""A model in float64, for differences that rounding does not drown."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from fastcam_export.graph import weights
from fastcam_export.verify.double import recurrent, resize, spelled

Array = npt.NDArray[Any]


def in_double(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with float64 in place of float32 and float16: weights, inputs, outputs and types that nodes name."""
    double = onnx.TensorProto.DOUBLE
    narrow = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    wide = onnx.ModelProto()
    wide.CopyFrom(model)

    def convert(tensor: onnx.TensorProto) -> None:
        if tensor.data_type in narrow:
            array = weights.array(tensor).astype(np.float64)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))

    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 18)

    def widen(graph: onnx.GraphProto) -> None:
        known = resize.shapes(graph)
        del graph.value_info[:]
        for value in (*graph.input, *graph.output):
            if value.type.tensor_type.elem_type in narrow:
                value.type.tensor_type.elem_type = double
        for tensor in graph.initializer:
            convert(tensor)
        for node in graph.node:
            for attribute in node.attribute:
                for body in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                    widen(body)
                if attribute.HasField("t"):
                    convert(attribute.t)
                elif node.op_type == "Cast" and attribute.name == "to" and attribute.i in narrow:
                    attribute.i = double
        recurrent.spelled(graph)
        spelled.spell(graph, known)
        _kept_in_single(graph, known, opset)

    widen(wide.graph)
    return wide


SINGLE: dict[str, tuple[int, ...]] = {"NonMaxSuppression": (0, 1, 3, 4), "Resize": (0, 2)}
"""Operators that the runtime has in float32 alone, and those of their inputs that are float32 then."""


def _kept_in_single(graph: onnx.GraphProto, shapes: dict[str, list[int]], opset: int) -> None:
    """A Resize by repeating or by matrices, where the file says how; else casts around :data:`SINGLE`: of a detector's
    boxes, which give indices, and of the pictures that it resizes."""
    if all(node.op_type not in SINGLE for node in graph.node):
        return
    ordered = onnx.GraphProto()
    cast = onnx.helper.make_node
    weights = _constants(graph)
    for node in graph.node:
        name = f"fastcam_check.{node.output[0]}" if node.output else ""
        factors = _whole_factors(node, weights)
        if factors is not None:
            ordered.node.extend(_repeated(graph, node, factors, name))
            continue
        dims = shapes.get(node.input[0]) if node.op_type == "Resize" else None
        along = resize.matrices(node, dims, weights, opset) if dims else None
        if along is not None and dims is not None:
            ordered.node.extend(resize.nodes(graph, node, along, len(dims)))
            continue
        for i in SINGLE.get(node.op_type, ()):
            if i < len(node.input) and node.input[i]:
                ordered.node.append(cast("Cast", [node.input[i]], [f"{name}.{i}"], to=onnx.TensorProto.FLOAT))
                node.input[i] = f"{name}.{i}"
        ordered.node.append(node)
        if node.op_type == "Resize":
            ordered.node.append(cast("Cast", [name], [node.output[0]], to=onnx.TensorProto.DOUBLE))
            ordered.node[-2].output[0] = name
    del graph.node[:]
    graph.node.extend(ordered.node)


def _constants(graph: onnx.GraphProto) -> dict[str, Array]:
    """Small constants by name."""
    found = {tensor.name: tensor for tensor in graph.initializer}
    found |= {
        node.output[0]: a.t
        for node in graph.node
        if node.op_type == "Constant"
        for a in node.attribute
        if a.name == "value"
    }
    return {name: weights.array(tensor) for name, tensor in found.items() if np.prod(tensor.dims) <= 8}


def _whole_factors(node: onnx.NodeProto, constants: dict[str, Array]) -> Array | None:
    """The scales of a Resize that repeats each element a whole number of times, as exporters write it."""
    given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    nearest = given.get("mode", b"nearest") == b"nearest" and given.get("nearest_mode") == b"floor"
    plain = given.get("coordinate_transformation_mode") == b"asymmetric" and not given.get("axes")
    scales = constants.get(node.input[2]) if node.op_type == "Resize" and len(node.input) == 3 else None
    if scales is None or not scales.size or not nearest or not plain or (scales != np.rint(scales)).any():
        return None
    return scales.astype(np.int64) if (scales >= 1).all() else None


def _repeated(graph: onnx.GraphProto, node: onnx.NodeProto, factors: Array, name: str) -> list[onnx.NodeProto]:
    """Each element ``factors`` times along each axis, by operators that know float64."""
    made = onnx.helper.make_node
    between = np.arange(1, 2 * len(factors), 2)
    constants = {"axes": between, "times": np.stack((np.ones_like(factors), factors), 1).ravel(), "factors": factors}
    graph.initializer.extend(numpy_helper.from_array(array, f"{name}.{key}") for key, array in constants.items())
    x = node.input[0]
    return [
        made("Shape", [x], [f"{name}.shape"]),
        made("Mul", [f"{name}.shape", f"{name}.factors"], [f"{name}.larger"]),
        made("Unsqueeze", [x, f"{name}.axes"], [f"{name}.apart"]),
        made("Tile", [f"{name}.apart", f"{name}.times"], [f"{name}.tiled"]),
        made("Reshape", [f"{name}.tiled", f"{name}.larger"], [node.output[0]]),
    ]
