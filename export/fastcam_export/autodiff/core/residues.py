"""Gradients in parts: the elements of a map [N, C, H, W] whose positions leave the same remainder by a stride.

What a strided convolution sends back differs from one remainder to the next, and each part is a convolution of its own,
in blocks (:mod:`fastcam_export.autodiff.core.blocked`) and without zeros. No operator puts parts side by side in
blocks. But masks, and convolutions of one tap, take each part for itself. So a rule may say of a gradient which parts
it has, and the next one may read these instead; what is then not read is removed from the finished graph.

A part has an offset from 0 to stride - 1 along each axis: its element a is that at position stride a - offset, and
zero where there is none.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import onnx_ir as ir

from fastcam_export.autodiff.core.blocked import scaled, taken
from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.core.shapes import adopt_dims


def elements(size: int, stride: int) -> int:
    """Elements of each part along an axis of ``size``."""
    return (size + stride - 2) // stride + 1


@dataclass(frozen=True)
class Parts:
    """The parts of a map of ``size``, in the order of :meth:`offsets`, made when they are asked for."""

    stride: int
    size: tuple[int, int]
    make: Callable[[], list[ir.Value]]

    @property
    def count(self) -> list[int]:
        """Elements of each part, along each axis."""
        return [elements(size, self.stride) for size in self.size]

    @property
    def offsets(self) -> list[tuple[int, ...]]:
        """Offsets in the order of positions."""
        return list(itertools.product(range(self.stride - 1, -1, -1), repeat=2))

    def taken(self, op: Builder, x: ir.Value, factor: float) -> list[ir.Value]:
        """The parts of another map of this size, times a number."""
        made = []
        for offset in self.offsets:
            last = [self.stride * (count - 1) for count in self.count]
            end = [max(0, at - begin + 1 - size) for at, begin, size in zip(last, offset, self.size)]
            made.append(taken(op, x, factor, self.stride, [*offset, *end], self.count))
        return made

    def whole(self, op: Builder) -> ir.Value:
        """[N, C, *size] of the parts. Two Concats take half of the time of ONNX Runtime's DepthToSpace."""
        made, stride, (height, width) = self.make(), self.stride, self.count
        n, channels = op.dims(made[0])[:2]
        columns = [op.Reshape(part, [0, channels, height, width, 1]) for part in made]
        rows = [op.Concat(*columns[at : at + stride], axis=4) for at in range(0, stride**2, stride)]
        lines = op.Concat(*[op.Reshape(row, [0, channels, height, 1, stride * width]) for row in rows], axis=3)
        image, begin = op.Reshape(lines, [0, channels, stride * height, stride * width]), stride - 1
        cut = op.Slice(image, [begin, begin], [begin + size for size in self.size], [2, 3])
        return adopt_dims(op, cut, (n, channels, *self.size))


def remember(op: Builder, value: ir.Value, parts: Parts) -> ir.Value:
    """``value``, which has these parts."""
    op.notes[value] = parts
    return value


def parts_of(op: Builder, value: ir.Value) -> Parts | None:
    """The parts of a value, where they are known."""
    parts = op.notes.get(value)
    return parts if isinstance(parts, Parts) else None


@dataclass(frozen=True)
class Unpooled:
    """A gradient of ``x`` that ``spread`` makes of ``dy``, that of its pooled maxima ``y``: each goes to one x = y.

    Where windows overlap, several may go to the same.
    """

    x: ir.Value
    y: ir.Value
    dy: ir.Value
    spread: Callable[[ir.Value], ir.Value]
    overlap: bool = False


def masked(op: Builder, dy: ir.Value, y: ir.Value, factor: float, mask: Callable[[ir.Value], ir.Value]) -> ir.Value:
    """``dy`` times the mask of ``factor`` times ``y``, in the form that costs least where more is known of ``dy``."""

    def of(y: ir.Value) -> ir.Value:
        return mask(y if factor == 1 else scaled(op, y, factor))

    note = op.notes.get(dy)
    if isinstance(note, Unpooled) and note.x is y:
        return note.spread(op.Mul(note.dy, of(note.y)))
    dx, parts = op.Mul(dy, of(y)), parts_of(op, dy)
    if parts is None:
        return dx

    def make() -> list[ir.Value]:
        return [op.Mul(each, mask(own)) for each, own in zip(parts.make(), parts.taken(op, y, factor))]

    return remember(op, dx, Parts(parts.stride, parts.size, make))


def rectified(op: Builder, dy: ir.Value) -> ir.Value:
    """max(dy, 0), of which is known what is known of ``dy``."""
    dx, note = op.Relu(dy), op.notes.get(dy)
    if isinstance(note, Parts):
        make = note.make
        return remember(op, dx, replace(note, make=lambda: [op.Relu(part) for part in make()]))
    if isinstance(note, Unpooled) and not note.overlap:
        op.notes[dx] = replace(note, dy=op.Relu(note.dy))
    return dx
