"""Pooling over windows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from fastcam_export.autodiff.core.blocked import enlarged, fits, scaled
from fastcam_export.autodiff.core.builder import HALF, Builder
from fastcam_export.autodiff.core.residues import Unpooled
from fastcam_export.autodiff.core.rule import Gradients, Node, rule
from fastcam_export.autodiff.core.shapes import (
    Size,
    adopt_dims,
    along,
    cast_like,
    crop,
    product,
    reshape_like,
    reshape_to,
    scalar,
    sizes,
    vector,
    wide,
)
from fastcam_export.autodiff.rules.reduction import lp_inner, lp_outer
from fastcam_export.autodiff.rules.spatial import overlapping_windows
from fastcam_export.autodiff.rules.spatial.overlapping_windows import highest
from fastcam_export.autodiff.rules.spatial.sliding_window import Window, window
from fastcam_export.graph.constants import constant_array


@rule("AveragePool")
def average_pool(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """Averaging is linear and separable: y = P_h x P_w^T with one small matrix per axis, so dx = P_h^T dy P_w.

    Row o of a matrix holds 1/count at the positions that window o covers. This is every form of the operator at once:
    padding counted or not, ceil_mode, strides, dilations; the matrices are constants where the size is known.
    """
    view = window(op, node, node.integers("kernel_shape"))
    dx = dy
    for axis in range(2, op.rank(node.x)):
        dx = along(op, dx, _averaging_matrix(op, node, view, axis), axis)
    return dx


@rule("LpPool")
def lp_pool(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """y = (sum |x|^p)^(1/p): dx = sign(x) |x|^(p-1) S^T(y^(1-p) dy), S the sum over windows, separable as averaging"""
    p, view = node.integer("p", 2), window(op, node, node.integers("kernel_shape"))
    dx = op.Mul(dy, lp_outer(op, node.y, p))
    for axis in range(2, op.rank(node.x)):
        taps, size = _taps(op, node, view, axis)
        dx = along(op, dx, _covered(op, taps, size, node.x), axis)
    return op.Mul(dx, lp_inner(op, node.x, p))


def _averaging_matrix(op: Builder, node: Node, view: Window, axis: int) -> ir.Value:
    """[windows, size] along one axis: 1/count where the window covers the position."""
    taps, size = _taps(op, node, view, axis)
    if node.integer("count_include_pad", 0):
        # the node's padding counts, what ceil_mode needs behind it does not; SAME pads as far as the last window goes
        end = view.pads[1][axis - 2] if view.pads is not None else view.extent[axis - 2]
        counted = op.Less(taps, op.Add(size, end))
    else:
        counted = op.And(op.GreaterOrEqual(taps, 0), op.Less(taps, size))
    number = op.ReduceSum(cast_like(op, counted, node.x), [1], keepdims=1)
    return op.Div(_covered(op, taps, size, node.x), number)


def _taps(op: Builder, node: Node, view: Window, axis: int) -> tuple[ir.Value, ir.Value]:
    """The positions [windows, kernel] that windows cover along one axis, negative in the padding; the axis' size."""
    at = axis - 2
    windows = op.Range(0, scalar(op, op.shape(node.y, axis, axis + 1)), 1)
    begin = op.Slice(view.begin(op), [at], [at + 1], [0])
    first = op.Sub(op.Mul(windows, view.strides[at]), begin)  # [windows]
    taps = op.Add(op.Unsqueeze(first, [1]), np.arange(view.kernel[at])[None] * view.dilations[at])
    return taps, op.shape(node.x, axis, axis + 1)


def _covered(op: Builder, taps: ir.Value, size: ir.Value, like: ir.Value) -> ir.Value:
    """[windows, size]: one where the window covers the position."""
    hits = op.Equal(op.Unsqueeze(taps, [2]), op.Range(0, scalar(op, size), 1))  # [windows, kernel, size]
    return op.ReduceSum(cast_like(op, hits, like), [1], keepdims=0)


@rule("MaxPool")
def max_pool(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dy goes to the first maximum of its window in scan order (ReLU maps are full of ties at zero, so it matters);

    what overlapping windows send to one position is summed.
    """
    if (dx := _in_blocks(op, node, dy)) is not None:
        return dx
    half = dy.dtype == ir.DataType.FLOAT16  # its file may be of an opset without sums in scatters, see half.py
    if op.engine == "onnxruntime" and not half:
        return _scattered(op, node, dy)
    view = window(op, node, node.integers("kernel_shape"))
    axes = list(range(2, op.rank(node.x)))
    taps = op.Concat(*[op.Unsqueeze(tap, [2]) for tap in view.taps(op, node.x, float("-inf"))], axis=2)
    padded = _spread_without_index(op, node, dy, view, taps)
    return crop(op, padded, axes, op.Neg(view.begin(op)), op.Neg(view.end(op)), op.dims(node.x))


def _in_blocks(op: Builder, node: Node, dy: ir.Value) -> ir.Value | None:
    """The gradient by operators that keep maps in blocks; None where these cannot say it.

    Infinities have no difference, so x must be what a layer of weights has made, infinite by overflow alone. Inputs,
    quotients and exponentials are left to the scatter.
    """
    view, x = window(op, node, node.integers("kernel_shape")), node.x
    known = all(isinstance(size, int) for size in (*op.dims(x)[2:], *op.dims(node.y)[2:]))
    if op.copies is not None or not fits(op, x) or not known or view.pads is None or view.dilations != [1, 1]:
        return None
    if not _weighed(x):
        return None
    whole = [count * k for count, k in zip(op.dims(node.y)[2:], view.kernel) if isinstance(count, int)]
    apart = view.strides == view.kernel and view.pads == ([0, 0], [0, 0]) and whole == list(op.dims(x)[2:])
    if not apart and not overlapping_windows.pays(view, op.dims(node.y)[2:]):
        return None
    spread = _of_windows_apart(op, node, view) if apart else overlapping_windows.spread(op, view)
    dx = spread(dy)
    op.notes[dx] = Unpooled(x, node.y, dy, spread, overlap=not apart)
    return dx


def _of_windows_apart(op: Builder, node: Node, view: Window) -> Callable[[ir.Value], ir.Value]:
    """The gradient of x by that of y, where windows lie side by side and leave nothing out.

    An element is a maximum where the enlarged y is not above it. Of several in a window the first is the one with the
    largest rank, one less k / n for the k-th of n elements.
    """
    kernel, x = view.kernel, node.x
    ranks = op.Add(_places(op, node, view), highest(op, scaled(op, x, -1.0), enlarged(op, node.y, kernel)))
    peaks = adopt_dims(op, op.MaxPool(ranks, kernel_shape=kernel, strides=kernel), op.dims(node.y))
    first = highest(op, scaled(op, ranks, -1.0), enlarged(op, peaks, kernel))
    return lambda low: op.Mul(enlarged(op, low, kernel), first)


WEIGHED = ("Conv", "ConvTranspose", "BatchNormalization", "InstanceNormalization", "GroupNormalization",
           "LayerNormalization", "DequantizeLinear", "FusedConv")  # fmt: skip
BETWEEN = ("Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "ThresholdedRelu", "Clip", "HardSwish", "HardSigmoid",
           "Sigmoid", "Tanh", "Softplus", "Mish", "Gelu", "Erf", "Mul", "Div", "Add", "Sub", "Sum", "Neg", "Abs", "Max",
           "Min", "Concat", "LRN", "MaxPool", "AveragePool", "Resize", "DepthToSpace", "Transpose", "Reshape",
           "Squeeze", "Unsqueeze", "Split", "Slice", "Pad", "Identity", "Dropout", "Cast")  # fmt: skip
"""Operators of no infinities but by overflow, and those that have them of their operands alone: Div by a constant."""


def _weighed(x: ir.Value) -> bool:
    """Whether every way from ``x`` back leads over :data:`BETWEEN`, and over constants, to :data:`WEIGHED`."""
    seen, left = set(), [x]
    while left:
        value = left.pop()
        node = value.producer()
        if value in seen or constant_array(value) is not None or (node is not None and node.op_type in WEIGHED):
            continue
        quotient = node is not None and node.op_type == "Div" and constant_array(node.inputs[1]) is None
        if node is None or quotient or node.op_type not in BETWEEN:
            return False
        seen.add(value)
        left += [one for one in node.inputs if one is not None]
    return True


def _places(op: Builder, node: Node, view: Window) -> ir.Value:
    """[N, C, H, W]: - k / n where an element is the k-th of the n of its window; a convolution's, and so in blocks."""
    count = int(np.prod(view.kernel))
    each = -np.arange(count).reshape(1, 1, *view.kernel) / count
    tiles = op.Tile(cast_like(op, each, node.x), op.concat([op.shape(node.x, 0, 1), [1], op.shape(node.y, 2, 4)]))
    ones = op.Expand(cast_like(op, np.ones((1, 1, 1, 1)), node.x), [op.dims(node.x)[1], 1, 1, 1])
    return adopt_dims(op, op.Conv(tiles, ones, kernel_shape=[1, 1]), op.dims(node.x))


def _scattered(op: Builder, node: Node, dy: ir.Value) -> ir.Value:
    """The operator's second output says where the maxima lie among all elements of x; asked for at another node than
    the model's, of which runtimes may have a faster form without it."""
    window(op, node, node.integers("kernel_shape"))  # refuses what ONNX does not define
    attributes = {name: attribute.value for name, attribute in node.node.attributes.items()}
    _, where = op.emit_all("MaxPool", node.x, outputs=2, **{**attributes, "storage_order": None})
    everything = product(op, sizes(op, node.x))
    zeros = op.Expand(cast_like(op, np.zeros(1), dy), op.concat([vector(everything)]))
    summed = op.ScatterElements(zeros, op.Reshape(where, [-1]), op.Reshape(dy, [-1]), axis=0, reduction="add")
    return reshape_like(op, summed, node.x)


def _spread_without_index(op: Builder, node: Node, dy: ir.Value, view: Window, taps: ir.Value) -> ir.Value:
    """The gradient of the padded x, for engines that know neither indices of pools nor Col2Im.

    Tap k of n weighs n - k where it equals the pooled maximum, else nothing: the heaviest is the first maximum. What
    Col2Im sums is a transposed convolution with kernels that are one at one tap each.
    """
    count, axes = int(np.prod(view.kernel)), len(view.kernel)
    weight = np.arange(count, 0, -1).reshape(-1, *[1] * axes).astype((node.x.dtype or ir.DataType.FLOAT).numpy())
    half, taps = taps.dtype in HALF, wide(op, taps)
    # runtimes leave roundings to half out here and there, and y would not be found among its taps
    peak = op.ReduceMax(taps, [2], keepdims=1) if half else op.Unsqueeze(node.y, [2])
    heaviest = op.ReduceMax(op.Where(op.Equal(taps, peak), weight, 0.0), [2], keepdims=1)
    spread = op.Mul(op.Unsqueeze(dy, [2]), cast_like(op, op.Equal(heaviest, weight), node.x))  # [N, C, taps, *windows]

    n, c, *windows = sizes(op, node.y)
    columns = reshape_to(op, spread, [product(op, [n, c]), count, *windows])
    kernels = np.eye(count, dtype=weight.dtype).reshape(count, 1, *view.kernel)
    image = op.ConvTranspose(columns, kernels, strides=view.strides, dilations=view.dilations)
    return reshape_to(op, image, [n, c, *[_axis(op, view.span(op), axis) for axis in range(axes)]])


def _axis(op: Builder, vector: ir.Value, axis: int) -> Size:
    """One element of an int64 vector, as a number where it is known."""
    array = constant_array(vector)
    return op.Slice(vector, [axis], [axis + 1], [0]) if array is None else int(array[axis])
