"""Sliding windows as Conv and the pools define them: kernel, strides, dilations and padding in one form."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.core.errors import UnsupportedOperator
from fastcam_export.autodiff.core.rule import Node
from fastcam_export.autodiff.core.shapes import adopt_dims, crop


@dataclass(frozen=True)
class Window:
    """Window o covers the input positions ``o * stride + k * dilation - begin`` for k in range(kernel), per axis.

    ``pads`` is (begin, end) as numbers, or None where padding depends on a size that is only known at run time
    (``auto_pad`` of an image of free size). ``added`` positions behind the last window then count as padding too.
    """

    x: ir.Value
    y: ir.Value
    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    pads: tuple[list[int], list[int]] | None
    lower: bool
    added: Sequence[int] = (0,)

    @property
    def extent(self) -> list[int]:
        """Positions that one window spans."""
        return [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations)]

    def begin(self, op: Builder) -> ir.Value:
        """int64 [axes]: padding before the input."""
        if self.pads is not None:
            return op.constant(np.array(self.pads[0], np.int64))
        total = op.Max(op.Sub(op.Add(self.span(op), np.array(self.added)), op.shape(self.x, 2)), 0)
        return op.Div(op.Add(total, 1) if self.lower else total, 2)

    def span(self, op: Builder) -> ir.Value:
        """int64 [axes]: positions from the first window's first to the last window's last."""
        return op.Add(op.Mul(op.Sub(op.shape(self.y, 2), 1), self.strides), self.extent)

    def end(self, op: Builder) -> ir.Value:
        """int64 [axes]: padding after the input that the windows reach; negative where they leave some of it out."""
        return op.Sub(op.Sub(self.span(op), op.shape(self.x, 2)), self.begin(op))

    def taps(self, op: Builder, image: ir.Value, fill: float) -> list[ir.Value]:
        """For each element of the kernel the elements of ``image``, in the shape of x, that it meets in the windows."""
        axes = list(range(2, op.rank(image)))
        padded = crop(op, image, axes, self.begin(op), self.end(op), fill=fill)
        stop = op.Sub(self.span(op), np.array(self.extent) - 1)
        offsets = [np.array(taps) * self.dilations for taps in itertools.product(*map(range, self.kernel))]
        taps = [op.Slice(padded, at, op.Add(stop, at), axes, self.strides) for at in offsets]
        return [adopt_dims(op, tap, (*op.dims(image)[:2], *op.dims(self.y)[2:])) for tap in taps]


def window(op: Builder, node: Node, kernel: Sequence[int]) -> Window:
    """Read the window of a Conv or pooling node with ``auto_pad`` resolved to numbers where sizes are known."""
    axes = len(kernel)
    strides, dilations = node.integers("strides") or [1] * axes, node.integers("dilations") or [1] * axes
    auto_pad = node.string("auto_pad", "NOTSET")
    lower = auto_pad == "SAME_LOWER"
    pads: tuple[list[int], list[int]] | None
    if auto_pad == "VALID":
        pads = [0] * axes, [0] * axes
    elif auto_pad == "NOTSET":
        both = node.integers("pads") or [0] * 2 * axes
        pads = both[:axes], both[axes:]
    else:
        pads = _same(op, node, kernel, strides, dilations, lower)
    if node.integer("ceil_mode", 0) and pads is not None:
        _refuse_empty_windows(op, node, strides, pads[0])
    return Window(node.x, node.y, list(kernel), strides, dilations, pads, lower)


def transposed_window(op: Builder, node: Node, kernel: Sequence[int]) -> Window:
    """The window of the convolution that a ConvTranspose node is the transpose of: from its y to its x."""
    one, both = [1] * len(kernel), node.integers("pads") or [0] * 2 * len(kernel)
    auto_pad = node.string("auto_pad", "NOTSET")
    pads: tuple[list[int], list[int]] | None = both[: len(kernel)], both[len(kernel) :]
    if auto_pad == "VALID":
        pads = [0] * len(kernel), [0] * len(kernel)
    if auto_pad.startswith("SAME") or node.integers("output_shape"):
        pads = None  # as many as the size of y leaves
    strides, dilations = node.integers("strides") or one, node.integers("dilations") or one
    added = node.integers("output_padding") or [0] * len(kernel)
    return Window(node.y, node.x, list(kernel), strides, dilations, pads, auto_pad != "SAME_UPPER", added)


def _same(
    op: Builder, node: Node, kernel: Sequence[int], strides: list[int], dilations: list[int], lower: bool
) -> tuple[list[int], list[int]] | None:
    begin, end = [], []
    for size, k, s, d in zip(op.dims(node.x)[2:], kernel, strides, dilations):
        if isinstance(size, int):
            total = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
        elif s == 1:
            total = (k - 1) * d
        else:
            return None
        small, large = total // 2, total - total // 2
        begin.append(large if lower else small)
        end.append(small if lower else large)
    return begin, end


def _refuse_empty_windows(op: Builder, node: Node, strides: list[int], begin: list[int]) -> None:
    """A last window that starts behind the image does not exist, but ONNX's shape inference counts it."""
    for size, count, stride, before in zip(op.dims(node.x)[2:], op.dims(node.y)[2:], strides, begin):
        if isinstance(size, int) and isinstance(count, int) and (count - 1) * stride >= size + before:
            raise UnsupportedOperator("the shape that ONNX infers for it counts a window behind the image (ceil_mode)")
