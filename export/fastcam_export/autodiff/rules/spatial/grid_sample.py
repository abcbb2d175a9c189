"""Operators that sample pictures at computed positions: a gather of neighbours and their weighted sum."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.core.errors import UnsupportedOperator
from fastcam_export.autodiff.core.rule import Gradients, Node, expansion, rule
from fastcam_export.autodiff.core.shapes import cast_like, product, reshape_to, sizes, spread, wide
from fastcam_export.graph.constants import Array, constant_array

INT64 = int(ir.DataType.INT64)
CUBIC = -0.75
"""Keys' parameter, as ONNX and PyTorch have it."""

Tap = tuple[ir.Value, "ir.Value | None"]
"""A position along one axis, a whole number as float, and the weight of what is there (None: one)."""


@rule("AffineGrid", ignores=[1])
def affine_grid(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """y = base theta^T with base = [x, y, (z,) 1] of every place: dtheta = dy^T base"""
    places = list(op.dims(node.y)[1:-1])
    size = constant_array(node.input(1))
    if not all(isinstance(place, int) for place in places):
        if size is None:
            raise UnsupportedOperator("its size is only known at run time")
        places = [int(place) for place in size[2:]]
    lines = [_places(place, node.integer("align_corners", 0)) for place in places if isinstance(place, int)]
    mesh = np.meshgrid(*lines, indexing="ij")
    base = np.stack([*(line.reshape(-1) for line in mesh[::-1]), np.ones(mesh[0].size)], axis=1)
    flat = reshape_to(op, dy, [sizes(op, node.x)[0], len(base), len(lines)])
    return op.MatMul(op.Transpose(flat, perm=[0, 2, 1]), base)


def _places(count: int, align_corners: int) -> Array:
    """Where ``count`` places lie between -1 and 1: the outermost centres, or the outer borders, at the ends."""
    if align_corners:
        return np.linspace(-1.0, 1.0, count) if count > 1 else np.zeros(1)
    return (2 * np.arange(count) + 1) / count - 1


@expansion("GridSample")
def grid_sample(op: Builder, node: Node) -> list[ir.Value]:
    """y = sum over neighbours of weight times x. Positions have a gradient through the weights; at the border of the
    picture, from which on they are clamped or reflected, it is zero, as in PyTorch."""
    x, grid = node.inputs
    positions = wide(op, grid)
    axes, (n, *places) = op.rank(x) - 2, sizes(op, grid)[:-1]
    points = product(op, places)
    taps = []
    for axis in range(axes):  # the last number of a position belongs to the first axis
        at = op.Slice(positions, [axes - 1 - axis], [axes - axis], [axes + 1])
        size = extent(op, x, axis, positions)
        taps.append([_inside(op, node, tap, size) for tap in _taps(op, node, reshape_to(op, at, [n, points]), size)])
    y = sample(op, x, taps, n, points)
    return [reshape_to(op, y, [n, sizes(op, x)[1], *places])]


def sample(
    op: Builder, x: ir.Value, taps: Sequence[Sequence[Tap]], n: int | ir.Value, points: int | ir.Value
) -> ir.Value:
    """[n, C, points]: of ``x`` [n, C, ...], for all combinations of the axes' taps [n, points], the weighted sum."""
    _, c, *shape = sizes(op, x)
    flat = reshape_to(op, x, [n, c, product(op, shape)])
    total = None
    for combination in itertools.product(*taps):
        place, weight = None, None
        for axis, (at, share) in enumerate(combination):
            step = op.Cast(at, to=INT64)
            place = step if place is None else op.Add(op.Mul(place, op.shape(x, axis + 2, axis + 3)), step)
            weight = share if weight is None else weight if share is None else op.Mul(weight, share)
        index = spread(op, op.Unsqueeze(place, [1]), [n, c, points])
        value = op.GatherElements(flat, index, axis=2)
        if weight is not None:
            value = op.Mul(value, op.Unsqueeze(cast_like(op, weight, x), [1]))
        total = value if total is None else op.Add(total, value)
    assert total is not None
    return total


def _taps(op: Builder, node: Node, at: ir.Value, size: ir.Value) -> list[Tap]:
    """The neighbours along one axis of the normalised coordinate ``at``, which may lie outside of the picture."""
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(node.string("mode", "linear"), node.string("mode", "linear"))
    up = op.Add(at, 1.0)
    if node.integer("align_corners", 0):
        position = op.Mul(op.Mul(up, 0.5), op.Sub(size, 1.0))
    else:
        position = op.Mul(op.Sub(op.Mul(up, size), 1.0), 0.5)
    if mode == "nearest":
        return [(op.Round(position), None)]
    if mode == "linear":
        position = _brought_back(op, node, position, size)
    if mode == "linear":
        return linear(op, position)
    floor = op.Floor(position)
    part = op.Sub(position, floor)
    # as PyTorch and ONNX Runtime: the neighbours are brought back, each for itself, and not the position
    distances = {-1: op.Add(part, 1.0), 0: part, 1: op.Sub(1.0, part), 2: op.Sub(2.0, part)}
    return [(op.Add(floor, float(k)), cubic(op, distance, k in (0, 1))) for k, distance in distances.items()]


def linear(op: Builder, position: ir.Value) -> list[Tap]:
    """Both neighbours of a position, wherever they are."""
    floor = op.Floor(position)
    part = op.Sub(position, floor)
    return [(floor, op.Sub(1.0, part)), (op.Add(floor, 1.0), part)]


def within(op: Builder, tap: Tap, size: ir.Value) -> Tap:
    """A tap that has no weight if its place is outside of the picture."""
    (at, weight), last = tap, op.Sub(size, 1.0)
    there = op.And(op.GreaterOrEqual(at, 0.0), op.LessOrEqual(at, last))
    weight = op.Where(there, 1.0, 0.0) if weight is None else op.Where(there, weight, 0.0)
    return _clamped(op, at, last), weight


def extent(op: Builder, x: ir.Value, axis: int, like: ir.Value) -> ir.Value:
    """[1]: the size of the picture along one of its axes, in the type of ``like``."""
    return cast_like(op, op.shape(x, axis + 2, axis + 3), like)


def cubic(op: Builder, d: ir.Value, near: bool) -> ir.Value:
    """Keys' weight of an element at the distance ``d``, at most one where it is ``near``, else at most two"""
    if near:
        return op.Add(op.Mul(op.Mul(d, d), op.Sub(op.Mul(d, CUBIC + 2), CUBIC + 3)), 1.0)
    return op.Mul(op.Sub(op.Mul(op.Add(op.Mul(op.Sub(d, 5.0), d), 8.0), d), 4.0), CUBIC)


def _brought_back(op: Builder, node: Node, position: ir.Value, size: ir.Value) -> ir.Value:
    """A position outside of the picture, clamped or reflected."""
    padding = node.string("padding_mode", "zeros")
    if padding == "zeros":
        return position
    if padding == "reflection":
        position = _reflected(op, node, position, size)
    return _clamped(op, position, op.Sub(size, 1.0))


def _inside(op: Builder, node: Node, tap: Tap, size: ir.Value) -> Tap:
    """A tap whose place is in the picture: clamped, reflected, or of no weight."""
    at, weight = tap
    padding = node.string("padding_mode", "zeros")
    if padding == "zeros":
        return within(op, tap, size)
    if padding == "reflection":
        at = _reflected(op, node, at, size)
    return _clamped(op, at, op.Sub(size, 1.0)), weight


def _clamped(op: Builder, at: ir.Value, last: ir.Value) -> ir.Value:
    """Without a gradient at the ends themselves, unlike Clip."""
    return op.Where(op.LessOrEqual(at, 0.0), 0.0, op.Where(op.GreaterOrEqual(at, last), last, at))


def _reflected(op: Builder, node: Node, at: ir.Value, size: ir.Value) -> ir.Value:
    """``at`` folded into the picture: between the outermost centres (align_corners) or the edges."""
    aligned = node.integer("align_corners", 0)
    low = 0.0 if aligned else -0.5
    span = op.Max(op.Sub(size, 1.0), 1.0) if aligned else size
    distance = op.Abs(op.Sub(at, low))
    folds = op.Floor(op.Div(distance, span))
    rest = op.Sub(distance, op.Mul(folds, span))
    odd = op.Greater(op.Sub(folds, op.Mul(op.Floor(op.Mul(folds, 0.5)), 2.0)), 0.5)
    return op.Add(op.Where(odd, op.Sub(span, rest), rest), low)
