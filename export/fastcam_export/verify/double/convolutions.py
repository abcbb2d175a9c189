"""Convolutions said with products and sums, tap by tap, for which the runtime has float64 kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from fastcam_export.graph.weights import array as content
from fastcam_export.verify.double.emitter import Emitter

Array = npt.NDArray[Any]


def without_convolutions(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every Conv and ConvTranspose said so; one whose kernel is computed stays."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    kernels = {node.input[1] for node in model.graph.node if node.op_type in KINDS}
    weights = {t.name: content(t) for t in model.graph.initializer if t.name in kernels}
    del made.graph.node[:]
    for node in model.graph.node:
        kernel = weights.get(node.input[1]) if node.op_type in KINDS else None
        taps = KINDS[node.op_type](made.graph, node, kernel) if kernel is not None else None
        if taps is None or not taps.known:
            made.graph.node.append(node)
        else:
            taps.append()
    return made


class _Taps(Emitter):
    """y = b + sum over taps t of W_t x_t, where x_t is what tap t of every window of a Conv sees of the padded x."""

    def __init__(self, graph: onnx.GraphProto, node: onnx.NodeProto, kernel: Array) -> None:
        super().__init__(graph, node)
        self.kernel, self.rank = kernel, kernel.ndim - 2
        self.groups = self.given.get("group", 1)
        self.strides = self.given.get("strides") or [1] * self.rank
        self.dilations = self.given.get("dilations") or [1] * self.rank
        self.pads, self.auto = self.given.get("pads") or [0] * 2 * self.rank, self.given.get("auto_pad", b"NOTSET")

    @property
    def known(self) -> bool:
        """Whether this form of the node can be said so."""
        return True

    def append(self) -> None:
        """Append the nodes to the graph."""
        terms = self.terms()
        if len(self.node.input) > 2 and self.node.input[2]:
            terms.append(self.emit("Reshape", self.node.input[2], [1, -1, *[1] * self.rank]))
        self.give(self.emit("Sum", *terms))
        self.graph.node.extend(self.into)

    def terms(self) -> list[str]:
        """What each tap adds."""
        x, axes, steps = self.padded(), np.arange(2, 2 + self.rank), self.constant(list(self.strides))
        most, made = np.iinfo(np.int64).max, []
        for tap in np.ndindex(*self.kernel.shape[2:]):
            begin = [t * d for t, d in zip(tap, self.dilations)]
            end = [(t + 1 - k) * d or most for t, k, d in zip(tap, self.kernel.shape[2:], self.dilations)]
            made.append(self.product(self.kernel[(..., *tap)], self.emit("Slice", x, begin, end, axes, steps)))
        return made

    def product(self, matrix: Array, seen: str) -> str:
        """A tap's [outputs, inputs of a group] weights times what it sees."""
        if self.groups > 1 and matrix.shape == (self.groups, 1):
            return self.emit("Mul", seen, matrix.reshape(1, -1, *[1] * self.rank))
        return self.mixed(_block_diagonal(matrix, self.groups), seen)

    def mixed(self, matrix: Array, seen: str) -> str:
        """[outputs, inputs] times channels."""
        letters = "hwd"[: self.rank]
        return self.emit("Einsum", matrix, seen, equation=f"mc,nc{letters}->nm{letters}")

    def padded(self) -> str:
        """The padded x."""
        x: str = self.node.input[0]
        if self.auto.startswith(b"SAME"):
            return self.emit("Pad", x, self.same())
        if not any(self.pads) or self.auto == b"VALID":
            return x
        begins, ends = self.pads[: self.rank], self.pads[self.rank :]
        return self.emit("Pad", x, [0, 0, *begins, 0, 0, *ends])

    def same(self) -> str:
        """Pads for as many windows as strides fit; of an odd number the end, or for SAME_LOWER the begin, has more."""
        reach = [(k - 1) * d + 1 for k, d in zip(self.kernel.shape[2:], self.dilations)]
        size = self.emit("Shape", self.node.input[0], start=2)
        # the last window begins at (ceil(size / stride) - 1) * stride = (size - 1) // stride * stride
        start = self.emit("Mul", self.emit("Div", self.emit("Sub", size, [1]), list(self.strides)), list(self.strides))
        total = self.emit("Max", self.emit("Sub", self.emit("Add", start, reach), size), [0])
        less = self.emit("Div", total, [2])
        more = self.emit("Sub", total, less)
        begin, end = (less, more) if self.auto == b"SAME_UPPER" else (more, less)
        return self.emit("Concat", [0, 0], begin, [0, 0], end, axis=0)


class _TransposedTaps(_Taps):
    """y = b + sum over taps t of W_t x, each put where tap t lies: with zeros between its elements, and moved."""

    @property
    def known(self) -> bool:
        """Whether pads say where it lies."""
        return self.auto in (b"NOTSET", b"VALID") and "output_shape" not in self.given

    def terms(self) -> list[str]:
        """What each tap adds."""
        made = []
        further = self.given.get("output_padding") or [0] * self.rank
        for tap in np.ndindex(*self.kernel.shape[2:]):
            matrix = _block_diagonal(self.kernel[(..., *tap)], self.groups).T
            x = self.spread(self.mixed(matrix, self.node.input[0]))
            begins = [t * d - p for t, d, p in zip(tap, self.dilations, self.pads)]
            # the output has (size - 1) stride + (k - 1) dilation + 1 + further - pads elements, x size * stride
            sizes = zip(self.kernel.shape[2:], self.dilations, self.strides, further, self.pads, self.pads[self.rank :])
            whole = [(k - 1) * d + 1 - s + more - p - q for k, d, s, more, p, q in sizes]
            ends = [total - begin for total, begin in zip(whole, begins)]
            made.append(self.emit("Pad", x, [0, 0, *begins, 0, 0, *ends]))
        return made

    def spread(self, x: str) -> str:
        """Each element at the begin of ``stride`` places, the others zero."""
        if all(stride == 1 for stride in self.strides):
            return x
        size = self.emit("Shape", x)
        larger = self.emit("Mul", size, [1, 1, *self.strides])
        apart = self.emit("Unsqueeze", x, [3 + 2 * axis for axis in range(self.rank)])
        zeros = [0, 0, *(n for stride in self.strides for n in (0, stride - 1))]
        return self.emit("Reshape", self.emit("Pad", apart, [0] * len(zeros) + zeros), larger)


def _block_diagonal(matrix: Array, groups: int) -> Array:
    """[outputs, inputs] of [outputs, inputs of a group], or its transpose's: zeros between the groups."""
    if groups == 1:
        return matrix
    rows, columns = matrix.shape[0] // groups, matrix.shape[1]
    made = np.zeros((matrix.shape[0], columns * groups), matrix.dtype)
    for group in range(groups):
        at = slice(group * rows, (group + 1) * rows)
        made[at, group * columns : (group + 1) * columns] = matrix[at]
    return made


KINDS: dict[str, type[_Taps]] = {"Conv": _Taps, "ConvTranspose": _TransposedTaps}
