"""Normalisation by what the data itself measures: mean, deviation or length. Half precision is computed in float32."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from fastcam_export.autodiff.core.builder import Builder
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
