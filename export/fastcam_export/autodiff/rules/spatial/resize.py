"""Resampling of images."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from fastcam_export.autodiff.core.builder import Builder, same_dim
from fastcam_export.autodiff.core.errors import UnsupportedOperator
from fastcam_export.autodiff.core.rule import Gradients, Node, rule
from fastcam_export.autodiff.core.shapes import along, cast_like, reshape_to, scalar, sizes, spread
from fastcam_export.graph.constants import constant_array

CROP = "tf_crop_and_resize"


@rule("Resize")
def resize(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """Interpolation is linear and separable: y = R_h x R_w^T with one matrix per axis, so dx = R_h^T dy R_w.

    The matrix of an axis is what the same Resize makes of the identity: in every mode, and to the last bit of the
    positions that the runtime takes. Column j holds the weights of element j of x in the elements of y.
    """
    dx, rank = dy, op.rank(node.x)
    axes = [a % rank for a in node.integers("axes")] or list(range(rank))
    for index, axis in enumerate(axes):
        if not _stays(op, node, index, axis):
            matrix = _indicator(op, node, axes, index) if _nearest(node) else _matrix(op, node, axes, index)
            dx = along(op, dx, cast_like(op, matrix, dy), axis)
    return dx


def _nearest(node: Node) -> bool:
    return node.string("mode", "nearest") == "nearest"


def _stays(op: Builder, node: Node, index: int, axis: int) -> bool:
    """Whether the elements along an axis are known to stay as they are."""
    if node.string("coordinate_transformation_mode", "half_pixel") == CROP:
        roi = constant_array(node.input(1))
        if roi is None or (roi[index], roi[index + roi.size // 2]) != (0, 1):
            return False
    scales = _given(node, 2)
    if scales is not None:
        known = constant_array(scales)
        return known is not None and known[index] == 1
    return _stretched(node) and same_dim(op.dims(node.x)[axis], op.dims(node.y)[axis])


def _stretched(node: Node) -> bool:
    return node.string("keep_aspect_ratio_policy", "stretch") == "stretch"


def _given(node: Node, index: int) -> ir.Value | None:
    """An input, unless it is left out or, as older exporters write it, empty."""
    value = node.input(index)
    return None if value is None or (value.shape is not None and list(value.shape) == [0]) else value


def _matrix(op: Builder, node: Node, axes: list[int], index: int) -> ir.Value:
    """[new, old]: the weight of each element of x in each of y."""
    old, new = (sizes(op, value)[axes[index]] for value in (node.x, node.y))
    double = node.x.dtype == ir.DataType.DOUBLE
    zero = np.zeros((1, 1), np.float64 if double else np.float32)
    identity = reshape_to(op, op.EyeLike(spread(op, zero, [old, old])), [1, old, old, 1])
    return op.Transpose(reshape_to(op, _resized(op, node, identity, axes, index, 0.0), [old, new]), perm=[1, 0])


def _indicator(op: Builder, node: Node, axes: list[int], index: int) -> ir.Value:
    """The same for nearest neighbours, whose numbers come from a range: what none is near to has number -1."""
    old, new = (sizes(op, value)[axes[index]] for value in (node.x, node.y))
    count = old if isinstance(old, int) else scalar(op, old)
    columns = op.Cast(op.Range(0, count, 1), to=int(ir.DataType.FLOAT))
    taken = _resized(op, node, reshape_to(op, columns, [1, 1, old, 1]), axes, index, -1.0)
    return op.Equal(reshape_to(op, taken, [new, 1]), reshape_to(op, columns, [1, old]))


def _resized(op: Builder, node: Node, image: ir.Value, axes: list[int], index: int, outside: float) -> ir.Value:
    """``image`` [1, c, old, 1] as the node resizes its axis ``axes[index]``: [1, c, new, 1].

    The last axis is resized too, by 1: OpenVINO has no linear interpolation along one axis of four.
    """
    attributes = {name: attribute.value for name, attribute in node.node.attributes.items()}
    attributes |= {"axes": [2, 3], "extrapolation_value": outside}
    cropped = node.string("coordinate_transformation_mode", "half_pixel") == CROP
    roi = _range(op, _given(node, 1), index, len(axes)) if cropped else None
    if not _stretched(node):
        return _in_proportion(op, node, image, roi, axes, index, attributes)
    scale = _given(node, 2)
    if scale is not None:
        one = cast_like(op, np.ones(1), scale)
        return op.Resize(image, roi, op.Concat(op.Slice(scale, [index], [index + 1]), one, axis=0), None, **attributes)
    new = op.concat([op.shape(node.y, axes[index], axes[index] + 1), [1]])
    return op.Resize(image, roi, None, new, **attributes)


def _range(op: Builder, roi: ir.Value | None, index: int, count: int) -> ir.Value | None:
    """The part of one axis that a node crops, of all ``count`` in ``roi``, beside the whole of another axis."""
    if roi is None:
        return None
    begin, end = (op.Slice(roi, [at], [at + 1]) for at in (index, index + count))
    zero, one = (cast_like(op, np.full(1, at), roi) for at in (0.0, 1.0))
    return op.Concat(begin, zero, end, one, axis=0)


def _in_proportion(
    op: Builder,
    node: Node,
    image: ir.Value,
    roi: ir.Value | None,
    axes: list[int],
    index: int,
    attributes: dict[str, Any],
) -> ir.Value:
    """With the scale of the axis that limits the others: the image goes along it as well, constant, and one column is
    kept of the result."""
    wanted, old = node.constant(3, "sizes"), [op.dims(node.x)[axis] for axis in axes]
    if wanted is None or not all(isinstance(size, int) for size in old):
        raise UnsupportedOperator("keep_aspect_ratio_policy has a gradient rule for images of a known size")
    scales = wanted.astype(np.float32) / np.array(old, np.float32)
    limit = int(scales.argmin() if node.string("keep_aspect_ratio_policy", "") == "not_larger" else scales.argmax())
    if limit == index:
        stretched = attributes | {"keep_aspect_ratio_policy": "stretch"}
        return op.Resize(image, roi, None, np.append(wanted[[index]], 1), **stretched)
    wide = op.Expand(image, [1, 1, 1, old[limit]])
    return op.Slice(op.Resize(wide, roi, None, wanted[[index, limit]], **attributes), [0], [1], [3])
