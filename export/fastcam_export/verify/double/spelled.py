"""Operators of which the runtime has no float64 kernel, said with those of which it has one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx

from fastcam_export.verify.double import grid_sample
from fastcam_export.verify.double.emitter import Emitter

Shapes = Mapping[str, Sequence[int]]
"""The dimensions of values by name; 0 for a free one."""
ERF_NEAR = (
    (3.16112374387056560e00, 1.13864154151050156e02, 3.77485237685302021e02, 3.20937758913846947e03),
    (2.36012909523441209e01, 2.44024637934444173e02, 1.28261652607737228e03, 2.84423683343917062e03),
    1.85777706184603153e-1,
)
ERF_FAR = (
    (
        *(5.64188496988670089e-1, 8.88314979438837594e00, 6.61191906371416295e01, 2.98635138197400131e02),
        *(8.81952221241769090e02, 1.71204761263407058e03, 2.05107837782607147e03, 1.23033935479799725e03),
    ),
    (
        *(1.57449261107098347e01, 1.17693950891312499e02, 5.37181101862009858e02, 1.62138957456669019e03),
        *(3.29079923573345963e03, 4.36261909014324716e03, 3.43936767414372164e03, 1.23033935480374942e03),
    ),
    2.15311535474403846e-8,
)
"""Rational approximations of erf(x) / x up to .46875 and of erfc(x) exp(x^2) behind it: Cody, "Rational Chebyshev
approximations for the error function" (1969)."""


def spell(graph: onnx.GraphProto, shapes: Shapes) -> None:
    """Replace what is registered here in ``graph``."""
    if all(node.op_type not in OPERATORS for node in graph.node):
        return
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        make = OPERATORS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        op = Emitter(graph, node)
        made = make(op, node.input[0], shapes.get(node.input[0], ())) if make is not None else None
        if made is not None:
            op.give(made)
        graph.node.extend([node] if made is None else op.into)


def _alpha(op: Emitter, default: float) -> float:
    return float(op.given.get("alpha", default))


def _least(op: Emitter, x: str, limit: float) -> str:
    return op.emit("Max", x, limit)


def _line(op: Emitter, x: str, alpha: float, beta: float) -> str:
    """max(0, min(1, alpha x + beta))"""
    return op.emit("Min", _least(op, op.emit("Add", op.emit("Mul", x, alpha), beta), 0.0), 1.0)


def _kinked(op: Emitter, x: str, slope: str | float) -> str:
    """x, or ``slope`` x where it is negative"""
    return op.emit("Add", _least(op, x, 0.0), op.emit("Mul", op.emit("Min", x, 0.0), slope))


def _exponential(op: Emitter, x: str, alpha: float, scale: float = 1.0) -> str:
    """alpha (exp(min(x, 0) / scale) - 1)"""
    low = op.emit("Div", op.emit("Min", x, 0.0), scale)
    return op.emit("Mul", op.emit("Sub", op.emit("Exp", low), 1.0), alpha)


def _softplus(op: Emitter, x: str) -> str:
    """max(x, 0) + log(1 + exp(-|x|))"""
    small = op.emit("Exp", op.emit("Neg", op.emit("Abs", x)))
    return op.emit("Add", _least(op, x, 0.0), op.emit("Log", op.emit("Add", small, 1.0)))


def _erf(op: Emitter, x: str) -> str:
    y = op.emit("Min", op.emit("Abs", x), 6.0)
    square = op.emit("Mul", x, x)
    near = op.emit("Mul", x, _rational(op, op.emit("Min", square, 0.25), *ERF_NEAR))
    tail = op.emit("Mul", _rational(op, y, *ERF_FAR), op.emit("Exp", op.emit("Neg", op.emit("Mul", y, y))))
    far = op.emit("Mul", op.emit("Sign", x), op.emit("Sub", 1.0, tail))
    return op.emit("Where", op.emit("Less", y, 0.46875), near, far)


def _rational(op: Emitter, x: str, above: Sequence[float], below: Sequence[float], leading: float) -> str:
    top, bottom = op.emit("Mul", x, leading), x
    for a, b in zip(above[:-1], below[:-1]):
        top = op.emit("Mul", op.emit("Add", top, a), x)
        bottom = op.emit("Mul", op.emit("Add", bottom, b), x)
    return op.emit("Div", op.emit("Add", top, above[-1]), op.emit("Add", bottom, below[-1]))


def _gelu(op: Emitter, x: str, dims: Sequence[int]) -> str:
    if op.given.get("approximate", b"none") == b"tanh":
        cubic = op.emit("Mul", op.emit("Mul", op.emit("Mul", x, x), x), 0.044715)
        share = op.emit("Tanh", op.emit("Mul", op.emit("Add", x, cubic), math.sqrt(2 / math.pi)))
    else:
        share = _erf(op, op.emit("Mul", x, math.sqrt(0.5)))
    return op.emit("Mul", op.emit("Mul", x, 0.5), op.emit("Add", share, 1.0))


def _instance_norm(op: Emitter, x: str, dims: Sequence[int]) -> str | None:
    if len(dims) < 3:
        return None
    axes = np.arange(2, len(dims))
    apart = op.emit("Sub", x, op.emit("ReduceMean", x, axes))
    variance = op.emit("ReduceMean", op.emit("Mul", apart, apart), axes)
    unit = op.emit("Div", apart, op.emit("Sqrt", op.emit("Add", variance, float(op.given.get("epsilon", 1e-5)))))
    column = np.array([1, -1, *[1] * (len(dims) - 2)])
    scale, bias = (op.emit("Reshape", name, column) for name in op.node.input[1:3])
    return op.emit("Add", op.emit("Mul", unit, scale), bias)


def _average_pool(op: Emitter, x: str, dims: Sequence[int]) -> str | None:
    """The mean of what the taps of a window see, of padding only where that counts."""
    kernel, rank = op.given["kernel_shape"], len(op.given["kernel_shape"])
    pads, strides = op.given.get("pads", [0] * 2 * rank), op.given.get("strides", [1] * rank)
    if op.given.get("ceil_mode", 0) or op.given.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        return None
    dilations = op.given.get("dilations", [1] * rank)
    around = [0, 0, *pads[:rank], 0, 0, *pads[rank:]]

    def total(value: str) -> str:
        padded = op.emit("Pad", value, around) if any(pads) else value
        terms = []
        for tap in np.ndindex(*kernel):
            begin = [t * d for t, d in zip(tap, dilations)]
            end = [(t + 1 - k) * d or np.iinfo(np.int64).max for t, k, d in zip(tap, kernel, dilations)]
            terms.append(op.emit("Slice", padded, begin, end, np.arange(2, 2 + rank), list(strides)))
        return op.emit("Sum", *terms)

    if any(pads) and not op.given.get("count_include_pad", 0):
        return op.emit("Div", total(x), total(op.emit("Add", op.emit("Mul", x, 0.0), 1.0)))
    return op.emit("Div", total(x), float(math.prod(kernel)))


def _global_pool(reduction: str) -> Operator:
    def make(op: Emitter, x: str, dims: Sequence[int]) -> str:
        return op.emit(reduction, x, np.arange(2, len(dims) or 4))

    return make


Operator = Callable[[Emitter, str, Sequence[int]], "str | None"]
OPERATORS: dict[str, Operator] = {
    "AveragePool": _average_pool,
    "Celu": lambda op, x, dims: op.emit("Add", _least(op, x, 0.0), _exponential(op, x, *[_alpha(op, 1.0)] * 2)),
    "Elu": lambda op, x, dims: op.emit("Add", _least(op, x, 0.0), _exponential(op, x, _alpha(op, 1.0))),
    "Erf": lambda op, x, dims: _erf(op, x),
    "Gelu": _gelu,
    "GlobalAveragePool": _global_pool("ReduceMean"),
    "GlobalMaxPool": _global_pool("ReduceMax"),
    "GridSample": grid_sample.bilinear,
    "HardSigmoid": lambda op, x, dims: _line(op, x, _alpha(op, 0.2), float(op.given.get("beta", 0.5))),
    "HardSwish": lambda op, x, dims: op.emit("Mul", x, _line(op, x, 1 / 6, 0.5)),
    "InstanceNormalization": _instance_norm,
    "LeakyRelu": lambda op, x, dims: _kinked(op, x, _alpha(op, 0.01)),
    "Mish": lambda op, x, dims: op.emit("Mul", x, op.emit("Tanh", _softplus(op, x))),
    "PRelu": lambda op, x, dims: _kinked(op, x, op.node.input[1]),
    "Selu": lambda op, x, dims: op.emit(
        "Mul",
        op.emit("Add", _least(op, x, 0.0), _exponential(op, x, _alpha(op, 1.67326319217681884765625))),
        float(op.given.get("gamma", 1.05070102214813232421875)),
    ),
    "Softplus": lambda op, x, dims: _softplus(op, x),
    "Softsign": lambda op, x, dims: op.emit("Div", x, op.emit("Add", op.emit("Abs", x), 1.0)),
    "ThresholdedRelu": lambda op, x, dims: op.emit("Where", op.emit("Greater", x, _alpha(op, 1.0)), x, 0.0),
}
"""Operator -> (emitter, its first input, the dimensions of that) -> its output; None where this form of it stays."""
