"""Layer-wise relevance propagation through transformers: rules for attention products, Softmax and normalisation.

They are those of Achtibat et al. 2024, "AttnLRP", arXiv 2402.05602, section 3.3, with epsilon as in
:mod:`fastcam_export.autodiff.modified.lrp`:

    O = A V       R_A = A (R / 2O) V^T,  R_V = V (A^T R / 2O): half to each, as to the product of queries and keys
    softmax       R_x = x (R - s sum R), s the softmax of x: its Taylor expansion around x
    normalisation y = g (x - m) / d + b: R passes (x - m) / d unchanged, and b keeps its part, as any bias does

GELU and its like pass R on. The products and, but for biases, the normalisations keep the sum of R; the softmax, whose
expansion has a constant part, does not. A LayerNormalization may also be written out: x - mean(x), then a division by
the square root of the mean of squares.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import onnx_ir as ir

from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.core.errors import UnsupportedOperator
from fastcam_export.autodiff.core.rule import RULES, ZERO, Function, Gradients, Node, Rule
from fastcam_export.autodiff.modified.lrp import EVERYTHING, pulled, ratio
from fastcam_export.autodiff.modified.relu_modes import Backward
from fastcam_export.graph.constants import is_constant

HANDED_ON = frozenset({"Cast", "Dropout", "Identity", "Where"})
"""What may lie between a softmax and the product with the values: dropout, and the guard of fully masked rows."""


def with_attention(mode: Backward) -> Backward:
    """A mode of relevance propagation, with the rules of this module."""
    own: dict[str, Rule] = {
        "Softmax": Rule(_softmax),
        "LayerNormalization": Rule(_normalization),
        "RMSNormalization": Rule(_normalization),
        "Attention": RULES["Attention"],  # through its definition
        "Where": RULES["Where"],  # moves values
    }
    for op_type, function in (("MatMul", _product), ("Sub", _centred), ("Div", _divided)):
        own[op_type] = _else(mode.rules[op_type], function)
    return replace(mode, rules={**mode.rules, **own})


def multiplies(value: ir.Value) -> bool:
    """Whether a value is the left side of a matrix product, perhaps through a dropout."""
    for node, index in value.uses():
        if node.op_type == "MatMul" and index == 0:
            return True
        if node.op_type in HANDED_ON and multiplies(node.outputs[0]):
            return True
    return False


def _else(rule: Rule, function: Function) -> Rule:
    """A rule that asks ``function`` first, which says nothing ({}) of nodes that are none of its own."""
    return replace(rule, gradients=partial(_either, function, rule.gradients))


def _either(first: Function, second: Function, op: Builder, node: Node, dy: ir.Value) -> Gradients:
    return first(op, node, dy) or second(op, node, dy)


# ---- the rules: dy is R of the output


def _product(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """Of two factors that depend on the image each gets half"""
    if any(map(is_constant, node.inputs)):
        return {}
    a, b = node.inputs
    batches = list(zip(op.dims(a)[:-2], op.dims(b)[:-2]))
    if op.rank(a) != op.rank(b) or any(isinstance(m, int) and isinstance(n, int) and m != n for m, n in batches):
        raise UnsupportedOperator("one of its factors is broadcast along the other")
    half = op.Mul(ratio(op, dy, node.y, EVERYTHING), 0.5)
    return {i: partial(_times, op, x, node, half, i) for i, x in enumerate((a, b))}


def _times(op: Builder, x: ir.Value, node: Node, share: ir.Value, index: int) -> ir.Value:
    return op.Mul(x, pulled(op, node.node, share, index))


def _softmax(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """R_x = x (R - s sum R)"""
    if not multiplies(node.node.outputs[0]):
        raise UnsupportedOperator("it is the softmax of no attention, of which relevance says nothing")
    axis = node.integer("axis", -1)
    total = op.ReduceSum(dy, [axis % op.rank(node.x)], keepdims=1)
    return op.Mul(node.x, op.Sub(dy, op.Mul(node.y, total)))


def _normalization(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """R passes; the bias b keeps its part: R (y - b) / y"""
    bias = node.input(2)
    if bias is None:
        return {0: dy}
    return {0: op.Mul(op.Sub(node.y, bias), ratio(op, dy, node.y, EVERYTHING))}


def _centred(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """x - mean(x) of a normalisation that is written out: R passes to x"""
    x, mean = node.inputs
    made = mean.producer()
    ours = made is not None and made.op_type == "ReduceMean" and made.inputs[0] is x
    return {0: dy, 1: ZERO} if ours and _normalised(node.node.outputs[0]) else {}


def _divided(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """x / sqrt(mean(x^2) + epsilon): R passes to x"""
    return {0: dy, 1: ZERO} if _is_deviation(node.inputs[1], node.inputs[0]) else {}


def _normalised(x: ir.Value) -> bool:
    return any(n.op_type == "Div" and i == 0 and _is_deviation(n.inputs[1], x) for n, i in x.uses())


def _is_deviation(value: ir.Value | None, x: ir.Value) -> bool:
    """Whether a value is the square root of a mean of squares of ``x``, perhaps with a constant added."""
    for kind in ("Sqrt", "Add", "ReduceMean"):
        node = value.producer() if value is not None else None
        if node is None or node.op_type != kind:
            return False
        value = next((each for each in node.inputs if not is_constant(each)), None)
    squares = value.producer() if value is not None else None
    return squares is not None and squares.op_type in ("Mul", "Pow") and squares.inputs[0] is x
