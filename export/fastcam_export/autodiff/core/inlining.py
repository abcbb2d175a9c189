"""Copies of bodies: of branches, of the steps of Loop and Scan, of the functions by which operators are defined.

A copy is emitted node by node, so that what is known of shapes and constants stays known in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper

from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.core.errors import UnsupportedOperator
from fastcam_export.autodiff.core.shapes import adopt_dims
from fastcam_export.graph.constants import RANDOM, Array, constant_array
from fastcam_export.graph.query import in_default_domain, known_dims, subgraphs

LONGEST = 64
"""Steps up to which a Loop or Scan is unrolled."""
WAY_OUT = "export the model with this loop unrolled (a Python loop over a fixed number of steps, traced)"

Values = Mapping[ir.Value, "ir.Value | None"]
Inputs = Sequence["ir.Value | None"]
NOTHING: Values = {}


def copied(op: Builder, body: ir.Graph, inputs: Inputs = (), outer: Values = NOTHING) -> list[ir.Value | None]:
    """Emit the nodes of ``body`` for these inputs; its outputs (None: an input that is not given).

    ``outer`` holds the copies of what the bodies around it compute; other values from outside are read as they are.

    Raises:
        UnsupportedOperator: the body draws random numbers, which a copy would draw anew.
    """
    values = {**outer, **dict(zip(body.inputs, inputs))}
    for value in body.initializers.values():
        if value not in values:
            values[value] = op.constant(_content(value))
    for node in body:
        given = [None if value is None else values.get(value, value) for value in node.inputs]
        for value, copy in zip(node.outputs, _copy(op, node, given, values)):
            if copy is not None:
                _tell(op, copy, value)
            values[value] = copy
    return [values.get(value, value) for value in body.outputs]


def again(op: Builder, nodes: Sequence[ir.Node], values: Values) -> dict[ir.Value, ir.Value | None]:
    """Emit ``nodes``, each behind what it reads, once more, of ``values`` in place of their keys; all copies.

    Copies have the shapes of what they stand for.
    """
    made = dict(values)
    for node in nodes:
        given = [None if value is None else made.get(value, value) for value in node.inputs]
        for value, copy in zip(node.outputs, _copy(op, node, given, made)):
            if copy is not None and value.shape is not None:
                adopt_dims(op, copy, op.dims(value))
            made[value] = copy
    return made


def _copy(op: Builder, node: ir.Node, inputs: list[ir.Value | None], values: Values) -> Inputs:
    """Emit one node of a body; the copies of its outputs."""
    while inputs and inputs[-1] is None:
        inputs.pop()
    if node.op_type in RANDOM:
        raise UnsupportedOperator(f"its body draws random numbers ({node.op_type})")
    if not in_default_domain(node):
        raise UnsupportedOperator(f"its body holds an operator of another domain ({node.domain}.{node.op_type})")
    if subgraphs(node):
        return _copy_of_bodies(op, node, inputs, values)
    if node.op_type == "Constant":
        return [op.constant(_content(node.outputs[0]))]
    attributes = _attributes(node)
    told = (value.type for value in (*inputs, *node.outputs) if value is not None and value.type is not None)
    if not all(isinstance(type_, ir.TensorType) for type_ in told):  # a sequence of tensors
        return op.again(node.op_type, inputs, attributes, node.outputs)
    if node.op_type in SHAPES and inputs[0] is not None:
        return [SHAPES[node.op_type](op, inputs, attributes)]
    return op.emit_all(node.op_type, *inputs, outputs=len(node.outputs), **attributes)


def _copy_of_bodies(op: Builder, node: ir.Node, inputs: list[ir.Value | None], values: Values) -> Inputs:
    """A copy of an If, Loop or Scan: without the node where the file says what it does."""
    if node.op_type == "If":
        taken = constant_array(inputs[0])
        if taken is not None:
            branch = node.attributes["then_branch" if taken.item() else "else_branch"].as_graph()
            return copied(op, branch, (), values)
    elif node.op_type in UNROLLED:
        try:
            return UNROLLED[node.op_type](op, node, inputs, values)
        except UnsupportedOperator:  # perhaps it need not be differentiated
            if any(value.type is None for value in node.outputs):
                raise
    inner = {n: _body(op, a.as_graph(), values) for n, a in node.attributes.items() if _is_body(a)}
    made = op.again(node.op_type, inputs, {**_attributes(node), **inner}, node.outputs)
    if node.op_type == "If":
        for value, *results in zip(made, *(graph.outputs for graph in inner.values())):
            value.type, value.shape = results[0].type, _common(results)
    return made


def _attributes(node: ir.Node) -> dict[str, Any]:
    return {name: _plain(ir.to_proto(a)) for name, a in node.attributes.items() if not _is_body(a)}


def _plain(attribute: onnx.AttributeProto) -> Any:
    """What an attribute holds, strings as str."""
    value = helper.get_attribute_value(attribute)
    return value.decode() if isinstance(value, bytes) else value


def _body(op: Builder, body: ir.Graph, values: Values) -> ir.Graph:
    """A copy of a body inside a body, as a graph of its own."""
    inputs = [ir.Value(name=op.name("input"), type=value.type, shape=value.shape) for value in body.inputs]
    graph = ir.Graph(inputs, [], nodes=[], name=body.name)
    with op.inside(graph):
        outputs = copied(op, body, inputs, values)
        graph.outputs.extend(op.again("Identity", [value], {}, [value])[0] for value in outputs if value is not None)
    return graph


def _common(results: Sequence[ir.Value]) -> ir.Shape | None:
    """What the shapes of an output in both branches of an If have in common."""
    a, b = (result.shape for result in results)
    if a is None or b is None or len(a) != len(b):
        return None
    return ir.Shape([x if x == y else None for x, y in zip(a, b)])


def _is_body(attribute: ir.Attr) -> bool:
    return attribute.type == ir.AttributeType.GRAPH


def _content(value: ir.Value) -> Array:
    array = constant_array(value)
    if array is None:
        raise UnsupportedOperator(f"its body holds a constant of an unknown kind ({value.name!r})")
    return array


def _tell(op: Builder, copy: ir.Value, value: ir.Value) -> None:
    """What inference knew of a body's value and does not know of its copy. Names of dimensions mean something else."""
    dims = known_dims(value)
    if dims is None or copy is value or constant_array(copy) is not None:
        return
    if copy.shape is None:
        copy.shape = ir.Shape(dims)
    elif len(copy.shape) == len(dims):
        adopt_dims(op, copy, tuple(dims))


def _shape(op: Builder, inputs: Inputs, given: dict[str, Any]) -> ir.Value:
    assert inputs[0] is not None
    rank = op.rank(inputs[0])
    start, end, _ = slice(given.get("start"), given.get("end")).indices(rank)
    return op.shape(inputs[0], start, end)


def _concat(op: Builder, inputs: Inputs, given: dict[str, Any]) -> ir.Value:
    if all(value is not None and value.dtype == ir.DataType.INT64 and op.rank(value) == 1 for value in inputs):
        return op.concat(inputs)
    return op.Concat(*inputs, **given)


SHAPES: dict[str, Callable[[Builder, Inputs, dict[str, Any]], ir.Value]] = {
    "Concat": _concat,
    "Identity": lambda op, inputs, given: inputs[0],  # type: ignore[dict-item, return-value]
    "Shape": _shape,
}
"""Operators by which bodies compute shapes: as rules do it, so that what is known of a shape stays known."""


# ---- steps


def loop(op: Builder, node: ir.Node, inputs: Inputs, outer: Values) -> list[ir.Value | None]:
    """A Loop unrolled: its state behind the last step, and of each step's results the stack.

    Raises:
        UnsupportedOperator: only the run time knows how many steps it takes, or they are too many.
    """
    count, begins = (*inputs, None)[:2]
    trips, condition = constant_array(count), constant_array(begins)
    if trips is None and count is not None:
        raise UnsupportedOperator(f"only the run time knows its number of steps; {WAY_OUT}")
    if condition is None and begins is not None:
        raise UnsupportedOperator(f"only the run time knows whether it begins; {WAY_OUT}")
    (body,), state = subgraphs(node), list(inputs[2:])
    stacks: list[list[ir.Value]] = [[] for _ in body.outputs[1 + len(state) :]]
    going, step = condition is None or bool(condition.item()), 0
    while going and (trips is None or step < trips.item()):
        _within_reach(step + 1)
        given = [op.constant(np.array(step)), op.constant(np.array(True)), *state]
        again, *results = copied(op, body, given, outer)
        state = [*results[: len(state)]]
        for stack, result in zip(stacks, results[len(state) :]):
            stack.append(op.Unsqueeze(result, [0]))
        known = constant_array(again)
        if known is None:
            raise UnsupportedOperator(f"only the run time knows after which step it ends; {WAY_OUT}")
        going, step = bool(known.item()), step + 1
    return [*state, *(op.Concat(*stack, axis=0) if stack else None for stack in stacks)]


def scan(op: Builder, node: ir.Node, inputs: Inputs, outer: Values) -> list[ir.Value | None]:
    """A Scan unrolled: its state behind the last elements, and of each step's results the stack.

    Raises:
        UnsupportedOperator: only the run time knows how many steps it takes, or they are too many.
    """
    (body,), count = subgraphs(node), node.attributes.get_int("num_scan_inputs")
    first = len(inputs) - count
    state, results = list(inputs[:first]), len(body.outputs) - first

    def each(name: str, number: int) -> Sequence[int]:
        return node.attributes.get_ints(name, ()) or [0] * number

    pairs = zip(inputs[first:], each("scan_input_axes", count))
    parts = [_elements(op, x, axis) for x, axis in pairs if x is not None]
    parts = [part[::-1] if flag else part for part, flag in zip(parts, each("scan_input_directions", count))]
    stacks: list[list[ir.Value | None]] = [[] for _ in range(results)]
    for elements in zip(*parts):
        made = copied(op, body, [*state, *elements], outer)
        state = [*made[:first]]
        for stack, result in zip(stacks, made[first:]):
            stack.append(result)
    stacks = [stack[::-1] if flag else stack for stack, flag in zip(stacks, each("scan_output_directions", results))]
    return [*state, *(_stacked(op, stack, axis) for stack, axis in zip(stacks, each("scan_output_axes", results)))]


def _elements(op: Builder, x: ir.Value, axis: int) -> list[ir.Value]:
    """The slices of ``x`` along ``axis``, without it."""
    length = op.dims(x)[axis]
    if not isinstance(length, int):
        raise UnsupportedOperator(f"only the run time knows its number of steps; {WAY_OUT}")
    _within_reach(length)
    if length == 0:
        return []
    parts = op.emit_all("Split", x, [1] * length, axis=axis % op.rank(x), outputs=length)
    return [op.Squeeze(part, [axis % op.rank(x)]) for part in parts]


def _stacked(op: Builder, stack: Sequence[ir.Value | None], axis: int) -> ir.Value | None:
    if not stack or stack[0] is None:
        return None
    axis %= op.rank(stack[0]) + 1
    return op.Concat(*(op.Unsqueeze(part, [axis]) for part in stack), axis=axis)


def _within_reach(steps: int) -> None:
    if steps > LONGEST:
        raise UnsupportedOperator(f"it has more than {LONGEST} steps, up to which it would be unrolled; {WAY_OUT}")


UNROLLED: dict[str, Callable[[Builder, ir.Node, Inputs, Values], list[ir.Value | None]]] = {"Loop": loop, "Scan": scan}
