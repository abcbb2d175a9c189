"""A quantised model's tail without its rounding, which central differences would see and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from fastcam_export.autodiff.core.straight_through import DEQUANTIZE, QUANTIZE, same_scale, saturation
from fastcam_export.graph import constants
from fastcam_export.graph.constants import constant_array

Array = npt.NDArray[Any]


def without_rounding(graph: ir.Graph, layer: str | None) -> None:
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
            limit = _stored(graph, f"fastcam_check.{operator}.{y.name}", end.astype(np.float32))
            limited = ir.Node("", operator, [value, limit], outputs=[ir.Value(type=y.type, shape=y.shape)])
            graph.insert_before(node, limited)
            value = limited.outputs[0]
    return value


def _weights(graph: ir.Graph, node: ir.Node) -> ir.Value | None:
    arrays = [constant_array(value) for value in node.inputs]
    if any(array is None and value is not None for array, value in zip(arrays, node.inputs)):
        return None
    content = constants.evaluate(ir.to_proto(node), arrays, graph.opset_imports[""])
    return _stored(graph, f"fastcam_check.{node.outputs[0].name}", content)


def _stored(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    content = ir.tensor(array, name=name)
    value = ir.Value(name=name, type=ir.TensorType(content.dtype), shape=ir.Shape(array.shape), const_value=content)
    graph.register_initializer(value)
    return value
