"""Fourier transforms: linear, so that the matrix of a transform is what the same operator makes of the identity."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.core.errors import UnsupportedOperator
from fastcam_export.autodiff.core.rule import ZERO, Gradients, Node, rule
from fastcam_export.autodiff.core.shapes import Size, product, reshape_like, reshape_to, scalar, sizes, spread
from fastcam_export.autodiff.rules.scatter import scatter_add


@rule("DFT")
def dft(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """y = x M along one axis and the real and imaginary parts together: dx = dy M^T, inverse, one-sided or padded"""
    x, rank = node.x, op.rank(node.x)
    axis, length = _dft_axis(op, node), node.input(1)
    size, parts = sizes(op, x)[axis], sizes(op, x)[-1]
    identity = _identity(op, x, size, parts)
    flags = {name: node.integer(name, 0) for name in ("inverse", "onesided")}
    if op.version < 20:
        each = op.DFT(identity, length, axis=1, **flags)
    else:
        each = op.DFT(identity, length, np.array(1), **flags)

    order = [*(a for a in range(rank - 1) if a != axis), axis, rank - 1]
    last = op.Transpose(dy, perm=order)
    shape = [sizes(op, node.y)[a] for a in order]
    columns = product(op, shape[-2:])
    matrix = reshape_to(op, each, [product(op, [size, parts]), columns])
    rows = op.MatMul(reshape_to(op, last, [*shape[:-2], columns]), op.Transpose(matrix, perm=[1, 0]))
    dx = op.Transpose(reshape_to(op, rows, [*shape[:-2], size, parts]), perm=[int(i) for i in np.argsort(order)])
    return {0: dx}


def _dft_axis(op: Builder, node: Node) -> int:
    if op.version < 20:
        return node.integer("axis", 1) % op.rank(node.x)
    axis = node.constant(2, "axis")
    return (-2 if axis is None else int(axis.item())) % op.rank(node.x)


@rule("STFT")
def stft(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """Every frame of the signal, a step after the one before, times the window, transformed: backwards, the frames
    overlap and add"""
    signal, step, window = node.x, node.constant(1, "steps"), node.input(2)
    assert step is not None
    (batch, _, parts), (_, frames, bins, _) = sizes(op, signal), sizes(op, node.y)
    length: Size = _frame_length(op, node)
    one = op.STFT(
        _identity(op, signal, length, parts),
        step,
        None,
        scalar(op, length) if isinstance(length, ir.Value) else np.array(length),
        onesided=node.integer("onesided", 1),
    )
    matrix = reshape_to(op, one, [product(op, [length, parts]), product(op, [bins, 2])])
    rows = reshape_to(op, dy, [batch, frames, product(op, [bins, 2])])
    framed = op.MatMul(rows, op.Transpose(matrix, perm=[1, 0]))
    framed = reshape_to(op, framed, [batch, frames, length, parts])

    starts, inside = (op.Range(0, scalar(op, n) if isinstance(n, ir.Value) else n, 1) for n in (frames, length))
    place = op.Add(op.Unsqueeze(op.Mul(starts, int(step.item())), [1]), op.Unsqueeze(inside, [0]))  # [frames, length]
    weights = op.Unsqueeze(window, [1]) if window is not None else None
    flat: list[Size] = [batch, product(op, [frames, length]), parts]

    def to_signal() -> ir.Value:
        values = reshape_to(op, op.Mul(framed, weights) if weights is not None else framed, flat)
        index = spread(op, op.Reshape(place, np.array([1, -1, 1])), flat)
        return scatter_add(op, sizes(op, signal), index, values, 1)

    def to_window() -> ir.Value:
        taken = op.Gather(signal, place, axis=1)  # [batch, frames, length, parts]
        return reshape_like(op, op.ReduceSum(op.Mul(framed, taken), [0, 1, 3], keepdims=0), node.inputs[2])

    return {0: to_signal, 2: to_window}


def _frame_length(op: Builder, node: Node) -> Size:
    given, window = node.constant(3, "frame_length"), node.input(2)
    if given is not None:
        return int(given.item())
    if window is None:
        raise UnsupportedOperator("it has neither window nor frame_length")
    return sizes(op, window)[0]


def _identity(op: Builder, like: ir.Value, size: Size, parts: Size) -> ir.Value:
    """[size * parts, size, parts]: for each element a signal that is one there."""
    rows = product(op, [size, parts])
    zero = np.zeros((1, 1), (like.dtype or ir.DataType.FLOAT).numpy())
    return reshape_to(op, op.EyeLike(spread(op, zero, [rows, rows])), [rows, size, parts])


@rule("MelWeightMatrix")
def mel_weight_matrix(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """The edges of its triangles are rounded to whole bins, so it does not change where they move a little."""
    return {3: ZERO, 4: ZERO}
