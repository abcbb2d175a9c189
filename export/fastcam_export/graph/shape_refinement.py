"""Sharpens inferred shapes: one more sweep over the graph, with what is known of the elements of shape vectors.

ONNX's inference gives up a Reshape whose target is computed from a free batch, and with it all sizes behind. Here such
targets are followed element by element (:mod:`fastcam_export.graph.symbolic_values`), and each node is inferred again,
once, by ONNX's own function for it, from the sharpened shapes of its inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, TypeProto, defs, helper, numpy_helper, shape_inference

from fastcam_export.graph import symbolic_values
from fastcam_export.graph.query import Dim
from fastcam_export.graph.symbolic_dims import Known, from_dim, reshaped, times, to_dim, volume
from fastcam_export.graph.symbolic_values import Elements

Shape = tuple[Dim, ...]

REFUSALS = (defs.SchemaError, shape_inference.InferenceError, onnx.checker.ValidationError)
FRESH = "unk__"
"""Begins the names that ONNX's inference gives to dimensions of which it knows nothing."""


def refine(model: onnx.ModelProto) -> None:
    """Sharpen the shapes in ``value_info`` of a model after ONNX's inference; subgraphs are left as they are."""
    known = _Sweep(model)
    inferred = dict(known.shapes)
    for node in model.graph.node:
        known.visit(node)
    declared = {value.name for value in (*model.graph.input, *model.graph.output)}
    del model.graph.value_info[:]
    model.graph.value_info.extend(
        helper.make_tensor_value_info(name, type_, _lasting(known.shapes.get(name), inferred.get(name)))
        for name, type_ in known.types.items()
        if name in known.inner and name not in declared
    )
    model.graph.value_info.extend(value for value in known.others if value.name not in declared)


class _Sweep:
    """What is known so far.

    Attributes:
        types: element type of each tensor.
        shapes: its shape, where at least the number of axes is known.
        elements: what it holds, of short tensors that are computed from shapes and constants.
        inner: names of what nodes give.
        others: types of values that are no tensors, as they were found.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self.types: dict[str, int] = {}
        self.shapes: dict[str, Shape] = {}
        self.elements: dict[str, Elements] = {}
        self.inner = {name for node in graph.node for name in node.output if name}
        self.others = []
        self._imports = list(model.opset_import)
        self._versions = {_domain(entry.domain): entry.version for entry in self._imports}
        for value in (*graph.input, *graph.output, *graph.value_info):
            if value.type.HasField("tensor_type"):
                self._note(value.name, value.type)
            elif value.name in self.inner:
                self.others.append(value)
        self._constants(graph.initializer)
        for name in {value.name for value in graph.input} & self.elements.keys():
            del self.elements[name]  # of an input, an initializer is only a default

    def _constants(self, tensors: Iterable[TensorProto]) -> None:
        for tensor in tensors:
            self.types[tensor.name], self.shapes[tensor.name] = tensor.data_type, tuple(tensor.dims)
            found = symbolic_values.of_tensor(tensor)
            if found is not None:
                self.elements[tensor.name] = found

    def visit(self, node: onnx.NodeProto) -> None:
        """Learn what ``node`` gives."""
        if node.op_type == "Scan":
            self._scan(node)
        for name, type_ in self._infer(node):
            self._note(name, type_)
        if node.domain in ("", "ai.onnx") and len(node.output) == 1:
            (output,) = node.output
            exact = self._exact(node)
            if exact is not None:
                self._sharpen(output, exact)
            found = self._compute(node)
            if found is not None:
                self.elements[output] = found

    def _note(self, name: str, type_: TypeProto) -> None:
        tensor = type_.tensor_type
        if not name or not tensor.elem_type:
            return
        self.types.setdefault(name, tensor.elem_type)
        if tensor.HasField("shape"):
            dims = (d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in tensor.shape.dim)
            self._sharpen(name, tuple(dims))

    def _sharpen(self, name: str, shape: Sequence[Dim]) -> None:
        before = self.shapes.get(name)
        if before is None:
            self.shapes[name] = tuple(shape)
        elif len(before) == len(shape):
            self.shapes[name] = tuple(map(_sharper, before, shape))

    def _scan(self, node: onnx.NodeProto) -> None:
        """What a Scan gives, from its body, which may read what is around it: states keep their shape."""
        given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        body, first = given["body"], len(node.input) - given["num_scan_inputs"]
        results = len(node.output) - first
        along = [*[None] * first, *given.get("scan_input_axes", [0] * (len(node.input) - first))]
        length: Dim = None
        for inner, name, axis in zip(body.input, node.input, along):
            shape = self.shapes.get(name)
            if name in self.types and shape is not None:
                if axis is not None:
                    axis %= len(shape)
                    length, shape = shape[axis], shape[:axis] + shape[axis + 1 :]
                self.types[inner.name], self.shapes[inner.name] = self.types[name], shape
        self._constants(body.initializer)
        for each in body.node:
            self.visit(each)
        behind = [*[None] * first, *given.get("scan_output_axes", [0] * results)]
        for inner, name, axis in zip(body.output, node.output, behind):
            shape = self.shapes.get(inner.name)
            if name and shape is not None:
                at = None if axis is None else axis % (len(shape) + 1)
                self._sharpen(name, shape if at is None else (*shape[:at], length, *shape[at:]))

    def _infer(self, node: onnx.NodeProto) -> Iterable[tuple[str, TypeProto]]:
        """(output, its type) by ONNX's inference for this node alone."""
        if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute):
            return []
        if any(name and name not in self.types for name in node.input):
            return []
        types = {
            name: helper.make_tensor_type_proto(self.types[name], self.shapes.get(name)) for name in node.input if name
        }
        try:
            domain = _domain(node.domain)
            schema = defs.get_schema(node.op_type, self._versions.get(domain, 1), domain)
            found = shape_inference.infer_node_outputs(
                schema, node, types, self._data(node), opset_imports=self._imports
            )
        except REFUSALS:  # what the runtime takes is not refused here
            return []
        return found.items()

    def _data(self, node: onnx.NodeProto) -> dict[str, TensorProto]:
        """The inputs that are numbers."""
        data = {}
        for name in node.input:
            elements = self.elements.get(name)
            if symbolic_values.numbers(elements) is not None and elements is not None:
                dtype = helper.tensor_dtype_to_np_dtype(self.types[name])
                data[name] = numpy_helper.from_array(elements.astype(dtype), name)
        return data

    def _exact(self, node: onnx.NodeProto) -> list[Dim] | None:
        """The shape that sizes tell: the elements of a shape operand, the products of a Flatten."""
        if node.op_type == "Flatten":
            return self._flattened(node)
        position = SHAPED.get(node.op_type)
        target = self._sizes(node.input[position]) if position is not None and position < len(node.input) else None
        if target is None or any(isinstance(size, float) for size in target):
            return None
        if node.op_type == "ConstantOfShape":
            return [to_dim(size) for size in target]
        before = self.shapes.get(node.input[0])
        if before is None:
            return None
        dims = [from_dim(dim) for dim in before]
        if node.op_type == "Expand":
            rank = max(len(dims), len(target))
            ones: list[Known | None] = [1] * rank
            pairs = zip((ones + dims)[-rank:] if rank else [], (ones + target)[-rank:] if rank else [])
            return [to_dim(_broadcast(*pair)) for pair in pairs]
        if node.op_type == "Tile":
            known = [None if a is None or b is None else times(a, b) for a, b in zip(dims, target)]
            return [to_dim(size) for size in known] if len(dims) == len(target) else None
        zero_copies = not any(a.name == "allowzero" and a.i for a in node.attribute)
        return reshaped(dims, target, zero_copies)

    def _flattened(self, node: onnx.NodeProto) -> list[Dim] | None:
        before = self.shapes.get(node.input[0])
        if before is None:
            return None
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        dims = [from_dim(dim) for dim in before]
        return [to_dim(volume(dims[:axis])), to_dim(volume(dims[axis:]))]

    def _sizes(self, name: str) -> list[Any] | None:
        elements = self.elements.get(name)
        return elements.tolist() if elements is not None and elements.ndim == 1 else None

    def _compute(self, node: onnx.NodeProto) -> Elements | None:
        """The elements of the only output; of a short vector of sizes that nobody knows, None each."""
        (output,) = node.output
        try:
            shapes = [self.shapes.get(name) for name in node.input]
            return symbolic_values.compute(node, [self.elements.get(name) for name in node.input], shapes)
        except (LookupError, ValueError, ArithmeticError):
            pass
        shape = self.shapes.get(output)
        if self.types.get(output) not in symbolic_values.INTEGERS or shape is None or len(shape) > 1:
            return None
        sizes = [size for size in shape if isinstance(size, int) and size <= symbolic_values.LIMIT]
        return np.empty(sizes, object) if len(sizes) == len(shape) else None


SHAPED = {"ConstantOfShape": 0, "Expand": 1, "Reshape": 1, "Tile": 1}
"""Operators whose result's shape is told by the elements of an input, and which."""


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _broadcast(have: Known | None, want: Known | None) -> Known | None:
    if have == 1 or have == want:
        return want
    return have if want == 1 or isinstance(have, int) else want if isinstance(want, int) else None


def _lasting(shape: Shape | None, inferred: Shape | None) -> Shape | None:
    """Without products of made-up names: the next inference may give such a name, where it is not alone, once more."""
    if shape is None:
        return None
    before = inferred or (None,) * len(shape)
    return tuple(b if isinstance(d, str) and FRESH in d and "*" in d else d for d, b in zip(shape, before))


def _sharper(before: Dim, now: Dim) -> Dim:
    """A number rather than a name, the source's name rather than one that inference made up."""
    if isinstance(before, int) or now is None:
        return before
    if isinstance(now, int) or before is None:
        return now
    return now if before.startswith(FRESH) else before
