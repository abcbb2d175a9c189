"""Appends nodes and constants to an ONNX graph, for operators that are said with others."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper


class Emitter:
    """What takes the place of one node.

    Args:
        graph: where constants go.
        node: the node.

    Attributes:
        given: its attributes.
        into: the nodes so far.
    """

    def __init__(self, graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
        self.graph, self.node, self.name = graph, node, f"fastcam_check.{node.output[0] or node.name}"
        self.given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        self.into: list[onnx.NodeProto] = []
        self.count = 0

    def emit(self, op_type: str, *inputs: str | npt.ArrayLike, **attributes: Any) -> str:
        """One node of one output; numbers among the inputs become constants."""
        return self.emit_all(op_type, *inputs, outputs=1, **attributes)[0]

    def emit_all(self, op_type: str, *inputs: str | npt.ArrayLike, outputs: int, **attributes: Any) -> tuple[str, ...]:
        """One node."""
        names = tuple(self.fresh() for _ in range(outputs))
        values = [each if isinstance(each, str) else self.constant(each) for each in inputs]
        self.into.append(helper.make_node(op_type, values, list(names), **attributes))
        return names

    def constant(self, array: npt.ArrayLike) -> str:
        """A constant, integers as int64."""
        content = np.asarray(array)
        content = content.astype(np.int64) if content.dtype.kind == "i" or not content.size else content
        name = self.fresh()
        self.graph.initializer.append(numpy_helper.from_array(content, name))
        return name

    def fresh(self) -> str:
        """A new name."""
        self.count += 1
        return f"{self.name}.{self.count}"

    def give(self, value: str, output: int = 0) -> None:
        """Make ``value`` an output of the node."""
        if output < len(self.node.output) and self.node.output[output]:
            self.into.append(helper.make_node("Identity", [value], [self.node.output[output]]))
