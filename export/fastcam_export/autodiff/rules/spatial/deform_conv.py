"""Deformable convolution: samples at moved positions, then a convolution of one pixel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.core.errors import UnsupportedOperator
from fastcam_export.autodiff.core.rule import Node, expansion
from fastcam_export.autodiff.core.shapes import Size, product, reshape_to, scalar, sizes, wide
from fastcam_export.autodiff.rules.spatial.grid_sample import Tap, extent, linear, sample, within


@expansion("DeformConv")
def deform_conv(op: Builder, node: Node) -> list[ir.Value]:
    """y = W (mask * x at p + offset) + B, bilinear, zero outside of the picture; p is where a convolution reads"""
    x, w, offset, bias, mask = (node.input(index) for index in range(5))
    assert x is not None and w is not None and offset is not None
    kernel = [dim for dim in op.dims(w)[2:] if isinstance(dim, int)]
    if len(kernel) != op.rank(x) - 2:
        raise UnsupportedOperator("its kernel_shape is only known at run time")
    n, _, *image = sizes(op, x)
    out, taps = sizes(op, offset)[2:], int(np.prod(kernel))
    each, area, group = node.integer("offset_group", 1), product(op, out), node.integer("group", 1)
    batch, depth, points = product(op, [n, each]), _share(op, x, each), product(op, [taps, *out])
    places = _places(op, node, x, reshape_to(op, offset, [batch, taps, len(kernel), *out]), kernel, points)
    columns = sample(op, reshape_to(op, x, [batch, depth, *image]), places, batch, points)
    if mask is not None:
        columns = op.Mul(columns, reshape_to(op, mask, [batch, 1, points]))
    columns = reshape_to(op, columns, [n, group, taps * _share(op, x, group), area])
    rows = reshape_to(op, w, [group, _share(op, w, group, 0), _share(op, w, 1) * taps])
    y = reshape_to(op, op.MatMul(rows, columns), [n, sizes(op, w)[0], *out])
    return [y if bias is None else op.Add(y, op.Unsqueeze(bias, list(range(1, 1 + len(kernel)))))]


def _share(op: Builder, x: ir.Value, groups: int, axis: int = 1) -> int:
    """Channels in each of so many groups."""
    channels = op.dims(x)[axis]
    if not isinstance(channels, int):
        raise UnsupportedOperator("its number of channels is only known at run time")
    return channels // groups


def _places(
    op: Builder, node: Node, x: ir.Value, offset: ir.Value, kernel: Sequence[int], points: Size
) -> list[list[Tap]]:
    """For each axis the neighbours of all positions [batch, taps * area]."""
    offset = wide(op, offset)
    batch, _, _, *out = sizes(op, offset)
    strides, dilations = node.integers("strides") or [1] * len(kernel), node.integers("dilations") or [1] * len(kernel)
    pads = node.integers("pads") or [0] * 2 * len(kernel)
    within_kernel = np.indices(kernel).reshape(len(kernel), -1, *[1] * len(kernel))
    found = []
    for axis, size in enumerate(out):
        steps = op.Range(0, size if isinstance(size, int) else scalar(op, size), 1)
        base = op.Add(op.Mul(steps, strides[axis]), -pads[axis])
        base = op.Unsqueeze(base, [k for k in range(len(kernel)) if k != axis])
        base = op.Cast(op.Add(base, within_kernel[axis] * dilations[axis]), to=int(offset.dtype or ir.DataType.FLOAT))
        moved = op.Squeeze(op.Slice(offset, [axis], [axis + 1], [2]), [2])
        position = reshape_to(op, op.Add(moved, base), [batch, points])
        found.append([within(op, tap, extent(op, x, axis, offset)) for tap in linear(op, position)])
    return found
