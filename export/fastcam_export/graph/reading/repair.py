"""What a file declares beside its nodes is a hint: names, order, versions, sizes are repaired from the graph, and said.

Editors, optimisers, converters and hand-made scripts leave files that ONNX Runtime runs and ONNX's own checker refuses,
or whose notes on sizes are those of a batch that has since been set free.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import onnx
import onnx_ir as ir
from onnx import helper

from fastcam.schema import FastcamError
from fastcam_export.graph.query import Dim
from fastcam_export.graph.reading.active_dropout import spell_out
from fastcam_export.graph.reading.bodies import bodies
from fastcam_export.graph.shape_inference import infer_types
from fastcam_export.graph.shape_refinement import FRESH
from fastcam_export.graph.symbolic_dims import Product, from_dim

DEFAULT = ("", "ai.onnx")
VERSIONS = {"com.microsoft": 1, "ai.onnx.ml": 3}
"""What a domain that no import names is read as, in an opset that ONNX Runtime runs."""

NAMELESS = ("", "?", "-1", "None")
"""What exporters write in the place of a name, so that it is that of several axes."""

Dims = tuple[Dim, ...]
Shapes = dict[str, Dims]


def repair(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """``model`` with what its graph, its types and its notes need to be read; what was repaired, in a few words each.

    Args:
        model: perhaps without its large weights, which are inputs then; it is changed.

    Raises:
        FastcamError: nodes wait for each other in a circle.
    """
    said = [text for step in STEPS if (text := step(model))]
    if not all(map(_in_order, _scopes(model))):
        model = _sorted(model)
        said.append("nodes put into the order in which they run")
    stale = _drop_stale_sizes(model)
    return model, said + ([stale] if stale else [])


def imports(model: onnx.ModelProto) -> str:
    """Versions for domains that nodes use and the file does not import."""
    used = {"" if node.domain in DEFAULT else node.domain for node in _nodes(model.graph)}
    used |= {"" if node.domain in DEFAULT else node.domain for each in model.functions for node in each.node}
    have = {"" if entry.domain in DEFAULT else entry.domain for entry in model.opset_import}
    missing = sorted(used - have)
    for domain in missing:
        version = VERSIONS.get(domain, 1) if domain else newest_opset(model.ir_version)
        model.opset_import.append(helper.make_opsetid(domain, version))
    return f"opset imports added: {', '.join(domain or 'ai.onnx' for domain in missing)}" if missing else ""


def newest_opset(ir_version: int) -> int:
    """The last opset of the releases of ONNX that wrote files of this version."""
    opsets = [row[2] for row in helper.VERSION_TABLE if row[1] == ir_version]
    return max(opsets, default=onnx.defs.onnx_opset_version())


def names(model: onnx.ModelProto) -> str:
    """A name for a graph without one, and another one for each further node of the same name."""
    said = [] if model.graph.name else ["the graph named"]
    model.graph.name = model.graph.name or "graph"
    again = sum(map(_tell_nodes_apart, _graphs(model.graph)))
    said += [f"{again} node{'s' * (again > 1)} named apart from another of the same name"] if again else []
    return ", ".join(said)


def _tell_nodes_apart(graph: onnx.GraphProto) -> int:
    taken = {node.name for node in graph.node}
    seen: set[str] = set()
    again = []
    for node in graph.node:
        if node.name and node.name in seen:
            again.append(node)
        seen.add(node.name)
    for node in again:
        node.name = _free(node.name, taken)
    return len(again)


def types(model: onnx.ModelProto) -> str:
    """Notes without a type go, and those on inputs and weights; of an output the graph tells the type."""
    own = {value.name for value in (*model.graph.input, *model.graph.initializer)}
    empty = [value for value in model.graph.value_info if not value.HasField("type") or value.name in own]
    for value in empty:
        model.graph.value_info.remove(value)
    outputs = [value.name for value in model.graph.output if not _typed(value)]
    if outputs:
        known = {value.name: value for value in _inferred(model, outputs)}
        for value in model.graph.output:
            if value.name in outputs and value.name in known:
                value.type.CopyFrom(known[value.name].type)
    return f"the type of {', '.join(outputs)} read off the graph" if outputs else ""


def inputs(model: onnx.ModelProto) -> str:
    """Sizes below zero are free ones; a name that stands for two axes of one input is two names; a lost rank is read
    off the convolution behind."""
    said = []
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        dims = value.type.tensor_type.shape.dim
        below = [dim for dim in dims if dim.HasField("dim_value") and dim.dim_value < 0]
        for dim in below:
            dim.Clear()
        if below and value in model.graph.input:
            said.append(f"sizes of {value.name} below zero read as free")
    weights = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        for dim in dims:
            if dim.dim_param in NAMELESS:
                dim.ClearField("dim_param")
        seen: set[str] = set()
        for axis, dim in enumerate(dims):
            if dim.dim_param in seen:
                said.append(f"axis {axis} of {value.name} told apart from another of the same name {dim.dim_param!r}")
                dim.dim_param = _free(f"{dim.dim_param}_{axis}", seen)
            seen.add(dim.dim_param)
            seen.discard("")
        if value.name not in weights and _typed(value) and not value.type.tensor_type.HasField("shape"):
            shape = _of_convolution(model.graph, value.name)
            if shape is not None:
                value.type.CopyFrom(helper.make_tensor_type_proto(value.type.tensor_type.elem_type, shape))
                said.append(f"the axes of {value.name} read off the convolution behind it")
    return ", ".join(dict.fromkeys(said))


def dropout(model: onnx.ModelProto) -> str:
    """Dropout that drops at inference, in operators of which the check can hold what is drawn."""

    def element_types() -> dict[str, int]:
        return {value.name: value.type.tensor_type.elem_type for value in (*_inferred(model, ()), *model.graph.input)}

    return spell_out(model, element_types)


STEPS: tuple[Callable[[onnx.ModelProto], str], ...] = (imports, names, inputs, types, dropout)
"""Each changes the model that it is given; what it did, in a few words, or nothing."""


# ---- order


def _sorted(model: onnx.ModelProto) -> onnx.ModelProto:
    graph = ir.from_proto(model)
    try:
        graph.graph.sort()
        for function in graph.functions.values():
            function.sort()
    except ValueError as error:
        raise FastcamError("the model's nodes wait for each other in a circle; export the model again") from error
    return ir.to_proto(graph)


def _scopes(model: onnx.ModelProto) -> Iterator[tuple[Sequence[onnx.NodeProto], set[str]]]:
    """(nodes, names that are there before them): the graph, and the functions."""
    graph = model.graph
    yield graph.node, {value.name for value in graph.input} | _initializers(graph)
    for function in model.functions:
        yield function.node, set(function.input)


def _initializers(graph: onnx.GraphProto) -> set[str]:
    return {t.name for t in graph.initializer} | {t.values.name for t in graph.sparse_initializer}


def _in_order(scope: tuple[Sequence[onnx.NodeProto], set[str]]) -> bool:
    """Whether each node stands behind what it reads, in bodies too."""
    nodes, known = scope[0], set(scope[1])
    made = {name for node in nodes for name in node.output}
    for node in nodes:
        if any(name in made and name not in known for name in node.input):
            return False
        for body in bodies(node):
            inner = known | {value.name for value in body.input} | _initializers(body)
            if not _in_order((body.node, inner)) or any(n in made and n not in known for n in _read(body)):
                return False
        known.update(node.output)
    return True


def _read(graph: onnx.GraphProto) -> set[str]:
    """Names that a body reads and does not make."""
    own = {value.name for value in graph.input} | _initializers(graph)
    read = {value.name for value in graph.output}
    for node in graph.node:
        own.update(node.output)
        read.update(node.input)
        for body in bodies(node):
            read |= _read(body)
    return read - own - {""}


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and all bodies in it."""
    yield graph
    for node in graph.node:
        for body in bodies(node):
            yield from _graphs(body)


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    return (node for each in _graphs(graph) for node in each.node)


# ---- sizes


def _drop_stale_sizes(model: onnx.ModelProto) -> str:
    """Drop all notes on sizes where one contradicts what follows from the inputs; outputs then say what follows."""
    noted = _shapes((*model.graph.value_info, *model.graph.output))
    if not noted:
        return ""
    names = {value.name for value in model.graph.output}
    try:
        found = _inferred(model, names)
    except onnx.shape_inference.InferenceError:
        return ""
    follows = _shapes(found)
    free = {dim for dims in _shapes(model.graph.input).values() for dim in dims if isinstance(dim, str)}
    wrong = [name for name, dims in noted.items() if name in follows and _contradict(dims, follows[name], free)]
    if not wrong:
        return ""
    kept = [value for value in model.graph.value_info if value.name not in noted]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)
    known = {value.name: value for value in found}
    for value in model.graph.output:
        if value.name in known:
            value.type.CopyFrom(known[value.name].type)
        elif value.name in noted:
            value.type.tensor_type.ClearField("shape")
    listed = ", ".join(wrong[:3]) + (", ..." if len(wrong) > 3 else "")
    return f"sizes noted for {listed} contradict the input and were dropped"


def _inferred(model: onnx.ModelProto, outputs: Iterable[str]) -> list[onnx.ValueInfoProto]:
    """Type and shape of all that follows from the inputs alone, without notes and without what ``outputs`` declare."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    for value in bare.graph.output:
        if value.name in outputs:
            value.ClearField("type")
    found = infer_types(bare).graph
    return [value for value in (*found.value_info, *found.output) if _typed(value)]


def _contradict(noted: Dims, follows: Dims, free: set[str]) -> bool:
    """Whether a note is wrong: another rank or number, a number in the place of what an input leaves free."""
    if len(noted) != len(follows):
        return True
    return any(_differ(dim, other, free) for dim, other in zip(noted, follows))


def _differ(dim: Dim, other: Dim, free: set[str]) -> bool:
    if isinstance(dim, int):
        size = from_dim(other)
        open_ = isinstance(size, Product) and set(size.names) <= free
        return dim != other if isinstance(other, int) else open_
    return isinstance(dim, str) and dim != other and {dim, other} <= free


def _shapes(values: Iterable[onnx.ValueInfoProto]) -> Shapes:
    found = {}
    for value in values:
        tensor = value.type.tensor_type
        if tensor.HasField("shape"):
            sizes = (d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in tensor.shape.dim)
            found[value.name] = tuple(None if isinstance(d, str) and d.startswith(FRESH) else d for d in sizes)
    return found


def _typed(value: onnx.ValueInfoProto) -> bool:
    kind = value.type.WhichOneof("value")
    return kind is not None and (kind != "tensor_type" or bool(value.type.tensor_type.elem_type))


def _of_convolution(graph: onnx.GraphProto, name: str) -> list[int | None] | None:
    """The shape of a value as the first convolution that reads it, perhaps rescaled, tells it."""
    weights = {tensor.name: tensor.dims for tensor in graph.initializer}
    weights |= _whole({value.name: _shapes([value]).get(value.name, ()) for value in graph.input})
    reached = {name}
    for node in graph.node:
        if not reached.intersection(node.input):
            continue
        if node.op_type == "Conv" and node.input[0] in reached and weights.get(node.input[1]):
            kernel = weights[node.input[1]]
            group = next((a.i for a in node.attribute if a.name == "group"), 1)
            return [None, kernel[1] * group, *[None] * (len(kernel) - 2)]
        if node.op_type in ("Add", "Cast", "Div", "Identity", "Mul", "Sub"):
            reached.update(node.output)
    return None


def _whole(shapes: Shapes) -> dict[str, list[int]]:
    return {name: [d for d in dims if isinstance(d, int)] for name, dims in shapes.items() if dims and None not in dims}


def _free(name: str, taken: set[str]) -> str:
    number = 1
    while (free := f"{name}_{number}") in taken:
        number += 1
    taken.add(free)
    return free
