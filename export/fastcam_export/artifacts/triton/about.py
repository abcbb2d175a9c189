"""What an exported file takes, gives and says of itself, as a file without its weights."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from fastcam import schema
from fastcam.schema import FastcamError


def about(model: onnx.ModelProto) -> onnx.ModelProto:
    """The file :data:`fastcam.schema.ABOUT` of an exported one: the same inputs, names of outputs and metadata.

    A runtime opens it as it opens any file, so whoever prepares pictures for a model that runs elsewhere, or reads what
    it gave, needs no second copy of its weights. Its outputs are empty.

    Raises:
        FastcamError: an output that is no tensor of numbers.
    """
    nodes, outputs, constants = [], [], []
    for value in model.graph.output:
        kind, rank = value.type.tensor_type.elem_type, len(value.type.tensor_type.shape.dim)
        if kind in (TensorProto.UNDEFINED, TensorProto.STRING):
            raise FastcamError(f"the output {value.name!r} is no tensor of numbers; Triton's ensemble takes those")
        if value.name == schema.CLASSES and any(one.name == schema.TARGETS for one in model.graph.input):
            nodes.append(helper.make_node("Identity", [schema.TARGETS], [value.name]))  # so that it stays an input
        else:
            shape = f"{value.name}.shape"
            constants.append(helper.make_tensor(shape, TensorProto.INT64, [rank], [0] * rank))
            empty = helper.make_tensor("value", kind, [1], [0])
            nodes.append(helper.make_node("ConstantOfShape", [shape], [value.name], value=empty))
        sides = [f"{value.name}.{axis}" for axis in range(rank)]
        outputs.append(helper.make_tensor_value_info(value.name, kind, sides))
    names = {value.name for value in model.graph.input}
    constants += [tensor for tensor in model.graph.initializer if tensor.name in names]
    graph = helper.make_graph(nodes, model.graph.name or "about", [*model.graph.input], outputs, constants)
    opsets = [one for one in model.opset_import if one.domain in ("", "ai.onnx")]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=model.ir_version)
    made.metadata_props.extend(entry for entry in model.metadata_props if entry.key == schema.METADATA_KEY)
    return made
