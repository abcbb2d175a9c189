"""Convolution."""

from __future__ import annotations

import onnx_ir as ir

from fastcam_export.autodiff.emitter import Emitter
from fastcam_export.autodiff.registry import Gradients, Node, UnsupportedOperator, rule
from fastcam_export.autodiff.rules.window import window
from fastcam_export.autodiff.shapes import crop


@rule("Conv")
def conv(op: Emitter, node: Node, dy: ir.Value) -> Gradients:
    """y[o] = sum_k w[k] x[o s + k d - p] + b: dx is the transposed convolution of dy with these weights, db = sum dy"""
    others = [0, *range(2, op.rank(dy))]
    return {0: lambda: _input_gradient(op, node, dy), 2: lambda: op.ReduceSum(dy, others, keepdims=0)}


def _input_gradient(op: Emitter, node: Node, dy: ir.Value) -> ir.Value:
    x, w = node.inputs[:2]
    kernel = [d for d in op.dims(w)[2:] if isinstance(d, int)]
    if len(kernel) != op.rank(x) - 2:
        raise UnsupportedOperator("the size of its kernel is only known at run time")
    view = window(op, node, kernel)
    attributes = {
        "kernel_shape": kernel,
        "strides": view.strides,
        "dilations": view.dilations,
        "group": node.integer("group", 1),
    }
    known = [d for d in (*op.dims(x)[2:], *op.dims(node.y)[2:]) if isinstance(d, int)]
    if len(known) == 2 * len(kernel) and view.pads is not None:
        begin, end = view.pads
        rows = zip(known[: len(kernel)], known[len(kernel) :], view.strides, view.extent, begin, end)
        left_over = [size - ((count - 1) * s + extent - b - e) for size, count, s, extent, b, e in rows]
        return op.ConvTranspose(dy, w, **attributes, pads=[*begin, *end], output_padding=left_over)
    # Sizes known at run time only: all that the windows span, then the part that is x.
    full = op.ConvTranspose(dy, w, **attributes)
    first = view.begin(op)
    last = op.Add(op.Sub(op.shape(x, 2), view.span(op)), first)
    return crop(op, full, list(range(2, op.rank(x))), op.Neg(first), last, op.dims(x))
