"""The pooled gradient: Grad-CAM reads the gradient only through its spatial sum, so only that sum is computed.

S(v) is the gradient of a feature map v [N, K, ...] summed over all its positions, [N, K]. It obeys identities that the
gradient itself does not: S goes through a MaxPool unchanged (each window's gradient lands on exactly one cell: no mask,
no ties), through a mean over all positions as the mean's own gradient, through an unpadded convolution as a product
with the kernels' sums, and through Flatten and Gemm as (S W)^T g with S W a constant. A rule here states one identity
and when it holds; where none does, S is the sum of the full gradient, and the two are equal, which tests assert.
Of half precision gradients S is float32, so that it neither overflows nor loses what it sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.core.codes import masked
from fastcam_export.autodiff.core.rule import Node
from fastcam_export.autodiff.core.shapes import cast_like, product, reshape_to, sizes, wide
from fastcam_export.autodiff.reverse import backward, path
from fastcam_export.autodiff.rules import quantization
from fastcam_export.graph.constants import constant_array
from fastcam_export.graph.query import consumers, in_default_domain

STORED = 32
"""How many weights must be summed into one for the sums to be stored: they are then 3 % of the weights, and no session
has to make a second copy of these while it starts."""


@dataclass(frozen=True)
class Identity:
    """How S of a node's input follows from its output.

    Attributes:
        contribution: emits S of the input from S of the output, [N, channels], or from the output's full gradient.
        full: whether it takes the full gradient, of a fully connected layer's output.
        channels: of the output, where S of it is taken.
    """

    contribution: Callable[[ir.Value], ir.Value]
    full: bool = False
    channels: int = 0


Rule = Callable[[Builder, Node, int, int], "Identity | None"]
"""(op, node, input index, channels of that input) -> the identity, or None where it does not hold."""

RULES: dict[str, Rule] = {}


def rule(*op_types: str) -> Callable[[Rule], Rule]:
    """Register a pooled rule; see :data:`Rule`."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(op_types, function))
        return function

    return register


def pooled_gradient(
    op: Builder,
    cotangents: Mapping[ir.Value, ir.Value],
    layer: ir.Value,
    sums: Mapping[ir.Value, ir.Value] | None = None,
) -> ir.Value | None:
    """Append the gradient of ``sum_v <cotangents[v], v>`` with respect to ``layer``, averaged over positions.

    Args:
        op, cotangents: as for :func:`fastcam_export.autodiff.reverse.backward`.
        layer: a feature map [N, K, ...].
        sums: S of those cotangents of which it is known, [N, channels].

    Returns:
        [N, K], float32 where the layer is of half precision; None where the gradient is structurally zero.

    Raises:
        UnsupportedOperator: as :func:`fastcam_export.autodiff.reverse.backward`.
    """
    channels = op.dims(layer)[1]
    plan = _Plan(op, cotangents, layer, sums or {})
    if isinstance(channels, int):
        plan.visit(layer, channels)
    else:
        plan.direct[layer] = 0
    small = [use.output for uses in plan.uses.values() for use in uses if use.how.full]
    gradients = backward(op, cotangents, list(dict.fromkeys([*plan.direct, *small])))
    total = _total(op, plan, gradients, layer)
    if total is None:
        return None
    positions = product(op, sizes(op, layer)[2:])
    if isinstance(positions, int):
        return op.Mul(total, 1 / positions)
    return op.Div(total, cast_like(op, positions, total))


@dataclass(frozen=True)
class _Use:
    """One consumer of a value: the identity, and the output whose S or gradient it takes."""

    how: Identity
    output: ir.Value


@dataclass
class _Plan:
    """For which values S is carried (``uses``), and where it falls back to the full gradient (``direct``: channels)."""

    op: Builder
    cotangents: Mapping[ir.Value, ir.Value]
    layer: ir.Value
    sums: Mapping[ir.Value, ir.Value]
    uses: dict[ir.Value, list[_Use]] = field(default_factory=dict)
    direct: dict[ir.Value, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.consumers = consumers(path(self.op.graph, [self.layer], self.cotangents))

    def visit(self, value: ir.Value, channels: int) -> None:
        """Decide how S of ``value`` is computed."""
        if value in self.uses or value in self.direct:
            return
        uses: list[_Use] = []
        for node, index in self.consumers.get(value, []):
            how = self._identity(node, index, channels)
            if how is None:
                break
            uses.append(_Use(how, node.outputs[0]))
        else:
            if value not in self.cotangents or value in self.sums:
                self.uses[value] = uses
                for use in uses:
                    if not use.how.full:
                        self.visit(use.output, use.how.channels)
                return
        self.direct[value] = channels

    def _identity(self, node: ir.Node, index: int, channels: int) -> Identity | None:
        found = RULES.get(node.op_type) if in_default_domain(node) else None
        if index < 0 or found is None or any(output.uses() for output in node.outputs[1:]):
            return None
        return found(self.op, Node(node, ()), index, channels)


def _total(op: Builder, plan: _Plan, gradients: Mapping[ir.Value, ir.Value | None], value: ir.Value) -> ir.Value | None:
    """S of ``value``, [N, channels]."""
    if value in plan.direct:
        gradient = gradients[value]
        return None if gradient is None else spatial_sum(op, gradient, value, plan.direct[value])
    terms = [plan.sums[value]] if value in plan.sums else []
    for use in plan.uses[value]:
        below = gradients[use.output] if use.how.full else _total(op, plan, gradients, use.output)
        if below is not None:
            terms.append(use.how.contribution(below))
    if not terms:
        return None
    total = terms[0]
    for term in terms[1:]:
        total = op.Add(total, term)
    return total


def spatial_sum(op: Builder, gradient: ir.Value, value: ir.Value, channels: int) -> ir.Value:
    """S of ``value`` from its gradient: float32 [N, channels] where it is of half precision."""
    dims, gradient = op.dims(value), wide(op, gradient)
    if len(dims) == 2:
        if dims[1] == channels:
            return gradient
        assert isinstance(dims[1], int)  # flattened: each channel's positions lie side by side
        gradient = reshape_to(op, gradient, [sizes(op, value)[0], channels, dims[1] // channels])
        return op.ReduceSum(gradient, [2], keepdims=0)
    if all(d == 1 for d in dims[2:]):
        return reshape_to(op, gradient, sizes(op, value)[:2])
    return op.ReduceSum(gradient, list(range(2, len(dims))), keepdims=0)


# ---- the identities


@rule("Identity", "Dropout")
def same(op: Builder, node: Node, index: int, channels: int) -> Identity | None:
    """S(x) = S(y)"""
    return Identity(lambda s: s, channels=channels)


@rule("QuantizeLinear")
def quantize_linear(op: Builder, node: Node, index: int, channels: int) -> Identity | None:
    """Straight through: S(x) = S(y) where no value can saturate, or, of a single position, where it did not"""
    mask = quantization.inside(op, node)
    if mask is None:
        return Identity(lambda s: s, channels=channels)
    if op.dims(node.x)[1:] != (channels,) + (1,) * (op.rank(node.x) - 2):
        return None
    flat = op.Reshape(mask, [-1, channels])
    flat.shape = ir.Shape(op.dims(node.x)[:2])
    return Identity(lambda s: masked(op, flat, s), channels=channels)


@rule("DequantizeLinear")
def dequantize_linear(op: Builder, node: Node, index: int, channels: int) -> Identity | None:
    """S of the numbers that x stands for is S(y)"""
    return Identity(lambda s: quantization.decoded(op, node, s), channels=channels) if index == 0 else None


@rule("Add", "Sum")
def add(op: Builder, node: Node, index: int, channels: int) -> Identity | None:
    """y = a + b: S(a) = S(y), where a is not broadcast"""
    value = node.input(index)
    if value is None or op.dims(value) != op.dims(node.y) or None in op.dims(value):
        return None
    return Identity(lambda s: s, channels=channels)


@rule("MaxPool")
def max_pool(op: Builder, node: Node, index: int, channels: int) -> Identity | None:
    """S(x) = S(y): the gradient of each window lands on exactly one cell, wherever that is"""
    return Identity(lambda s: s, channels=channels)


@rule("AveragePool")
def average_pool(op: Builder, node: Node, index: int, channels: int) -> Identity | None:
    """S(x) = S(y) where no part of a window's gradient is lost to padding that counts"""
    padded = any(node.integers("pads")) or node.string("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    if node.integer("count_include_pad", 0) and (padded or node.integer("ceil_mode", 0)):
        return None
    return Identity(lambda s: s, channels=channels)


@rule("GlobalAveragePool", "GlobalMaxPool")
def global_pool(op: Builder, node: Node, index: int, channels: int) -> Identity | None:
    """S(x) = S(y): the mean's gradient is dy / n at n positions, the maximum's is dy at one"""
    return Identity(lambda s: s, channels=channels)


@rule("ReduceMean", "ReduceMax", "ReduceMin")
def reduce_positions(op: Builder, node: Node, index: int, channels: int) -> Identity | None:
    """As the global pools, where exactly the positions are reduced"""
    axes, rank = node.input(1), op.rank(node.x)
    known = node.constant(1, "axes") if axes is not None else None
    if known is None or rank < 3 or sorted(int(axis) % rank for axis in known.reshape(-1)) != list(range(2, rank)):
        return None
    return Identity(lambda s: s, channels=channels)


@rule("BatchNormalization")
def batch_normalization(op: Builder, node: Node, index: int, channels: int) -> Identity | None:
    """S(x) = S(y) scale / sqrt(var + eps)"""
    _, scale, _, _, variance = node.inputs

    def contribution(s: ir.Value) -> ir.Value:
        factor = op.Div(wide(op, scale), op.Sqrt(op.Add(wide(op, variance), node.number("epsilon", 1e-5))))
        return op.Mul(s, cast_like(op, factor, s))

    return Identity(contribution, channels=channels)


@rule("Concat")
def concat(op: Builder, node: Node, index: int, channels: int) -> Identity | None:
    """Along the channels: S(x) is a slice of S(y)"""
    counts = [op.dims(value)[1] if op.rank(value) > 1 else None for value in node.inputs]
    if node.integer("axis") % op.rank(node.y) != 1 or not all(isinstance(count, int) for count in counts):
        return None
    if op.rank(node.y) == 2 and counts[index] != channels:
        return None
    start = sum(count for count in counts[:index] if isinstance(count, int))
    everything = sum(count for count in counts if isinstance(count, int))
    return Identity(lambda s: op.Slice(s, [start], [start + channels], [1]), channels=everything)


@rule("Conv")
def conv(op: Builder, node: Node, index: int, channels: int) -> Identity | None:
    """Without padding every tap of a window is a cell of x: S(x) = S(y) W', where W' sums the kernels' taps"""
    w = node.inputs[1]
    dims = op.dims(w)
    padded = any(node.integers("pads")) or node.string("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    if index != 0 or padded or node.integer("group", 1) != 1 or not all(isinstance(d, int) for d in dims):
        return None
    outputs, taps = dims[0], [d for d in dims[2:] if isinstance(d, int)]
    assert isinstance(outputs, int)

    def contribution(s: ir.Value) -> ir.Value:
        if math.prod(taps) == 1:
            return op.MatMul(s, op.Reshape(wide(op, w), [outputs, channels]))
        return op.MatMul(s, op.ReduceSum(wide(op, w), list(range(2, len(dims))), keepdims=0))

    return Identity(contribution, channels=outputs)


@rule("Flatten", "Reshape")
def flatten(op: Builder, node: Node, index: int, channels: int) -> Identity | None:
    """[N, K, h, w] as [N, K h w]: the channels stay together, so S is the same"""
    before, after = op.dims(node.x), op.dims(node.y)
    positions = before[1:]
    if index != 0 or len(before) < 3 or len(after) != 2 or not all(isinstance(d, int) for d in positions):
        return None
    if after[1] != math.prod(d for d in positions if isinstance(d, int)):
        return None
    return Identity(lambda s: s, channels=channels)


@rule("Gemm", "MatMul")
def gemm(op: Builder, node: Node, index: int, channels: int) -> Identity | None:
    """y = x W of a flattened map: S(x) = dy (S W)^T, where S W sums the rows of W that belong to one channel"""
    if index != 0 or node.integer("transA", 0) or op.rank(node.x) != 2 or op.rank(node.inputs[1]) != 2:
        return None
    w, transposed = node.inputs[1], node.integer("transB", 0)
    dims = op.dims(w)
    features, outputs = (dims[1], dims[0]) if transposed else (dims[0], dims[1])
    if not isinstance(features, int) or not isinstance(outputs, int) or features % channels:
        return None
    area = features // channels
    alpha = node.number("alpha", 1.0)

    def contribution(dy: ir.Value) -> ir.Value:
        rows = w
        if area > 1:
            dy = wide(op, dy)
            shape, axis = ([outputs, channels, area], 2) if transposed else ([channels, area, outputs], 1)
            known = constant_array(w) if area >= STORED else None
            if known is not None:
                summed = known.reshape(shape).sum(axis, dtype=np.float64)
                rows = op.constant(summed.astype(dy.dtype.numpy()))  # type: ignore[union-attr]
            else:
                rows = op.ReduceSum(op.Reshape(wide(op, w), shape), [axis], keepdims=0)
        s = wide(op, op.MatMul(dy, rows if transposed else op.Transpose(rows, perm=[1, 0])))
        return s if alpha == 1.0 else op.Mul(s, alpha)

    return Identity(contribution, full=True)
