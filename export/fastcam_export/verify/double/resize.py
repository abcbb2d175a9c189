"""Resize said with matrices, for which the runtime has float64 kernels: each mode is linear, and one axis at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from fastcam_export.verify.session import quiet_session

Array = npt.NDArray[Any]


def shapes(graph: onnx.GraphProto) -> dict[str, list[int]]:
    """The dimensions of values by name; 0 for a free one."""
    known = (value for value in (*graph.input, *graph.value_info) if value.type.tensor_type.HasField("shape"))
    return {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in known}


def matrices(
    node: onnx.NodeProto, dims: Sequence[int] | None, constants: Mapping[str, Array], opset: int
) -> dict[int, Array] | None:
    """Of each axis that a Resize changes the [have, want] matrix; None where the file does not say enough.

    Args:
        node: the Resize.
        dims: of its input.
        constants: small constants by name.
        opset: of the default domain.
    """
    given = {a.name: a for a in node.attribute}
    cropped = (
        helper.get_attribute_value(given["coordinate_transformation_mode"])
        if ("coordinate_transformation_mode" in given)
        else b""
    )
    stretched = "keep_aspect_ratio_policy" not in given or given["keep_aspect_ratio_policy"].s == b"stretch"
    index = 3 if len(node.input) > 3 and node.input[3] else 2
    wanted = constants.get(node.input[index]) if index < len(node.input) else None
    if dims is None or wanted is None or not stretched or cropped == b"tf_crop_and_resize":
        return None
    axes = [axis % len(dims) for axis in (given["axes"].ints if "axes" in given else range(len(dims)))]
    made = {}
    for axis, want in zip(axes, wanted.ravel().tolist()):
        if want != (1 if index == 2 else dims[axis]):
            if not dims[axis]:
                return None
            made[axis] = _matrix(node, dims[axis], want, index, opset)
    return made


def _matrix(node: onnx.NodeProto, size: int, want: float, index: int, opset: int) -> Array:
    """What the runtime itself makes of the unit vectors of an axis."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute if a.name != "axes"}
    unit = np.eye(size, dtype=np.float32)[None, None]
    target = np.array([1, 1, 1, want], np.float32) if index == 2 else np.array([1, 1, size, int(want)])
    names = ["x", "", "to", ""] if index == 2 else ["x", "", "", "to"]
    graph = helper.make_graph(
        [helper.make_node("Resize", [*names[:2], *names[2:]][: index + 1], ["y"], **attributes)],
        "resize",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, unit.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(target, "to")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return np.asarray(quiet_session(model).run(None, {"x": unit})[0][0, 0], np.float64)


def nodes(graph: onnx.GraphProto, node: onnx.NodeProto, along: Mapping[int, Array], rank: int) -> list[onnx.NodeProto]:
    """The products in the place of a Resize."""
    made: list[onnx.NodeProto] = []
    x, letters = node.input[0], "abcdefgh"[:rank]
    for number, (axis, matrix) in enumerate(along.items()):
        name = f"fastcam_check.{node.output[0]}.{axis}"
        y = node.output[0] if number == len(along) - 1 else f"{name}.y"
        graph.initializer.append(numpy_helper.from_array(matrix if axis != rank - 2 else matrix.T.copy(), name))
        if axis == rank - 1:
            made.append(helper.make_node("MatMul", [x, name], [y]))
        elif axis == rank - 2:
            made.append(helper.make_node("MatMul", [name, x], [y]))
        else:
            result = letters.replace(letters[axis], "z")
            made.append(helper.make_node("Einsum", [x, name], [y], equation=f"{letters},{letters[axis]}z->{result}"))
        x = y
    return made or [helper.make_node("Identity", [x], [node.output[0]])]
