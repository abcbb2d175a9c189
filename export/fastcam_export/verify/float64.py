"""A model in float64, for differences that rounding does not drown."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from fastcam_export.verify import recurrent, resize

Array = npt.NDArray[Any]


def in_double(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with float64 in place of float32 and float16: weights, inputs, outputs and types that nodes name."""
    double = onnx.TensorProto.DOUBLE
    narrow = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    wide = onnx.ModelProto()
    wide.CopyFrom(model)

    def convert(tensor: onnx.TensorProto) -> None:
        if tensor.data_type in narrow:
            array = numpy_helper.to_array(tensor).astype(np.float64)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))

    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 18)

    def widen(graph: onnx.GraphProto) -> None:
        known = resize.shapes(graph)
        del graph.value_info[:]
        for value in (*graph.input, *graph.output):
            if value.type.tensor_type.elem_type in narrow:
                value.type.tensor_type.elem_type = double
        for tensor in graph.initializer:
            convert(tensor)
        for node in graph.node:
            _known_in_double(graph, node)
            for attribute in node.attribute:
                for body in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                    widen(body)
                if attribute.HasField("t"):
                    convert(attribute.t)
                elif node.op_type == "Cast" and attribute.name == "to" and attribute.i in narrow:
                    attribute.i = double
        recurrent.spelled(graph)
        _kept_in_single(graph, known, opset)

    widen(wide.graph)
    return wide


SINGLE: dict[str, tuple[int, ...]] = {"NonMaxSuppression": (0, 1, 3, 4), "Resize": (0, 2)}
"""Operators that the runtime has in float32 alone, and those of their inputs that are float32 then."""


def _kept_in_single(graph: onnx.GraphProto, shapes: dict[str, list[int]], opset: int) -> None:
    """A Resize by repeating or by matrices, where the file says how; else casts around :data:`SINGLE`: of a detector's
    boxes, which give indices, and of the pictures that it resizes."""
    if all(node.op_type not in SINGLE for node in graph.node):
        return
    ordered = onnx.GraphProto()
    cast = onnx.helper.make_node
    weights = _constants(graph)
    for node in graph.node:
        name = f"fastcam_check.{node.output[0]}" if node.output else ""
        factors = _whole_factors(node, weights)
        if factors is not None:
            ordered.node.extend(_repeated(graph, node, factors, name))
            continue
        dims = shapes.get(node.input[0]) if node.op_type == "Resize" else None
        along = resize.matrices(node, dims, weights, opset) if dims else None
        if along is not None and dims is not None:
            ordered.node.extend(resize.nodes(graph, node, along, len(dims)))
            continue
        for i in SINGLE.get(node.op_type, ()):
            if i < len(node.input) and node.input[i]:
                ordered.node.append(cast("Cast", [node.input[i]], [f"{name}.{i}"], to=onnx.TensorProto.FLOAT))
                node.input[i] = f"{name}.{i}"
        ordered.node.append(node)
        if node.op_type == "Resize":
            ordered.node.append(cast("Cast", [name], [node.output[0]], to=onnx.TensorProto.DOUBLE))
            ordered.node[-2].output[0] = name
    del graph.node[:]
    graph.node.extend(ordered.node)


def _constants(graph: onnx.GraphProto) -> dict[str, Array]:
    """Small constants by name."""
    found = {tensor.name: tensor for tensor in graph.initializer}
    found |= {
        node.output[0]: a.t
        for node in graph.node
        if node.op_type == "Constant"
        for a in node.attribute
        if a.name == "value"
    }
    return {name: numpy_helper.to_array(tensor) for name, tensor in found.items() if np.prod(tensor.dims) <= 8}


def _whole_factors(node: onnx.NodeProto, constants: dict[str, Array]) -> Array | None:
    """The scales of a Resize that repeats each element a whole number of times, as exporters write it."""
    given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    nearest = given.get("mode", b"nearest") == b"nearest" and given.get("nearest_mode") == b"floor"
    plain = given.get("coordinate_transformation_mode") == b"asymmetric" and not given.get("axes")
    scales = constants.get(node.input[2]) if node.op_type == "Resize" and len(node.input) == 3 else None
    if scales is None or not scales.size or not nearest or not plain or (scales != np.rint(scales)).any():
        return None
    return scales.astype(np.int64) if (scales >= 1).all() else None


def _repeated(graph: onnx.GraphProto, node: onnx.NodeProto, factors: Array, name: str) -> list[onnx.NodeProto]:
    """Each element ``factors`` times along each axis, by operators that know float64."""
    made = onnx.helper.make_node
    between = np.arange(1, 2 * len(factors), 2)
    constants = {"axes": between, "times": np.stack((np.ones_like(factors), factors), 1).ravel(), "factors": factors}
    graph.initializer.extend(numpy_helper.from_array(array, f"{name}.{key}") for key, array in constants.items())
    x = node.input[0]
    return [
        made("Shape", [x], [f"{name}.shape"]),
        made("Mul", [f"{name}.shape", f"{name}.factors"], [f"{name}.larger"]),
        made("Unsqueeze", [x, f"{name}.axes"], [f"{name}.apart"]),
        made("Tile", [f"{name}.apart", f"{name}.times"], [f"{name}.tiled"]),
        made("Reshape", [f"{name}.tiled", f"{name}.larger"], [node.output[0]]),
    ]


def _known_in_double(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    """Operators for which the runtime has no float64 kernel, said with others: pools of one element, global means."""
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "GlobalAveragePool":
        axes = numpy_helper.from_array(np.array([2, 3]), "fastcam_check.axes")
        if all(tensor.name != axes.name for tensor in graph.initializer):
            graph.initializer.append(axes)
        node.op_type = "ReduceMean"
        node.input.append(axes.name)
    elif node.op_type == "AveragePool":
        one = set(attributes["kernel_shape"]) == set(attributes.get("strides", [1])) == {1}
        if one and not any(attributes.get("pads", [])):
            node.op_type = "Identity"
            del node.attribute[:]


def without_convolutions(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every Conv said with products and sums, for which the runtime has float64 kernels.

    What is not said so stays: a kernel that is computed, groups of several channels.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    del made.graph.node[:]
    for node in model.graph.node:
        kernel = weights.get(node.input[1]) if node.op_type == "Conv" else None
        group = next((a.i for a in node.attribute if a.name == "group"), 1)
        if kernel is None or (group != 1 and (kernel.shape[1] != 1 or kernel.shape[0] != group)):
            made.graph.node.append(node)
        else:
            _Taps(made.graph, node, kernel).append()
    return made


class _Taps:
    """y = b + sum over taps t of W_t x_t, where x_t is what tap t of every window of a Conv sees of the padded x."""

    def __init__(self, graph: onnx.GraphProto, node: onnx.NodeProto, kernel: Array) -> None:
        given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        self.graph, self.node, self.kernel, self.rank = graph, node, kernel, kernel.ndim - 2
        self.name, self.single = f"fastcam_check.{node.output[0]}", given.get("group", 1) == 1
        self.strides = given.get("strides") or [1] * self.rank
        self.dilations = given.get("dilations") or [1] * self.rank
        self.pads, self.auto = given.get("pads") or [0] * 2 * self.rank, given.get("auto_pad", b"NOTSET")

    def append(self) -> None:
        """Append the nodes to the graph."""
        x, axes = self._padded(), self._constant("axes", np.arange(2, 2 + self.rank))
        steps, most = self._constant("steps", self.strides), np.iinfo(np.int64).max
        terms = []
        for number, tap in enumerate(np.ndindex(*self.kernel.shape[2:])):
            begin = [t * d for t, d in zip(tap, self.dilations)]
            end = [(t + 1 - k) * d or most for t, k, d in zip(tap, self.kernel.shape[2:], self.dilations)]
            span = [self._constant(f"from{number}", begin), self._constant(f"to{number}", end), axes, steps]
            terms.append(self._product(number, self._emit("Slice", [x, *span], f"x{number}")))
        if len(self.node.input) > 2 and self.node.input[2]:
            column = self._constant("column", [1, -1, *[1] * self.rank])
            terms.append(self._emit("Reshape", [self.node.input[2], column], "bias"))
        self.graph.node.append(onnx.helper.make_node("Sum", terms, [self.node.output[0]]))

    def _product(self, number: int, seen: str) -> str:
        """What the tap of this number, in the kernel's order, adds."""
        matrix, letters = self.kernel.reshape(*self.kernel.shape[:2], -1)[:, :, number], "hwd"[: self.rank]
        if self.single:
            weight = self._constant(f"w{number}", matrix)
            return self._emit("Einsum", [weight, seen], f"y{number}", equation=f"mc,nc{letters}->nm{letters}")
        row = self._constant(f"w{number}", matrix.reshape(1, -1, *[1] * self.rank))
        return self._emit("Mul", [seen, row], f"y{number}")

    def _padded(self) -> str:
        """The padded x."""
        x: str = self.node.input[0]
        if self.auto.startswith(b"SAME"):
            return self._emit("Pad", [x, self._same()], "x")
        if not any(self.pads) or self.auto == b"VALID":
            return x
        begins, ends = self.pads[: self.rank], self.pads[self.rank :]
        return self._emit("Pad", [x, self._constant("pads", [0, 0, *begins, 0, 0, *ends])], "x")

    def _same(self) -> str:
        """Pads for as many windows as strides fit; of an odd number the end, or for SAME_LOWER the begin, has more."""
        reach = [(k - 1) * d + 1 for k, d in zip(self.kernel.shape[2:], self.dilations)]
        size = self._emit("Shape", [self.node.input[0]], "size", start=2)
        # the last window begins at (ceil(size / stride) - 1) * stride = (size - 1) // stride * stride
        last = self._emit("Sub", [size, self._constant("one", [1])], "last")
        stride = self._constant("stride", self.strides)
        start = self._emit("Mul", [self._emit("Div", [last, stride], "windows"), stride], "start")
        needed = self._emit("Add", [start, self._constant("reach", reach)], "needed")
        missing = self._emit("Sub", [needed, size], "missing")
        total = self._emit("Max", [missing, self._constant("none", [0])], "total")
        less = self._emit("Div", [total, self._constant("two", [2])], "less")
        more = self._emit("Sub", [total, less], "more")
        begin, end = (less, more) if self.auto == b"SAME_UPPER" else (more, less)
        still = self._constant("still", [0, 0])
        return self._emit("Concat", [still, begin, still, end], "pads", axis=0)

    def _constant(self, what: str, array: npt.ArrayLike) -> str:
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(array), f"{self.name}.{what}"))
        return f"{self.name}.{what}"

    def _emit(self, op_type: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.graph.node.append(onnx.helper.make_node(op_type, inputs, [f"{self.name}.{output}"], **attributes))
        return f"{self.name}.{output}"
