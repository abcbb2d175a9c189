"""Convolution."""

from __future__ import annotations

import onnx_ir as ir

from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.core.errors import UnsupportedOperator
from fastcam_export.autodiff.core.rule import Gradients, Node, rule
from fastcam_export.autodiff.core.shapes import Size, adopt_dims, crop, product, reshape_like, reshape_to, sizes
from fastcam_export.autodiff.rules.spatial.conv_input_gradient import input_gradient
from fastcam_export.autodiff.rules.spatial.sliding_window import Window, transposed_window, window


@rule("Conv")
def conv(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """y[o] = sum_k w[k] x[o s + k d - p] + b: dx is the transposed convolution of dy with these weights,
    dw[k] = sum_o dy[o] x[o s + k d - p], db = sum dy"""
    x, w = node.inputs[:2]
    group = node.integer("group", 1)
    return {
        0: lambda: input_gradient(op, window(op, node, _kernel(op, w)), group, dy, w),
        1: lambda: _correlation(op, window(op, node, _kernel(op, w)), dy, x, w, group),
        2: lambda: _bias_gradient(op, dy),
    }


@rule("ConvTranspose")
def conv_transpose(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """y[o s + k d - p] += w[k] x[o], + b: the other way round, dx is the convolution of dy with these weights"""
    x, w = node.inputs[:2]
    kernel, group = _kernel(op, w), node.integer("group", 1)
    axes, view = list(range(2, op.rank(x))), transposed_window(op, node, kernel)

    def data() -> ir.Value:
        attributes = {"strides": view.strides, "dilations": view.dilations, "group": group, "kernel_shape": kernel}
        return adopt_dims(op, op.Conv(crop(op, dy, axes, view.begin(op), view.end(op)), w, **attributes), op.dims(x))

    return {0: data, 1: lambda: _correlation(op, view, x, dy, w, group), 2: lambda: _bias_gradient(op, dy)}


def _correlation(op: Builder, view: Window, grid: ir.Value, image: ir.Value, w: ir.Value, group: int) -> ir.Value:
    """dw[a, b, k] = sum over images and windows o of grid[a, o] image[b, o s + k d - p]: a matrix product per group."""
    (n, _, *windows), (a, b, *kernel) = sizes(op, view.y), sizes(op, w)
    rows, number = _divided(op, a, group), product(op, windows)
    taps = [reshape_to(op, tap, [n, group, b, 1, number]) for tap in view.taps(op, image, 0.0)]
    columns = op.Concat(*taps, axis=3) if len(taps) > 1 else taps[0]
    columns = reshape_to(op, columns, [n, group, product(op, [b, *kernel]), number])
    each = op.MatMul(reshape_to(op, grid, [n, group, rows, number]), op.Transpose(columns, perm=[0, 1, 3, 2]))
    return reshape_like(op, op.ReduceSum(each, [0], keepdims=0), w)


def _divided(op: Builder, size: Size, group: int) -> Size:
    return size // group if isinstance(size, int) else op.Div(size, group)


def _bias_gradient(op: Builder, dy: ir.Value) -> ir.Value:
    return op.ReduceSum(dy, [0, *range(2, op.rank(dy))], keepdims=0)


def _kernel(op: Builder, w: ir.Value) -> list[int]:
    kernel = [d for d in op.dims(w)[2:] if isinstance(d, int)]
    if len(kernel) != op.rank(w) - 2:
        raise UnsupportedOperator("the size of its kernel is only known at run time")
    return kernel
