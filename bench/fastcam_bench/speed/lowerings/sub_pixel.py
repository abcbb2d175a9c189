"""A Conv's input gradient as a convolution to the residues of the stride: contestants of fastcam_bench.speed.lowerings.

Zeros between the elements, which the exporter takes, were faster wherever this was faster than a ConvTranspose.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import onnx_ir as ir

from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.core.shapes import cast_like, crop
from fastcam_export.autodiff.rules.spatial.sliding_window import Window

Join = Callable[[Builder, ir.Value, int, int], ir.Value]
"""(op, [N, channels stride^2, h, w], channels, stride) -> [N, channels, h stride, w stride]"""


def subpixel(join: Join, op: Builder, view: Window, group: int, dy: ir.Value, w: ir.Value) -> ir.Value | None:
    """Stride s: the s^2 residues of i modulo s see every s-th tap each: a Conv of stride 1 to s^2 times the channels,
    which are then put side by side (Shi et al. 2016, "Real-Time Single Image and Video Super-Resolution").

    The kernels get zeros in front, so that the padding is a multiple of s and residue zero is the image's first
    position, and behind, so that they have m s taps.
    """
    if view.pads is None or view.strides[0] == 1:
        return None
    (rows, inputs), stride, begin = op.dims(w)[:2], view.strides[0], view.pads[0]
    if not isinstance(rows, int) or not isinstance(inputs, int):
        return None
    front = [-b % stride for b in begin]
    taps = [-(-(k + f) // stride) for k, f in zip(view.kernel, front)]
    before = [m - 1 - (b + f) // stride for m, b, f in zip(taps, begin, front)]
    sizes, counts = ([int(d or 0) for d in op.dims(value)[2:]] for value in (view.x, view.y))
    after = [-(-size // stride) - n + m - 1 - b for size, n, m, b in zip(sizes, counts, taps, before)]
    if min(*before, *after) < 0:
        return None
    behind = [m * stride - k - f for m, k, f in zip(taps, view.kernel, front)]
    op.variables.add(w)  # not folded: the file would hold the weights twice
    w = op.Pad(w, [0, 0, *front, 0, 0, *behind]) if any((*front, *behind)) else w
    each = op.Reshape(w, [group, rows // group, inputs, taps[0], stride, taps[1], stride])
    each = op.Transpose(op.Slice(each, [-1, -1], [-(1 << 62)] * 2, [3, 5], [-1, -1]), perm=[0, 2, 4, 6, 1, 3, 5])
    kernel = op.Reshape(each, [group * inputs * stride**2, rows // group, *taps])
    dense = op.Conv(dy, kernel, kernel_shape=taps, group=group, pads=[*before, *after])
    full = join(op, dense, group * inputs, stride)
    ends = [size - (n + a + b - m + 1) * stride for size, n, a, b, m in zip(sizes, counts, after, before, taps)]
    return crop(op, full, [2, 3], op.constant(np.zeros(2, np.int64)), op.constant(np.array(ends)), op.dims(view.x))


def interleaved(op: Builder, dense: ir.Value, channels: int, stride: int) -> ir.Value:
    """DepthToSpace (mode CRD) as a ConvTranspose whose kernels are one at one tap each: ONNX Runtime's DepthToSpace
    runs on one thread."""
    one = np.eye(stride**2).reshape(1, stride**2, stride, stride)
    every = op.Expand(cast_like(op, one.astype(np.float32), dense), [channels, 1, 1, 1])
    kernel = op.Reshape(every, [-1, 1, stride, stride])
    return op.ConvTranspose(dense, kernel, kernel_shape=[stride] * 2, strides=[stride] * 2, group=channels)


def depth_to_space(op: Builder, dense: ir.Value, channels: int, stride: int) -> ir.Value:
    """The operator itself."""
    return op.DepthToSpace(dense, blocksize=stride, mode="CRD")


FORMS = {
    "sub-pixel Conv": partial(subpixel, interleaved),
    "sub-pixel Conv, DepthToSpace": partial(subpixel, depth_to_space),
}
