"""If, Loop and Scan: differentiated through copies of their bodies, which compute once more what is needed of them.

The gradient of an If is an If of the same condition. A Loop or Scan whose number of steps the file gives is unrolled.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from fastcam_export.autodiff.core import inlining
from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.core.inlining import copied
from fastcam_export.autodiff.core.rule import Found, Node, Sweep, expansion, within
from fastcam_export.graph.constants import constant_array


@within("If")
def if_then_else(op: Builder, node: Node, wrt: Sequence[ir.Value], sweep: Sweep) -> Found:
    """dx = the gradient through the branch that is taken; zeros where that branch does not read x"""
    branches = {name: node.node.attributes[name].as_graph() for name in ("then_branch", "else_branch")}
    taken = constant_array(node.x)
    if taken is not None:
        return sweep(copied(op, branches["then_branch" if taken.item() else "else_branch"]), node.dys, wrt)
    graphs = {name: ir.Graph([], [], nodes=[], name=name) for name in branches}
    found: dict[str, Found] = {}
    for name, branch in branches.items():
        with op.inside(graphs[name]):
            outputs = copied(op, branch)
            dys = [_seen_as(op, dy, copy) for dy, copy in zip(node.dys, outputs)]
            found[name] = sweep(outputs, dys, wrt)
    reached = [value for value in wrt if any(each.get(value) is not None for each in found.values())]
    if not reached:
        return {}
    lifted = any(map(op.lifted, node.dys))
    for name, graph in graphs.items():
        with op.inside(graph):
            made = [_gradient(op, found[name].get(value), value, lifted) for value in reached]
        graph.outputs.extend(made)
        _drop_unused(graph)
    types = [(_dtype(x), (None, *op.dims(x)[1:]) if lifted else op.dims(x)) for x in reached]
    gradients = op.append("If", [node.x], dict(graphs), types)
    if lifted:
        gradients = tuple(op.lift_value(dx, op.dims(x)) for dx, x in zip(gradients, reached))
    return dict(zip(reached, gradients))


def _seen_as(op: Builder, dy: ir.Value | None, copy: ir.Value | None) -> ir.Value | None:
    """The cotangent of an If's output, with the shape that the output has in one branch."""
    if dy is None or copy is None:
        return None
    dims = op.dims(copy)
    lifted = op.lifted(dy)
    (seen,) = op.append("Identity", [dy], {}, [(_dtype(dy), (None, *dims[1:]) if lifted else dims)])
    return op.lift_value(seen, dims) if lifted else seen


def _gradient(op: Builder, gradient: ir.Value | None, x: ir.Value, lifted: bool) -> ir.Value:
    """A branch's output: the gradient of ``x``, or zeros in the shape in which it is stored."""
    dims = op.dims(x)
    types = [(_dtype(x), (None, *dims[1:]) if lifted else dims)]
    if gradient is not None:
        return op.append("Identity", [gradient], {}, types)[0]
    zero = op.constant(np.zeros((), _dtype(x).numpy()))
    shape = op.shape(x)
    if lifted:
        head = op.Mul(op.copies, op.shape(x, 0, 1)) if dims else op.copies
        shape = op.concat([head, op.shape(x, 1)])
    return op.append("Expand", [zero, shape], {}, types)[0]


def _dtype(value: ir.Value) -> ir.DataType:
    return value.dtype or ir.DataType.FLOAT


def _drop_unused(graph: ir.Graph) -> None:
    """Remove what no output of a branch needs: of the copy mostly its last nodes."""
    outputs = set(graph.outputs)
    for node in reversed(graph):
        if not any(value in outputs or value.uses() for value in node.outputs):
            graph.remove(node, safe=True)


@expansion("Loop")
def loop(op: Builder, node: Node) -> list[ir.Value | None]:
    """The state behind the last step, and of each step's results the stack"""
    return inlining.loop(op, node.node, node.node.inputs, {})


@expansion("Scan")
def scan(op: Builder, node: Node) -> list[ir.Value | None]:
    """The state behind the last elements, and of each step's results the stack"""
    return inlining.scan(op, node.node, node.node.inputs, {})
