"""What gradients hold constant although it depends on the layer, for the check: the regions that RoiAlign pools from.

Their derivative is declared zero, as in the detectors' own training, so central differences must not move them either.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
import onnx
import onnx_ir as ir

from fastcam_export.verify.finite_differences import HELD
from fastcam_export.verify.session import quiet_session

Array = npt.NDArray[Any]
REGIONS = {"RoiAlign": (1, 2)}
"""Operator -> inputs: regions, and the images that they are of."""


def cut(graph: ir.Graph) -> None:
    """Make what is held an input of a model's tail, named after the value that it takes the place of."""
    made: dict[str, ir.Value] = {}
    for node in graph:
        for i in REGIONS.get(node.op_type, ()):
            value = node.inputs[i]
            if value is None or value.producer() is None:
                continue
            name = f"{HELD}{value.name}"
            if name not in made:
                made[name] = ir.Value(name=name, type=value.type, shape=value.shape)
                graph.inputs.append(made[name])
            node.replace_input_with(i, made[name])


def fed(source: onnx.ModelProto, behind: onnx.ModelProto, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """``feeds`` of a model, others with them, and what its tail ``behind`` holds, as the model gives it for them."""
    held = [value for value in behind.graph.input if value.name.startswith(HELD)]
    if not held:
        return dict(feeds)
    probe = onnx.ModelProto()
    probe.CopyFrom(source)
    names = [value.name.removeprefix(HELD) for value in held]
    for name, value in zip(names, held):
        probe.graph.output.append(onnx.helper.make_tensor_value_info(name, value.type.tensor_type.elem_type, None))
    inputs = {value.name for value in source.graph.input}
    values = quiet_session(probe).run(names, {name: array for name, array in feeds.items() if name in inputs})
    return {**feeds, **{value.name: array for value, array in zip(held, values)}}
