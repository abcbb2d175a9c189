"""Operators whose definition is a function of other operators: differentiated through a copy of that function's body.

ONNX gives many operators such a body, some of them one that depends on attributes and on which inputs are given. The
model's own node is not touched: the copy recomputes what the backward pass needs, in operators that have rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import onnx
import onnx_ir as ir
from onnx import defs, helper

from fastcam_export.autodiff.core import codes, rule
from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.core.errors import UnsupportedOperator
from fastcam_export.autodiff.core.inlining import copied
from fastcam_export.autodiff.core.rule import Node, Rule
from fastcam_export.graph.query import in_default_domain, is_added, reads

Attributes = Mapping[str, onnx.AttributeProto]


def find(node: ir.Node) -> Rule | None:
    """The rule for ``node``: a registered one, or its function body's; None where there is neither."""
    found = codes.find(node) or rule.find(node)
    if found is None and in_default_domain(node) and _has_body(node):
        return rule.expanded(body)
    return found


def _has_body(node: ir.Node) -> bool:
    version = node.graph.opset_imports.get("") if node.graph is not None else None
    try:
        schema: Any = defs.get_schema(node.op_type, version or defs.onnx_opset_version(), "")
    except defs.SchemaError:
        return False
    return bool(schema.has_function or schema.has_context_dependent_function)


def body(op: Builder, node: Node) -> list[ir.Value | None]:
    """Emit the function body that ONNX defines for ``node``; its outputs.

    Raises:
        UnsupportedOperator: ONNX gives no body for this form of it, or shapes that it needs are unknown.
    """
    schema: Any = defs.get_schema(node.node.op_type, op.version, "")
    function = _function(op, schema, node.node)
    attributes = {name: a.default_value for name, a in schema.attributes.items() if a.default_value.name}
    attributes |= {attribute.name: attribute for attribute in ir.to_proto(node.node).attribute}
    _resolve(function.node, attributes)
    inputs = [*node.node.inputs, *[None] * (len(function.input) - len(node.node.inputs))]
    given = {*function.input, *(name for inner in function.node for name in inner.output)}
    names = list(function.output)
    function.output[:] = [name for name in names if name in given]  # a body leaves out what is not asked for
    made = dict(zip(function.output, copied(op, ir.from_proto(function).graph, inputs)))
    return [made.get(name) for name in names]


def _function(op: Builder, schema: Any, node: ir.Node) -> onnx.FunctionProto:
    """The newest body that is not newer than the graph's opset."""
    function = onnx.FunctionProto()
    if not schema.has_context_dependent_function:
        function.CopyFrom(schema.function_body)
        return function
    version = max(v for v in schema.context_dependent_function_opset_versions if v <= op.version)
    types = [b"" if value is None else _type(op, value).SerializeToString() for value in node.inputs]
    proto = ir.to_proto(node).SerializeToString()
    function.ParseFromString(schema.get_context_dependent_function_with_opset_version(version, proto, types))
    if not function.node:
        raise UnsupportedOperator("ONNX gives no definition for this form of it")
    return function


def _type(op: Builder, value: ir.Value) -> onnx.TypeProto:
    dims = op.dims(value) if value.shape is not None else None
    return helper.make_tensor_type_proto(int(value.dtype or 0), dims)


def _resolve(nodes: Iterable[onnx.NodeProto], attributes: Attributes) -> None:
    """Put the operator's attributes in place of the references to them, in a body's nodes and the bodies in these."""
    for node in nodes:
        for attribute in [a for a in node.attribute if a.ref_attr_name]:
            source, name = attributes.get(attribute.ref_attr_name), attribute.name
            node.attribute.remove(attribute)
            if source is not None:
                node.attribute.append(source)
                node.attribute[-1].name = name
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _resolve(attribute.g.node, attributes)


TRIED = ("Attention", "NegativeLogLikelihoodLoss", "RotaryEmbedding", "SoftmaxCrossEntropyLoss", "SwiGLU")
"""Operators whose bodies have cases of their own; :func:`find` gives the others as well."""

rule.expansion(*TRIED)(body)


def made_from(sources: Iterable[ir.Value], results: Iterable[ir.Value]) -> list[ir.Node]:
    """The nodes that FastCAM emitted to make ``results``, as far back as ``sources``, each behind what it reads."""
    known = set(sources)
    ordered: list[ir.Node] = []
    stack = [(value, False) for value in results]
    entered: set[ir.Node] = set()
    while stack:
        value, left = stack.pop()
        node = value.producer()
        if node is None or not is_added(node):
            continue
        if left:
            ordered.append(node)
        elif value not in known and node not in entered:
            entered.add(node)
            stack.append((value, True))
            stack.extend((each, False) for each in reads(node))
    return ordered
