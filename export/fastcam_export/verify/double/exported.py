"""The gradient that an export computes, by its own nodes in float64: what tells rounding from a wrong gradient.

In float32 a gradient may be far from the derivative though every rule is right: behind the layer a value falls to
another side of a kink, or a difference of large numbers loses its digits. In float64 the same nodes then give the
derivative. Of a wrong rule they do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from fastcam_export.verify.double.convolutions import KINDS, without_convolutions
from fastcam_export.verify.double.float64 import in_double
from fastcam_export.verify.session import quiet_session

Array = npt.NDArray[Any]


def part(exported: onnx.ModelProto, output: str, inputs: Mapping[str, onnx.ValueInfoProto]) -> onnx.ModelProto:
    """What of an exported file leads from its layer to one output, in float64.

    Args:
        exported: the file.
        output: the output.
        inputs: values of it that become inputs, by their names, as what: the layer, and what is held constant.
    """
    made = onnx.ModelProto()
    made.CopyFrom(exported)
    rename(made.graph, {name: value.name for name, value in inputs.items()})
    made.graph.input.extend(inputs.values())
    _reduce(made, [output])
    _fold_kernels(made)
    return without_convolutions(in_double(made))


def _reduce(model: onnx.ModelProto, outputs: Sequence[str]) -> None:
    """Leave what leads to some values, and make these the only outputs."""
    graph, needed, nodes = model.graph, set(outputs), []
    for node in reversed(graph.node):
        if any(name in needed for name in node.output):
            nodes.append(node)
            needed.update(_read(node))
    kept: list[tuple[Any, list[Any]]] = [
        (graph.node, nodes[::-1]),
        (graph.input, [value for value in graph.input if value.name in needed]),
        (graph.initializer, [tensor for tensor in graph.initializer if tensor.name in needed]),
        (graph.output, [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs]),
    ]
    for field, entries in kept:
        copies = [type(entry).FromString(entry.SerializeToString()) for entry in entries]
        del field[:]
        field.extend(copies)


def _bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [body for a in node.attribute for body in (*a.graphs, *([a.g] if a.HasField("g") else []))]


def _read(node: onnx.NodeProto) -> list[str]:
    """The names that a node reads, in its bodies too."""
    names = list(node.input)
    for body in _bodies(node):
        names += [name for inner in body.node for name in _read(inner)] + [value.name for value in body.output]
    return names


def rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Let all that reads some values read others."""
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name in names:
                node.input[i] = names[name]
        for body in _bodies(node):
            rename(body, names)


def _fold_kernels(model: onnx.ModelProto) -> None:
    """Make constants of the kernels that nodes compute of weights alone, such as one that is turned round."""
    moving = {value.name for value in model.graph.input}
    for node in model.graph.node:
        if any(name in moving for name in _read(node)):
            moving.update(node.output)
    known = moving | {tensor.name for tensor in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type in KINDS]
    kernels = list(dict.fromkeys(node.input[1] for node in convolutions if node.input[1] not in known))
    if not kernels:
        return
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    _reduce(probe, kernels)
    names = {kernel: f"fastcam_check.kernel.{kernel}" for kernel in kernels}
    folded = zip(names.values(), quiet_session(probe).run(kernels, {}))
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(array), name) for name, array in folded)
    rename(model.graph, names)
