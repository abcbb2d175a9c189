"""GridSample in float64: the weighted sum of the four neighbours of each point, gathered one by one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import onnx

from fastcam_export.verify.double.emitter import Emitter


def bilinear(op: Emitter, x: str, dims: Sequence[int]) -> str | None:
    """y[n, c, p] = sum over neighbours (v, u) of point p of weight times x[n, c, v, u]

    Args:
        op: takes the place of the node.
        x: the pictures, [N, C, H, W].
        dims: their dimensions, as far as they are known.

    Returns:
        The output [N, C, h, w]; None where the node asks for another rank, interpolation or padding.
    """
    if len(dims) not in (0, 4) or op.given.get("mode", b"linear") not in (b"linear", b"bilinear"):
        return None
    padding = op.given.get("padding_mode", b"zeros")
    if padding not in (b"zeros", b"border"):
        return None
    size, grid = op.emit("Shape", x), op.node.input[1]
    points = op.emit("Reshape", grid, [0, -1, 2])
    width, height = (_extent(op, size, axis) for axis in (3, 2))
    along_x = _neighbours(op, op.emit("Slice", points, [0], [1], [2]), width, padding)
    along_y = _neighbours(op, op.emit("Slice", points, [1], [2], [2]), height, padding)
    flat, images = op.emit("Reshape", x, [0, 0, -1]), op.emit("Slice", size, [0], [2])
    number = op.emit("Slice", op.emit("Shape", points), [1], [2])
    shape = op.emit("Concat", images, number, axis=0)
    terms = []
    for (v, share_v), (u, share_u) in itertools.product(along_y, along_x):
        place = op.emit("Cast", op.emit("Add", op.emit("Mul", v, width), u), to=onnx.TensorProto.INT64)
        index = op.emit("Expand", op.emit("Transpose", place, perm=[0, 2, 1]), shape)
        share = op.emit("Transpose", op.emit("Mul", share_v, share_u), perm=[0, 2, 1])
        terms.append(op.emit("Mul", op.emit("GatherElements", flat, index, axis=2), share))
    places = op.emit("Slice", op.emit("Shape", grid), [1], [3])
    return op.emit("Reshape", op.emit("Sum", *terms), op.emit("Concat", images, places, axis=0))


def _extent(op: Emitter, size: str, axis: int) -> str:
    return op.emit("Cast", op.emit("Slice", size, [axis], [axis + 1]), to=onnx.TensorProto.DOUBLE)


def _neighbours(op: Emitter, at: str, extent: str, padding: bytes) -> list[tuple[str, str]]:
    """The two neighbours [N, points, 1] along an axis of ``at`` in -1 .. 1, and their shares."""
    up, last = op.emit("Add", at, 1.0), op.emit("Sub", extent, 1.0)
    if op.given.get("align_corners", 0):
        position = op.emit("Mul", op.emit("Mul", up, 0.5), last)
    else:
        position = op.emit("Mul", op.emit("Sub", op.emit("Mul", up, extent), 1.0), 0.5)
    if padding == b"border":
        position = _clamped(op, position, last)
    low = op.emit("Floor", position)
    part = op.emit("Sub", position, low)
    made = []
    for place, share in ((low, op.emit("Sub", 1.0, part)), (op.emit("Add", low, 1.0), part)):
        there = op.emit("And", op.emit("GreaterOrEqual", place, 0.0), op.emit("LessOrEqual", place, last))
        made.append((_clamped(op, place, last), op.emit("Where", there, share, np.zeros(()))))
    return made


def _clamped(op: Emitter, value: str, last: str) -> str:
    """A place, moved into the picture where it lies outside."""
    return op.emit("Min", op.emit("Max", value, 0.0), last)
