"""Operators that lay columns or maxima out over a larger picture: their gradient takes them from there again."""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir

from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.core.rule import Gradients, Node, rule
from fastcam_export.autodiff.core.shapes import crop, reshape_like


@rule("MaxUnpool", ignores=[1, 2])
def max_unpool(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx is the element of dy at each index, which counts through the whole of y"""
    return {0: op.Gather(op.Reshape(dy, [-1]), node.inputs[1], axis=0)}


@rule("Col2Im", ignores=[1, 2])
def col2im(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx holds the elements of dy that each window covers, side by side"""
    block = node.constant(2, "block_shape")
    assert block is not None
    axes = len(block)
    dilations, strides = node.integers("dilations") or [1] * axes, node.integers("strides") or [1] * axes
    pads = node.integers("pads") or [0] * 2 * axes
    begin, end = (op.constant(np.array(each, np.int64)) for each in (pads[:axes], pads[axes:]))
    where = list(range(2, 2 + axes))
    padded = crop(op, dy, where, begin, end)
    extent = (block - 1) * dilations
    stop = op.Sub(op.Add(op.Add(op.shape(node.y, 2), begin), end), extent)
    taps = []
    for tap in itertools.product(*map(range, block.tolist())):
        at = np.array(tap, np.int64) * dilations
        taps.append(op.Unsqueeze(op.Slice(padded, at, op.Add(stop, at), where, strides), [2]))
    return {0: reshape_like(op, op.Concat(*taps, axis=2), node.x)}
