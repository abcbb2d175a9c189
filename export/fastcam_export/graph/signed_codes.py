"""int8 values written as uint8, as ONNX Runtime does itself on processors whose int8 kernels it does not use (x86).

It does so only where one DequantizeLinear, for one reader, is all that reads a QuantizeLinear. Where an explanation
reads as well it would leave int8 and compute in float around it, so that outputs change. The numbers are the same
either way: integer and zero point are both 128 larger.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import onnx
import onnx_ir as ir

from fastcam.schema import PREFIX
from fastcam_export.graph.constants import constant_array
from fastcam_export.graph.query import input_at, is_added

SHIFT = 128


def read_by_added_nodes(model: onnx.ModelProto) -> frozenset[str]:
    """The int8 values of a model that the runtime writes as uint8 only while nothing that was added reads them."""
    if not any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        return frozenset()
    tensors = [value for value in model.graph.output if value.type.HasField("tensor_type")]
    if len(tensors) < len(model.graph.output):  # maps and lists, which onnx_ir does not read
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        del copy.graph.output[:]
        copy.graph.output.extend(tensors)
        model = copy
    graph = ir.from_proto(model).graph
    found = set()
    for quantize, dequantize in _pairs(graph):
        if any(is_added(node) for value in (*quantize.outputs, *dequantize.outputs) for node, _ in value.uses()):
            found.add(quantize.outputs[0].name or "")
    return frozenset(found)


def write_unsigned(graph: ir.Graph, names: Collection[str]) -> None:
    """Write the int8 values of these names as uint8."""
    for quantize, dequantize in list(_pairs(graph)):
        code = quantize.outputs[0]
        if code.name not in names:
            continue
        zero = _unsigned_zero(graph, quantize)
        code.type = ir.TensorType(ir.DataType.UINT8)  # not its dtype: copies of the graph share the type
        for node in (quantize, dequantize):
            node.replace_input_with(2, zero)


def _pairs(graph: ir.Graph) -> Iterator[tuple[ir.Node, ir.Node]]:
    """QuantizeLinear and DequantizeLinear of int8 that the runtime writes as uint8 in the model as it was given."""
    for node in graph:
        zero = constant_array(input_at(node, 2)) if node.op_type == "QuantizeLinear" else None
        if zero is None or zero.dtype != np.int8:
            continue
        readers = _readers(node.outputs[0])
        if len(readers) != 1 or readers[0] is None or readers[0].op_type != "DequantizeLinear":
            continue
        other = constant_array(input_at(readers[0], 2))
        same = other is not None and other.shape == zero.shape and np.array_equal(other, zero)
        if same and len(_readers(readers[0].outputs[0])) == 1:
            yield node, readers[0]


def _readers(value: ir.Value) -> list[ir.Node | None]:
    """The model's own readers of a value; None for an output of the model."""
    return [node for node, _ in value.uses() if not is_added(node)] + [None] * value.is_graph_output()


def _unsigned_zero(graph: ir.Graph, quantize: ir.Node) -> ir.Value:
    """The zero point of a QuantizeLinear, as uint8; one value for all that have it in common."""
    old = quantize.inputs[2]
    zero = constant_array(old)
    assert old is not None and zero is not None
    name = f"{PREFIX}{old.name}.uint8"
    if name not in graph.initializers:
        array = (zero.astype(np.int16) + SHIFT).astype(np.uint8)
        graph.register_initializer(ir.Value(name=name, const_value=ir.tensor(array, name=name)))
    return graph.initializers[name]
