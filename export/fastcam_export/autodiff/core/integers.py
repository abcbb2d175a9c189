"""Operators on integers that stand for real numbers, by the float operators that they round.

Two families: those that rescale what they compute to integers of another scale (QLinearConv and its kin), and those
that count in int32 and leave the scale to float operators behind (ConvInteger, MatMulInteger). A count stands for
itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from fastcam_export.autodiff.core.attention import packed
from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.core.straight_through import RESCALED, representable, rescaled_limits
from fastcam_export.graph.constants import Array
from fastcam_export.graph.query import input_at, qualified_op_type

MICROSOFT = "com.microsoft."
WINDOW = ("auto_pad", "ceil_mode", "count_include_pad", "dilations", "group", "kernel_shape", "pads", "strides")

Parameters = tuple[int, int]
"""Where a node has the scale and the zero point of an input or of its result."""
Real = Callable[[int], ir.Value]
"""Index of an input -> the real numbers that it stands for."""
Define = Callable[[Builder, ir.Node, Real], "ir.Value | Sequence[ir.Value | None]"]


@dataclass(frozen=True)
class Integer:
    """One operator.

    Attributes:
        define: ``(op, node, real) -> result``: what it computes, without rounding; a list where it has several outputs.
        reals: the inputs that stand for real numbers, and where their scales and zero points are; -1: there is none.
        axes: of inputs with a scale to a channel the axis of the channels.
        within: the result lies between the least and the largest input.
        ends: numbers between which every result lies.
    """

    define: Define
    reals: Mapping[int, Parameters]
    axes: Mapping[int, int] = field(default_factory=dict)
    within: bool = False
    ends: tuple[float, float] | None = None


def results(op: Builder, node: ir.Node, known: Integer, real: Real) -> list[ir.Value | None]:
    """What each output of a node stands for; None for one that is not known."""
    made = known.define(op, node, real)
    found: list[ir.Value | None] = [made] if isinstance(made, ir.Value) else list(made)
    return (found + [None] * len(node.outputs))[: len(node.outputs)]


def limits(node: ir.Node, known: Integer) -> tuple[Array | None, Array | None]:
    """The codes at or beyond which a result hands on no gradient; None at an end that cannot be reached."""
    if qualified_op_type(node) not in RESCALED:
        return None, None
    if known.ends is not None:
        return rescaled_limits(node, known.ends)
    if not known.within:
        return rescaled_limits(node)
    given = [i for i in known.reals if input_at(node, i) is not None]
    ranges = [representable(input_at(node, i), *parameters(node, known.reals[i])) for i in given]
    return rescaled_limits(node, (min(low for low, _ in ranges), max(high for _, high in ranges)))


def find(node: ir.Node) -> Integer | None:
    """What is known of an operator on integers; None of any other."""
    return INTEGERS.get(qualified_op_type(node))


def parameters(node: ir.Node, where: Parameters) -> tuple[ir.Value | None, ir.Value | None]:
    """The scale and the zero point that a node has there."""
    scale, zero = (input_at(node, index) if index >= 0 else None for index in where)
    return scale, zero


def dequantised(op: Builder, code: ir.Value, scale: ir.Value | None, zero: ir.Value | None, axis: int = 1) -> ir.Value:
    """float32: the real numbers that integers stand for; of a constant too, which is not stored a second time."""
    if scale is None:
        scale = op.constant(np.ones((), np.float32))
    rank = op.rank(code)
    scale, zero = _scalar(op, scale), zero if zero is None else _scalar(op, zero)
    if op.rank(scale) > 1 or (zero is not None and op.rank(zero) > 1):
        number = op.Cast(code, to=int(ir.DataType.FLOAT))
        number = number if zero is None else op.Sub(number, op.Cast(zero, to=int(ir.DataType.FLOAT)))
        return op.Mul(number, scale)
    if zero is not None and op.rank(zero) < op.rank(scale):
        zero = op.Expand(zero, op.Shape(scale))
    if zero is not None and op.rank(zero) > op.rank(scale):
        scale = op.Expand(scale, op.Shape(zero))
    return op.DequantizeLinear(code, scale, zero, axis=axis % max(rank, 1) if op.rank(scale) else None)


def _scalar(op: Builder, parameter: ir.Value) -> ir.Value:
    """A parameter of one element without axes."""
    one = op.rank(parameter) > 0 and all(dim == 1 for dim in op.dims(parameter))
    return op.Reshape(parameter, np.zeros(0, np.int64)) if one else parameter


def real(op: Builder, node: ir.Node, known: Integer, index: int) -> ir.Value:
    """The real numbers that input ``index`` of a node stands for; a float input as it is."""
    value = node.inputs[index]
    assert value is not None
    if index not in known.reals:
        return value
    return dequantised(op, value, *parameters(node, known.reals[index]), axis_of(node, known, index))


def axis_of(node: ir.Node, known: Integer, index: int) -> int:
    """The axis of an input along which its scales differ."""
    turned = index == 3 and node.attributes.get_int("transB", False)  # columns are rows then
    return 0 if turned else known.axes.get(index, 1)


# ---- definitions


def _attributes(node: ir.Node, *names: str) -> dict[str, Any]:
    return {name: node.attributes[name].value for name in names if name in node.attributes}


def _last_second(op: Builder, node: ir.Node, x: ir.Value, back: bool = False) -> ir.Value:
    """``x`` with its channels second where the node has them last, and the other way round."""
    if not node.attributes.get_int("channels_last", 0):
        return x
    middle = list(range(1, op.rank(x) - 1))
    return op.Transpose(x, perm=[0, *(axis + 1 for axis in middle), 1] if back else [0, op.rank(x) - 1, *middle])


def _bias(op: Builder, node: ir.Node, index: int, first: int, second: int) -> ir.Value | None:
    """An int32 bias, whose scale is the product of two others."""
    bias, scale, other = (input_at(node, i) for i in (index, first, second))
    if bias is None:
        return None
    return op.Mul(op.Cast(bias, to=int(ir.DataType.FLOAT)), op.Mul(scale, other))


def _conv(op: Builder, node: ir.Node, x: Real) -> ir.Value:
    """Conv(x, w) + b"""
    y = op.Conv(_last_second(op, node, x(0)), x(3), **_attributes(node, *WINDOW))
    bias = _bias(op, node, 8, 1, 4)
    if bias is not None:
        y = op.Add(y, op.Reshape(bias, [1, -1, *[1] * (op.rank(y) - 2)]))
    return _last_second(op, node, y, back=True)


def _gemm(op: Builder, node: ir.Node, x: Real) -> ir.Value:
    """Gemm(a, b, c)"""
    y = op.Gemm(x(0), x(3), **_attributes(node, "alpha", "transA", "transB"))
    bias = _bias(op, node, 6, 1, 4)
    return y if bias is None else op.Add(y, bias)


def _global_average(op: Builder, node: ir.Node, x: Real) -> ir.Value:
    """The mean over positions"""
    return _last_second(op, node, op.GlobalAveragePool(_last_second(op, node, x(0))), back=True)


def _average(op: Builder, node: ir.Node, x: Real) -> ir.Value:
    """AveragePool"""
    pooled = op.AveragePool(_last_second(op, node, x(0)), **_attributes(node, *WINDOW))
    return _last_second(op, node, pooled, back=True)


def _concat(op: Builder, node: ir.Node, x: Real) -> ir.Value:
    """Concat of what the inputs stand for"""
    return op.Concat(*(x(i) for i in range(2, len(node.inputs), 3)), axis=node.attributes.get_int("axis", 0))


def _softmax(op: Builder, node: ir.Node, x: Real) -> ir.Value:
    """Softmax along an axis; before opset 13 over that axis and all behind it"""
    axis = node.attributes.get_int("axis", -1)
    if node.attributes.get_int("opset", 13) >= 13:
        return op.Softmax(x(0), axis=axis)
    flat = op.Softmax(op.Flatten(x(0), axis=axis), axis=-1)
    return op.Reshape(flat, op.Shape(x(0)))


def _reduce_mean(op: Builder, node: ir.Node, x: Real) -> ir.Value:
    """ReduceMean"""
    axes = list(node.attributes.get_ints("axes", ())) or None
    return op.ReduceMean(x(0), axes, keepdims=node.attributes.get_int("keepdims", 1))


def _to_float(op: Builder, node: ir.Node, x: Real) -> ir.Value:
    """MatMul(a, b) + bias"""
    y, bias = op.MatMul(x(0), x(1)), input_at(node, 6)
    return y if bias is None else op.Add(y, bias)


def _dynamic_matmul(op: Builder, node: ir.Node, x: Real) -> ir.Value:
    """MatMul(a, b) + bias, of floats a"""
    y, bias = op.MatMul(x(0), x(1)), input_at(node, 4)
    return y if bias is None else op.Add(y, bias)


def _attention(op: Builder, node: ir.Node, x: Real) -> list[ir.Value | None]:
    """com.microsoft.Attention"""
    return packed(op, node, x(0), x(1), {"bias": 2, "mask": 5, "past": 8})


def _lstm(op: Builder, node: ir.Node, x: Real) -> Sequence[ir.Value]:
    """LSTM of floats x, whose weights are stored transposed"""
    weights = (_directions(op, node, *places) for places in ((1, 8, 9), (2, 10, 11)))
    others = (input_at(node, index) for index in range(3, 8))
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    return op.emit_all("LSTM", x(0), *weights, *others, outputs=len(node.outputs), **attributes)


def _directions(op: Builder, node: ir.Node, index: int, scale: int, zero: int) -> ir.Value:
    """Weights [directions, columns, rows] that have a scale to the direction, or to each of its columns, transposed."""
    code, step, shift = (input_at(node, each) for each in (index, scale, zero))
    assert code is not None and step is not None
    number = op.Cast(code, to=int(ir.DataType.FLOAT))
    beside = [1] if op.rank(step) == 2 else [1, 2]
    if shift is not None:
        number = op.Sub(number, op.Unsqueeze(op.Cast(shift, to=int(ir.DataType.FLOAT)), beside))
    return op.Transpose(op.Mul(number, op.Unsqueeze(step, beside)), perm=[0, 2, 1])


UNARY = {0: (1, 2)}
BINARY = {0: (1, 2), 3: (4, 5)}
COUNTS = {0: (-1, 2), 1: (-1, 3)}
_CONV = Integer(_conv, BINARY, {3: 0})

INTEGERS: dict[str, Integer] = {
    "QLinearConv": _CONV,
    f"{MICROSOFT}QLinearConv": _CONV,
    "QLinearMatMul": Integer(lambda op, node, x: op.MatMul(x(0), x(3)), BINARY, {0: -2, 3: -1}),
    "ConvInteger": Integer(lambda op, node, x: op.Conv(x(0), x(1), **_attributes(node, *WINDOW)), COUNTS),
    "MatMulInteger": Integer(lambda op, node, x: op.MatMul(x(0), x(1)), COUNTS, {0: -2, 1: -1}),
    f"{MICROSOFT}QGemm": Integer(_gemm, BINARY, {3: -1}),
    f"{MICROSOFT}QLinearAdd": Integer(lambda op, node, x: op.Add(x(0), x(3)), BINARY),
    f"{MICROSOFT}QLinearMul": Integer(lambda op, node, x: op.Mul(x(0), x(3)), BINARY),
    f"{MICROSOFT}QLinearAveragePool": Integer(_average, UNARY, within=True),
    f"{MICROSOFT}QLinearGlobalAveragePool": Integer(_global_average, UNARY, within=True),
    f"{MICROSOFT}QLinearReduceMean": Integer(_reduce_mean, UNARY, within=True),
    f"{MICROSOFT}QLinearConcat": Integer(_concat, {i: (i + 1, i + 2) for i in range(2, 600, 3)}, within=True),
    f"{MICROSOFT}QLinearLeakyRelu": Integer(
        lambda op, node, x: op.LeakyRelu(x(0), **_attributes(node, "alpha")), UNARY
    ),
    f"{MICROSOFT}QLinearSigmoid": Integer(lambda op, node, x: op.Sigmoid(x(0)), UNARY, ends=(0.0, 1.0)),
    f"{MICROSOFT}QLinearSoftmax": Integer(_softmax, UNARY, ends=(0.0, 1.0)),
    f"{MICROSOFT}QLinearWhere": Integer(
        lambda op, node, x: op.Where(node.inputs[0], x(1), x(4)), {1: (2, 3), 4: (5, 6)}, within=True
    ),
    f"{MICROSOFT}MatMulIntegerToFloat": Integer(_to_float, {0: (2, 4), 1: (3, 5)}, {0: -2, 1: -1}),
    f"{MICROSOFT}QAttention": Integer(_attention, {0: (3, 6), 1: (4, 7)}, {1: -1}),
    f"{MICROSOFT}DynamicQuantizeLSTM": Integer(_lstm, {}),
    f"{MICROSOFT}DynamicQuantizeMatMul": Integer(_dynamic_matmul, {1: (2, 3)}, {1: -1}),
}
"""Operator -> what it computes of the numbers that its integers stand for."""
