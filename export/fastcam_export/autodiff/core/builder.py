"""Emits nodes of the backward pass: ``op.Mul(a, b)`` appends a Mul and returns its output.

The builder infers type and shape of all that it makes, folds small constants and never emits the same node twice. One
that carries the axis of several targets as well is :class:`fastcam_export.autodiff.core.batching.BatchedBuilder`; rules
need not know which they are given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import defs, helper, numpy_helper, shape_inference

from fastcam.schema import PREFIX, Engine
from fastcam_export.autodiff.core.errors import UnsupportedOperator
from fastcam_export.graph.constants import SMALL, Array, constant_array, constant_arrays, evaluate
from fastcam_export.graph.query import Dim, Dims, dims_of, is_added

Operand = ir.Value | Array | float | int | Sequence[int] | None
FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}
HALF = {ir.DataType.FLOAT16, ir.DataType.BFLOAT16}
FOLD_LIMIT = 1 << 18
"""Elements a folded constant may read: index arithmetic and pooling matrices fold, weights stay where they are."""
UNFOLDED = frozenset(["DFT", "Resize", "STFT"])
"""Operators on which runtimes and the reference implementation do not always agree: the runtime's word counts."""
REPEATS = frozenset(["Expand", "EyeLike"])
"""Operators whose result is much larger than what it says: the file does not hold it where it is not small."""
SUMS = frozenset(
    [
        *("CumProd", "CumSum", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMean", "ReduceProd"),
        *("ReduceSum", "ReduceSumSquare"),
    ]
)
"""Operators that accumulate many numbers: of half precision they do so in float32."""


class Builder:
    """Appends ``ai.onnx`` nodes to ``graph``.

    Args:
        graph: the graph that is differentiated; its own nodes are never touched.
        engine: whose operators are emitted, where a rule has several forms.
    """

    copies: ir.Value | None = None
    """int64 [1], the number of targets per image, where gradients carry that axis; see :meth:`lift_value`."""

    def __init__(self, graph: ir.Graph, engine: Engine = "onnxruntime") -> None:
        self.graph = graph
        self._outermost = graph
        self.engine: Engine = "onnxruntime" if engine == "cuda" else engine  # the same operators on another device
        self.version = graph.opset_imports[""]
        self.variables: set[ir.Value] = set()
        """What is differentiated with respect to: never folded, even where it is a constant of the model."""
        self.notes: dict[ir.Value, object] = {}
        """What rules say of a gradient to the next ones: :mod:`fastcam_export.autodiff.core.residues`."""
        self._contents: dict[ir.Value, Dims] = {}
        self._compared: dict[ir.Value, ir.DataType] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        self._emitted: dict[tuple[Any, ...], tuple[ir.Value, ...]] = {}
        self._count = 0

    def beside(self) -> Builder:
        """Another builder for the same graph, which knows no targets and whose names are others."""
        other = Builder(self.graph, engine=self.engine)
        other._count = self._count + 1_000_000
        return other

    def __getattr__(self, op_type: str) -> Callable[..., ir.Value]:
        if not op_type[:1].isupper():
            raise AttributeError(op_type)
        return partial(self.emit, op_type)

    # ---- values

    def constant(self, array: Array) -> ir.Value:
        """An initializer with this content; equal contents share one."""
        array = np.asarray(array, order="C")
        key = (array.dtype.name, array.shape, array.tobytes())
        if key not in self._constants:
            name = self.name("constant")
            value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
            value.dtype = ir.DataType.from_numpy(array.dtype)
            value.shape = ir.Shape(array.shape)
            self._outermost.register_initializer(value)
            self._constants[key] = value
        return self._constants[key]

    def dims(self, value: ir.Value) -> Dims:
        """The shape a rule sees: without the axis of several targets.

        Raises:
            UnsupportedOperator: not even the rank is known.
        """
        if value.shape is None:
            raise UnsupportedOperator(f"the number of axes of {value.name!r} is only known at run time")
        return dims_of(value)

    def rank(self, value: ir.Value) -> int:
        """Number of axes of ``value``."""
        return len(self.dims(value))

    def shape(self, value: ir.Value, start: int = 0, end: int | None = None) -> ir.Value:
        """int64 1-D: the dimensions [start:end] of a forward value; a constant where they are known."""
        dims = self.dims(value)
        parts: list[Operand] = []
        for axis in range(len(dims))[start:end]:
            dim = dims[axis]
            if isinstance(dim, int):
                parts.append(np.array([dim]))
            else:
                size = self.size(value, axis)
                self._contents[size] = (dim,)
                parts.append(size)
        return self.concat(parts)

    def size(self, value: ir.Value, axis: int) -> ir.Value:
        """int64 [1]: one dimension, at run time."""
        return self.emit("Shape", value, start=axis, end=axis + 1)

    def concat(self, parts: Sequence[Operand]) -> ir.Value:
        """int64 1-D: the concatenation of 1-D integer vectors."""
        values = [part if isinstance(part, ir.Value) else self.constant(np.asarray(part, np.int64)) for part in parts]
        if len(values) < 2:
            return values[0] if values else self.constant(np.zeros(0, np.int64))
        whole = self.emit("Concat", *values, axis=0)
        self._contents[whole] = tuple(dim for value in values for dim in self.contents(value))
        return whole

    def contents(self, vector: ir.Value) -> Dims:
        """What is known of the elements of an integer vector: numbers, names of dimensions, None."""
        array = constant_array(vector)
        if array is not None:
            return tuple(int(i) for i in array)
        (length,) = self.dims(vector)
        if not isinstance(length, int):
            raise UnsupportedOperator(f"the length of {vector.name!r} is only known at run time")
        return self._contents.get(vector, (None,) * length)

    def lifted(self, value: ir.Value | None) -> bool:
        """Whether ``value`` carries one copy per target: here, where there is no such axis, none does."""
        return False

    def lift_value(self, value: ir.Value, dims: Dims) -> ir.Value:
        """Declare that ``value``, stored as [copies * dims[0], *dims[1:]], stands for one ``dims`` per target."""
        raise TypeError("only a BatchedBuilder carries the axis of several targets")

    # ---- nodes

    def emit(self, op_type: str, *inputs: Operand, **attributes: Any) -> ir.Value:
        """Append one node; its output. ``op.Mul(a, b)`` is short for ``op.emit("Mul", a, b)``.

        Numbers and arrays among ``inputs`` become constants: integers of type int64, others of the type of the first
        floating point tensor (where there is none, of what was compared to make a mask).
        """
        return self.emit_all(op_type, *inputs, outputs=1, **attributes)[0]

    def emit_all(self, op_type: str, *inputs: Operand, outputs: int, **attributes: Any) -> tuple[ir.Value, ...]:
        """Append one node that has several outputs."""
        given = [x for x in inputs if isinstance(x, ir.Value)]
        types = [x.dtype for x in given if x.dtype in FLOATS]
        types += [self._compared[x] for x in given if x in self._compared]
        like = types[0] if types else None
        values = [self._operand(x, like) for x in inputs]
        attributes = {name: value for name, value in attributes.items() if value is not None}
        if op_type in SUMS and values[0] is not None and values[0].dtype in HALF:
            return (self._accumulated(op_type, values[0], values[1:], attributes),)
        key = (op_type, *values, outputs, repr(sorted(attributes.items())))
        if key not in self._emitted:
            self._emitted[key] = self._emit(op_type, values, attributes, outputs)
            for made in self._emitted[key]:
                if like is not None and made.dtype == ir.DataType.BOOL:
                    self._compared[made] = like
        return self._emitted[key]

    def append(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: dict[str, Any],
        types: Sequence[tuple[ir.DataType, Dims | None]],
    ) -> tuple[ir.Value, ...]:
        """Append a node as it is, with outputs of the given types and shapes."""
        if op_type == "Pad":
            inputs = self._pad_inputs(inputs)
        outputs = []
        for dtype, dims in types:
            value = ir.Value(name=self.name(op_type), type=ir.TensorType(dtype))
            value.shape = ir.Shape(dims) if dims is not None else None
            outputs.append(value)
        attrs = ir.convenience.convert_attributes(attributes)
        self.graph.append(ir.Node("", op_type, inputs, attrs, outputs=outputs, name=f"{outputs[0].name}_node"))
        return tuple(outputs)

    def again(
        self, op_type: str, inputs: Sequence[ir.Value | None], attributes: dict[str, Any], like: Sequence[ir.Value]
    ) -> tuple[ir.Value, ...]:
        """Append a node as it is, with outputs of the types and shapes of ``like``, which need not be tensors."""
        made = self.append(op_type, inputs, attributes, [(ir.DataType.UNDEFINED, None)] * len(like))
        for value, old in zip(made, like):
            value.type, value.shape = old.type, old.shape
        return made

    @contextmanager
    def inside(self, graph: ir.Graph) -> Iterator[None]:
        """Nodes go to ``graph``, the body of one that is yet to be appended; nothing outside may read their results."""
        outer, emitted = self.graph, self._emitted
        self.graph, self._emitted = graph, dict(emitted)
        try:
            yield
        finally:
            self.graph, self._emitted = outer, emitted

    # ---- inside

    def _accumulated(
        self, op_type: str, x: ir.Value, others: Sequence[ir.Value | None], attributes: dict[str, Any]
    ) -> ir.Value:
        """An operator of :data:`SUMS` in float32, the result in the type of ``x``."""
        wide = self.emit("Cast", x, to=int(ir.DataType.FLOAT))
        return self.emit("Cast", self.emit(op_type, wide, *others, **attributes), to=int(x.dtype or 0))

    def _emit(
        self, op_type: str, values: list[ir.Value | None], attributes: dict[str, Any], outputs: int
    ) -> tuple[ir.Value, ...]:
        folded = self._fold(op_type, values, attributes) if outputs == 1 else None
        if folded is not None:
            return (self.constant(folded),)
        return self.place(op_type, values, attributes, self._infer(op_type, values, attributes, outputs))

    def place(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: dict[str, Any],
        types: Sequence[tuple[ir.DataType, Dims | None]],
    ) -> tuple[ir.Value, ...]:
        """Append what computes the operator, whose outputs have these types and shapes as a rule sees them."""
        return self.append(op_type, inputs, attributes, types)

    def _infer(
        self, op_type: str, inputs: Sequence[ir.Value | None], attributes: dict[str, Any], outputs: int
    ) -> list[tuple[ir.DataType, Dims | None]]:
        """(type, shape) that ONNX infers for the outputs of such a node, in the shapes that a rule sees."""
        names = [f"i{index}" if value is not None else "" for index, value in enumerate(inputs)]
        results = [f"o{index}" for index in range(outputs)]
        node = helper.make_node(op_type, names, results, **attributes)
        types, data = {}, {}
        for name, value in zip(names, inputs):
            if value is not None:
                dims = self.dims(value) if self.lifted(value) or value.shape is not None else None
                types[name] = helper.make_tensor_type_proto(int(value.dtype or 0), dims)
                array = constant_array(value, FOLD_LIMIT)
                if array is not None and array.dtype.kind == "i":
                    data[name] = numpy_helper.from_array(array)
        schema = defs.get_schema(op_type, self.version, "")
        opset = [helper.make_opsetid("", self.version)]
        found = shape_inference.infer_node_outputs(schema, node, types, data, opset_imports=opset)
        return [
            (ir.DataType(t.elem_type), self._known(op_type, inputs, t)) for t in (found[n].tensor_type for n in results)
        ]

    def _known(self, op_type: str, inputs: Sequence[ir.Value | None], type_: onnx.TypeProto.Tensor) -> Dims | None:
        """The inferred shape; where ONNX gives none for want of constants, what the shape operand tells."""
        if type_.HasField("shape"):
            return tuple(d.dim_value if d.HasField("dim_value") else (d.dim_param or None) for d in type_.shape.dim)
        first, second = (*inputs, None)[:2]
        if first is None or second is None:
            return None
        if op_type == "Reshape":
            return tuple(None if d == -1 else d for d in self.contents(second))
        if op_type == "Expand":
            have, want = self.dims(first), self.contents(second)
            rank = max(len(have), len(want))
            pairs = zip((1,) * (rank - len(have)) + have, (1,) * (rank - len(want)) + want)
            return tuple(w if h == 1 else h if w == 1 or same_dim(h, w) else None for h, w in pairs)
        if op_type == "Col2Im":
            return (self.dims(first)[0], None, *self.contents(second))
        return None

    def _pad_inputs(self, inputs: Sequence[ir.Value | None]) -> Sequence[ir.Value | None]:
        """The inputs of a Pad without ``axes``: pads of all axes say the same. ONNX Runtime moves a Transpose past a
        Pad by reordering its pads as if they were of all axes."""
        x, pads, *rest = inputs
        axes = constant_array(rest[1]) if len(rest) > 1 else None
        if axes is None or x is None or pads is None or x.shape is None:
            return inputs
        number, rank = axes.size, len(x.shape)
        where = np.full(2 * rank, 2 * number)  # behind the last pad: a zero
        where[[*(axes % rank), *(axes % rank + rank)]] = np.arange(2 * number)
        return [x, self.Gather(self.Concat(pads, [0], axis=0), where, axis=0), *rest[:1]]

    def _fold(self, op_type: str, values: list[ir.Value | None], attributes: dict[str, Any]) -> Array | None:
        if op_type in UNFOLDED or any(value in self.variables for value in values):
            return None
        arrays = constant_arrays(values, FOLD_LIMIT)
        if arrays is None:
            return None
        own = all(value is None or is_added(value) for value in values)
        if not own and sum(array.size for array in arrays if array is not None) > 4096:
            return None  # the model's weights are not stored a second time in another form
        names = [f"i{index}" if value is not None else "" for index, value in enumerate(values)]
        node = helper.make_node(op_type, names, ["o"], **attributes)
        folded = evaluate(node, arrays, self.version)
        return folded if op_type not in REPEATS or folded.size <= SMALL else None

    def _operand(self, operand: Operand, like: ir.DataType | None) -> ir.Value | None:
        if operand is None or isinstance(operand, ir.Value):
            return operand
        array = np.asarray(operand)
        if array.dtype.kind == "f" and (like is not None or isinstance(operand, float)):
            return self.constant(array.astype((like or ir.DataType.FLOAT).numpy()))
        return self.constant(array.astype(np.int64) if array.dtype.kind in "iu" else array)

    def name(self, stem: str) -> str:
        """A new name of a value."""
        self._count += 1
        return f"{PREFIX}{stem.lower()}_{self._count}"


def same_dim(a: Dim, b: Dim) -> bool:
    """Whether two dimensions are known to be equal."""
    return a is not None and a == b
