"""Outputs that are no tensors, and what makes them: taken out of the graph while it is rewritten, and put back.

ZipMap and its relatives of the domain ai.onnx.ml make maps from class names to probabilities and names of labels;
SequenceConstruct makes lists. No gradient passes them. What they read becomes an output in their place, so that the
probabilities in front of a ZipMap are found as the class scores that they are.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import onnx
import onnx_ir as ir

from fastcam_export.graph.constants import is_constant

ML = "ai.onnx.ml"
NO_TENSORS = frozenset(
    {"Optional", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SplitToSequence"}
)
"""Operators of the default domain whose outputs are no tensors."""
FEEDS = "fastcam.feeds"
"""Under which a value that became an output says, in its ``meta``, into what it goes."""


@dataclass(frozen=True)
class Aside:
    """What was taken out.

    Attributes:
        outputs: the names of all outputs of the model, in order.
        taken: those that were taken out, by name.
        nodes: the nodes that make them, in order.
        read: what they read, and the operator that does: outputs in their place.
        opsets: of the domains of the nodes.
    """

    outputs: tuple[str, ...]
    taken: dict[str, onnx.ValueInfoProto]
    nodes: tuple[onnx.NodeProto, ...]
    read: dict[str, str]
    opsets: dict[str, int]


def take(model: onnx.ModelProto) -> Aside | None:
    """Take out of ``model``, which is changed, the outputs that are no tensors; None where there are none."""
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    taken = {value.name: value for value in graph.output if _is_foreign(value, makers.get(value.name))}
    if not taken:
        return None
    nodes = _only_for(graph, taken)
    made = {name for node in nodes for name in node.output}
    read = {name: node.op_type for node in nodes for name in node.input if name in makers and name not in made}
    domains = {node.domain for node in nodes}
    aside = Aside(
        tuple(value.name for value in graph.output),
        taken,
        tuple(nodes),
        read,
        {entry.domain: entry.version for entry in model.opset_import if entry.domain in domains},
    )
    kept = [node for node in graph.node if not made.intersection(node.output)]
    own = [value for value in graph.output if value.name not in taken]
    known = [value for value in graph.value_info if value.name not in made]
    for field, values in ((graph.node, kept), (graph.output, own), (graph.value_info, known)):
        del field[:]
        field.extend(values)
    if not any(node.domain == ML for node in graph.node):
        others = [entry for entry in model.opset_import if entry.domain != ML]
        del model.opset_import[:]
        model.opset_import.extend(others)
    return aside


def mark(model: ir.Model, aside: Aside | None) -> None:
    """Make outputs of what the nodes that were taken out read."""
    if aside is None:
        return
    values = {value.name: value for node in model.graph for value in node.outputs}
    for name, op_type in aside.read.items():
        value = values.get(name)
        if value is not None and not is_constant(value) and not value.is_graph_output():
            value.meta[FEEDS] = op_type
            model.graph.outputs.append(value)


def mark_suppressed(model: ir.Model) -> None:
    """Make outputs of the boxes and scores in front of a NonMaxSuppression, where all outputs are what it picked."""
    found: dict[ir.Node, None] = {}
    for output in model.graph.outputs:
        picks = _suppressions(output)
        if not picks:
            return
        found |= dict.fromkeys(picks)
    for value in dict.fromkeys(value for node in found for value in node.inputs[:2]):
        if value is not None and value.producer() is not None and not value.is_graph_output():
            value.meta[FEEDS] = "NonMaxSuppression"
            model.graph.outputs.append(value)


def _suppressions(output: ir.Value) -> list[ir.Node]:
    """The NonMaxSuppressions whose indices an output is made of, and of nothing else that depends on the picture."""
    found, waiting, seen = [], [output], {output}
    while waiting:
        value = waiting.pop()
        node = value.producer()
        if node is None:
            if value.is_graph_input() and value.const_value is None:
                return []
            continue
        if node.op_type == "NonMaxSuppression":
            found.append(node)
            continue
        waiting += [x for x in node.inputs if x is not None and x not in seen]
        seen.update(waiting)
    return list(dict.fromkeys(found))


def put_back(model: onnx.ModelProto, aside: Aside | None, explained: Collection[str]) -> None:
    """Put the nodes and outputs back into an exported model, which is changed.

    Args:
        model: the model with everything added.
        aside: what was taken out.
        explained: names of outputs that are explained: those stay outputs, behind the model's own.
    """
    if aside is None:
        return
    graph = model.graph
    graph.node.extend(aside.nodes)
    now = {value.name: value for value in graph.output} | aside.taken
    names = list(dict.fromkeys([*aside.outputs, *now]))
    superfluous = set(aside.read) - set(aside.outputs) - set(explained)
    del graph.output[:]
    graph.output.extend(now[name] for name in names if name not in superfluous)
    there = {entry.domain for entry in model.opset_import}
    for domain, version in aside.opsets.items():
        if domain not in there:
            model.opset_import.append(onnx.helper.make_opsetid(domain, version))


def _is_foreign(value: onnx.ValueInfoProto, maker: onnx.NodeProto | None) -> bool:
    """Whether an output is no tensor, or made by an operator of the domain of trees and tables."""
    kind = value.type.WhichOneof("value")
    if kind == "tensor_type" and value.type.tensor_type.elem_type == onnx.TensorProto.STRING:
        return True
    return kind not in (None, "tensor_type") or (maker is not None and maker.domain == ML)


def _only_for(graph: onnx.GraphProto, taken: Collection[str]) -> list[onnx.NodeProto]:
    """The nodes in front of some outputs that make no tensors, or are of the other domain, and serve nothing else."""
    own = {value.name for value in graph.output} - set(taken)
    needed, nodes = set(taken), []
    read = {name for node in graph.node for attribute in node.attribute for name in _in_bodies(attribute)}
    for node in reversed(graph.node):
        makes = any(name in needed for name in node.output)
        foreign = node.domain == ML or node.op_type in NO_TENSORS or bool(set(taken).intersection(node.output))
        serves_others = any(name in own or name in read for name in node.output)
        if makes and foreign and not serves_others:
            nodes.append(node)
            needed.update(node.input)
        else:
            read.update(node.input)
    return nodes[::-1]


def _in_bodies(attribute: onnx.AttributeProto) -> set[str]:
    """Names that the body of a node reads."""
    names: set[str] = set()
    for body in (attribute.g, *attribute.graphs):
        for node in body.node:
            names.update(node.input)
            names |= {name for inner in node.attribute for name in _in_bodies(inner)}
        names |= {value.name for value in body.output}
    return names
