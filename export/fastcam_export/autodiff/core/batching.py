"""Several targets per image: every emitted operator, once more with an axis of copies.

The T gradients of a value of shape [d0, d1, ...] are stored together as [T * d0, d1, ...], T outermost. Most operators
of a backward pass treat axis 0 row by row and need no change: a convolution of [T * N, C, h, w] is T convolutions. What
remains are operators that touch axis 0, and operators that combine a gradient with a forward value, which exists once
and not T times: these run on the view [T, d0, d1, ...], where the forward value broadcasts. Views are free, copies are
never made.

:class:`BatchedBuilder` is the builder that does so.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from fastcam.schema import Engine
from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.core.errors import UnsupportedOperator
from fastcam_export.graph.constants import Array, constant_array
from fastcam_export.graph.query import Dims

Inputs = Sequence["ir.Value | None"]
Attributes = dict[str, Any]

ELEMENTWISE = frozenset(
    {
        *("Add", "And", "Cast", "Div", "Equal", "Exp", "Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual"),
        *("Abs", "Clip", "HardSigmoid", "HardSwish", "Mul", "Neg", "Not", "Or", "Reciprocal", "Relu", "Sigmoid"),
        *("Sign", "Sqrt", "Sub", "Sum", "Tanh", "Where"),
    }
)
TRUTHS = frozenset({"And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "Or"})
ROWWISE = frozenset(["Col2Im", "Conv", "ConvTranspose", "DepthToSpace", "Resize", "SpaceToDepth"])


class BatchedBuilder(Builder):
    """Emits for all targets at once whatever reads a value that was declared to carry them (:meth:`lift_value`).

    Args:
        graph, engine: as of a :class:`Builder`.
        copies: int64 [1], the number of targets per image; None until it is known, or where there is no such axis.
    """

    def __init__(self, graph: ir.Graph, copies: ir.Value | None = None, engine: Engine = "onnxruntime") -> None:
        super().__init__(graph, engine)
        self.copies = copies
        self._natural: dict[ir.Value, Dims] = {}
        self._filled: dict[ir.Value, Array] = {}  # one number in all places: seeds, and what they become

    def dims(self, value: ir.Value) -> Dims:
        """The shape a rule sees: without the axis of several targets."""
        return self._natural[value] if value in self._natural else super().dims(value)

    def size(self, value: ir.Value, axis: int) -> ir.Value:
        """int64 [1]: one dimension, at run time; of a lifted value that of one target's."""
        if not self.lifted(value):
            return super().size(value, axis)
        (stored,) = self.append("Shape", [value], {"start": axis, "end": axis + 1}, [(ir.DataType.INT64, (1,))])
        return self.emit("Div", stored, self.copies) if axis == 0 else stored

    def lifted(self, value: ir.Value | None) -> bool:
        """Whether ``value`` carries one copy per target."""
        return value in self._natural

    def lift_value(self, value: ir.Value, dims: Dims) -> ir.Value:
        """Declare that ``value``, stored as [copies * dims[0], *dims[1:]], stands for one ``dims`` per target."""
        self._natural[value] = dims
        return value

    def place(
        self,
        op_type: str,
        inputs: Inputs,
        attributes: Attributes,
        types: Sequence[tuple[ir.DataType, Dims | None]],
    ) -> tuple[ir.Value, ...]:
        """Append what computes the operator, for each target where an operand is lifted."""
        dims = types[0][1]
        if op_type == "Mul" and dims is not None:
            inputs = self._with_number(inputs, dims)
        if not any(map(self.lifted, inputs)):
            made = super().place(op_type, inputs, attributes, types)
        elif dims is None or len(types) > 1:
            raise UnsupportedOperator(f"the shape that {op_type} gives is only known at run time")
        else:
            made = (lower(self, op_type, inputs, attributes, dims),)
        numbers = [self._number(value) for value in inputs if value is not None]
        if op_type in ("Expand", "Reshape", "Mul") and (number := numbers[0]) is not None:
            other = numbers[1] if op_type == "Mul" else np.float32(1)
            if other is not None:
                self._filled[made[0]] = np.asarray(number * other)
        return made

    def _number(self, value: ir.Value) -> Array | None:
        """The float32 number that stands in all places of a value."""
        array = constant_array(value, 1)
        known = self._filled.get(value) if array is None or array.size != 1 else array.reshape(())
        return known if known is not None and known.dtype == np.float32 else None

    def _with_number(self, inputs: Inputs, dims: Dims) -> Inputs:
        """The factors of a product of shape ``dims``: the number alone in place of a value that repeats it, where the
        other factor has the product's shape, and its targets, itself."""
        for value, other in (inputs, inputs[::-1]):
            if value not in self._filled or other is None or None in dims or self.dims(other) != dims:
                continue
            if self.lifted(other) or not self.lifted(value):
                return [other, self.constant(self._filled[value])]
        return inputs


def lower(op: Builder, op_type: str, inputs: Inputs, attributes: Attributes, dims: Dims) -> ir.Value:
    """Emit ``op_type`` for lifted operands; ``dims`` is the result's shape as the rule sees it.

    Raises:
        UnsupportedOperator: the operator is not defined here for several targets.
    """
    if op_type in ELEMENTWISE:
        return _combine(op, op_type, inputs, attributes, dims, _elementwise_is_direct(op, inputs, dims))
    if op_type == "MatMul":
        return _combine(op, op_type, inputs, attributes, dims, _matmul_is_direct(op, inputs))
    if op_type == "Reshape":
        return _reshape(op, inputs, dims)
    if op_type == "Expand":
        return _expand(op, inputs, dims)
    alone = op.lifted(inputs[0]) and not any(map(op.lifted, inputs[1:]))
    if op_type in ROWWISE and alone:
        return _direct(op, op_type, inputs, attributes, dims)
    if op_type in _SHIFT and (alone or (op_type == "Concat" and all(map(op.lifted, inputs)))):
        return _shift(op, op_type, inputs, attributes, dims)
    if op_type in _STACK:
        return _stack(op, op_type, inputs, attributes, dims)
    if op_type == "Einsum":
        return _einsum(op, inputs, attributes, dims)
    if op_type == "ReverseSequence" and alone and attributes.get("batch_axis", 1) == 0:
        lengths = _emit(op, "Tile", [inputs[1], op.copies])
        return _direct(op, op_type, [inputs[0], lengths], attributes, dims)
    raise UnsupportedOperator(f"its gradient needs {op_type}, which is not defined for several targets")


def unmerge(op: Builder, value: ir.Value, rank: int) -> ir.Value:
    """The view [T, 1, ..., 1, *dims] of a lifted value, with ``rank`` axes behind T."""
    view = _unmerged(op, value, rank)
    view.shape = ir.Shape([None] * (1 + rank))
    return view


def _unmerged(op: Builder, value: ir.Value, rank: int) -> ir.Value:
    dims = op.dims(value)
    ones = [1] * (rank - len(dims))
    if _empty(dims):
        return _emit(op, "Reshape", [value, op.concat([op.copies, np.array([*ones, *dims], np.int64)])], allowzero=1)
    if all(isinstance(d, int) for d in dims):
        return _emit(op, "Reshape", [value, op.constant(np.array([-1, *ones, *dims], np.int64))])
    known = all(isinstance(d, int) for d in dims[1:])
    tail = np.array(dims[1:], np.int64) if known else _sizes(op, value, 1, len(dims))
    return _emit(op, "Reshape", [value, op.concat([op.copies, [*ones, -1], tail])])


def merge(op: Builder, value: ir.Value, dims: Dims, tail: ir.Value | None = None) -> ir.Value:
    """[T, *dims] (or any view of it) stored as [T * dims[0], *dims[1:]].

    ``tail`` holds dims[1:] where they are only known at run time and ``value`` is not of the form [T, *dims].
    """
    rest = dims[1:]
    if _empty(dims):
        target = op.concat([op.Mul(op.copies, np.array(dims[:1], np.int64)), np.array(rest, np.int64)])
        return _store(op, _emit(op, "Reshape", [value, target], allowzero=1), dims)
    if all(isinstance(d, int) for d in rest):
        target = op.constant(np.array([-1, *rest], np.int64))
    else:
        target = op.concat([[-1], tail if tail is not None else _sizes(op, value, 2, len(dims) + 1)])
    return _store(op, _emit(op, "Reshape", [value, target]), dims)


def _empty(dims: Dims) -> bool:
    """Whether there are no elements, so that no dimension can be left open."""
    return 0 in dims and all(isinstance(d, int) for d in dims)


def sum_to(op: Builder, dy: ir.Value, x: ir.Value, split: Callable[..., Any]) -> ir.Value:
    """A lifted ``dy`` summed to the shape of ``x``, where only the run time knows which axes were broadcast.

    Args:
        split: see :func:`fastcam_export.autodiff.core.shapes.split_axes`.
    """
    have = op.dims(dy)
    view = unmerge(op, dy, len(have))
    whole = [_size(op, view, axis + 1) if not isinstance(d, int) else d for axis, d in enumerate(have)]
    target, axes = split(op, have, whole, x)
    vectors = [np.array([size]) if isinstance(size, int) else size for size in target]
    parts = _emit(op, "Reshape", [view, op.concat([op.copies, *vectors])], allowzero=1)
    total = _emit(op, "ReduceSum", [parts, op.constant(np.array(axes) + 1)], keepdims=0)
    return merge(op, total, op.dims(x), op.shape(x, 1))


def _size(op: Builder, value: ir.Value, axis: int) -> ir.Value:
    """int64 [1]: a stored dimension."""
    return op.append("Shape", [value], {"start": axis, "end": axis + 1}, [(ir.DataType.INT64, (1,))])[0]


def _emit(op: Builder, op_type: str, inputs: Inputs, **attributes: Any) -> ir.Value:
    """A node as it is: on stored shapes, without lifting."""
    like = inputs[1] if op_type == "Where" else inputs[0]
    dtype = like.dtype if like is not None else None
    if op_type == "NonZero":
        dtype = ir.DataType.INT64
    elif op_type == "Cast":
        dtype = ir.DataType(attributes["to"])
    elif op_type in TRUTHS:
        dtype = ir.DataType.BOOL
    (value,) = op.append(op_type, inputs, attributes, [(dtype or ir.DataType.UNDEFINED, None)])
    return value


def _sizes(op: Builder, value: ir.Value, start: int, rank: int) -> ir.Value:
    """int64 [rank - start]: the stored dimensions of a value of ``rank`` axes."""
    return op.append("Shape", [value], {"start": start}, [(ir.DataType.INT64, (rank - start,))])[0]


def _direct(op: Builder, op_type: str, inputs: Inputs, attributes: Attributes, dims: Dims) -> ir.Value:
    return _store(op, _emit(op, op_type, inputs, **attributes), dims)


def _store(op: Builder, value: ir.Value, dims: Dims) -> ir.Value:
    value.shape = ir.Shape((None, *dims[1:]))
    return op.lift_value(value, dims)


def _view(op: Builder, value: ir.Value | None, rank: int | None = None) -> ir.Value | None:
    if value is None or not op.lifted(value):
        return value
    return unmerge(op, value, op.rank(value) if rank is None else rank)


def _combine(op: Builder, op_type: str, inputs: Inputs, attributes: Attributes, dims: Dims, direct: bool) -> ir.Value:
    if direct:
        return _direct(op, op_type, inputs, attributes, dims)
    views = [_view(op, value, len(dims)) for value in inputs]
    return merge(op, _emit(op, op_type, views, **attributes), dims)


def _elementwise_is_direct(op: Builder, inputs: Inputs, dims: Dims) -> bool:
    """Whether axis 0 of every operand lines up: copies with copies, and nothing that varies along axis 0 otherwise."""

    def lines_up(value: ir.Value) -> bool:
        own = op.dims(value)
        if len(own) < len(dims):
            return not op.lifted(value)
        return bool(own) and own[0] is not None and own[0] == (dims[0] if op.lifted(value) else 1)

    return all(lines_up(value) for value in inputs if value is not None)


def _matmul_is_direct(op: Builder, inputs: Inputs) -> bool:
    """Whether one operand is a plain matrix that multiplies every row, or every matrix, of the lifted other one."""
    a, b = inputs
    assert a is not None and b is not None
    if op.lifted(a) and op.lifted(b):
        return False
    return op.rank(b) == 2 and op.rank(a) >= 2 if op.lifted(a) else op.rank(a) == 2 and op.rank(b) >= 3


def _reshape(op: Builder, inputs: Inputs, dims: Dims) -> ir.Value:
    value, shape = inputs
    assert value is not None and shape is not None
    if all(isinstance(d, int) for d in dims[1:]):
        return merge(op, value, dims)
    tail = op.Slice(shape, [1], [len(dims)])
    if -1 not in op.contents(shape)[1:]:
        return merge(op, value, dims, tail)
    head = op.Mul(op.copies, op.Slice(shape, [0], [1]))  # only one dimension can be left open, and it is in the tail
    return _store(op, _emit(op, "Reshape", [value, op.concat([head, tail])]), dims)


def _expand(op: Builder, inputs: Inputs, dims: Dims) -> ir.Value:
    value, shape = inputs
    assert value is not None and shape is not None
    own = op.dims(value)
    if len(own) == len(dims) and dims and own[0] is not None and own[0] == dims[0]:
        tail = [op.Slice(shape, [1], [len(dims)])] if len(dims) > 1 else []
        return _direct(op, "Expand", [value, op.concat([[1], *tail])], {}, dims)
    return merge(op, _emit(op, "Expand", [unmerge(op, value, len(dims)), op.concat([[1], shape])]), dims)


# ---- operators with axes: shifted by one where they touch axis 0


def _shift(op: Builder, op_type: str, inputs: Inputs, attributes: Attributes, dims: Dims) -> ir.Value:
    assert inputs[0] is not None
    touches, shifted, changed = _SHIFT[op_type](op, inputs, attributes, op.rank(inputs[0]))
    if not touches:
        return _direct(op, op_type, inputs, attributes, dims)
    return merge(op, _emit(op, op_type, [_view(op, value) for value in shifted], **changed), dims)


Shifted = tuple[bool, list["ir.Value | None"], Attributes]
"""Whether the operator touches axis 0, and its inputs and attributes with one more axis in front."""


def _axes_input(position: int) -> Callable[[Builder, Inputs, Attributes, int], Shifted]:
    def shift(op: Builder, inputs: Inputs, attributes: Attributes, rank: int) -> Shifted:
        padded = [*inputs, *[None] * (position + 1 - len(inputs))]
        if padded[position] is None:
            axes = list(range(rank))
        else:
            axes = [int(axis) % rank for axis in _constant(padded[position])]
        padded[position] = op.constant(np.array(axes, np.int64) + 1)
        return 0 in axes, padded, attributes

    return shift


def _concat(op: Builder, inputs: Inputs, attributes: Attributes, rank: int) -> Shifted:
    axis = attributes["axis"] % rank
    return axis == 0, list(inputs), {"axis": axis + 1}


def _unsqueeze(op: Builder, inputs: Inputs, attributes: Attributes, rank: int) -> Shifted:
    return _axes_input(1)(op, inputs, attributes, rank + _constant(inputs[1]).size)


def _transpose(op: Builder, inputs: Inputs, attributes: Attributes, rank: int) -> Shifted:
    perm = attributes["perm"]
    return perm[:1] != [0], list(inputs), {"perm": [0, *(p + 1 for p in perm)]}


def _cum_sum(op: Builder, inputs: Inputs, attributes: Attributes, rank: int) -> Shifted:
    axis = int(_constant(inputs[1]))
    return axis == 0, [inputs[0], op.constant(np.array(axis + 1))], attributes


def _gather(op: Builder, inputs: Inputs, attributes: Attributes, rank: int) -> Shifted:
    axis = attributes.get("axis", 0) % rank
    return axis == 0, list(inputs), {"axis": axis + 1 if axis == 0 else axis}


def _trilu(op: Builder, inputs: Inputs, attributes: Attributes, rank: int) -> Shifted:
    return rank == 2, list(inputs), attributes


def _constant(value: ir.Value | None) -> Any:
    array = constant_array(value)
    if array is None:
        raise UnsupportedOperator("its gradient touches axes that are only known at run time")
    return array


_SHIFT: dict[str, Callable[[Builder, Inputs, Attributes, int], Shifted]] = {
    "Concat": _concat,
    "CumSum": _cum_sum,
    "Gather": _gather,
    "Pad": _axes_input(3),
    "ReduceMax": _axes_input(1),
    "ReduceMean": _axes_input(1),
    "ReduceMin": _axes_input(1),
    "ReduceSum": _axes_input(1),
    "Slice": _axes_input(3),
    "Transpose": _transpose,
    "Trilu": _trilu,
    "Unsqueeze": _unsqueeze,
}


# ---- operators whose operands do not broadcast: what exists once, mostly indices, is repeated for each target


def _stack(op: Builder, op_type: str, inputs: Inputs, attributes: Attributes, dims: Dims) -> ir.Value:
    given = [value for value in inputs if value is not None]
    stacked = [unmerge(op, x, op.rank(x)) if op.lifted(x) else _repeat(op, x) for x in given]
    if op_type == "ScatterND":
        stacked[1] = _numbered(op, stacked[1], op.rank(given[1]))
    changed = _STACK[op_type](attributes, op.rank(given[0]))
    return merge(op, _emit(op, op_type, stacked, **{**attributes, **changed}), dims)


def _repeat(op: Builder, value: ir.Value) -> ir.Value:
    """[T, *dims]: a forward value, once for each target."""
    shape = op.concat([op.copies, np.ones(op.rank(value))])
    if not all(isinstance(d, int) for d in op.dims(value)):  # OpenVINO drops an Expand by ones, and the axis with it
        value = _emit(op, "Unsqueeze", [value, op.constant(np.zeros(1, np.int64))])
    return _emit(op, "Expand", [value, shape])


def repeated(op: Builder, value: ir.Value) -> ir.Value:
    """A value that is the same for all targets, lifted."""
    return merge(op, _repeat(op, value), op.dims(value), _sizes(op, value, 1, op.rank(value)))


def _numbered(op: Builder, indices: ir.Value, rank: int) -> ir.Value:
    """[T, ..., 1 + depth]: the target in front of each tuple of ``indices``, of ``rank`` axes behind T."""
    zero, one, scalar = (op.constant(np.array(n)) for n in (0, 1, np.zeros(0, np.int64)))
    number = _emit(op, "Range", [zero, _emit(op, "Reshape", [op.copies, scalar]), one])
    number = _emit(op, "Reshape", [number, op.constant(np.array([-1, *[1] * rank]))])
    shape = op.concat([_sizes(op, indices, 0, rank), [1]])
    return _emit(op, "Concat", [_emit(op, "Expand", [number, shape]), indices], axis=-1)


def _einsum(op: Builder, inputs: Inputs, attributes: Attributes, dims: Dims) -> ir.Value:
    """The equation with one more letter, for the targets, in front of every lifted operand and of the result."""
    terms, result = attributes["equation"].split("->")
    letter = next(letter for letter in string.ascii_letters if letter not in attributes["equation"])
    pairs = zip(terms.split(","), inputs)
    changed = ",".join(letter + term if op.lifted(value) else term for term, value in pairs)
    views = [_view(op, value) for value in inputs]
    return merge(op, _emit(op, "Einsum", views, equation=f"{changed}->{letter}{result}"), dims)


def _axis_behind(attributes: Attributes, rank: int) -> Attributes:
    return {"axis": attributes.get("axis", 0) % rank + 1}


_STACK: dict[str, Callable[[Attributes, int], Attributes]] = {
    "GatherElements": _axis_behind,
    "GatherND": lambda attributes, rank: {"batch_dims": attributes.get("batch_dims", 0) + 1},
    "ScatterElements": _axis_behind,
    "ScatterND": lambda attributes, rank: {},
}
"""Attributes of the operator with one more axis in front of all operands."""
