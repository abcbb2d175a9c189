"""Resampling of images."""

from __future__ import annotations

import onnx_ir as ir

from fastcam_export.autodiff.constants import constant_array
from fastcam_export.autodiff.emitter import Emitter, same_dim
from fastcam_export.autodiff.registry import Gradients, Node, UnsupportedOperator, rule
from fastcam_export.autodiff.shapes import along, cast_like, scalar

MODES = {"half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"}


@rule("Resize")
def resize(op: Emitter, node: Node, dy: ir.Value) -> Gradients:
    """Interpolation is linear and separable: y = R_h x R_w^T with one matrix per axis, so dx = R_h^T dy R_w.

    A row of a matrix holds the weights of the positions that one element of y is interpolated from: one for nearest,
    two for linear, four for cubic (Keys).
    """
    mode, where = node.string("mode", "nearest"), node.string("coordinate_transformation_mode", "half_pixel")
    if where not in MODES:
        raise UnsupportedOperator(f"coordinate_transformation_mode {where} has no gradient rule")
    if node.integer("antialias", 0) or node.string("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise UnsupportedOperator("antialias and keep_aspect_ratio_policy have no gradient rule")
    if mode == "cubic" and node.integer("exclude_outside", 0):
        raise UnsupportedOperator("exclude_outside has no gradient rule")
    dx, rank = dy, op.rank(node.x)
    for index, axis in enumerate([a % rank for a in node.integers("axes")] or range(rank)):
        scale = _scale(op, node, index, axis)
        if scale is not None:
            dx = along(
                op, dx, cast_like(op, _matrix(op, node, axis, _positions(op, node, axis, scale, where)), dy), axis
            )
    return dx


def _scale(op: Emitter, node: Node, index: int, axis: int) -> ir.Value | None:
    """Size of y over size of x along an axis, as the runtime reckons it; None where the axis is known to stay as it is.

    It is computed in float32, as runtimes do: which neighbour is nearest may hang on its last bit.
    """
    scales = node.input(2)
    given = constant_array(scales)
    if scales is not None and (given is None or given.size):
        if given is not None and given[index] == 1:
            return None
        return _real(op, node, op.Slice(scales, [index], [index + 1]))
    x, y = node.x, node.y
    if same_dim(op.dims(x)[axis], op.dims(y)[axis]):
        return None
    new, old = (_real(op, node, op.shape(value, axis, axis + 1)) for value in (y, x))
    return op.Div(new, old)


def _positions(op: Emitter, node: Node, axis: int, scale: ir.Value, where: str) -> ir.Value:
    """[new]: the coordinate in x of each element of y along ``axis``."""
    size, new = op.shape(node.x, axis, axis + 1), op.shape(node.y, axis, axis + 1)
    at = _real(op, node, op.Range(0, scalar(op, new), 1))
    if where == "align_corners":
        gaps = _real(op, node, op.Max(op.Sub(new, 1), 1))
        return op.Div(op.Mul(at, _real(op, node, op.Sub(size, 1))), gaps)
    if where == "asymmetric":
        return op.Div(at, scale)
    half = op.Sub(op.Div(op.Add(at, 0.5), scale), 0.5)
    return op.Where(op.Equal(new, 1), op.Mul(at, 0.0), half) if where == "pytorch_half_pixel" else half


def _matrix(op: Emitter, node: Node, axis: int, at: ir.Value) -> ir.Value:
    """[new, old]: the weight of each element of x in each of y; what lies outside counts for the border."""
    size, mode = op.shape(node.x, axis, axis + 1), node.string("mode", "nearest")
    last = _real(op, node, op.Sub(size, 1))
    columns = op.Unsqueeze(_real(op, node, op.Range(0, scalar(op, size), 1)), [0])
    if mode == "nearest":
        taps: list[tuple[ir.Value, ir.Value | None]] = [
            (_nearest(op, at, node.string("nearest_mode", "round_prefer_floor")), None)
        ]
    else:
        floor = op.Floor(at)
        part = op.Sub(at, floor)
        offsets = (0.0, 1.0) if mode == "linear" else (-1.0, 0.0, 1.0, 2.0)
        a = node.number("cubic_coeff_a", -0.75) if mode == "cubic" else None
        taps = [(op.Add(floor, offset), _weight(op, op.Abs(op.Sub(part, offset)), a)) for offset in offsets]
    terms = []
    for position, weight in taps:
        inside = op.Unsqueeze(op.Min(op.Max(position, 0.0), last), [1])
        hits = cast_like(op, op.Equal(inside, columns), at)
        terms.append(hits if weight is None else op.Mul(hits, op.Unsqueeze(weight, [1])))
    return terms[0] if len(terms) == 1 else op.Sum(*terms)


def _nearest(op: Emitter, at: ir.Value, mode: str) -> ir.Value:
    if mode == "floor":
        return op.Floor(at)
    if mode == "ceil":
        return op.Ceil(at)
    return op.Ceil(op.Sub(at, 0.5)) if mode == "round_prefer_floor" else op.Floor(op.Add(at, 0.5))


def _weight(op: Emitter, distance: ir.Value, a: float | None) -> ir.Value:
    """Of an element at a ``distance``: linear, or for a number ``a`` Keys' cubic convolution."""
    if a is None:
        return op.Sub(1.0, distance)
    square = op.Mul(distance, distance)
    near = op.Add(op.Mul(square, op.Sub(op.Mul(distance, a + 2), a + 3)), 1.0)
    far = op.Mul(op.Sub(op.Mul(op.Add(op.Mul(op.Sub(distance, 5.0), distance), 8.0), distance), 4.0), a)
    return op.Where(op.LessOrEqual(distance, 1.0), near, far)


def _real(op: Emitter, node: Node, value: ir.Value) -> ir.Value:
    double = node.x.dtype == ir.DataType.DOUBLE and node.string("mode", "nearest") != "nearest"
    return op.Cast(value, to=int(ir.DataType.DOUBLE if double else ir.DataType.FLOAT))
