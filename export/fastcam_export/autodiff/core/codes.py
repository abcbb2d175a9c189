"""Rules of operators that read integers in the place of real numbers: gradients of their float forms, straight through.

The gradient of an integer is meant per unit of the number that it stands for; that of a count per unit of the count.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from fastcam_export.autodiff.core import integers
from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.core.errors import UnsupportedOperator
from fastcam_export.autodiff.core.rule import Found, Node, Rule, Sweep, within_rule
from fastcam_export.autodiff.core.straight_through import SELECTIONS, Coding, coding, is_code
from fastcam_export.graph.constants import Array


def find(node: ir.Node) -> Rule | None:
    """The rule of an operator that has integers among its inputs and is made for floats as well."""
    if node.op_type not in SELECTIONS and node.op_type != "Cast":
        return None
    if not any(value is not None and is_code(value) for value in node.inputs):
        return None
    return CAST if node.op_type == "Cast" else SELECTION


def as_numbers(op: Builder, value: ir.Value) -> ir.Value:
    """A value as floats: integers as the numbers that they stand for."""
    return _real(op, value, value) if is_code(value) else value


def passes(
    op: Builder, code: ir.Value, below: ir.Value | Array | None, above: ir.Value | Array | None
) -> ir.Value | None:
    """Where a code lies between two others, neither of which it may be; None where there are none."""
    if below is None and above is None:
        return None
    number = op.Cast(code, to=int(ir.DataType.FLOAT))
    parts = [] if below is None else [op.Greater(number, below)]
    parts += [] if above is None else [op.Less(number, above)]
    return op.And(*parts) if len(parts) == 2 else parts[0]


def masked(op: Builder, mask: ir.Value | None, dy: ir.Value) -> ir.Value:
    """``dy`` where ``mask``, else zero."""
    return (
        dy if mask is None else op.Where(mask, dy, op.constant(np.zeros((), (dy.dtype or ir.DataType.FLOAT).numpy())))
    )


def rescaling(op: Builder, node: Node, wrt: Sequence[ir.Value], sweep: Sweep) -> Found:
    """dx: through the float operator, where y is not saturated."""
    known = integers.find(node.node)
    assert known is not None
    ys = integers.results(op, node.node, known, lambda index: integers.real(op, node.node, known, index))
    below, above = integers.limits(node.node, known)
    first, *others = node.dys
    if any(y is None and dy is not None for y, dy in zip(ys, node.dys)):
        raise UnsupportedOperator("an output of it has no gradient rule")
    first = first if first is None else masked(op, passes(op, node.y, below, above), first)
    return sweep(ys, [first, *others], wrt)


def _selection(op: Builder, node: Node, wrt: Sequence[ir.Value], sweep: Sweep) -> Found:
    """dx: through the same operator on the numbers that the integers stand for."""
    first = next(value for value in node.node.inputs if value is not None and is_code(value))
    attributes = {name: attribute.value for name, attribute in node.node.attributes.items()}
    inputs = [value if value is None else _real(op, value, first) for value in node.node.inputs]
    number = len(node.outputs)
    return sweep(op.emit_all(node.node.op_type, *inputs, outputs=number, **attributes), node.dys, wrt)


def _real(op: Builder, value: ir.Value, first: ir.Value) -> ir.Value:
    """What a value stands for, also a limit or a filling beside ``first``; indices and sizes as they are."""
    known = coding(value if is_code(value) else first)
    if known is None:
        raise UnsupportedOperator("what its integers stand for is not known")
    if value.dtype != first.dtype and not is_code(value):
        return value
    if known.scale is None:
        return op.Cast(value, to=int(ir.DataType.FLOAT))
    return integers.dequantised(op, value, *_single(op, known))


def _single(op: Builder, known: Coding) -> tuple[ir.Value | None, ir.Value | None]:
    if known.scale is not None and any(dim != 1 for dim in op.dims(known.scale)):
        raise UnsupportedOperator("its integers have a scale for each channel")
    return known.scale, known.zero


def _cast(op: Builder, node: Node, wrt: Sequence[ir.Value], sweep: Sweep) -> Found:
    """y = x, the integer: of a count dx = dy; of the number x stands for dx = dy / scale"""
    known, dy = coding(node.x), node.dys[0]
    if known is None or dy is None:
        raise UnsupportedOperator("what its integers stand for is not known")
    if known.scale is None:
        return {node.x: dy}
    scale, _ = _single(op, known)
    return {node.x: op.Div(dy, scale)}


SELECTION, CAST = within_rule(_selection), within_rule(_cast)
