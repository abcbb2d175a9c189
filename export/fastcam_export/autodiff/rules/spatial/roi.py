"""Pooling of regions of interest: mean or maximum of what each bin of a region covers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.core.rule import Node, expansion
from fastcam_export.autodiff.core.shapes import (
    Size,
    cast_like,
    one_hot,
    product,
    reshape_to,
    scalar,
    sizes,
    spread,
    vector,
    wide,
)
from fastcam_export.autodiff.rules.spatial.grid_sample import INT64, extent

Samples = tuple[ir.Value, ir.Value]
"""Along one axis, for each region and bin: positions [R, bins, S] that may lie outside, and which of them count."""


@expansion("RoiAlign", ignores=[1, 2])
def roi_align(op: Builder, node: Node) -> list[ir.Value]:
    """y is the mean, or the maximum, over a grid of samples in each bin. Regions have no gradient, as in torchvision:
    its own is none, and a detector's proposals are constants to what follows them."""
    x, rois, images = node.inputs
    rois = wide(op, rois)
    samples = [_samples(op, node, rois, axis) for axis in (0, 1)]
    if node.string("mode", "avg").lower() == "avg":
        return [_mean(op, x, images, samples)]
    corners = [_corners(op, *samples[axis], extent(op, x, axis, rois)) for axis in (0, 1)]
    return [_largest(op, x, images, corners)]


def _samples(op: Builder, node: Node, rois: ir.Value, axis: int) -> Samples:
    """The grid along one axis; a region's own number of samples (sampling_ratio 0) is out of the largest number."""
    half = node.string("coordinate_transformation_mode", "half_pixel") == "half_pixel"
    bins = node.integer(("output_height", "output_width")[axis], 1)
    scale, shift = node.number("spatial_scale", 1.0), 0.5 if half else 0.0
    start, end = (op.Sub(op.Mul(_column(op, rois, k), scale), shift) for k in (1 - axis, 3 - axis))
    length = op.Sub(end, start) if half else op.Max(op.Sub(end, start), 1.0)
    step = op.Div(length, float(bins))
    fixed = node.integer("sampling_ratio", 0)
    count = cast_like(op, np.full((1, 1, 1), fixed, np.float32), rois) if fixed > 0 else op.Ceil(step)
    number = _counted(op, fixed if fixed > 0 else _most(op, count), rois)
    bin_ = op.Unsqueeze(_counted(op, bins, rois), [0, 2])
    share = op.Div(op.Mul(op.Add(number, 0.5), step), op.Max(count, 1.0))
    at = op.Add(op.Add(start, op.Mul(bin_, step)), share)
    return at, op.Less(number, count)


def _mean(op: Builder, x: ir.Value, images: ir.Value, samples: list[Samples]) -> ir.Value:
    """y = A x B^T for each region: bilinear sampling and the mean are separable. All regions' A are one matrix over the
    rows of all images, so that nothing is as large as regions times images."""
    n, c, h, w = sizes(op, x)
    rows, columns = (_matrix(op, *samples[axis], x, axis) for axis in (0, 1))
    r, bins = sizes(op, images)[0], sizes(op, rows)[1]
    mine = op.Unsqueeze(one_hot(op, op.Cast(images, to=INT64), op.shape(x, 0, 1), x), [1, 3])
    of_all = reshape_to(op, op.Mul(op.Unsqueeze(rows, [2]), mine), [product(op, [r, bins]), product(op, [n, h])])
    lines = reshape_to(op, op.Transpose(x, perm=[0, 2, 1, 3]), [product(op, [n, h]), product(op, [c, w])])
    mixed = op.Transpose(reshape_to(op, op.MatMul(of_all, lines), [r, bins, c, w]), perm=[0, 2, 1, 3])
    return op.MatMul(mixed, op.Unsqueeze(op.Transpose(columns, perm=[0, 2, 1]), [1]))


def _matrix(op: Builder, at: ir.Value, counts: ir.Value, x: ir.Value, axis: int) -> ir.Value:
    """[R, bins, size]: the share of each row or column of the image in each bin's mean."""
    at, inside = _inside(op, at, extent(op, x, axis, at))
    place = op.Reshape(_counted(op, sizes(op, x)[axis + 2], at), [1, 1, 1, -1])
    tent = op.Max(op.Sub(1.0, op.Abs(op.Sub(op.Unsqueeze(at, [3]), place))), 0.0)
    number = op.Max(op.ReduceSum(op.Where(counts, 1.0, 0.0), [2], keepdims=1), 1.0)
    kept = op.Unsqueeze(op.Where(op.And(inside, counts), 1.0, 0.0), [3])
    return cast_like(op, op.Div(op.ReduceSum(op.Mul(tent, kept), [2], keepdims=0), number), x)


def _inside(op: Builder, at: ir.Value, size: ir.Value) -> Samples:
    """Positions brought into the image, and whether they were at most one pixel outside of it."""
    inside = op.And(op.GreaterOrEqual(at, -1.0), op.LessOrEqual(at, size))
    return op.Min(op.Max(at, 0.0), op.Sub(size, 1.0)), inside


Taps = tuple[ir.Value, ir.Value, ir.Value]
"""Along one axis, for each region and bin [R, bins, K]: whole positions (float), weights, and which of them count."""


def _corners(op: Builder, at: ir.Value, counts: ir.Value, size: ir.Value) -> Taps:
    """Both neighbours of each sample."""
    at, inside = _inside(op, at, size)
    low = op.Floor(at)
    part = op.Sub(at, low)
    high = op.Min(op.Add(low, 1.0), op.Sub(size, 1.0))
    weights = [op.Where(inside, weight, 0.0) for weight in (op.Sub(1.0, part), part)]
    return op.Concat(low, high, axis=2), op.Concat(*weights, axis=2), op.Concat(counts, counts, axis=2)


@expansion("MaxRoiPool", ignores=[1])
def max_roi_pool(op: Builder, node: Node) -> list[ir.Value]:
    """y is the maximum over the whole pixels of each bin, the first of equal ones; 0 of an empty bin"""
    x, rois = node.inputs
    rois = wide(op, rois)
    images = op.Cast(op.Reshape(_column(op, rois, 0), [-1]), to=INT64)
    return [_largest(op, x, images, [_pixels(op, node, rois, axis) for axis in (0, 1)])]


def _pixels(op: Builder, node: Node, rois: ir.Value, axis: int) -> Taps:
    """The rows or columns of each bin, whose size differs between regions."""
    bins, scale = node.integers("pooled_shape")[axis], node.number("spatial_scale", 1.0)
    start, end = (_rounded(op, op.Mul(_column(op, rois, k), scale)) for k in (2 - axis, 4 - axis))
    step = op.Div(op.Max(op.Add(op.Sub(end, start), 1.0), 1.0), float(bins))
    bin_ = op.Unsqueeze(_counted(op, bins, rois), [0, 2])
    size = extent(op, node.x, axis, rois)
    edges = [op.Floor(op.Mul(bin_, step)), op.Ceil(op.Mul(op.Add(bin_, 1.0), step))]
    first, stop = (op.Min(op.Max(op.Add(edge, start), 0.0), size) for edge in edges)
    number = _counted(op, _most(op, op.Sub(stop, first)), rois)
    at = op.Add(first, number)
    counts = op.Less(at, stop)
    return op.Min(at, op.Sub(size, 1.0)), op.Where(counts, 1.0, 0.0), counts


def _rounded(op: Builder, x: ir.Value) -> ir.Value:
    """To the nearest whole number, halves away from zero as in C."""
    up = op.Floor(op.Add(op.Abs(x), 0.5))
    return op.Where(op.Less(x, 0.0), op.Neg(up), up)


def _largest(op: Builder, x: ir.Value, images: ir.Value, taps: list[Taps]) -> ir.Value:
    """[R, C, bins, bins]: the largest product of weight and pixel in each bin; 0 where none counts."""
    n, c, h, w = sizes(op, x)
    (row, tall, here), (column, wide, there) = ((_over(op, t, 0) for t in taps[0]), (_over(op, t, 1) for t in taps[1]))
    image = op.Reshape(op.Cast(images, to=INT64), [-1, 1, 1, 1, 1])
    line = op.Add(op.Mul(image, op.shape(x, 2, 3)), op.Cast(row, to=INT64))
    place = op.Add(op.Mul(line, op.shape(x, 3, 4)), op.Cast(column, to=INT64))
    counts = spread(op, op.And(here, there), sizes(op, place))
    weight = cast_like(op, op.Where(counts, op.Mul(tall, wide), 0.0), x)
    r, bins, others, *many = sizes(op, place)
    points, each = product(op, [r, bins, others]), product(op, many)
    flat = op.Reshape(op.Transpose(x, perm=[1, 0, 2, 3]), [-1])
    channel = op.Unsqueeze(op.Mul(_counted(op, c, place), op.concat([vector(product(op, [n, h, w]))])), [1])
    places = op.Add(channel, reshape_to(op, place, [points, 1, each]))
    weights = spread(op, reshape_to(op, weight, [points, 1, each]), [points, c, each])
    products = op.Where(reshape_to(op, counts, [points, 1, each]), op.Mul(op.Gather(flat, places), weights), -np.inf)
    best = op.ArgMax(products, axis=2, keepdims=1)
    place, weight = (op.GatherElements(value, best, axis=2) for value in (places, weights))
    y = op.Mul(op.GatherND(flat, place), op.Squeeze(weight, [2]))
    return op.Transpose(reshape_to(op, y, [r, bins, others, c]), perm=[0, 3, 1, 2])


def _over(op: Builder, value: ir.Value, axis: int) -> ir.Value:
    """[R, bins, K] of rows as [R, bins, 1, K, 1], of columns as [R, 1, bins, 1, K]"""
    return op.Unsqueeze(value, [2, 4] if axis == 0 else [1, 3])


def _column(op: Builder, rois: ir.Value, index: int) -> ir.Value:
    """[R, 1, 1]: one number of each region."""
    return op.Unsqueeze(op.Slice(rois, [index], [index + 1], [1]), [2])


def _most(op: Builder, counts: ir.Value) -> ir.Value:
    """int64 [1]: the largest of ``counts``; at least one."""
    return op.Cast(
        op.ReduceMax(op.Concat(op.Reshape(counts, [-1]), cast_like(op, np.ones(1), counts), axis=0)), to=INT64
    )


def _counted(op: Builder, size: Size, like: ir.Value) -> ir.Value:
    """[size]: 0, 1, 2, ... in the type of ``like``."""
    return cast_like(op, op.Range(0, scalar(op, op.concat([vector(size)])), 1), like)
