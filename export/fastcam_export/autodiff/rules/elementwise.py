"""Arithmetic: one line each. The driver sums over broadcast axes."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx_ir as ir

from fastcam_export.autodiff.core.builder import HALF, Builder
from fastcam_export.autodiff.core.rule import ZERO, Gradients, Node, rule
from fastcam_export.autodiff.core.shapes import cast_like, wide


@rule("Ceil", "Floor", "Round", "Sign")
def constant_almost_everywhere(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """The derivative is zero wherever there is one."""
    return {0: ZERO}


@rule("Add", broadcasts=True)
def add(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """d(a + b) = da + db"""
    return {0: dy, 1: dy}


@rule("Sub", broadcasts=True)
def sub(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """d(a - b) = da - db"""
    return {0: dy, 1: lambda: op.Neg(dy)}


@rule("Mul", broadcasts=True)
def mul(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """d(a b) = b da + a db"""
    a, b = node.inputs
    return {0: lambda: op.Mul(dy, b), 1: lambda: op.Mul(dy, a)}


@rule("Div", broadcasts=True)
def div(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """d(a / b) = da / b - (a / b) / b db"""
    b = node.inputs[1]
    return {0: lambda: op.Div(dy, b), 1: lambda: op.Neg(op.Mul(dy, op.Div(node.y, b)))}


@rule("Sum", broadcasts=True)
def sum_(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """d(a + b + ...) = da + db + ..."""
    return dict.fromkeys(range(len(node.inputs)), dy)


@rule("Mean", broadcasts=True)
def mean(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """d((a + b + ...) / n) = (da + db + ...) / n"""
    n = len(node.inputs)
    return dict.fromkeys(range(n), op.Div(dy, float(n)))


@rule("Max", "Min", broadcasts=True)
def extremum(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """The gradient is shared evenly between the inputs that equal the result, as torch.maximum and torch.minimum do"""
    if len(node.inputs) == 1:
        return dy
    given, y = [wide(op, x) for x in node.inputs], node.y
    if y.dtype in HALF:  # runtimes leave roundings to half out here and there, and y would not be found in its inputs
        y = op.emit(node.node.op_type, *given)
    equal = [cast_like(op, op.Equal(x, y), node.y) for x in given]
    share = op.Reciprocal(op.Sum(*equal))
    return {index: partial(op.Mul, dy, op.Mul(mask, share)) for index, mask in enumerate(equal)}


@rule("Pow", broadcasts=True)
def pow_(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """d(a^b) = b a^(b-1) da + a^b log(a) db; the first is zero where b = 0, the second where a <= 0"""
    a, b = node.inputs

    def base() -> ir.Value:
        factor = cast_like(op, b, a)
        slope = op.Mul(op.Pow(a, op.Sub(b, cast_like(op, np.array(1.0), b))), factor)
        return op.Mul(dy, op.Where(op.Equal(factor, 0.0), 0.0, slope))

    def exponent() -> ir.Value:
        log = op.Log(op.Where(op.Greater(a, 0.0), a, 1.0))
        return cast_like(op, op.Mul(dy, op.Mul(node.y, log)), b)

    return {0: base, 1: exponent}


@rule("Where", broadcasts=True)
def where(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """The gradient goes to the chosen side."""
    condition = node.inputs[0]
    return {1: lambda: op.Where(condition, dy, 0.0), 2: lambda: op.Where(condition, 0.0, dy)}


@rule("Identity", "OptionalGetElement")
def identity(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx = dy. (What OptionalGetElement is given may be a tensor as well as an optional one.)"""
    return dy


@rule("Dropout", ignores=[1, 2])
def dropout(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx = dy: an exported network is in inference mode; ``load`` refuses training mode."""
    return {0: dy, 1: ZERO}


@rule("Cast")
def cast(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx = dy, in the type of x"""
    return cast_like(op, dy, node.x)


@rule("CastLike", ignores=[1])
def cast_like_(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx = dy, in the type of x; the other input only names a type"""
    return {0: cast_like(op, dy, node.x), 1: ZERO}


@rule("Neg")
def neg(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx = -dy"""
    return op.Neg(dy)


@rule("Abs")
def abs_(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx = sign(x) dy, zero at zero"""
    return op.Mul(dy, op.Sign(node.x))


@rule("Reciprocal")
def reciprocal(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """d(1/x) = -y^2 dy"""
    return op.Mul(dy, op.Neg(op.Mul(node.y, node.y)))


@rule("Sqrt")
def sqrt(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx = dy / (2 y)"""
    return op.Div(dy, op.Mul(node.y, 2.0))


@rule("Exp")
def exp(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx = y dy"""
    return op.Mul(dy, node.y)


@rule("Log")
def log(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx = dy / x"""
    return op.Div(dy, node.x)


@rule("Erf")
def erf(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx = 2 / sqrt(pi) exp(-x^2) dy"""
    return op.Mul(dy, op.Mul(op.Exp(op.Neg(op.Mul(node.x, node.x))), 2 / np.pi**0.5))


@rule("Sin")
def sin(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx = cos(x) dy"""
    return op.Mul(dy, op.Cos(node.x))


@rule("Cos")
def cos(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx = -sin(x) dy"""
    return op.Mul(dy, op.Neg(op.Sin(node.x)))


@rule("Tan")
def tan(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx = (1 + y^2) dy"""
    return op.Mul(dy, op.Add(op.Mul(node.y, node.y), 1.0))


@rule("Sinh")
def sinh(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx = cosh(x) dy"""
    return op.Mul(dy, op.Cosh(node.x))


@rule("Cosh")
def cosh(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx = sinh(x) dy"""
    return op.Mul(dy, op.Sinh(node.x))


@rule("Asin")
def asin(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx = dy / sqrt(1 - x^2)"""
    return op.Div(dy, op.Sqrt(op.Sub(1.0, op.Mul(node.x, node.x))))


@rule("Acos")
def acos(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx = -dy / sqrt(1 - x^2)"""
    return op.Div(dy, op.Neg(op.Sqrt(op.Sub(1.0, op.Mul(node.x, node.x)))))


@rule("Atan")
def atan(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx = dy / (1 + x^2)"""
    return op.Div(dy, op.Add(op.Mul(node.x, node.x), 1.0))


@rule("Asinh")
def asinh(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx = dy / sqrt(x^2 + 1)"""
    return op.Div(dy, op.Sqrt(op.Add(op.Mul(node.x, node.x), 1.0)))


@rule("Acosh")
def acosh(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx = dy / sqrt(x^2 - 1)"""
    return op.Div(dy, op.Sqrt(op.Sub(op.Mul(node.x, node.x), 1.0)))


@rule("Atanh")
def atanh(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx = dy / (1 - x^2)"""
    return op.Div(dy, op.Sub(1.0, op.Mul(node.x, node.x)))


@rule("Mod", broadcasts=True)
def mod(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """y = a - n b with a whole number n: dy = da - n db"""
    a, b = node.inputs
    return {0: dy, 1: lambda: op.Mul(dy, op.Round(op.Div(op.Sub(node.y, a), b)))}
