"""Normalisation layers: by given statistics (BatchNormalization), by the data's own, by neighbouring channels (LRN).

What the data measures is computed in float32 where the data is of half precision.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.core.errors import UnsupportedOperator
from fastcam_export.autodiff.core.rule import ZERO, Gradients, Node, rule
from fastcam_export.autodiff.core.shapes import (
    Size,
    cast_like,
    expand_like,
    product,
    reshape_like,
    reshape_to,
    sizes,
    sum_to,
    wide,
)
from fastcam_export.autodiff.rules.reduction import divided_by_size

MVN_EPSILON = 1e-9
"""What ONNX's definition of MeanVarianceNormalization adds to the deviation."""


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


@rule("LayerNormalization", several=True)
def layer_normalization(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """y = h scale + bias with h = (x - mean) r, r = 1 / sqrt(var + eps) over the last axes (Ba et al.).

    dx: see :func:`_through` for y, and of the other outputs dmean / n - r^2 h dr / n, n the number of elements.
    """
    x, scale = node.inputs[:2]
    axes = _last_axes(op, node)
    h, inverse = _standardized(op, wide(op, x), axes, node.number("epsilon", 1e-5))
    g, dmean, dinverse = (each and cast_like(op, each, h) for each in (*node.dys, None, None)[:3])

    def data() -> ir.Value:
        terms = []
        if g is not None:
            terms.append(_through(op, op.Mul(g, cast_like(op, scale, h)), h, inverse, axes))
        if dmean is not None:
            terms.append(expand_like(op, divided_by_size(op, dmean, x, axes), x))
        if dinverse is not None:
            share = op.Neg(divided_by_size(op, dinverse, x, axes))
            terms.append(op.Mul(share, op.Mul(h, op.Mul(inverse, inverse))))
        return cast_like(op, op.Sum(*terms) if len(terms) > 1 else terms[0], x)

    if g is None:
        return {0: data, 1: ZERO, 2: ZERO}
    return {
        0: data,
        1: lambda: cast_like(op, sum_to(op, op.Mul(g, h), scale), scale),
        2: lambda: sum_to(op, dy, node.inputs[2]),
    }


@rule("RMSNormalization")
def rms_normalization(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """y = h scale with h = x r, r = 1 / sqrt(mean(x^2) + eps): dx = r (g - h mean(g h)) for g = scale dy"""
    x, scale = node.inputs
    axes = _last_axes(op, node)
    z, dy = wide(op, x), wide(op, dy)
    mean = op.ReduceMean(op.Mul(z, z), axes, keepdims=1)
    inverse = op.Reciprocal(op.Sqrt(op.Add(mean, node.number("epsilon", 1e-5))))
    h = op.Mul(z, inverse)

    def data() -> ir.Value:
        g = op.Mul(dy, cast_like(op, scale, h))
        along_h = op.Mul(op.ReduceMean(op.Mul(g, h), axes, keepdims=1), h)
        return cast_like(op, op.Mul(op.Sub(g, along_h), inverse), x)

    return {0: data, 1: lambda: cast_like(op, sum_to(op, op.Mul(dy, h), scale), scale)}


@rule("GroupNormalization")
def group_normalization(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """LayerNormalization of each group of channels (Wu and He); before opset 21 scale and bias are per group"""
    groups, channels = node.integer("num_groups"), sizes(op, node.x)[1]
    each = channels // groups if isinstance(channels, int) else op.Div(channels, groups)
    return _grouped(op, node, dy, groups, each, per_group=op.version < 21)


@rule("InstanceNormalization")
def instance_normalization(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """GroupNormalization with one channel to a group (Ulyanov et al.)"""
    return _grouped(op, node, dy, sizes(op, node.x)[1], 1, per_group=True)


@rule("MeanVarianceNormalization")
def mean_variance_normalization(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """y = (x - mean) / (deviation + 1e-9): as LayerNormalization, leaving the 1e-9 out of the deviation's derivative"""
    x, axes = node.x, node.integers("axes") or [0, 2, 3]
    z = wide(op, x)
    centred = op.Sub(z, op.ReduceMean(z, axes, keepdims=1))
    deviation = op.Sqrt(op.ReduceMean(op.Mul(centred, centred), axes, keepdims=1))
    inverse = op.Reciprocal(op.Add(deviation, MVN_EPSILON))
    return cast_like(op, _through(op, wide(op, dy), op.Mul(centred, inverse), inverse, axes), x)


@rule("LpNormalization")
def lp_normalization(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """y = x / |x|_p: dx = (dy - u sum(y dy)) / |x|_p, u = sign(x) for p = 1 and y for p = 2; zero where x is"""
    x, axis = wide(op, node.x), [node.integer("axis", -1)]
    manhattan = node.integer("p", 2) == 1
    length = (op.ReduceL1 if manhattan else op.ReduceL2)(x, axis, keepdims=1)
    inverse = op.Where(op.Equal(length, 0.0), 0.0, op.Reciprocal(length))
    y, dy = op.Mul(x, inverse), wide(op, dy)
    total = op.ReduceSum(op.Mul(dy, y), axis, keepdims=1)
    dx = op.Mul(op.Sub(dy, op.Mul(total, op.Sign(x) if manhattan else y)), inverse)
    return cast_like(op, dx, node.x)


def _grouped(op: Builder, node: Node, dy: ir.Value, groups: Size, each: Size, per_group: bool) -> Gradients:
    """Standardisation over ``each`` channels and all positions, on the view [N, groups, each, positions]."""
    x, scale, bias = node.inputs
    n, _, *positions = sizes(op, x)
    view: list[Size] = [n, groups, each, product(op, positions)]
    h, inverse = _standardized(op, reshape_to(op, wide(op, x), view), [2, 3], node.number("epsilon", 1e-5))
    dy = reshape_to(op, wide(op, dy), view)
    others = [0, 2, 3] if per_group else [0, 3]

    def data() -> ir.Value:
        factor = reshape_to(op, cast_like(op, scale, h), [1, groups, 1 if per_group else each, 1])
        return cast_like(op, reshape_like(op, _through(op, op.Mul(dy, factor), h, inverse, [2, 3]), x), x)

    def parameter(gradient: ir.Value, of: ir.Value) -> ir.Value:
        return cast_like(op, reshape_like(op, op.ReduceSum(gradient, others, keepdims=0), of), of)

    return {0: data, 1: lambda: parameter(op.Mul(dy, h), scale), 2: lambda: parameter(dy, bias)}


def _standardized(op: Builder, x: ir.Value, axes: Sequence[int], epsilon: float) -> tuple[ir.Value, ir.Value]:
    """h = (x - mean) r and r = 1 / sqrt(var + eps) over ``axes``."""
    centred = op.Sub(x, op.ReduceMean(x, axes, keepdims=1))
    variance = op.ReduceMean(op.Mul(centred, centred), axes, keepdims=1)
    inverse = op.Reciprocal(op.Sqrt(op.Add(variance, epsilon)))
    return op.Mul(centred, inverse), inverse


def _through(op: Builder, g: ir.Value, h: ir.Value, inverse: ir.Value, axes: Sequence[int]) -> ir.Value:
    """dx = r (g - mean(g) - h mean(g h)) for the cotangent ``g`` of h (Ioffe and Szegedy, section 3)."""
    along_h = op.Mul(op.ReduceMean(op.Mul(g, h), axes, keepdims=1), h)
    return op.Mul(op.Sub(op.Sub(g, op.ReduceMean(g, axes, keepdims=1)), along_h), inverse)


def _last_axes(op: Builder, node: Node) -> list[int]:
    rank = op.rank(node.x)
    return list(range(node.integer("axis", -1) % rank, rank))
