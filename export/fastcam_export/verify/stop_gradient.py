"""Inputs that gradients treat as constants although they depend on the layer: the regions that RoiAlign pools from.

Their derivative is declared zero, as in the detectors' own training, so central differences must not move them either.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
import onnx
import onnx_ir as ir

from fastcam_export.verify.finite_differences import STOPPED
from fastcam_export.verify.session import quiet_session

Array = npt.NDArray[Any]
REGIONS = {"RoiAlign": (1, 2)}
"""Operator -> inputs: regions, and the images that they are of."""


def cut(graph: ir.Graph) -> None:
    """Make each such value an input of a model's tail, named after the value that it takes the place of."""
    inputs: dict[str, ir.Value] = {}
    for node in graph:
        for i in REGIONS.get(node.op_type, ()):
            value = node.inputs[i]
            if value is None or value.producer() is None:
                continue
            name = f"{STOPPED}{value.name}"
            if name not in inputs:
                inputs[name] = ir.Value(name=name, type=value.type, shape=value.shape)
                graph.inputs.append(inputs[name])
            node.replace_input_with(i, inputs[name])


def fed(source: onnx.ModelProto, tail: onnx.ModelProto, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """``feeds`` of a model, others with them, and the constants of its ``tail``, as the model gives them for these."""
    stopped = [value for value in tail.graph.input if value.name.startswith(STOPPED)]
    if not stopped:
        return dict(feeds)
    probe = onnx.ModelProto()
    probe.CopyFrom(source)
    names = [value.name.removeprefix(STOPPED) for value in stopped]
    for name, value in zip(names, stopped):
        probe.graph.output.append(onnx.helper.make_tensor_value_info(name, value.type.tensor_type.elem_type, None))
    inputs = {value.name for value in source.graph.input}
    values = quiet_session(probe).run(names, {name: array for name, array in feeds.items() if name in inputs})
    return {**feeds, **{value.name: array for value, array in zip(stopped, values)}}
