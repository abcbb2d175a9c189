"""Pooling over windows."""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir

from fastcam_export.autodiff.emitter import Emitter
from fastcam_export.autodiff.registry import Gradients, Node, rule
from fastcam_export.autodiff.rules.window import Window, window
from fastcam_export.autodiff.shapes import adopt_dims, along, cast_like, crop, product, reshape_to, scalar, sizes


@rule("AveragePool")
def average_pool(op: Emitter, node: Node, dy: ir.Value) -> Gradients:
    """Averaging is linear and separable: y = P_h x P_w^T with one small matrix per axis, so dx = P_h^T dy P_w.

    Row o of a matrix holds 1/count at the positions that window o covers. This is every form of the operator at once:
    padding counted or not, ceil_mode, strides, dilations; the matrices are constants where the size is known.
    """
    view = window(op, node, node.integers("kernel_shape"))
    dx = dy
    for axis in range(2, op.rank(node.x)):
        dx = along(op, dx, _averaging_matrix(op, node, view, axis), axis)
    return dx


def _averaging_matrix(op: Emitter, node: Node, view: Window, axis: int) -> ir.Value:
    """[windows, size] along one axis: 1/count where the window covers the position."""
    at = axis - 2
    size = op.shape(node.x, axis, axis + 1)
    windows = op.Range(0, scalar(op, op.shape(node.y, axis, axis + 1)), 1)
    begin = op.Slice(view.begin(op), [at], [at + 1], [0])
    first = op.Sub(op.Mul(windows, view.strides[at]), begin)  # [windows], negative in the padding
    taps = op.Add(op.Unsqueeze(first, [1]), np.arange(view.kernel[at])[None] * view.dilations[at])  # [windows, kernel]
    if node.integer("count_include_pad", 0):
        # the node's padding counts, what ceil_mode needs behind it does not; SAME pads as far as the last window goes
        end = view.pads[1][at] if view.pads is not None else view.extent[at]
        counted = op.Less(taps, op.Add(size, end))
    else:
        counted = op.And(op.GreaterOrEqual(taps, 0), op.Less(taps, size))
    number = op.ReduceSum(cast_like(op, counted, node.x), [1], keepdims=1)
    hits = op.Equal(op.Unsqueeze(taps, [2]), op.Range(0, scalar(op, size), 1))  # [windows, kernel, size]
    return op.Div(op.ReduceSum(cast_like(op, hits, node.x), [1], keepdims=0), number)


@rule("MaxPool")
def max_pool(op: Emitter, node: Node, dy: ir.Value) -> Gradients:
    """dy goes to the first maximum of its window in scan order (ReLU maps are full of ties at zero, so it matters).

    The elements of each window side by side, [N, C, taps, windows]; ArgMax takes the first; Col2Im sums what
    overlapping windows send to one position. The mask is made once, whatever the number of targets. A dilated kernel
    goes to Col2Im with its holes as taps that are never taken: ONNX Runtime misplaces dilated columns of one or three
    axes (its issue 18156).
    """
    x, y = node.x, node.y
    view = window(op, node, node.integers("kernel_shape"))
    axes = list(range(2, op.rank(x)))
    begin, span = view.begin(op), view.span(op)
    end = op.Sub(op.Sub(span, op.shape(x, 2)), begin)

    padded = crop(op, x, axes, begin, end, fill=float("-inf"))
    offsets = [np.array(taps) * view.dilations for taps in itertools.product(*map(range, view.kernel))]
    stop = op.Sub(span, np.array(view.extent) - 1)
    taps = [op.Slice(padded, at, op.Add(stop, at), axes, view.strides) for at in offsets]
    taps = [op.Unsqueeze(adopt_dims(op, tap, op.dims(y)), [2]) for tap in taps]
    first = op.ArgMax(op.Concat(*taps, axis=2), axis=2, keepdims=1, select_last_index=0)
    taken = np.full(view.extent, -1)
    taken[tuple(slice(None, None, d) for d in view.dilations)] = np.arange(len(offsets)).reshape(view.kernel)
    mask = op.Equal(first, taken.reshape(-1, *[1] * len(axes)))
    spread = op.Mul(op.Unsqueeze(dy, [2]), cast_like(op, mask, x))  # [N, C, taps, *windows]

    n, c, *windows = sizes(op, y)
    columns = reshape_to(op, spread, [n, product(op, [c, taken.size]), product(op, windows)])
    image = op.Col2Im(columns, span, view.extent, dilations=[1] * len(axes), strides=view.strides)
    return crop(op, image, axes, op.Neg(begin), op.Neg(end), op.dims(x))
