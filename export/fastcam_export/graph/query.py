"""What several modules ask of a graph: whose a node is, what it reads, what depends on a value, how large a value is.

Nothing is run or changed here. The contents of values are the business of :mod:`fastcam_export.graph.constants`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import onnx_ir as ir

from fastcam.schema import PREFIX

Dim = int | str | None
"""A dimension: its size, the name of a free one, None where nothing is known."""
Dims = tuple[Dim, ...]

VIEWS = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze"})
"""Operators that keep the elements and their order."""
ELEMENTS_KEPT = frozenset({"Cast", "Dropout", "Identity"})
"""Operators that keep elements, order and shape; Cast rounds, and Dropout is the identity at inference."""


class Named(Protocol):
    """A node or value, of onnx_ir or of a protobuf."""

    @property
    def name(self) -> str | None:
        """Its name in the file."""


# ---- nodes


def is_added(named: Named) -> bool:
    """Whether FastCAM added this node, value or constant.

    The name tells: all that FastCAM adds, and nothing else, has a name that begins with
    :data:`fastcam.schema.PREFIX`. A name survives copies, cuts and the file; metadata of nodes survives none of ONNX
    Runtime's rewrites.
    """
    return (named.name or "").startswith(PREFIX)


def in_default_domain(node: ir.Node) -> bool:
    """Whether the operator is one of ONNX's own."""
    return node.domain in ("", "ai.onnx")


def qualified_op_type(node: ir.Node) -> str:
    """The operator with its domain in front, where that is not the default one: "com.microsoft.FusedConv"."""
    return node.op_type if in_default_domain(node) else f"{node.domain}.{node.op_type}"


def input_at(node: ir.Node, index: int) -> ir.Value | None:
    """Input ``index``; None where it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def subgraphs(node: ir.Node) -> list[ir.Graph]:
    """The bodies of a node (an If, Loop or Scan)."""
    graphs = (a.as_graph() for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH)
    return list(graphs)


def captured(node: ir.Node) -> Iterator[ir.Value]:
    """What the bodies of a node read from outside; a value may come more than once."""
    for graph in subgraphs(node):
        computed = (value for inner in graph for value in inner.outputs)
        own = {*graph.inputs, *graph.initializers.values(), *computed}
        read = (value for inner in graph for value in (*inner.inputs, *captured(inner)))
        yield from (value for value in (*read, *graph.outputs) if value is not None and value not in own)


def reads(node: ir.Node) -> Iterator[ir.Value]:
    """What a node reads: its inputs, then what its bodies read from outside."""
    yield from (value for value in node.inputs if value is not None)
    yield from captured(node)


# ---- values


def dependents(nodes: Iterable[ir.Node], sources: Iterable[ir.Value]) -> set[ir.Value]:
    """``sources`` and all that is computed from them by ``nodes``, each of which stands behind what it reads."""
    reached = set(sources)
    for node in nodes:
        if any(value in reached for value in reads(node)):
            reached.update(node.outputs)
    return reached


def consumers(nodes: Iterable[ir.Node]) -> dict[ir.Value, list[tuple[ir.Node, int]]]:
    """Value -> (node, input index) of those of ``nodes`` that read it; of one that a body reads the index is -1."""
    readers: dict[ir.Value, list[tuple[ir.Node, int]]] = {}
    for node in nodes:
        for index, value in enumerate(node.inputs):
            if value is not None:
                readers.setdefault(value, []).append((node, index))
        for value in captured(node):
            readers.setdefault(value, []).append((node, -1))
    return readers


def only_consumer(value: ir.Value) -> ir.Node | None:
    """The one node of the model itself that reads ``value``; None where there are others, or it is an output."""
    readers = [node for node, _ in value.uses() if not is_added(node)]
    return readers[0] if len(readers) == 1 and not value.is_graph_output() else None


def dims_of(value: ir.Value | None) -> Dims:
    """The shape; empty where not even the number of axes is known."""
    shape = value.shape if value is not None else None
    return tuple(dim if isinstance(dim, int) else dim.value for dim in shape or ())


def known_dims(value: ir.Value) -> list[int | None] | None:
    """The dimensions as far as they are numbers; None where not even the number of axes is known."""
    return None if value.shape is None else [dim if isinstance(dim, int) else None for dim in value.shape]


def readable_dims(value: ir.Value) -> tuple[int | str, ...]:
    """The shape for people and JSON: free dimensions by name, or "?"."""
    return tuple("?" if dim is None or dim == "" else dim for dim in dims_of(value))
