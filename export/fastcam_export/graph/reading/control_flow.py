"""Shapes that an If, a Loop or a sequence hides: the branch that is taken, the state that keeps its shape, elements.

Exporters write Ifs for what they do not know of a model, such as whether an axis has length one. Behind them, and
behind any Loop, ONNX's inference does not know even the number of axes.
"""

from __future__ import annotations

import itertools

import onnx
import onnx_ir as ir
from onnx import helper

from fastcam_export.graph.constants import constant_array
from fastcam_export.graph.query import in_default_domain
from fastcam_export.graph.reading.loop_unrolling import unroll
from fastcam_export.graph.reading.sequences import unpack
from fastcam_export.graph.shape_inference import infer_types

Types = dict[str, onnx.TypeProto]


def settle(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model``, its types inferred, with the branch that is taken in place of every If of a constant condition, and
    without sequences whose elements are known.

    Raises:
        onnx.shape_inference.InferenceError: as :func:`fastcam_export.graph.shape_inference.infer_types`.
    """
    if unroll(model):
        model = infer_types(model)
    model = unpack(model)
    while any(node.op_type in ("If", "Loop") for node in model.graph.node):
        opened = ir.from_proto(model)
        if _open(opened.graph):
            model = unpack(infer_types(ir.to_proto(opened)))  # what is known behind one If may decide the next
        elif _tell_loops(model):
            model = infer_types(model)
        else:
            break
    return model


def _open(graph: ir.Graph) -> bool:
    """Put branches in place of the Ifs of ``graph`` that are decided; whether there were any."""
    decided = [(node, taken) for node in graph if (taken := _taken(node)) is not None]
    names = _names(graph)
    for node, branch in decided:
        _replace(graph, node, branch, names)
    return bool(decided)


def _taken(node: ir.Node) -> ir.Graph | None:
    condition = constant_array(node.inputs[0]) if node.op_type == "If" and in_default_domain(node) else None
    if condition is None:
        return None
    return node.attributes["then_branch" if condition.item() else "else_branch"].as_graph()


def _names(graph: ir.Graph) -> set[str]:
    """Names of values, and those of nodes, which ONNX Runtime wants to be different from each other as well."""
    made = (value for node in graph for value in node.outputs)
    values = {value.name or "" for value in (*graph.inputs, *graph.initializers.values(), *made)}
    return values | {node.name or "" for node in graph}


def _replace(graph: ir.Graph, node: ir.Node, branch: ir.Graph, names: set[str]) -> None:
    nodes, results, constants = list(branch), list(branch.outputs), list(branch.initializers.values())
    branch.outputs.clear()
    branch.initializers.clear()
    branch.remove(nodes)
    for value in (*constants, *(value for inner in nodes for value in inner.outputs if value.name)):
        value.name = _unused(value.name or "", names)  # branches beside each other may use the same names
    for value in constants:
        graph.register_initializer(value)
    for inner in nodes:
        inner.name = _unused(inner.name, names) if inner.name else None
    graph.insert_before(node, nodes)
    for output, result in zip(node.outputs, results):
        copy = ir.Value(name=output.name, type=result.type, shape=result.shape)
        output.name = _unused(f"{output.name}_of_both", names)
        name = _unused(f"{copy.name}_taken", names)
        graph.insert_before(node, ir.Node("", "Identity", [result], outputs=[copy], name=name))
        ir.convenience.replace_all_uses_with(output, copy, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _unused(name: str, names: set[str]) -> str:
    numbered = (f"{name}_{i}" for i in itertools.count(1))
    free = next(each for each in itertools.chain([name], numbered) if each not in names)
    names.add(free)
    return free


# ---- the state of a Loop


def _tell_loops(model: onnx.ModelProto) -> bool:
    """Note the shapes that follow for outputs of Loops; whether any did."""
    known = _known(model.graph)
    found: Types = {}
    for node in model.graph.node:
        if node.op_type == "Loop" and any(name and not _shaped(known.get(name)) for name in node.output):
            found |= {name: t for name, t in _loop(model, node, known).items() if not _shaped(known.get(name))}
    noted = [value for value in (*model.graph.value_info, *model.graph.output) if value.name in found]
    for value in noted:
        value.type.CopyFrom(found[value.name])
    rest = set(found) - {value.name for value in noted}
    model.graph.value_info.extend(helper.make_value_info(name, found[name]) for name in sorted(rest))
    return bool(found)


def _known(graph: onnx.GraphProto) -> Types:
    weights = {t.name: helper.make_tensor_type_proto(t.data_type, t.dims) for t in graph.initializer}
    return weights | {value.name: value.type for value in (*graph.value_info, *graph.output, *graph.input)}


def _shaped(type_: onnx.TypeProto | None) -> bool:
    return type_ is not None and type_.tensor_type.HasField("shape")


def _loop(model: onnx.ModelProto, node: onnx.NodeProto, known: Types) -> Types:
    """Types of those outputs of a Loop of which a step keeps the shape, or at least the number of axes.

    If a step keeps the shapes that its inputs have, every step does. Sizes that it changes are set free, and the rest
    is tried again.
    """
    body = next(attribute.g for attribute in node.attribute if attribute.name == "body")
    given = [known.get(name) for name in node.input[2:]]
    if not all(_shaped(type_) for type_ in given):
        return {}
    state = [_copy(type_) for type_ in given if type_ is not None]
    while True:
        made = _step(model, body, state, known)
        if not all(map(_shaped, made[: len(state)])) or any(_rank(a) != _rank(b) for a, b in zip(state, made)):
            return {}
        if not any(_set_free(a, b) for a, b in zip(state, made)):
            break
    stacks = [_stack(type_) for type_ in made[len(state) :]]
    return {name: t for name, t in zip(node.output, [*state, *stacks]) if name and t is not None}


def _step(
    model: onnx.ModelProto, body: onnx.GraphProto, state: list[onnx.TypeProto], known: Types
) -> list[onnx.TypeProto]:
    """Types of what one step gives for a state of these types, without the condition."""
    own = {value.name for value in body.input} | {name for inner in body.node for name in inner.output}
    own |= {tensor.name for tensor in body.initializer}
    inputs = [helper.make_value_info(name, type_) for name, type_ in known.items() if name and name not in own]
    counter = (helper.make_tensor_type_proto(7, []), helper.make_tensor_type_proto(9, []))
    inputs += [helper.make_value_info(value.name, t) for value, t in zip(body.input, (*counter, *state))]
    outputs = [helper.make_empty_tensor_value_info(value.name) for value in body.output]
    graph = helper.make_graph(body.node, "step", inputs, outputs, body.initializer)
    step = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    return [value.type for value in infer_types(step).graph.output][1:]


def _copy(type_: onnx.TypeProto) -> onnx.TypeProto:
    copy = onnx.TypeProto()
    copy.CopyFrom(type_)
    return copy


def _rank(type_: onnx.TypeProto) -> int:
    return len(type_.tensor_type.shape.dim)


def _set_free(state: onnx.TypeProto, made: onnx.TypeProto) -> bool:
    """Make those sizes of ``state`` free that are others in ``made``; whether there were any."""
    changed = False
    for dim, other in zip(state.tensor_type.shape.dim, made.tensor_type.shape.dim):
        if dim != other and (dim.HasField("dim_value") or dim.dim_param):
            dim.Clear()
            changed = True
    return changed


def _stack(type_: onnx.TypeProto) -> onnx.TypeProto | None:
    """The type of the results of all steps, one behind the other."""
    if not _shaped(type_):
        return None
    dims = [d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in type_.tensor_type.shape.dim]
    return helper.make_tensor_type_proto(type_.tensor_type.elem_type, [None, *dims])
