"""Models of one picture, [3, H, W] or [H, W, 3], get the axis of images that all others have.

torchvision's detectors and mobile converters write such files, in which the graph itself puts the axis in front. Here
the input gets it, with a Squeeze behind it; so do outputs that lack it.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper, numpy_helper

from fastcam_export.graph.reading.bodies import bodies

PICTURES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8)
SMALLEST = 9
"""A side of a picture has at least so many pixels; fewer numbers are channels."""
PLAIN = frozenset({"Add", "Cast", "Clip", "Div", "Identity", "Mul", "Neg", "Sub"})
"""What a graph does to pixels before it puts the axis in front."""


def with_batch_axis(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """The model with an axis of images in front of its one picture, and what is to be said of it.

    A model that has such an axis, or whose three axes may be a signal's, is returned as it is. Outputs that count
    something which only a run tells, such as boxes, stay as they are.
    """
    weights = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in weights and _is_tensor(value)]
    if any(len(_dims(value)) > 3 for value in inputs):
        return proto, []
    single = [value.name for value in inputs if _is_one_picture(proto.graph, value)]
    if len(single) != 1:
        return proto, []
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    graph = made.graph
    axes = _axes(made)
    image = next(value for value in graph.input if value.name == single[0])
    front = _add_in_front(graph, image, axes)
    behind = [] if any(None in _dims(value)[:1] for value in graph.output) else list(graph.output)
    nodes = [
        _append_batch_axis(graph, value, axes) for value in behind if _is_tensor(value) and _dims(value)[:1] != [1]
    ]
    graph.node.insert(0, front)
    graph.node.extend(nodes)
    also = f", and {', '.join(node.output[0] for node in nodes)}" if nodes else ""
    return made, [f"{image.name} is one picture without an axis of images: it has one of size 1 now{also}"]


def _is_tensor(value: onnx.ValueInfoProto) -> bool:
    return bool(value.type.HasField("tensor_type") and value.type.tensor_type.HasField("shape"))


def _dims(value: onnx.ValueInfoProto) -> list[int | None]:
    """Sizes; None where one is free."""
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else None for dim in dims]


def _is_one_picture(graph: onnx.GraphProto, value: onnx.ValueInfoProto) -> bool:
    """Whether an input of three axes is a picture: three channels in front of two sides, or the graph says so.

    It says so where it puts an axis in front of pixels, or moves the last of three axes to the front.
    """
    dims = _dims(value)
    if len(dims) != 3 or value.type.tensor_type.elem_type not in PICTURES:
        return False
    if dims[0] == 3 and all(d is None or d >= SMALLEST for d in dims[1:]):
        return True
    sides = sum(d is None or d >= SMALLEST for d in dims)
    node = _first(graph, value.name)
    if node is None or sides < 2:
        return False
    if node.op_type == "Transpose":
        return _ints(graph, node, "perm", None) == [2, 0, 1]
    return node.op_type == "Unsqueeze" and _ints(graph, node, "axes", 1) == [0]


def _first(graph: onnx.GraphProto, name: str) -> onnx.NodeProto | None:
    """The first node behind a value that does something with its axes, where there is one alone."""
    for _ in range(8):
        nodes = [node for node in graph.node if name in node.input and node.op_type not in ("Shape", "Size")]
        if len(nodes) != 1 or nodes[0].op_type not in PLAIN:
            return nodes[0] if len(nodes) == 1 else None
        name = nodes[0].output[0]
    return None


def _ints(graph: onnx.GraphProto, node: onnx.NodeProto, attribute: str, operand: int | None) -> list[int]:
    """What an attribute says, or a constant input in later opsets."""
    for each in node.attribute:
        if each.name == attribute:
            return list(each.ints)
    if operand is None or len(node.input) <= operand:
        return []
    tensors = [tensor for tensor in graph.initializer if tensor.name == node.input[operand]]
    for other in graph.node:
        if other.op_type == "Constant" and node.input[operand] in other.output:
            tensors += [each.t for each in other.attribute if each.name == "value"]
            return [int(i) for each in other.attribute if each.name == "value_ints" for i in each.ints] or [
                int(i) for tensor in tensors for i in numpy_helper.to_array(tensor).ravel()
            ]
    return [int(i) for tensor in tensors for i in numpy_helper.to_array(tensor).ravel()]


# ---- the change


def _axes(model: onnx.ModelProto) -> str:
    """The name of a constant [0]; "" where the opset has axes as attributes."""
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 18)
    if opset < 13:
        return ""
    name = _free("axis_of_images", model.graph)
    model.graph.initializer.append(helper.make_tensor(name, TensorProto.INT64, [1], [0]))
    return name


def _node(kind: str, before: str, after: str, axes: str) -> onnx.NodeProto:
    if axes:
        return helper.make_node(kind, [before, axes], [after], name=f"{kind}_{after}")
    return helper.make_node(kind, [before], [after], name=f"{kind}_{after}", axes=[0])


def _add_in_front(graph: onnx.GraphProto, image: onnx.ValueInfoProto, axes: str) -> onnx.NodeProto:
    inner = _free(f"{image.name}_alone", graph)
    _rename_reads(graph, image.name, inner)
    _with_one(image)
    return _node("Squeeze", image.name, inner, axes)


def _append_batch_axis(graph: onnx.GraphProto, output: onnx.ValueInfoProto, axes: str) -> onnx.NodeProto:
    inner = _free(f"{output.name}_alone", graph)
    _rename_reads(graph, output.name, inner)
    for node in graph.node:
        node.output[:] = [inner if name == output.name else name for name in node.output]
    for note in graph.value_info:
        note.name = inner if note.name == output.name else note.name
    _with_one(output)
    return _node("Unsqueeze", inner, output.name, axes)


def _with_one(value: onnx.ValueInfoProto) -> None:
    shape = value.type.tensor_type.shape
    shape.dim.insert(0, onnx.TensorShapeProto.Dimension(dim_value=1))


def _rename_reads(graph: onnx.GraphProto, before: str, after: str) -> None:
    """In the graph and in all bodies of its nodes."""
    for node in graph.node:
        node.input[:] = [after if name == before else name for name in node.input]
        for body in bodies(node):
            _rename_reads(body, before, after)


def _free(name: str, graph: onnx.GraphProto) -> str:
    taken = {value for node in graph.node for value in (*node.input, *node.output)}
    taken |= {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    while name in taken:
        name += "_"
    return name
