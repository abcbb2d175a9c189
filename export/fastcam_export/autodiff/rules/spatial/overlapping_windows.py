"""The gradient of a MaxPool whose windows overlap, or leave elements out, by operators that keep maps in blocks.

A MaxPool that says where its maxima lie is a plain loop in ONNX Runtime, and what it says is put into place by a
scatter: together they took longer than GoogLeNet's forward pass. Here the maxima are looked for along rows first, then
along the column of what rows have: the first maximum in scan order is the first in the first row that has it. So the
gradient is shared out among rows, and then within each row. Along one axis the taps of a window take it one after the
other: a tap that is not below the maximum takes what is left, the last tap takes the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

import onnx_ir as ir

from fastcam_export.autodiff.core.blocked import picked
from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.core.residues import Parts, elements, remember
from fastcam_export.autodiff.core.shapes import adopt_dims
from fastcam_export.autodiff.rules.activation import STEEP
from fastcam_export.autodiff.rules.spatial.sliding_window import Window


def highest(op: Builder, negative: ir.Value, peaks: ir.Value) -> ir.Value:
    """One where an element is not below the maximum of its window, else zero; ``negative`` is the elements times -1."""
    return op.HardSigmoid(op.Add(negative, peaks), alpha=-STEEP, beta=1.0)


@dataclass(frozen=True)
class Line:
    """Windows along one axis: tap t of window o meets the element stride o + t - pad, of ``size`` elements."""

    axis: int
    kernel: int
    stride: int
    pad: int
    size: int
    count: int

    @property
    def offsets(self) -> range:
        """Those of the parts of the gradient, see :class:`Parts`."""
        return range(self.stride - 1, -1, -1)

    @property
    def elements(self) -> int:
        """Elements of each part."""
        return elements(self.size, self.stride)

    def taps(self, op: Builder, x: ir.Value, peaks: ir.Value, dy: ir.Value) -> list[ir.Value]:
        """What each tap takes of ``dy``, the gradient of ``peaks``; all in the shape of ``dy``."""
        taken: list[ir.Value] = []
        for tap in range(self.kernel - 1):
            negative = picked(op, x, self.axis, tap - self.pad, self.stride, self.count, -1.0)
            own = self._inside(op, tap, op.Mul(highest(op, negative, peaks), dy))
            dy = op.Add(picked(op, own, self.axis, 0, 1, self.count, -1.0), dy)
            taken.append(own)
        return [*taken, dy]

    def _inside(self, op: Builder, tap: int, taken: ir.Value) -> ir.Value:
        """Without what a tap takes in the padding, whose zeros may be above all of a window."""
        first = max(-((tap - self.pad) // self.stride), 0)
        last = min((self.size - 1 + self.pad - tap) // self.stride, self.count - 1)
        some = picked(op, taken, self.axis, first, 1, last - first + 1)
        return picked(op, some, self.axis, -first, 1, self.count)

    def part(self, op: Builder, offset: int, taken: list[ir.Value]) -> ir.Value:
        """The part of the gradient at this offset: the sum of what is taken there."""
        shifts = [(tap - self.pad + offset) // self.stride for tap in range(self.kernel)]
        meeting = [tap for tap in range(self.kernel) if (tap - self.pad + offset) % self.stride == 0]
        terms = [picked(op, taken[tap], self.axis, -shifts[tap], 1, self.elements) for tap in meeting]
        return reduce(op.Add, terms)

    def elements_of(self, op: Builder, x: ir.Value, offset: int) -> ir.Value:
        """The part of ``x`` at this offset."""
        return picked(op, x, self.axis, -offset, self.stride, self.elements)


def pays(view: Window, counts: Sequence[int | str | None]) -> bool:
    """Whether this is faster than a scatter: not for a few large windows, nor for such as hardly overlap."""
    few = any(isinstance(count, int) and count < kernel for count, kernel in zip(counts, view.kernel))
    return view.strides in ([1, 1], [2, 2]) and min(view.kernel) >= view.strides[0] and not few


def spread(op: Builder, view: Window) -> Callable[[ir.Value], ir.Value]:
    """The function from the gradient of y to that of x; sizes are known, and both axes have one stride."""
    assert view.pads is not None
    sizes, counts = ([d for d in op.dims(value)[2:] if isinstance(d, int)] for value in (view.x, view.y))
    rows, columns = map(Line, (2, 3), view.kernel, view.strides, view.pads[0], sizes, counts)
    x, stride = view.x, rows.stride

    end = max(stride * (columns.count - 1) + columns.kernel - columns.pad - columns.size, 0)
    window = {"kernel_shape": [1, columns.kernel], "strides": [1, stride], "pads": [0, columns.pad, 0, end]}
    peaks = adopt_dims(op, op.MaxPool(x, **window), (*op.dims(x)[:3], columns.count))

    def parts(dy: ir.Value) -> list[ir.Value]:
        made, taken = [], rows.taps(op, peaks, view.y, dy)
        for offset in rows.offsets:
            own, its_peaks = rows.elements_of(op, x, offset), rows.elements_of(op, peaks, offset)
            within = columns.taps(op, own, its_peaks, rows.part(op, offset, taken))
            made += [columns.part(op, each, within) for each in columns.offsets]
        return made

    def dx(dy: ir.Value) -> ir.Value:
        if stride == 1:
            return parts(dy)[0]
        made = parts(dy)
        several = Parts(stride, (sizes[0], sizes[1]), lambda: made)
        return remember(op, several.whole(op), several)

    return dx
