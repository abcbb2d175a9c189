"""Elements of sequences as the tensors that they are: what torch.split and lists of maps become in torch's files.

SequenceAt of a sequence that one node splits is a part of that node's input, and of one that nodes put together one of
its elements, where the file gives the index. Gradients then need no rules for sequences.
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
    """The model with a Slice, a Gather or the value itself in place of each SequenceAt whose element is known, and with
    a Concat in place of each ConcatFromSequence whose elements are."""
    if not any(node.op_type in RULES for node in skeleton.graph.node):
        return skeleton
    model = ir.from_proto(skeleton)
    graph, taken = model.graph, False
    for node in list(graph):
        made = RULES[node.op_type](graph, node) if node.op_type in RULES and in_default_domain(node) else None
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


def _at(graph: ir.Graph, node: ir.Node) -> ir.Value | None:
    """The element that a SequenceAt gives."""
    index, elements = constant_array(node.inputs[1], 1), _elements(node.inputs[0])
    source = node.inputs[0].producer() if node.inputs[0] is not None else None
    if index is None or source is None:
        return None
    at = int(index.item())
    if elements is not None:
        return elements[at] if -len(elements) <= at < len(elements) else None
    return _part(graph, node, source, at) if source.op_type == "SplitToSequence" and in_default_domain(source) else None


def _elements(sequence: ir.Value | None) -> list[ir.Value] | None:
    """The elements of a sequence that nodes put together one by one; None where one of these is another, or unknown."""
    node = sequence.producer() if sequence is not None else None
    if node is None or not in_default_domain(node):
        return None
    if node.op_type == "SequenceEmpty":
        return []
    if node.op_type == "SequenceConstruct":
        return [x for x in node.inputs if x is not None]
    before = _elements(node.inputs[0]) if node.op_type in ("Identity", "SequenceErase", "SequenceInsert") else None
    if before is None or node.op_type == "Identity":
        return before
    place = input_at(node, 2 if node.op_type == "SequenceInsert" else 1)
    index = constant_array(place, 1) if place is not None else None
    if place is not None and index is None:
        return None
    at = len(before) - (node.op_type == "SequenceErase") if index is None else int(index.item())
    if node.op_type == "SequenceErase":
        return before[:at] + before[at % len(before) + 1 :] if -len(before) <= at < len(before) else None
    new = node.inputs[1]
    at += len(before) if at < 0 else 0
    return None if new is None or not 0 <= at <= len(before) else [*before[:at], new, *before[at:]]


def _joined(graph: ir.Graph, node: ir.Node) -> ir.Value | None:
    """What a ConcatFromSequence of known elements gives."""
    elements, axis = _elements(node.inputs[0]), node.attributes.get_int("axis", 0)
    if not elements:
        return None
    if node.attributes.get_int("new_axis", 0):
        at = _constant(graph, f"{node.outputs[0].name}.of_sequence.axis", np.array([axis], np.int64))
        made = [_node("Unsqueeze", [element, at], {}) for element in elements]
        for i, value in enumerate(made):
            value.name = f"{node.outputs[0].name}.of_sequence.{i}"
        graph.insert_before(node, [found for value in made if (found := value.producer()) is not None])
        elements = made
    return _node("Concat", elements, {"axis": axis})


def _part(graph: ir.Graph, node: ir.Node, source: ir.Node, index: int) -> ir.Value | None:
    """The element of a SplitToSequence, as a part of what that splits."""
    if source.inputs[0] is None:
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


RULES = {"ConcatFromSequence": _joined, "SequenceAt": _at}
"""Operators that take tensors out of a sequence, and what they give as (graph, node) -> value, None: not known."""


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
