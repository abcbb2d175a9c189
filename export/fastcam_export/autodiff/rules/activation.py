"""Activation functions. At a kink the derivative is PyTorch's."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from fastcam_export.autodiff.core import masked_rows
from fastcam_export.autodiff.core.blocked import fits
from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.core.residues import masked
from fastcam_export.autodiff.core.rule import Gradients, Node, rule
from fastcam_export.autodiff.core.shapes import cast_like, reshape_like, sum_to
from fastcam_export.graph.constants import constant_array

SELU_ALPHA, SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875
"""Defaults of ONNX, which are those of the paper in float32."""


STEEP = float(np.finfo(np.float32).max)
"""min(1, max(0, STEEP y)) is one for every normal y above zero: ONNX Runtime's Sign takes five times as long."""
JUST_BELOW = -1e-30
"""What is added to STEEP y in place of zero, and changes nothing: OpenVINO takes a beta of zero for one that is not
given, which is 0.5."""


@rule("Relu")
def relu(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx = dy where y > 0. That mask is one operator, as y is never negative: sign(y), or what computes it faster."""
    if node.y.dtype == ir.DataType.FLOAT and op.engine == "onnxruntime":
        return masked(op, dy, node.y, 1.0, lambda y: op.HardSigmoid(y, alpha=STEEP, beta=JUST_BELOW))
    return op.Mul(dy, op.Sign(node.y))


@rule("LeakyRelu")
def leaky_relu(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx = dy where x > 0, alpha dy elsewhere"""
    return op.Mul(dy, op.Where(op.Greater(node.x, 0.0), 1.0, node.number("alpha", 0.01)))


@rule("PRelu", broadcasts=True)
def prelu(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx = dy where x > 0, slope dy elsewhere; dslope = x dy where x <= 0"""
    x, slope = node.inputs
    positive, wide = op.Greater(x, 0.0), _beside_channels(op, slope, x)
    return {
        0: lambda: op.Mul(dy, op.Where(positive, 1.0, wide)),
        1: lambda: reshape_like(op, sum_to(op, op.Mul(dy, op.Where(positive, 0.0, x)), wide), slope),
    }


def _beside_channels(op: Builder, slope: ir.Value, x: ir.Value) -> ir.Value:
    """``slope``; where old exporters wrote it as a plain vector over the channels, in a form that broadcasts."""
    sizes = [op.dims(each)[-1] if op.rank(each) else 1 for each in (slope, x)]
    vector = op.rank(slope) == 1 and all(isinstance(size, int) for size in sizes) and sizes[0] not in (1, sizes[1])
    return op.Reshape(slope, [-1] + [1] * (op.rank(x) - 2)) if vector else slope


@rule("Sigmoid")
def sigmoid(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx = y (1 - y) dy"""
    return op.Mul(dy, op.Mul(node.y, op.Sub(1.0, node.y)))


@rule("Tanh")
def tanh(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx = (1 - y^2) dy"""
    return op.Mul(dy, op.Sub(1.0, op.Mul(node.y, node.y)))


@rule("HardSigmoid")
def hard_sigmoid(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx = alpha dy where 0 < y < 1"""
    inside = op.And(op.Greater(node.y, 0.0), op.Less(node.y, 1.0))
    return op.Mul(dy, op.Mul(cast_like(op, inside, node.y), node.number("alpha", 0.2)))


@rule("HardSwish")
def hard_swish(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """y = x clip(x/6 + 1/2, 0, 1): dx = (x/3 + 1/2) dy where -3 < x < 3, dy above, 0 below"""
    x = node.x
    middle = op.Add(op.Mul(x, 1 / 3), 0.5)
    return op.Mul(dy, op.Where(op.Less(x, 3.0), op.Where(op.Greater(x, -3.0), middle, 0.0), 1.0))


def is_relu6(node: Node) -> bool:
    """Whether a Clip is one from 0 to 6."""
    return _is_number(node.input(1), 0.0) and _is_number(node.input(2), 6.0)


def between_0_and_6(op: Builder, node: Node, dy: ir.Value) -> ir.Value:
    """The gradient of a ReLU6: ``dy`` where 0 < y < 6, zero at these ends; by operators that keep y in blocks.

    HardSwish(x) = x min(1, max(0, x / 6 + 1/2)) is negative between -3 and 0, and zero there, in float32 too.
    """
    y = node.y
    if fits(op, y) and dy.dtype == ir.DataType.FLOAT:
        return masked(op, dy, y, -0.5, lambda x: op.HardSigmoid(op.HardSwish(x), alpha=-STEEP, beta=JUST_BELOW))
    return op.Mul(dy, cast_like(op, op.And(op.Greater(y, 0.0), op.Less(y, 6.0)), dy))


@rule("Clip")
def clip(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx = dy where min <= x <= max; dmin = sum(dy) where x < min < max; dmax = sum(dy) where x or min > max

    As torch.clamp: max counts where min > max, and at min = max the lower half of the gradient goes nowhere. From 0 to
    6 it is a ReLU6, whose ends PyTorch leaves out: then y says it all, and a runtime may compute y without keeping x.
    """
    low, high, x = node.input(1), node.input(2), node.node.inputs[0]

    def data() -> ir.Value:
        if is_relu6(node):
            return between_0_and_6(op, node, dy)
        masks = [op.GreaterOrEqual(node.x, low)] if low is not None else []
        masks += [op.LessOrEqual(node.x, high)] if high is not None else []
        inside = op.And(*masks) if len(masks) > 1 else masks[0] if masks else None
        return dy if inside is None else op.Mul(dy, cast_like(op, inside, dy))

    def minimum() -> ir.Value:
        below = op.Less(x, low)
        below = below if high is None else op.And(below, op.Less(low, high))
        return sum_to(op, op.Where(below, dy, 0.0), node.inputs[1])

    def maximum() -> ir.Value:
        above = op.Greater(x, high)
        above = above if low is None else op.Or(above, op.Greater(low, high))
        return sum_to(op, op.Where(above, dy, 0.0), node.inputs[-1])

    return {0: data, 1: minimum, 2: maximum}


def _is_number(value: ir.Value | None, number: float) -> bool:
    array = constant_array(value, 1)
    return array is not None and array.size == 1 and float(array.reshape(())) == number


@rule("Elu")
def elu(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx = dy where x > 0, alpha exp(x) dy elsewhere (there alpha exp(x) = y + alpha)"""
    return op.Mul(dy, op.Where(op.Greater(node.x, 0.0), 1.0, op.Add(node.y, node.number("alpha", 1.0))))


@rule("Celu")
def celu(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx = dy where x > 0, exp(x / alpha) dy elsewhere"""
    return op.Mul(dy, op.Exp(op.Min(op.Div(node.x, node.number("alpha", 1.0)), 0.0)))


@rule("Selu")
def selu(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """y = gamma x where x > 0, gamma alpha (exp(x) - 1) elsewhere"""
    alpha, gamma = node.number("alpha", SELU_ALPHA), node.number("gamma", SELU_GAMMA)
    return op.Mul(dy, op.Where(op.Greater(node.x, 0.0), gamma, op.Add(node.y, gamma * alpha)))


@rule("Softplus")
def softplus(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx = sigmoid(x) dy"""
    return op.Mul(dy, op.Sigmoid(node.x))


@rule("Softsign")
def softsign(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx = dy / (1 + |x|)^2"""
    denominator = op.Add(op.Abs(node.x), 1.0)
    return op.Div(dy, op.Mul(denominator, denominator))


@rule("Swish")
def swish(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """y = x s(alpha x): dx = s (1 + alpha x (1 - s)) dy"""
    scaled = op.Mul(node.x, node.number("alpha", 1.0))
    s = op.Sigmoid(scaled)
    return op.Mul(dy, op.Mul(s, op.Add(op.Mul(scaled, op.Sub(1.0, s)), 1.0)))


@rule("Mish")
def mish(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """y = x tanh(softplus(x)): dx = (t + x (1 - t^2) sigmoid(x)) dy"""
    x = node.x
    t = op.Tanh(op.Softplus(x))
    return op.Mul(dy, op.Add(t, op.Mul(op.Mul(x, op.Sub(1.0, op.Mul(t, t))), op.Sigmoid(x))))


@rule("Gelu")
def gelu(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """Hendrycks and Gimpel: y = x Phi(x), so dx = (Phi(x) + x phi(x)) dy; or its tanh approximation

    y = x (1 + t)/2, t = tanh(u), u = c (x + 0.044715 x^3): dx = ((1 + t)/2 + x/2 (1 - t^2) u') dy
    """
    x = node.x
    square = op.Mul(x, x)
    if node.string("approximate", "none") == "tanh":
        c = math.sqrt(2 / math.pi)
        t = op.Tanh(op.Mul(op.Mul(x, op.Add(op.Mul(square, 0.044715), 1.0)), c))
        inner = op.Mul(op.Add(op.Mul(square, 3 * 0.044715), 1.0), c)
        slope = op.Mul(op.Mul(op.Mul(x, 0.5), op.Sub(1.0, op.Mul(t, t))), inner)
        return op.Mul(dy, op.Add(op.Mul(op.Add(t, 1.0), 0.5), slope))
    cdf = op.Mul(op.Add(op.Erf(op.Mul(x, 1 / math.sqrt(2))), 1.0), 0.5)
    pdf = op.Mul(op.Exp(op.Mul(square, -0.5)), 1 / math.sqrt(2 * math.pi))
    return op.Mul(dy, op.Add(cdf, op.Mul(x, pdf)))


@rule("ThresholdedRelu")
def thresholded_relu(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx = dy where x > alpha"""
    return op.Where(op.Greater(node.x, node.number("alpha", 1.0)), dy, 0.0)


@rule("Shrink")
def shrink(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx = dy where |x| > lambd"""
    return op.Where(op.Greater(op.Abs(node.x), node.number("lambd", 0.5)), dy, 0.0)


@rule("Softmax")
def softmax(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx = y (dy - sum_axis(y dy)); 0 where y is NaN, because everything was masked"""
    y, axis = node.y, node.integer("axis", -1)
    dx = op.Mul(y, op.Sub(dy, op.ReduceSum(op.Mul(dy, y), [axis], keepdims=1)))
    return masked_rows.without(op, dx, op.IsNaN(y)) if masked_rows.may_be_empty(node.node) else dx


@rule("LogSoftmax")
def log_softmax(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx = dy - exp(y) sum_axis(dy); 0 where y is NaN, because everything was masked"""
    dx = op.Sub(dy, op.Mul(op.Exp(node.y), op.ReduceSum(dy, [node.integer("axis", -1)], keepdims=1)))
    return masked_rows.without(op, dx, op.IsNaN(node.y)) if masked_rows.may_be_empty(node.node) else dx
