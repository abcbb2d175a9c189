"""A quantised model's tail in real numbers, for central differences: what rounds there is a line through its point.

Where a gradient passes straight through, y = x + c; where an integer is at an end of its range, y = c. The constants c
are inputs of the tail, see :mod:`fastcam_export.verify.rounded_point`: with them each value is what it is in the model,
so that kinks behind are met on the same side.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx import helper

from fastcam_export.autodiff.core import integers
from fastcam_export.autodiff.core.builder import FLOATS, Builder
from fastcam_export.autodiff.core.straight_through import (
    COUNTS,
    DEQUANTIZE,
    DYNAMIC,
    MOVES,
    QUANTIZE,
    RESCALED,
    SELECTIONS,
    coding,
    seen,
)
from fastcam_export.graph import constants
from fastcam_export.graph.constants import constant_array
from fastcam_export.graph.query import input_at, qualified_op_type, reads

Array = npt.NDArray[Any]
SLOPE, OFFSET, BEFORE = "fastcam_check.slope.", "fastcam_check.offset.", "fastcam_check.before."
"""In front of the name of an integer value: the inputs m and c of y = m x + c, and the value x."""


def numbers_of(code: ir.Value, name: str) -> onnx.NodeProto:
    """A node that gives, as ``name``, the numbers that integers of a model stand for."""
    known = coding(code)
    assert known is not None and known.scale is not None
    inputs = [code, known.scale, *([known.zero] if known.zero is not None else [])]
    return helper.make_node(DEQUANTIZE, [value.name or "" for value in inputs], [name])


def without_rounding(graph: ir.Graph, known: Mapping[ir.Value, ir.Value]) -> None:
    """Say what is quantised in ``graph`` by float operators.

    Args:
        graph: the part behind a layer; it is changed.
        known: integers that are there before it, and the numbers that they stand for.
    """
    if any(node.op_type in (QUANTIZE, DEQUANTIZE, DYNAMIC) or integers.find(node) for node in graph):
        _Twin(graph, dict(known)).make()


class _Twin:
    """Makes the float form of each node, behind it in the graph.

    Attributes:
        op: emits nodes.
        real: integers, and the numbers that they stand for.
    """

    def __init__(self, graph: ir.Graph, known: dict[ir.Value, ir.Value]) -> None:
        self.graph, self.op, self.real = graph, Builder(graph), known

    def make(self) -> None:
        """Make them all."""
        for node in self._behind():
            operator = integers.find(node)
            if node.op_type in (QUANTIZE, DYNAMIC):
                self._quantise(node)
            elif node.op_type == DEQUANTIZE:
                self._dequantise(node)
            elif operator is not None:
                made = integers.results(self.op, node, operator, partial(self._number, node, operator))
                for old, result in zip(node.outputs, made):
                    if result is not None:
                        self._give(old, result, qualified_op_type(node) in RESCALED)
            elif any(value in self.real for value in node.inputs):
                self._again(node)
        self.graph.sort()

    def _behind(self) -> list[ir.Node]:
        """The nodes that the outputs need, back to the integers that are known."""
        needed: set[ir.Node] = set()
        stack = [*self.graph.outputs]
        while stack:
            value = stack.pop()
            node = value.producer()
            if node is not None and node not in needed and value not in self.real:
                needed.add(node)
                stack.extend(reads(node))
        return [node for node in self.graph if node in needed]

    def _give(self, old: ir.Value, made: ir.Value, rounded: bool) -> None:
        """``made`` takes the place of a float value, or is what an integer one stands for."""
        if old.dtype in FLOATS:
            ir.convenience.replace_all_uses_with(old, made, replace_graph_outputs=True)
        else:
            self.real[old] = self._line(old, made) if rounded else made

    def _line(self, code: ir.Value, x: ir.Value) -> ir.Value:
        """y = m x + c"""
        before = self.op.Identity(x)
        before.name = f"{BEFORE}{code.name}"
        slope, offset = (self._input(f"{what}{code.name}", before) for what in (SLOPE, OFFSET))
        return self.op.Add(self.op.Mul(slope, before), offset)

    def _input(self, name: str, like: ir.Value) -> ir.Value:
        value = ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=like.shape)
        self.graph.inputs.append(value)
        return value

    def _quantise(self, node: ir.Node) -> None:
        x, code = node.inputs[0], node.outputs[0]
        assert x is not None
        activation = passed_over(node)
        if activation is not None and activation.inputs[0] is not None:
            x = activation.inputs[0]
        self.real[code] = self._line(code, x)
        if node.op_type == DYNAMIC:  # the steps cancel: what is divided by one is multiplied with it behind
            for step, number in zip(node.outputs[1:], (np.float32(1), np.zeros((), np.uint8))):
                constant = self.op.constant(np.asarray(number))
                ir.convenience.replace_all_uses_with(step, constant)

    def _dequantise(self, node: ir.Node) -> None:
        code, y = node.inputs[0], node.outputs[0]
        assert code is not None
        if code in self.real:
            number = self._counted(code, input_at(node, 1), input_at(node, 2), node.attributes.get_int("axis", 1))
        else:
            arrays = [constant_array(value) for value in node.inputs]
            if any(array is None and value is not None for array, value in zip(arrays, node.inputs)):
                return
            content = constants.evaluate(ir.to_proto(node), arrays, self.graph.opset_imports[""])
            number = _stored(self.graph, f"fastcam_check.{y.name}", content)
        if y.dtype not in (None, number.dtype):
            number = self.op.Cast(number, to=int(y.dtype or 0))
        ir.convenience.replace_all_uses_with(y, number, replace_graph_outputs=True)

    def _number(self, node: ir.Node, operator: integers.Integer, index: int) -> ir.Value:
        """What input ``index`` of an operator on integers stands for, in its own scale."""
        value = node.inputs[index]
        assert value is not None
        if index not in operator.reals:
            return value
        scale, zero = integers.parameters(node, operator.reals[index])
        if value in self.real:
            return self._counted(value, scale, zero, operator.axes.get(index, 1))
        code, step, shift = (constant_array(each) for each in (value, scale, zero))
        if code is None or (step is None and scale is not None) or (shift is None and zero is not None):
            return integers.real(self.op, node, operator, index)
        axis = integers.axis_of(node, operator, index)
        return _stored(self.graph, f"fastcam_check.{node.outputs[0].name}.{index}", numbers(code, step, shift, axis))

    def _counted(self, code: ir.Value, scale: ir.Value | None, zero: ir.Value | None, axis: int) -> ir.Value:
        """The numbers of ``code`` in another scale, where it has another; without one per unit of the integer."""
        known, number = coding(code), self.real[code]
        if known is None or known.node.op_type == DYNAMIC or known.same(scale, zero):
            return number
        if known.node.op_type == QUANTIZE and constant_array(scale) is None and scale is not None:
            return number
        own, new = (_array(each, 1.0) for each in (known.scale, scale))
        shift = _array(known.zero, 0.0) - (_array(zero, 0.0) if scale is not None or zero is not None else 0.0)
        column = [-1] + [1] * (self.op.rank(code) - 1 - axis % max(self.op.rank(code), 1))
        ratio, moved = (
            (each.reshape(column) if each.size > 1 else each.reshape(())) for each in (new / own, shift * new)
        )
        scaled = self.op.Mul(number, np.asarray(ratio, np.float32))
        return self.op.Add(scaled, np.asarray(moved, np.float32)) if moved.any() else scaled

    def _again(self, node: ir.Node) -> None:
        """The same operator on the numbers; a Cast of them."""
        if node.op_type == "Cast":
            code = node.inputs[0]
            assert code is not None
            known = coding(code)
            scaled = known is not None and known.scale is not None and known.node.op_type not in COUNTS
            number = self.op.Div(self.real[code], known.scale) if scaled and known is not None else self.real[code]
            self._give(node.outputs[0], number, False)
        elif node.op_type in MOVES | SELECTIONS:
            attributes = {name: attribute.value for name, attribute in node.attributes.items()}
            inputs = [value if value is None else self._beside(value, node) for value in node.inputs]
            made = self.op.emit_all(node.op_type, *inputs, outputs=len(node.outputs), **attributes)
            self.real |= dict(zip(node.outputs, made))

    def _beside(self, value: ir.Value, node: ir.Node) -> ir.Value:
        """A limit or filling of integers as a number; indices as they are."""
        first = next(code for code in node.inputs if code in self.real)
        array, known = constant_array(value), coding(first) if first is not None else None
        if value in self.real:
            return self.real[value]
        if array is None or first is None or known is None or value.dtype != first.dtype:
            return value
        return self.op.constant(numbers(array, _array(known.scale, 1.0), _array(known.zero, 0.0)))


def passed_over(node: ir.Node) -> ir.Node | None:
    """The Relu or Clip before a QuantizeLinear whose rule reads behind it whether something passed."""
    x = node.inputs[0]
    activation = x.producer() if x is not None and node.op_type == QUANTIZE else None
    if x is None or activation is None or activation.op_type not in ("Relu", "Clip") or seen(x) is x:
        return None
    return activation


def numbers(code: Array, scale: Array | None, zero: Array | None = None, axis: int = 1) -> Array:
    """(code - zero) scale, float32; of a vector of scales one to each element along an axis."""

    def beside(parameter: Array) -> Array:
        if parameter.ndim != 1 or parameter.size == 1:
            return parameter.reshape(()) if parameter.size == 1 else parameter
        return parameter.reshape([-1] + [1] * (code.ndim - 1 - axis % max(code.ndim, 1)))

    number = code.astype(np.float64)
    number = number if zero is None else number - beside(zero.astype(np.float64))
    return np.asarray(number if scale is None else number * beside(scale.astype(np.float64)), np.float32)


def _array(value: ir.Value | None, default: float) -> Array:
    array = constant_array(value)
    return np.asarray(default if array is None else array, np.float64)


def _stored(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    content = ir.tensor(array, name=name)
    value = ir.Value(name=name, type=ir.TensorType(content.dtype), shape=ir.Shape(array.shape), const_value=content)
    graph.register_initializer(value)
    return value
