"""Normalisation layers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fastcam_export.autodiff.emitter import Emitter
from fastcam_export.autodiff.registry import Gradients, Node, UnsupportedOperator, rule
from fastcam_export.autodiff.shapes import cast_like, product, reshape_like, reshape_to, sizes


@rule("BatchNormalization")
def batch_normalization(op: Emitter, node: Node, dy: ir.Value) -> Gradients:
    """Inference: y = (x - mean) scale / sqrt(var + eps) + bias, per channel, so dx = dy scale / sqrt(var + eps)"""
    x, scale, _, _, variance = node.inputs
    deviation = op.Sqrt(op.Add(variance, node.number("epsilon", 1e-5)))
    factor = cast_like(op, op.Div(cast_like(op, scale, variance), deviation), x)
    return op.Mul(dy, op.Reshape(factor, [-1] + [1] * (op.rank(x) - 2)))


@rule("LRN")
def lrn(op: Emitter, node: Node, dy: ir.Value) -> Gradients:
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
