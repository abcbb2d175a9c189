"""float16 files: what keeps ONNX Runtime's CPU from computing them in another way than it computes the source.

It has few float16 kernels and computes in float32 between casts, which it leaves out between neighbours. Two things in
an exported file would bring them back, and with them other roundings of the model's own outputs and half of its speed.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx import defs

from fastcam.schema import PREFIX
from fastcam_export.graph.constants import constant_array
from fastcam_export.graph.query import input_at, is_added

BEFORE = 17
"""From the next opset on, Relu and others are functions: the runtime expands them for want of a float16 kernel."""
REDUCTIONS = frozenset(
    f"Reduce{what}" for what in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
)
ADDED: dict[str, set[int | str]] = {
    "Pad": {3},
    "Resize": {"antialias", "axes", "keep_aspect_ratio_policy"},
    "ScatterElements": set(),
    "ScatterND": set(),
}
"""What opset 18 added to these operators: inputs by index, attributes by name."""


def is_half(graph: ir.Graph) -> bool:
    """Whether the graph computes anything in float16."""
    return any(value.dtype == ir.DataType.FLOAT16 for node in graph for value in node.outputs)


def settle(graph: ir.Graph, source_opset: int) -> None:
    """Both remedies, on a finished graph of a source that had ``source_opset``."""
    if is_half(graph):
        read_aside(graph)
        if source_opset <= BEFORE:
            lower_opset(graph)


def read_aside(graph: ir.Graph) -> None:
    """Let FastCAM's nodes read the model's float16 values through a Sum of one, which the runtime computes in float32.

    A Concat or MaxPool runs in float32 only while all that read it do, and a Shape or Cast does not.
    """
    for node in list(graph):
        for value in node.outputs if not is_added(node) else ():
            uses = [use for use in value.uses() if is_added(use.node)]
            if value.dtype == ir.DataType.FLOAT16 and uses:
                name = f"{PREFIX}aside.{value.name}"
                copy = ir.Value(name=name, type=value.type, shape=value.shape)
                graph.insert_after(node, ir.Node("", "Sum", [value], outputs=[copy], name=f"{name}_node"))
                for use in uses:
                    use.node.replace_input_with(use.idx, copy)


def lower_opset(graph: ir.Graph) -> bool:
    """Say the graph, of opset 18, in opset 17, where every node of it has such a form; whether it was done."""
    nodes = list(ir.traversal.RecursiveGraphIterator(graph))
    if graph.opset_imports[""] != BEFORE + 1 or not all(map(_has_older_form, nodes)):
        return False
    for node in nodes:
        if node.op_type in REDUCTIONS and node.domain == "" and len(node.inputs) > 1:
            axes = constant_array(node.inputs[1])
            if axes is not None:
                node.attributes["axes"] = ir.AttrInt64s("axes", [int(axis) for axis in axes.reshape(-1)])
            node.resize_inputs(1)
    graph.opset_imports[""] = BEFORE
    return True


def _has_older_form(node: ir.Node) -> bool:
    if node.domain != "" or defs.get_schema(node.op_type, BEFORE + 1).since_version <= BEFORE:
        return True
    if node.op_type in REDUCTIONS:
        axes = input_at(node, 1)
        return not node.attributes.get_int("noop_with_empty_axes", 0) and (
            axes is None or constant_array(axes) is not None
        )
    new = ADDED.get(node.op_type)
    given: set[int | str] = {*node.attributes, *(index for index, value in enumerate(node.inputs) if value is not None)}
    return new is not None and not given & new and node.attributes.get_string("reduction", "none") not in ("max", "min")
