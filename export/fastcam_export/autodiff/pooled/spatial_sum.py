"""The pooled gradient of maps in any layout: the gradient of a network in which every map is the same at all positions.

As long as operators are linear and treat positions alike, the sum S of a gradient over the positions obeys the rules
that the gradient itself obeys, in a network whose maps have one position. So stand-ins of the nodes behind the layer
are swept, of the same operators, whose values have size one along the axes of the positions; where positions are mixed
or an operator is not linear, S is the sum of the full gradient. A mean over all positions fits in as well: its gradient
is dy / n at n positions, so S is dy, which is the gradient of the mean of one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.core.shapes import wide
from fastcam_export.autodiff.pooled.axis_maps import WHOLE, along, groups
from fastcam_export.autodiff.reverse import backward, path, sweep
from fastcam_export.graph.constants import constant_array
from fastcam_export.graph.query import VIEWS, consumers, in_default_domain, input_at

Axes = frozenset[int]
LINEAR = frozenset(
    {"Add", "Concat", "Div", "Gather", "Identity", "MatMul", "Mul", "Neg", "Pad", "Slice", "Sub", "Sum", "Transpose"}
)
FACTORS = frozenset({"Div", "MatMul", "Mul"})
"""Operators that are linear in one operand while the other is the same at all positions."""
MEANS = frozenset({"GlobalAveragePool", "ReduceMean"})


def summed_gradient(
    op: Builder,
    cotangents: Mapping[ir.Value, ir.Value],
    layer: ir.Value,
    positions: Sequence[int],
    part: tuple[int, int] | None = None,
    elsewhere: Mapping[ir.Value, int] | None = None,
) -> ir.Value | None:
    """Append the gradient of ``sum_v <cotangents[v], v>`` with respect to ``layer``, summed over positions.

    Args:
        op, cotangents: as for :func:`fastcam_export.autodiff.reverse.backward`.
        layer: a map in any layout.
        positions: its axes that are summed over.
        part: of a single axis the first place and the number of places that count; None for all.
        elsewhere: those of the cotangents that are zero at all of these places of an axis, and the axis.

    Returns:
        The sum, its axes kept at size one; of half precision in float32; None where it is structurally zero.

    Raises:
        UnsupportedOperator: as :func:`fastcam_export.autodiff.reverse.backward`.
    """
    plan = _Plan(op, path(op.graph, [layer], cotangents), cotangents, part is not None)
    plan.visit(layer, frozenset(positions))
    gradients = {**backward(op, cotangents, plan.direct), **{v: cotangents[v] for v in plan.own}}
    standing = {value: _stand_in(op, value, axes) for value, axes in plan.axes.items()}
    seeds = {}
    for value, gradient in gradients.items():
        zero = elsewhere is not None and value in plan.own and elsewhere.get(value) in plan.axes[value]
        if gradient is not None and not zero:
            seeds[standing[value]] = _sum(op, gradient, sorted(plan.axes[value]), part)
    passed = {value: one for value, one in standing.items() if value not in plan.direct}
    made = [_node(node, passed, standing[node.outputs[0]]) for node in plan.nodes()]
    found = sweep(op, made, seeds, [standing[layer]])[standing[layer]] if seeds else None
    for node in made:
        for index in range(len(node.inputs)):
            node.replace_input_with(index, None)
    return found


@dataclass
class _Plan:
    """For which values S is carried, and the axes of the positions in each.

    ``direct``: where it is the sum of the full gradient; ``own``: where the sum of a cotangent is a part of it.
    """

    op: Builder
    path: Sequence[ir.Node]
    cotangents: Mapping[ir.Value, ir.Value]
    partial: bool
    axes: dict[ir.Value, Axes] = field(default_factory=dict)
    direct: list[ir.Value] = field(default_factory=list)
    own: list[ir.Value] = field(default_factory=list)
    carried: set[ir.Node] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.consumers = consumers(self.path)

    def nodes(self) -> list[ir.Node]:
        """The nodes that S passes through, in their order."""
        return [node for node in self.path if node in self.carried]

    def visit(self, value: ir.Value, axes: Axes) -> None:
        """Decide how S of ``value`` is computed."""
        self.axes[value] = axes
        readers = self.consumers.get(value, [])
        behind = [(node, self._through(node, index, axes)) for node, index in readers]
        clash = any(out is not None and self.axes.get(node.outputs[0], out) != out for node, out in behind)
        half = value.dtype != ir.DataType.FLOAT  # S is float32, the rules keep to the type of the value
        if not axes or half or clash or any(out is None for _, out in behind):
            self.direct.append(value)
            return
        if value in self.cotangents:
            self.own.append(value)
        for node, out in behind:
            self.carried.add(node)
            if out is not None and node.outputs[0] not in self.axes:
                self.visit(node.outputs[0], out)

    def _through(self, node: ir.Node, index: int, axes: Axes) -> Axes | None:
        """Where the positions lie in a node's output, if S passes through it; none left behind a mean."""
        if index < 0 or not in_default_domain(node) or any(output.uses() for output in node.outputs[1:]):
            return None
        if node.op_type in MEANS:
            return frozenset() if not self.partial and self._reduced(node) == axes else None
        if node.op_type in VIEWS:
            return self._regrouped(node, axes) if index == 0 else None
        if node.op_type not in LINEAR or (node.op_type in ("Div", "Gather", "Pad", "Slice") and index > 0):
            return None
        found = {source: out for out, source in along(self.op, node, index).items()}
        if any(axis not in found for axis in axes):
            return None
        outs = frozenset(found[axis] for axis in axes)
        if node.op_type in FACTORS:
            other = along(self.op, node, 1 - index)
            same = len({id(x) for x in node.inputs}) == 2 and all(other.get(out) == WHOLE for out in outs)
            return outs if same else None
        return outs

    def _reduced(self, node: ir.Node) -> Axes | None:
        value = node.inputs[0]
        rank = self.op.rank(value) if value is not None else 0
        if node.op_type == "GlobalAveragePool":
            return frozenset(range(2, rank))
        known = constant_array(input_at(node, 1))
        return frozenset(int(axis) % rank for axis in known.reshape(-1)) if known is not None else None

    def _regrouped(self, node: ir.Node, axes: Axes) -> Axes | None:
        """Of a view: positions may be split and merged among themselves; a part of them has to stay one axis."""
        value, out = node.inputs[0], node.outputs[0]
        if value is None or value.shape is None or out.shape is None:
            return None
        have, want = self.op.dims(value), self.op.dims(out)
        found: set[int] = set()
        for left, right in groups(have, want):
            inside = [axis for axis in left if axis in axes]
            if not inside:
                continue
            if any(axis not in axes and have[axis] != 1 for axis in left):
                return None
            long = [axis for axis in right if want[axis] != 1]
            if self.partial and len(long) != 1:
                return None
            found.update(long)
        return frozenset(found)


def _node(node: ir.Node, passed: Mapping[ir.Value, ir.Value], output: ir.Value) -> ir.Node:
    inputs = [passed.get(value, value) if value is not None else None for value in node.inputs]
    attributes = list(node.attributes.values())
    return ir.Node(node.domain, node.op_type, inputs, attributes, outputs=[output])


def _stand_in(op: Builder, value: ir.Value, axes: Axes) -> ir.Value:
    dims = [1 if axis in axes else dim for axis, dim in enumerate(op.dims(value))]
    return ir.Value(name=op.name("collapsed"), type=value.type, shape=ir.Shape(dims))


def _sum(op: Builder, gradient: ir.Value, axes: Sequence[int], part: tuple[int, int] | None) -> ir.Value:
    gradient = wide(op, gradient)
    if part is not None and axes:
        (axis,) = [a for a in axes if op.dims(gradient)[a] != 1]
        gradient = op.Slice(gradient, [part[0]], [sum(part)], [axis])
    return op.ReduceSum(gradient, list(axes), keepdims=1) if axes else gradient
