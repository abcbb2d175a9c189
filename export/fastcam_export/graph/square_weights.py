"""Square weights, which the backward pass reads the other way round: a value of their own, or OpenVINO mixes them up.

OpenVINO (2025.4 and 2026.4) arranges a constant once for all that read it with the same sizes. A square W has those of
W^T, so that its CPU took the forward pass's arrangement for the gradient's, and computed dy W where dy W^T was
asked for. W negated twice is W, bit for bit. Runtimes compute it once, when they read the file, which holds W once as
before.
"""

from __future__ import annotations

import onnx_ir as ir

from fastcam.schema import PREFIX
from fastcam_export.graph.constants import is_constant
from fastcam_export.graph.query import ELEMENTS_KEPT, VIEWS, dims_of, in_default_domain, is_added

CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
PRODUCTS = frozenset({"Einsum", "Gemm", "MatMul"})
THROUGH = VIEWS | ELEMENTS_KEPT | {"DequantizeLinear", "QuantizeLinear"}
"""Operators that the arrangement of a weight survives; before a matrix product, Transpose too."""


def keep_apart(graph: ir.Graph) -> None:
    """Let the added nodes of a finished graph read the model's square weights through two Neg."""
    apart: dict[ir.Value, ir.Value] = {}
    for node in [node for node in graph if is_added(node) and in_default_domain(node)]:
        for index, weight in enumerate(node.inputs):
            if weight is not None and _is_mixed_up(node, weight):
                if weight not in apart:
                    apart[weight] = _negated_twice(graph, node, weight)
                node.replace_input_with(index, apart[weight])


def _is_mixed_up(node: ir.Node, weight: ir.Value) -> bool:
    dims = dims_of(weight)
    if node.op_type in CONVOLUTIONS:
        groups = node.attributes.get_int("group", 1)
        square = len(dims) > 2 and dims[1] != 1 and (not isinstance(dims[1], int) or dims[0] == groups * dims[1])
        return square and _is_the_models(weight, THROUGH)
    square = node.op_type == "Einsum" or (len(dims) == 2 and dims[0] == dims[1] != 1)
    return node.op_type in PRODUCTS and square and _is_the_models(weight, THROUGH | {"Transpose"})


def _is_the_models(weight: ir.Value, through: frozenset[str]) -> bool:
    """Whether a value is a weight of the model itself, in another shape or type at most."""
    while (producer := weight.producer()) is not None and producer.op_type in through:
        before = producer.inputs[0]
        if before is None:
            return False
        weight = before
    return not is_added(weight) and is_constant(weight)


def _negated_twice(graph: ir.Graph, reader: ir.Node, weight: ir.Value) -> ir.Value:
    value = weight
    for what in ("negated", "apart"):
        name = f"{PREFIX}{what}.{weight.name}"
        negated = ir.Value(name=name, type=weight.type, shape=weight.shape)
        graph.insert_before(reader, ir.Node("", "Neg", [value], outputs=[negated], name=f"{name}_node"))
        value = negated
    return value
