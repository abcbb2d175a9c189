"""The gradient of a Conv's x, by the operators that compute it fastest: one function a form, and which one is taken.

All forms give the same dx[i], the sum of w[k]^T dy[o] over windows o and taps k with o s + k d - p = i. What they do to
the weights is done in the graph, by nodes that runtimes compute once, when they read the file: no weight is stored
twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import onnx_ir as ir

from fastcam_export.autodiff.core.blocked import BLOCK, enlarged, entered, fits
from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.core.residues import Parts, parts_of, remember
from fastcam_export.autodiff.core.shapes import adopt_dims, cast_like, crop
from fastcam_export.autodiff.rules.spatial.sliding_window import Window
from fastcam_export.graph.constants import constant_array

Form = Callable[[Builder, Window, int, ir.Value, ir.Value], "ir.Value | None"]
"""(op, windows, group, dy, w) -> dx in the shape of the windows' x, or None where this form cannot say it."""

BACKWARDS = -(1 << 62)
"""Where a slice with steps of -1 ends that reaches the first element."""


def input_gradient(op: Builder, view: Window, group: int, dy: ir.Value, w: ir.Value) -> ir.Value:
    """dx, in the form that :func:`choose` names or else as a ConvTranspose."""
    if (dx := pointwise_in_parts(op, view, group, dy, w)) is not None:
        return dx
    form = choose(op, view, group, dy, w)
    dx = form(op, view, group, dy, w) if form is not transposed else None
    return dx if dx is not None else entered(op, transposed(op, view, group, dy, w))


def choose(op: Builder, view: Window, group: int, dy: ir.Value, w: ir.Value) -> Form:
    """Which form is the fastest on ONNX Runtime's CPU; ``python -m fastcam_bench.speed.lowerings`` holds the rule to
    account.

    A Conv runs on blocks of channels; a ConvTranspose is a matrix product, whose columns are then summed, and in groups
    a loop over these. So a Conv wins with stride 1, unless x has too few channels to fill a block, and in groups. With
    strides it computes with zeros: that pays in groups alone. Weights that only the run time knows would be rearranged
    each time. Other engines choose the kernels of a ConvTranspose themselves, and may not read a Conv whose weights are
    computed.
    """
    if op.engine != "onnxruntime" or constant_array(w) is None or dy.dtype != ir.DataType.FLOAT:
        return transposed
    channels, strided = op.dims(w)[1], any(s != 1 for s in view.strides)
    if group == 1:
        return rotated if not strided and isinstance(channels, int) and channels >= BLOCK else transposed
    return stuffed if strided else rotated


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


def stuffed(op: Builder, view: Window, group: int, dy: ir.Value, w: ir.Value) -> ir.Value | None:
    """Stride s: z is dy with s - 1 zeros between its elements, and dx[i] = sum_k w[k]^T z[i + p - k], as of stride 1.

    ONNX Runtime's Pad and DepthToSpace are slow; so dy is enlarged and multiplied with ones and zeros.
    """
    if view.pads is None or len(view.kernel) != 2 or any(d != 1 for d in view.dilations):
        return None
    begin = [k - 1 - b for k, b in zip(view.kernel, view.pads[0])]
    most = [k - 1 - e for k, e in zip(view.kernel, view.pads[1])]  # behind the last window at most s - 1 are left out
    sizes, counts = op.dims(view.x)[2:], op.dims(view.y)[2:]
    end = list(most)
    for axis, (size, count) in enumerate(zip(sizes, counts)):
        if isinstance(size, int) and isinstance(count, int):
            end[axis] = max(size - count * view.strides[axis] + view.pads[0][axis], 0)
    if min(*begin, *end) < 0 or not all(isinstance(d, int) for d in op.dims(w)):
        return None
    op.variables.add(w)  # not folded: the file would hold the weights twice
    kernel = _exchanged(op, _flipped(op, w, [2, 3]), group)
    z = op.Mul(enlarged(op, dy, view.strides), _grid(op, view))
    dx = op.Conv(z, kernel, kernel_shape=view.kernel, group=group, pads=[*begin, *end])
    have = op.Add(op.Mul(op.shape(view.y, 2), np.array(view.strides)), np.array(begin) + end - view.kernel + 1)
    none = op.constant(np.zeros(2, np.int64))
    dx = crop(op, dx, [2, 3], none, op.Sub(op.shape(view.x, 2), have), op.dims(view.x))
    return apart(op, view, group, dx, dy, w)


def apart(op: Builder, view: Window, group: int, dx: ir.Value, dy: ir.Value, w: ir.Value) -> ir.Value:
    """``dx`` of a convolution with strides; with its parts, where these are convolutions of dy and stay in blocks."""
    known = [size for size in (*op.dims(view.x)[2:], *op.dims(view.y)[2:]) if isinstance(size, int)]
    if len(known) < 4 or len(set(view.strides)) != 1 or op.copies is not None or not fits(op, view.x):
        return dx
    stride = view.strides[0]

    def make() -> list[ir.Value]:
        made = []
        for first, taps, pads in windows:
            last = [k + stride * (t - 1) for k, t in zip(first, taps)]
            some = op.Slice(w, last, [BACKWARDS] * 2, [2, 3], [-stride] * 2)
            part = op.Conv(dy, _exchanged(op, some, group), kernel_shape=taps, group=group, pads=pads)
            made.append(adopt_dims(op, part, (*op.dims(view.x)[:2], *parts.count)))
        return made

    parts = Parts(stride, (known[0], known[1]), make)
    windows = [_meeting(view, parts, offset, known[2:]) for offset in parts.offsets]
    return remember(op, dx, parts) if all(min(*taps, *pads) >= 0 and min(taps) for _, taps, pads in windows) else dx


def _meeting(view: Window, parts: Parts, offset: Sequence[int], counts: Sequence[int]) -> tuple[list[int], ...]:
    """Which taps of a window meet the positions s a - offset, along each axis: the first one, k, and their number, n.

    dx[a] is the sum over t < n of w[k + s t]^T dy[a + c - t], a convolution of dy; its padding comes last.
    """
    assert view.pads is not None
    first = [(before - at) % parts.stride for before, at in zip(view.pads[0], offset)]
    taps = [len(range(k, size, parts.stride)) for k, size in zip(first, view.kernel)]
    shift = [(before - at - k) // parts.stride for before, at, k in zip(view.pads[0], offset, first)]
    begin = [n - 1 - c for n, c in zip(taps, shift)]
    end = [elements - 1 + n - count - b for elements, n, count, b in zip(parts.count, taps, counts, begin)]
    return first, taps, [*begin, *end]


def pointwise_in_parts(op: Builder, view: Window, group: int, dy: ir.Value, w: ir.Value) -> ir.Value | None:
    """The gradient of a convolution of one tap, part by part and then put side by side; None where nothing is saved.

    It has fewer channels than ``dy``, in MobileNetV2 a sixth, and is as much less to put side by side.
    """
    parts, (rows, inputs, *_) = parts_of(op, dy), op.dims(w)
    if parts is None or group != 1 or not (isinstance(rows, int) and isinstance(inputs, int)) or 2 * inputs > rows:
        return None
    if view.kernel != [1, 1] or view.strides != [1, 1] or view.pads != ([0, 0], [0, 0]):
        return None
    op.variables.add(w)  # not folded: the file would hold the weights twice
    kernel = _exchanged(op, w, group)

    def one(part: ir.Value) -> ir.Value:
        return adopt_dims(op, op.Conv(part, kernel, kernel_shape=[1, 1]), (op.dims(dy)[0], inputs, *parts.count))

    return Parts(parts.stride, parts.size, lambda: [one(part) for part in parts.make()]).whole(op)


def _grid(op: Builder, view: Window) -> ir.Value:
    """[rows, columns] of the enlarged y: one where an element of y is, zero elsewhere."""
    lines = []
    for axis, stride in enumerate(view.strides):
        number = op.concat([op.shape(view.y, 2 + axis, 3 + axis), [stride]])
        lines.append(op.Expand(cast_like(op, np.eye(1, stride), view.x), number))
    op.variables.update(lines)  # not folded: the product is larger than they are
    return op.Mul(op.Reshape(lines[0], [-1, 1]), op.Reshape(lines[1], [1, -1]))


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
