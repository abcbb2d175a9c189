"""Which operators work along an axis place by place, and where that axis lies in what they read.

An operator that treats the places of an axis alike and each by itself commutes with taking a slice there, and, if it is
linear, with summing over them. This is what a class's channel, the class token and the sum over positions have in
common.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from fastcam_export.autodiff.core.builder import Builder, same_dim
from fastcam_export.graph.constants import Array, constant_array
from fastcam_export.graph.query import VIEWS, Dim, in_default_domain, input_at
from fastcam_export.graph.symbolic_dims import Known, Product, from_dim, times

WHOLE = -1
"""In place of an axis: the input has none, each place of the output reads all of it."""

Along = dict[int, int]
"""Axis of the output -> axis of the input, or WHOLE; an axis that is missing is mixed with others."""

ELEMENTWISE = frozenset(
    {
        *("Abs", "Add", "Cast", "Celu", "Clip", "Div", "Dropout", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid"),
        *("HardSwish", "Identity", "LeakyRelu", "Log", "Mish", "Mul", "Neg", "Pow", "Reciprocal", "Relu", "Selu"),
        *("Sigmoid", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Swish", "Tanh", "ThresholdedRelu"),
    }
)
REDUCTIONS = frozenset({"ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"})
POOLS = frozenset({"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"})


def along(op: Builder, node: ir.Node, index: int) -> Along:
    """How the axes of a node's first output lie in its input ``index``; empty where nothing is known."""
    rule = _RULES.get(node.op_type) if in_default_domain(node) else None
    values = [value for value in (*node.inputs, node.outputs[0]) if value is not None]
    if rule is None or node.inputs[index] is None or any(value.shape is None for value in values):
        return {}
    return rule(op, node, index)


Group = tuple[list[int], list[int]]


def groups(before: Sequence[Dim], after: Sequence[Dim]) -> list[Group]:
    """Runs of axes of two shapes of as many elements that hold the same elements, as short as is sure to be right.

    They are matched from the front as far as the sizes are known, then from behind; what is left is one run.
    """
    front = _matched(before, after)
    i, j = sum(len(a) for a, _ in front), sum(len(b) for _, b in front)
    back = _matched(list(before[i:])[::-1], list(after[j:])[::-1])
    m, n = len(before) - 1, len(after) - 1
    behind = [([m - a for a in left][::-1], [n - b for b in right][::-1]) for left, right in back][::-1]
    p, q = sum(len(a) for a, _ in behind), sum(len(b) for _, b in behind)
    rest = (list(range(i, m + 1 - p)), list(range(j, n + 1 - q)))
    return [*front, *([rest] if rest[0] or rest[1] else []), *behind]


def _matched(before: Sequence[Dim], after: Sequence[Dim]) -> list[Group]:
    """Runs from the front, until a size is not known."""
    made: list[Group] = []
    shapes, at = (before, after), [0, 0]
    while at != [len(before), len(after)]:
        run: Group = ([], [])
        sizes: list[Known] = [1, 1]
        if at[0] < len(before) and at[1] < len(after) and same_dim(before[at[0]], after[at[1]]):
            run = ([at[0]], [at[1]])
            at = [at[0] + 1, at[1] + 1]
        while not (run[0] or run[1]) or sizes[0] != sizes[1]:
            side = _shorter(sizes) if run[0] or run[1] else int(at[0] == len(before))
            dim = from_dim(shapes[side][at[side]]) if side is not None and at[side] < len(shapes[side]) else None
            if side is None or dim is None or dim == 0:
                return made
            sizes[side] = times(sizes[side], dim)
            run[side].append(at[side])
            at[side] += 1
        made.append(run)
    return made


def _shorter(sizes: Sequence[Known]) -> int | None:
    """Which of two different sizes has to grow, so that they may become equal."""
    parts = [(s.factor, s.names) if isinstance(s, Product) else (s, ()) for s in sizes]
    (first, names), (second, others) = parts
    if names != others:
        return 0 if set(names) < set(others) else 1 if set(others) < set(names) else None
    return int(first > second)


# ---- operators


Rule = Callable[[Builder, ir.Node, int], Along]
_RULES: dict[str, Rule] = {}


def _rule(*op_types: str) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        _RULES.update(dict.fromkeys(op_types, function))
        return function

    return register


def _input(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    assert value is not None
    return value


def _known(node: ir.Node, index: int) -> Array | None:
    return constant_array(input_at(node, index))


def _broadcast(have: Sequence[Dim], want: Sequence[Dim], count: int) -> Along:
    """The first ``count`` axes of ``want``, to which ``have`` broadcasts."""
    made = {}
    for axis in range(count):
        own = axis - (len(want) - len(have))
        if own < 0 or (have[own] == 1 and want[axis] != 1):
            made[axis] = WHOLE
        elif same_dim(have[own], want[axis]):
            made[axis] = own
    return made


@_rule(*ELEMENTWISE)
def _elementwise(op: Builder, node: ir.Node, index: int) -> Along:
    want = op.dims(node.outputs[0])
    if index > 0 and node.op_type in ("Clip", "Dropout"):
        return dict.fromkeys(range(len(want)), WHOLE)
    return _broadcast(op.dims(_input(node, index)), want, len(want))


@_rule("Softmax", "LogSoftmax")
def _softmax(op: Builder, node: ir.Node, index: int) -> Along:
    rank = op.rank(node.outputs[0])
    return {axis: axis for axis in range(rank) if axis != node.attributes.get_int("axis", -1) % rank}


@_rule("LayerNormalization", "RMSNormalization")
def _normalization(op: Builder, node: ir.Node, index: int) -> Along:
    want = op.dims(node.outputs[0])
    count = node.attributes.get_int("axis", -1) % len(want)
    return _broadcast(op.dims(_input(node, index)), want, count)


@_rule("MatMul")
def _matmul(op: Builder, node: ir.Node, index: int) -> Along:
    have, want = op.dims(_input(node, index)), op.dims(node.outputs[0])
    if any(op.rank(_input(node, i)) < 2 for i in (0, 1)):
        return {}
    made = _broadcast(have[:-2], want[:-2], len(want) - 2)
    rows, columns = len(want) - 2, len(want) - 1
    return {**made, rows: len(have) - 2 if index == 0 else WHOLE, columns: WHOLE if index == 0 else len(have) - 1}


@_rule("Gemm")
def _gemm(op: Builder, node: ir.Node, index: int) -> Along:
    if index == 2:
        return _broadcast(op.dims(_input(node, 2)), op.dims(node.outputs[0]), 1)
    if node.attributes.get_int("transA", 0):
        return {}
    return {0: WHOLE if index else 0}


@_rule("Transpose")
def _transpose(op: Builder, node: ir.Node, index: int) -> Along:
    rank = op.rank(_input(node, 0))
    return dict(enumerate(node.attributes.get_ints("perm", ()) or range(rank)[::-1]))


@_rule(*VIEWS)
def _view(op: Builder, node: ir.Node, index: int) -> Along:
    if index:
        return {}
    have, want = op.dims(_input(node, 0)), op.dims(node.outputs[0])
    made: Along = {}
    for left, right in groups(have, want):
        left, right = [a for a in left if have[a] != 1], [b for b in right if want[b] != 1]
        if len(left) == len(right) == 1 and same_dim(have[left[0]], want[right[0]]):
            made[right[0]] = left[0]
    return made


@_rule("Gather")
def _gather(op: Builder, node: ir.Node, index: int) -> Along:
    rank, axis = op.rank(_input(node, 0)), node.attributes.get_int("axis", 0) % op.rank(_input(node, 0))
    width = op.rank(_input(node, 1))
    kept = [a for a in range(rank) if a != axis]
    return {a if a < axis else a - 1 + width: a for a in kept} if index == 0 else {}


@_rule("Slice")
def _slice(op: Builder, node: ir.Node, index: int) -> Along:
    rank, starts, axes = op.rank(_input(node, 0)), _known(node, 1), _known(node, 3)
    if index or starts is None or (axes is None and input_at(node, 3) is not None):
        return {}
    cut = {int(a) % rank for a in (axes if axes is not None else range(len(starts)))}
    return {a: a for a in range(rank) if a not in cut}


@_rule("Pad")
def _pad(op: Builder, node: ir.Node, index: int) -> Along:
    rank, pads, axes = op.rank(_input(node, 0)), _known(node, 1), _known(node, 3)
    if index or pads is None or (axes is None and input_at(node, 3) is not None):
        return {}
    which = [int(a) % rank for a in axes] if axes is not None else list(range(rank))
    padded = {axis for i, axis in enumerate(which) if pads[i] or pads[i + len(which)]}
    return {a: a for a in range(rank) if a not in padded}


@_rule("Concat")
def _concat(op: Builder, node: ir.Node, index: int) -> Along:
    rank = op.rank(node.outputs[0])
    return {a: a for a in range(rank) if a != node.attributes.get_int("axis", 0) % rank}


@_rule(*REDUCTIONS)
def _reduction(op: Builder, node: ir.Node, index: int) -> Along:
    rank, axes = op.rank(_input(node, 0)), _known(node, 1)
    if index or axes is None or axes.size == 0:
        return {}
    reduced = {int(axis) % rank for axis in axes}
    kept = [a for a in range(rank) if a not in reduced]
    return {a: a for a in kept} if node.attributes.get_int("keepdims", 1) else dict(enumerate(kept))


@_rule(*POOLS)
def _pool(op: Builder, node: ir.Node, index: int) -> Along:
    return {0: 0, 1: 1}
