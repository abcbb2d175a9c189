"""Files that decode their pictures or draw on them themselves, by operators of onnxruntime-extensions.

ONNX Runtime does not run these without that library. What stands in front is cut off where the model proper begins, at
a tensor of pictures; what stands behind is left out. The export is one of what lies between.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import TensorProto, helper

from fastcam.errors import FastcamError, listed

DOMAINS = frozenset({"ai.onnx.contrib", "com.microsoft.extensions"})
DECODERS = frozenset({"DecodeImage", "ImageDecoder", "ImageReader"})
COMPUTES = frozenset(
    {"Conv", "ConvInteger", "Gemm", "MatMul", "MatMulInteger", "QGemm", "QLinearConv", "QLinearMatMul"}
)
"""Operators of a model proper, which no preprocessing has."""
PICTURES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8)


def without_extensions(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """The model without operators of onnxruntime-extensions, and what is to be said of it.

    Raises:
        FastcamError: there is no tensor of pictures behind them.
    """
    if not any(_is_foreign(node) for node in proto.graph.node):
        return proto, []
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    graph, notes = made.graph, []
    computed = _dependents(graph, [node for node in graph.node if node.op_type in COMPUTES])
    behind = [node for node in graph.node if _is_foreign(node) and any(name in computed for name in node.input)]
    if behind:
        notes.append(f"left out {_names(behind)} behind the model, which onnxruntime-extensions runs")
        _leave_out(graph, behind, computed)
    front = [node for node in graph.node if _is_foreign(node)]
    if front:
        value = _cut(made, front)
        raw = value.type.tensor_type.elem_type == TensorProto.UINT8
        how = "pictures as they are (--preprocess raw)" if raw else "--preprocess says what was done in front"
        notes.append(f"begins at {value.name!r}, behind {_names(front)}, which onnxruntime-extensions runs: {how}")
        _begin_at(graph, value)
    kept = [entry for entry in made.opset_import if entry.domain not in DOMAINS]
    del made.opset_import[:]
    made.opset_import.extend(kept)
    return made, notes


def _is_foreign(node: onnx.NodeProto) -> bool:
    return node.domain in DOMAINS or (node.domain in ("", "ai.onnx") and node.op_type == "ImageDecoder")


def _names(nodes: Iterable[onnx.NodeProto]) -> str:
    return listed(sorted({node.op_type for node in nodes}))


def _dependents(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> set[str]:
    """The names of all values that depend on nodes, their own among them."""
    found = {name for node in nodes for name in node.output if name}
    grown = True
    while grown:
        new = {name for node in graph.node if found.intersection(node.input) for name in node.output if name} - found
        found |= new
        grown = bool(new)
    return found


def _leave_out(graph: onnx.GraphProto, nodes: list[onnx.NodeProto], computed: set[str]) -> None:
    """Remove nodes and what depends on them; where no output is left, what they read is the output."""
    gone = _dependents(graph, nodes)
    read = [name for node in nodes for name in node.input if name in computed - gone]
    _keep(graph.node, [node for node in graph.node if not gone.intersection(node.output)])
    _keep(graph.output, [value for value in graph.output if value.name not in gone])
    if not graph.output:
        known = {value.name: value for value in graph.value_info}
        graph.output.extend(known.get(n) or helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in read)


def _cut(model: onnx.ModelProto, front: list[onnx.NodeProto]) -> onnx.ValueInfoProto:
    """The first tensor of pictures that all paths from the nodes in front to the outputs lead through."""
    graph, outputs = model.graph, {value.name for value in model.graph.output}
    shapes = _shapes(model, front)
    behind = _dependents(graph, front)
    names = [name for node in graph.node if not _is_foreign(node) for name in node.output if name in behind]
    for name in names:
        value = shapes.get(name)
        if value is not None and _is_pictures(value) and not _leads_around(graph, front, name, outputs):
            return value
    raise FastcamError(
        f"the model decodes its inputs itself ({_names(front)}), which only onnxruntime-extensions runs, and no tensor "
        "of pictures lies behind that; give the file as it was before its preprocessing was added"
    )


def _shapes(model: onnx.ModelProto, front: list[onnx.NodeProto]) -> dict[str, onnx.ValueInfoProto]:
    """Types and shapes of what follows, where decoders give pictures [h, w, 3]."""
    rest = onnx.ModelProto()
    rest.CopyFrom(model)
    _keep(rest.graph.node, [node for node in rest.graph.node if not _is_foreign(node)])
    for node in front:
        if node.op_type in DECODERS:
            shape: list[int | str | None] = ["picture_height", "picture_width", 3]
            rest.graph.input.append(helper.make_tensor_value_info(node.output[0], TensorProto.UINT8, shape))
    inferred = onnx.shape_inference.infer_shapes(rest, data_prop=True).graph
    return {value.name: value for value in inferred.value_info}


def _is_pictures(value: onnx.ValueInfoProto) -> bool:
    dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    return value.type.tensor_type.elem_type in PICTURES and len(dims) == 4 and (dims[1] in (1, 3) or dims[3] in (1, 3))


def _leads_around(graph: onnx.GraphProto, front: list[onnx.NodeProto], name: str, outputs: set[str]) -> bool:
    """Whether a path from the nodes in front to an output avoids a value."""
    reached = {output for node in front for output in node.output if output}
    for node in graph.node:
        if reached.intersection(node.input):
            reached.update(output for output in node.output if output != name)
    return bool(reached & outputs)


def _begin_at(graph: onnx.GraphProto, value: onnx.ValueInfoProto) -> None:
    """Make an input of a value, and remove what it alone needs."""
    _keep(graph.node, [node for node in graph.node if value.name not in node.output])
    needed, kept = {output.name for output in graph.output}, []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(name for name in node.input if name)
            for attribute in node.attribute:
                needed.update(name for inner in attribute.g.node for name in inner.input)
    _keep(graph.node, kept[::-1])
    given = onnx.ValueInfoProto()
    given.CopyFrom(value)
    _keep(graph.input, [each for each in graph.input if each.name in needed and each.name != value.name])
    _keep(graph.value_info, [each for each in graph.value_info if each.name != value.name])
    graph.input.insert(0, given)


def _keep(field, values) -> None:  # type: ignore[no-untyped-def]
    """Make a repeated field hold these of its values."""
    kept = [type(value)() for value in values]
    for copy, value in zip(kept, values):
        copy.CopyFrom(value)
    del field[:]
    field.extend(kept)
