"""Elements of sequences as the tensors that they are: what torch.split and lists of maps become in torch's newer files.

SequenceAt of a sequence that one node splits or puts together is a part of that node's input, where the file gives the
index. Gradients then need no rules for sequences.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx_ir.passes import common as common_passes

from fastcam_export.graph.constants import constant_array
from fastcam_export.graph.query import in_default_domain, input_at, known_dims
from fastcam_export.graph.shape_inference import infer_types

END = (1 << 63) - 1


def unpack(skeleton: onnx.ModelProto) -> onnx.ModelProto:
    """The model with a Slice, a Gather or the value itself in place of each SequenceAt whose element is known."""
    if not any(node.op_type == "SequenceAt" for node in skeleton.graph.node):
        return skeleton
    model = ir.from_proto(skeleton)
    graph, taken = model.graph, False
    for node in list(graph):
        if node.op_type != "SequenceAt" or not in_default_domain(node):
            continue
        source = node.inputs[0].producer() if node.inputs[0] is not None else None
        index = constant_array(node.inputs[1], 1)
        made = _element(graph, node, source, int(index)) if source is not None and index is not None else None
        if made is not None:
            out, producer = node.outputs[0], made.producer()
            if out.is_graph_output() and (producer is None or producer.graph is not None):
                made = _node("Identity", [made], {})  # the output keeps its name
                producer = made.producer()
            if producer is not None and producer.graph is None:
                made.name, out.name = out.name, f"{out.name}.of_sequence"
                graph.insert_before(node, producer)
            ir.convenience.replace_all_uses_with(out, made, replace_graph_outputs=True)
            taken = True
    if not taken:
        return skeleton
    common_passes.RemoveUnusedNodesPass()(model)
    return infer_types(ir.to_proto(model))


def _element(graph: ir.Graph, node: ir.Node, source: ir.Node, index: int) -> ir.Value | None:
    if not in_default_domain(source):
        return None
    if source.op_type == "SequenceConstruct":
        return source.inputs[index] if -len(source.inputs) <= index < len(source.inputs) else None
    if source.op_type != "SplitToSequence" or source.inputs[0] is None:
        return None
    x, given = source.inputs[0], input_at(source, 1)
    dims, axis = known_dims(x), source.attributes.get_int("axis", 0)
    length = dims[axis] if dims is not None and -len(dims) <= axis < len(dims) else None
    name = f"{node.outputs[0].name}.of_sequence"
    if given is None and not source.attributes.get_int("keepdims", 1):
        at = _constant(graph, f"{name}.index", np.array(index, np.int64))
        return _node("Gather", [x, at], {"axis": axis})
    span = _span(constant_array(given) if given is not None else np.array(1), index, length)
    if span is None:
        return None
    ends = [_constant(graph, f"{name}.{i}", np.array([end], np.int64)) for i, end in enumerate((*span, axis))]
    return _node("Slice", [x, *ends], {})


def _span(split: npt.NDArray[Any] | None, index: int, length: int | None) -> tuple[int, int] | None:
    """Where an element begins and ends along the axis."""
    if split is None:
        return None
    if split.ndim == 0:
        count = None if length is None else -(-length // int(split))
        if index < 0 and count is None:
            return None
        index += count or 0 if index < 0 else 0
        return index * int(split), min((index + 1) * int(split), length if length is not None else END)
    if not -len(split) <= index < len(split):
        return None
    begin = int(split[: index % len(split)].sum())
    return begin, begin + int(split[index])


def _constant(graph: ir.Graph, name: str, array: npt.NDArray[Any]) -> ir.Value:
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    value.type, value.shape = ir.TensorType(ir.DataType.INT64), ir.Shape(array.shape)
    graph.register_initializer(value)
    return value


def _node(op_type: str, inputs: list[ir.Value], attributes: dict[str, int]) -> ir.Value:
    node = ir.Node("", op_type, inputs, [ir.AttrInt64(key, value) for key, value in attributes.items()])
    return node.outputs[0]
