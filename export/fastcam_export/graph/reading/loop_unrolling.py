"""Loops that put a sequence together, step by step in the open: what torch's older exporter writes for tensor_split.

A tensor that a Loop carries keeps its shape, and its gradient is a Loop of its own. A sequence has neither; but of so
many steps that the file tells, each element is a value of the graph.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

STEPS, NODES = 64, 1024
"""How many steps, and nodes in all of them, are written out at most."""
MAKERS = frozenset({"SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SplitToSequence"})

Constants = dict[str, npt.NDArray[np.generic]]


def unroll(model: onnx.ModelProto) -> bool:
    """Write out, in place, the Loops of a known number of steps that carry a sequence; whether there were any."""
    graph = model.graph
    if not any(node.op_type == "Loop" for node in graph.node):
        return False
    constants = _constants(graph)
    made: list[onnx.NodeProto] = []
    found = False
    for node in graph.node:
        steps = _steps(node, constants) if node.op_type == "Loop" else None
        if steps is None:
            made.append(node)
            continue
        made += _written_out(node, steps)
        found = True
    if found:
        del graph.node[:]
        graph.node.extend(made)
    return found


def _constants(graph: onnx.GraphProto) -> Constants:
    """Numbers that the graph holds."""
    here = (t for t in graph.initializer if t.data_location != onnx.TensorProto.EXTERNAL)
    tensors = [t for t in here if not any(d > 1 for d in t.dims)]
    given = {value.name for value in graph.input}
    found = {t.name: numpy_helper.to_array(t) for t in tensors if t.name not in given}
    for node in graph.node:
        value = next((a.t for a in node.attribute if a.name == "value"), None)
        if node.op_type == "Constant" and value is not None and not any(d > 1 for d in value.dims):
            found[node.output[0]] = numpy_helper.to_array(value)
    return found


def _steps(node: onnx.NodeProto, constants: Constants) -> int | None:
    """How many steps a Loop that carries a sequence takes; None where it is another, or only a run tells."""
    body, (count, condition) = _body(node), node.input[:2]
    carried = any(value.type.HasField("sequence_type") for value in (*body.input, *body.output))
    carried = carried or any(inner.op_type in MAKERS for inner in body.node)
    nested = any(attribute.HasField("g") for inner in body.node for attribute in inner.attribute)
    endless = _stays_true(body, constants) and (not condition or bool(constants.get(condition, np.array(False)).all()))
    if not carried or nested or not endless or count not in constants or len(node.output) > len(node.input) - 2:
        return None
    steps = int(constants[count].item())
    return steps if 0 <= steps <= STEPS and steps * len(body.node) <= NODES else None


def _body(node: onnx.NodeProto) -> onnx.GraphProto:
    body: onnx.GraphProto = next(attribute.g for attribute in node.attribute if attribute.name == "body")
    return body


def _stays_true(body: onnx.GraphProto, constants: Constants) -> bool:
    """Whether the condition that a step gives is the one it was given, or true."""
    name, makers = body.output[0].name, {output: inner for inner in body.node for output in inner.output}
    known = {**constants, **_constants(body)}
    while name in makers and makers[name].op_type in ("Identity", "Cast"):
        name = makers[name].input[0]
    return name == body.input[1].name or (name in known and bool(known[name].all()))


def _written_out(node: onnx.NodeProto, steps: int) -> list[onnx.NodeProto]:
    body, prefix = _body(node), f"{node.output[0]}.step"
    state, made = list(node.input[2:]), list[onnx.NodeProto]()
    for step in range(steps):
        own = f"{prefix}{step}"
        names = dict(zip((value.name for value in body.input), (f"{own}.i", f"{own}.c", *state)))
        made.append(_number(np.full(_axes(body.input[0]), step, np.int64), f"{own}.i"))
        made.append(_number(np.full(_axes(body.input[1]), True), f"{own}.c"))
        for tensor in body.initializer:
            names[tensor.name] = f"{own}.{tensor.name}"
            made.append(helper.make_node("Constant", [], [names[tensor.name]], value=tensor))
        for inner in body.node:
            names |= {output: f"{own}.{output}" for output in inner.output if output}
            made.append(_renamed(inner, names, f"{own}.{inner.name}" if inner.name else ""))
        state = [names.get(value.name, value.name) for value in body.output[1:]]
    return made + [helper.make_node("Identity", [last], [name]) for last, name in zip(state, node.output) if name]


def _axes(value: onnx.ValueInfoProto) -> list[int]:
    """The shape of a step's number, as runtimes hand it over: a scalar, or a vector of one where the body says so."""
    return [1] * len(value.type.tensor_type.shape.dim)


def _number(array: npt.NDArray[np.generic], name: str) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array))


def _renamed(node: onnx.NodeProto, names: Mapping[str, str], name: str) -> onnx.NodeProto:
    made = onnx.NodeProto()
    made.CopyFrom(node)
    made.name = name
    made.input[:] = [names.get(each, each) for each in node.input]
    made.output[:] = [names.get(each, each) for each in node.output]
    return made
