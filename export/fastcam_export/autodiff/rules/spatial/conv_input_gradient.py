"""The gradient of a Conv's x, by the operators that compute it fastest: one function a form, and which one is taken.

All forms give the same dx[i], the sum of w[k]^T dy[o] over windows o and taps k with o s + k d - p = i. What they do to
the weights is done in the graph, by nodes that runtimes compute once, when they read the file: no weight is stored
twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import onnx_ir as ir

from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.core.shapes import adopt_dims, cast_like, crop
from fastcam_export.autodiff.rules.spatial.sliding_window import Window
from fastcam_export.graph.constants import Array, constant_array

Form = Callable[[Builder, Window, int, ir.Value, ir.Value], "ir.Value | None"]
"""(op, windows, group, dy, w) -> dx in the shape of the windows' x, or None where this form cannot say it."""

BLOCK = 16
"""Channels that ONNX Runtime's convolutions compute together where the processor has AVX-512 (8 with AVX2)."""
BACKWARDS = -(1 << 62)
"""Where a slice with steps of -1 ends that reaches the first element."""


def input_gradient(op: Builder, view: Window, group: int, dy: ir.Value, w: ir.Value) -> ir.Value:
    """dx, in the form that :func:`choose` names or else as a ConvTranspose."""
    dx = choose(op, view, group, dy, w)(op, view, group, dy, w)
    return dx if dx is not None else transposed(op, view, group, dy, w)


def choose(op: Builder, view: Window, group: int, dy: ir.Value, w: ir.Value) -> Form:
    """Which form is the fastest on ONNX Runtime's CPU; ``python -m fastcam_bench.speed.lowerings`` holds the rule to
    account.

    A Conv runs on blocks of channels; a ConvTranspose is a matrix product, whose columns are then summed, and in groups
    a loop over these. So a Conv wins with stride 1, unless x has too few channels to fill a block, and in groups. With
    strides it computes with zeros, and what it makes has to be put side by side: that pays in groups alone, and there
    where each residue of the stride sees several taps. Weights that only the run time knows would be rearranged each
    time. Other engines choose the kernels of a ConvTranspose themselves, and may not read a Conv whose weights are
    computed.
    """
    if op.engine != "onnxruntime" or constant_array(w) is None or dy.dtype != ir.DataType.FLOAT:
        return transposed
    channels, strided = op.dims(w)[1], any(s != 1 for s in view.strides)
    if group == 1:
        return rotated if not strided and isinstance(channels, int) and channels >= BLOCK else transposed
    if not strided:
        return rotated
    return subpixel if all(k > 2 * s for k, s in zip(view.kernel, view.strides)) else transposed


def transposed(op: Builder, view: Window, group: int, dy: ir.Value, w: ir.Value) -> ir.Value:
    """ConvTranspose, of every window."""
    attributes = {"kernel_shape": view.kernel, "strides": view.strides, "dilations": view.dilations, "group": group}
    axes = list(range(2, op.rank(view.x)))
    known = [d for d in (*op.dims(view.x)[2:], *op.dims(view.y)[2:]) if isinstance(d, int)]
    if len(known) == 2 * len(axes) and view.pads is not None:
        begin, end = view.pads
        rows = zip(known[: len(axes)], known[len(axes) :], view.strides, view.extent, begin, end)
        left_over = [size - ((count - 1) * s + extent - b - e) for size, count, s, extent, b, e in rows]
        return op.ConvTranspose(dy, w, **attributes, pads=[*begin, *end], output_padding=left_over)
    # Sizes known at run time only: all that the windows span, then the part that is x.
    full = op.ConvTranspose(dy, w, **attributes)
    first = view.begin(op)
    last = op.Add(op.Sub(op.shape(view.x, 2), view.span(op)), first)
    return crop(op, full, axes, op.Neg(first), last, op.dims(view.x))


def rotated(op: Builder, view: Window, group: int, dy: ir.Value, w: ir.Value) -> ir.Value | None:
    """Stride 1: dx[i] = sum_k w[k]^T dy[i + p - k d], a Conv with the kernels rotated, inputs and outputs exchanged."""
    if view.pads is None or any(s != 1 for s in view.strides):
        return None
    pads = [extent - 1 - pad for both in view.pads for extent, pad in zip(view.extent, both)]
    dims = op.dims(w)
    if min(pads) < 0 or not all(isinstance(d, int) for d in dims):
        return None  # with windows that lie in the padding alone
    op.variables.add(w)  # not folded: the file would hold the weights twice
    kernel = _exchanged(op, _flipped(op, w, range(2, len(dims))), group)
    dx = op.Conv(dy, kernel, kernel_shape=view.kernel, dilations=view.dilations, group=group, pads=pads)
    return adopt_dims(op, dx, op.dims(view.x))


def subpixel(op: Builder, view: Window, group: int, dy: ir.Value, w: ir.Value) -> ir.Value | None:
    """Stride s: the s^2 residues of i modulo s see every s-th tap each: a Conv of stride 1 to s^2 times the channels,
    which are then put side by side (Shi et al. 2016, "Real-Time Single Image and Video Super-Resolution").

    The kernels get zeros in front, so that the padding is a multiple of s and residue zero is the image's first
    position, and behind, so that they have m s taps.
    """
    if view.pads is None or len(view.kernel) != 2 or len(set(view.strides)) > 1 or any(d != 1 for d in view.dilations):
        return None
    (rows, inputs), stride, begin = op.dims(w)[:2], view.strides[0], view.pads[0]
    if not isinstance(rows, int) or not isinstance(inputs, int):
        return None
    front = [-b % stride for b in begin]
    taps = [-(-(k + f) // stride) for k, f in zip(view.kernel, front)]
    before = [m - 1 - (b + f) // stride for m, b, f in zip(taps, begin, front)]
    after = [_windows_behind(op, view, axis) + m - 1 - b for axis, (m, b) in enumerate(zip(taps, before))]
    if min(*before, *after) < 0:
        return None
    behind = [m * stride - k - f for m, k, f in zip(taps, view.kernel, front)]
    op.variables.add(w)  # not folded: the file would hold the weights twice
    w = op.Pad(w, [0, 0, *front, 0, 0, *behind]) if any((*front, *behind)) else w
    each = op.Reshape(w, [group, rows // group, inputs, taps[0], stride, taps[1], stride])
    each = op.Transpose(_flipped(op, each, [3, 5]), perm=[0, 2, 4, 6, 1, 3, 5])
    kernel = op.Reshape(each, [group * inputs * stride**2, rows // group, *taps])
    dense = op.Conv(dy, kernel, kernel_shape=taps, group=group, pads=[*before, *after])
    return _at_the_end(op, view, interleaved(op, dense, group * inputs, stride), np.array(after) + before - taps + 1)


def interleaved(op: Builder, dense: ir.Value, channels: int, stride: int) -> ir.Value:
    """DepthToSpace (mode CRD) as a ConvTranspose whose kernels are one at one tap each: ONNX Runtime's DepthToSpace
    runs on one thread."""
    one = np.eye(stride**2).reshape(1, stride**2, stride, stride)
    every = op.Expand(cast_like(op, one.astype(np.float32), dense), [channels, 1, 1, 1])
    kernel = op.Reshape(every, [-1, 1, stride, stride])
    return op.ConvTranspose(dense, kernel, kernel_shape=[stride] * 2, strides=[stride] * 2, group=channels)


def _at_the_end(op: Builder, view: Window, full: ir.Value, more: Array) -> ir.Value:
    """``full``, of (windows + ``more``) s positions an axis, cut or filled with zeros at the end to the size of x."""
    axes = list(range(2, op.rank(view.x)))
    have = op.Mul(op.Add(op.shape(view.y, 2), more), np.array(view.strides))
    none = op.constant(np.zeros(len(axes), np.int64))
    return crop(op, full, axes, none, op.Sub(op.shape(view.x, 2), have), op.dims(view.x))


def _windows_behind(op: Builder, view: Window, axis: int) -> int:
    """How many windows more it takes for multiples of s to cover x; at most so many where its size is free."""
    assert view.pads is not None
    stride, begin, end = view.strides[axis], view.pads[0][axis], view.pads[1][axis]
    size, count = op.dims(view.x)[2 + axis], op.dims(view.y)[2 + axis]
    if isinstance(size, int) and isinstance(count, int):
        return -(-size // stride) - count
    # size <= (count - 1) s + extent - begin - end + s - 1, rounded up to a multiple of s
    return (view.extent[axis] - begin - end + stride - 2) // stride


def _flipped(op: Builder, w: ir.Value, axes: Iterable[int]) -> ir.Value:
    """``w`` with the order of its elements along ``axes`` reversed."""
    long = [axis for axis in axes if op.dims(w)[axis] != 1]
    count = len(long)
    return op.Slice(w, [-1] * count, [BACKWARDS] * count, long, [-1] * count) if long else w


def _exchanged(op: Builder, w: ir.Value, group: int) -> ir.Value:
    """[M, C / group, ...] as [C, M / group, ...]: outputs and inputs of each group exchanged."""
    rows, inputs, *kernel = (d for d in op.dims(w) if isinstance(d, int))
    axes = range(2, op.rank(w))
    if group == 1:
        return op.Transpose(w, perm=[1, 0, *axes])
    if inputs == 1 and rows == group:
        return w
    split = op.Reshape(w, [group, rows // group, inputs, *kernel])
    swapped = op.Transpose(split, perm=[0, 2, 1, *(axis + 1 for axis in axes)])
    return op.Reshape(swapped, [group * inputs, rows // group, *kernel])
