"""Normalisation layers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.core.errors import UnsupportedOperator
from fastcam_export.autodiff.core.rule import Gradients, Node, rule
from fastcam_export.autodiff.core.shapes import cast_like, product, reshape_like, reshape_to, sizes


@rule("BatchNormalization")
def batch_normalization(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """Inference: y = h scale + bias with h = (x - mean) r, r = 1 / sqrt(var + eps), per channel: dx = dy scale r;

    dscale = sum(dy h), dbias = sum(dy), dmean = -sum(dy) scale r, dvar = -sum(dy h) scale r^2 / 2
    """
    x, scale, bias, mean, variance = node.inputs
    deviation = op.Sqrt(op.Add(variance, node.number("epsilon", 1e-5)))
    slope = op.Div(cast_like(op, scale, variance), deviation)  # scale r
    column, others = [-1] + [1] * (op.rank(x) - 2), [axis for axis in range(op.rank(x)) if axis != 1]

    def total(gradient: ir.Value) -> ir.Value:
        return reshape_like(op, op.ReduceSum(gradient, others, keepdims=0), variance)

    def along_h() -> ir.Value:
        centred = op.Sub(cast_like(op, x, variance), op.Reshape(mean, column))
        return total(op.Mul(cast_like(op, dy, variance), op.Div(centred, op.Reshape(deviation, column))))

    def along_one() -> ir.Value:
        return total(cast_like(op, dy, variance))

    return {
        0: lambda: op.Mul(dy, op.Reshape(cast_like(op, slope, x), column)),
        1: lambda: cast_like(op, along_h(), scale),
        2: lambda: cast_like(op, along_one(), bias),
        3: lambda: op.Mul(along_one(), op.Neg(slope)),
        4: lambda: op.Mul(along_h(), op.Mul(op.Div(slope, deviation), -0.5)),
    }


@rule("LRN")
def lrn(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """y = x d^-b, d = k + alpha/n sum_window x^2 over channels (Krizhevsky et al.):

    dx = d^-b dy - 2 alpha b / n x sum_window'(x d^(-b-1) dy), where window' is the window transposed. The sums over
    neighbouring channels are products with a band matrix.
    """
    x = node.x
    size, alpha, beta = node.integer("size"), node.number("alpha", 1e-4), node.number("beta", 0.75)
    channels = op.dims(x)[1]
    if not isinstance(channels, int):
        raise UnsupportedOperator("its number of channels is only known at run time")
    offset = np.arange(channels)[None, :] - np.arange(channels)[:, None]  # neighbour - channel
    band = ((offset >= -((size - 1) // 2)) & (offset <= size // 2)).astype(np.float64)

    def summed(value: ir.Value, matrix: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> ir.Value:
        n, _, *positions = sizes(op, x)
        columns = reshape_to(op, value, [n, channels, product(op, positions)])
        return reshape_like(op, op.MatMul(matrix, columns), x)

    d = op.Add(op.Mul(summed(op.Mul(x, x), band), alpha / size), node.number("bias", 1.0))
    power = op.Pow(d, -beta)
    spread = summed(op.Mul(dy, op.Mul(x, op.Div(power, d))), band.T)
    return op.Sub(op.Mul(dy, power), op.Mul(spread, op.Mul(x, 2 * alpha * beta / size)))
