"""Dropout that still drops at inference (Monte Carlo dropout), written as what it does: it draws, and compares.

The check can then hold what was drawn, and the gradient is that of a product. From the same seed other numbers are
drawn than the operator would draw.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT
Constant = Callable[[str], npt.NDArray[np.generic] | None]
Types = Callable[[], Mapping[str, int]]


def spell_out(model: onnx.ModelProto, types: Types) -> str:
    """Rewrite the Dropouts in training mode, whose ratio the file says; what was done, in a few words, or nothing.

    Args:
        model: changed.
        types: gives the element types of values by name, as far as they are known; called where it is needed.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    constants |= {node.output[0]: a.t for node in graph.node if node.op_type == "Constant" for a in node.attribute}

    def constant(name: str) -> npt.NDArray[np.generic] | None:
        tensor = constants.get(name)
        return numpy_helper.to_array(tensor) if tensor is not None and tensor.data_type else None

    active = [node for node in graph.node if _is_active(node, constant)]
    if not active:
        return ""
    known, kept = types(), list[onnx.NodeProto]()
    done = 0
    for node in graph.node:
        made = _spelled(node, constant) if node in active and known.get(node.input[0], FLOAT) == FLOAT else []
        done += bool(made)
        kept += made or [node]
    del graph.node[:]
    graph.node.extend(kept)
    return f"{done} Dropout that drops at inference spelled out, which draws other numbers" if done else ""


def _is_active(node: onnx.NodeProto, constant: Constant) -> bool:
    if node.op_type != "Dropout" or node.domain not in ("", "ai.onnx") or len(node.input) < 3:
        return False
    flag = constant(node.input[2])
    return flag is not None and bool(flag.all())


def _spelled(node: onnx.NodeProto, constant: Constant) -> list[onnx.NodeProto]:
    """y = x / (1 - ratio) where a number drawn from 0 to 1 is below 1 - ratio, else 0; none of another ratio."""
    given = constant(node.input[1]) if node.input[1] else np.float32(0.5)
    if given is None or not 0 <= float(given) < 1:
        return []
    x, y, keep = node.input[0], node.output[0], 1 - float(given)
    prefix, mask = f"{y}.drop", node.output[1] if len(node.output) > 1 and node.output[1] else f"{y}.drop.mask"
    draw = helper.make_node("RandomUniformLike", [x], [f"{prefix}.drawn"], dtype=FLOAT)
    draw.attribute.extend(helper.make_attribute("seed", float(a.i)) for a in node.attribute if a.name == "seed")
    return [
        draw,
        helper.make_node("Constant", [], [f"{prefix}.keep"], value=numpy_helper.from_array(np.array(keep, np.float32))),
        helper.make_node(
            "Constant", [], [f"{prefix}.scale"], value=numpy_helper.from_array(np.array(1 / keep, np.float32))
        ),
        helper.make_node("Less", [f"{prefix}.drawn", f"{prefix}.keep"], [mask]),
        helper.make_node("Cast", [mask], [f"{prefix}.kept"], to=FLOAT),
        helper.make_node("Mul", [f"{prefix}.kept", f"{prefix}.scale"], [f"{prefix}.factor"]),
        helper.make_node("Mul", [x, f"{prefix}.factor"], [y]),
    ]


def _number(name: str, value: float) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.array(value, np.float32)))
