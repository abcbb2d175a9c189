"""Rows of an attention in which every key is masked: their softmax is NaN, and their gradient zero.

A softmax of -inf alone is NaN, as the runtime gives it. Models put zero in its place behind (Where of IsNaN), or never
read the row. Its gradient would be NaN times zero, which is NaN for all keys and values.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fastcam_export.autodiff.core.builder import FLOATS, Builder
from fastcam_export.graph.constants import constant_array
from fastcam_export.graph.query import in_default_domain, is_added, reads

PASSED = frozenset({"Cast", "CastLike", "Dropout", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice"})
PASSED |= {"Split", "Squeeze", "Tile", "Transpose", "Trilu", "Unsqueeze"}
"""Operators that hand numbers on."""
COMBINED = PASSED | {"Add", "Clip", "Concat", "Div", "Max", "Min", "Mul", "Neg", "Sub", "Where"}
"""Operators whose result is -inf only where an operand is."""


def may_be_empty(softmax: ir.Node) -> bool:
    """Whether a row of a Softmax may consist of -inf: a mask of such numbers, or one that is fed, is in its scores."""
    stack = [softmax.inputs[0]]
    entered = set(stack)
    while stack:
        value = stack.pop()
        if value is None or value.dtype not in FLOATS:
            continue
        array, node = constant_array(value), value.producer()
        new = [*reads(node)] if array is None and node is not None and node.op_type in COMBINED else []
        if array is not None:
            found = bool(np.isneginf(array.astype(np.float32)).any())
        else:
            found = _makes_infinity(node) if node is not None else not is_added(value)
        if found:
            return True
        stack += [each for each in new if each not in entered]
        entered.update(new)
    return False


def _makes_infinity(node: ir.Node) -> bool:
    if node.op_type == "ConstantOfShape" and "value" in node.attributes:
        return bool(np.isneginf(np.asarray(node.attributes["value"].as_tensor().numpy(), np.float32)).any())
    return node.op_type == "Log"


def are_weights(value: ir.Value) -> bool:
    """Whether a value is, perhaps rearranged, a softmax of which rows may be NaN."""
    node = value.producer()
    while node is not None and in_default_domain(node) and node.op_type in PASSED and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node is not None and node.op_type == "Softmax" and may_be_empty(node)


def without(op: Builder, value: ir.Value, nan: ir.Value) -> ir.Value:
    """``value``, zero where ``nan``."""
    return op.Where(nan, op.constant(np.zeros((), (value.dtype or ir.DataType.FLOAT).numpy())), value)


def zero_rows(op: Builder, weights: ir.Value, dy: ir.Value, axis: int) -> tuple[ir.Value, ir.Value]:
    """``weights`` with zeros for NaN, and the cotangent of their product, zero in these rows.

    Args:
        op: builder.
        weights: an operand of a MatMul.
        dy: the cotangent of its result.
        axis: of the weights along which the product sums, -1 or -2.
    """
    nan = op.IsNaN(weights)
    row = op.IsNaN(op.ReduceSum(weights, [axis], keepdims=1))
    return without(op, weights, nan), without(op, dy, row)
