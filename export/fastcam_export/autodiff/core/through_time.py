"""The gradient of a recurrence whose number of steps is known at run time alone: one Scan forth, one back.

The first gives the state before each step, the second goes through the steps in the other order and differentiates a
copy of the step in its body. Cotangents lie in it as they are stored: [targets * B, H] where there are several targets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.core.rule import Sweep
from fastcam_export.autodiff.core.shapes import scalar
from fastcam_export.graph.query import Dims

State = tuple[ir.Value, ...]
Advance = Callable[[ir.Value, ir.Value, State], tuple[ir.Value, State]]
"""``(gates, time, state) -> (output, state)``: emits one step, [B, gates * H] and int64 [] in, [B, H] out."""


@dataclass(frozen=True)
class Recurrence:
    """One direction of a recurrent operator.

    Attributes:
        op: builder.
        advance: emits a step.
        gates: [T, B, gates * H], what the input gives to each step.
        initial: the state before the first step, each [B, H].
        backwards: the last element is read first.
    """

    op: Builder
    advance: Advance
    gates: ir.Value
    initial: State
    backwards: bool

    def gradients(
        self, dy: ir.Value | None, dlast: Sequence[ir.Value | None], sweep: Sweep
    ) -> tuple[ir.Value, list[ir.Value]]:
        """The cotangents of ``gates`` and of ``initial``.

        Args:
            dy: that of the outputs, [T, B, H].
            dlast: those of the state behind the last step, each [B, H].
            sweep: the driver's.
        """
        op, body = self.op, ir.Graph([], [], nodes=[], name="back")
        lifted = any(map(op.lifted, (dy, *dlast)))
        carried = [self._stored_zero(lifted) if each is None else each for each in dlast]
        steps = [self.gates, self._times(), *self._before()]
        if dy is not None:
            turned = op.Transpose(dy, perm=[1, 0, 2])  # [B, T, H], for each target
            steps.append(self._raw(turned, [1, 0, 2], lifted))
        back = [self._input(body, value, self._dims(like), lifted) for value, like in zip(carried, self.initial)]
        given = [self._input(body, value, self._dims(value)[1:]) for value in steps[: 2 + len(self.initial)]]
        dout = self._input(body, steps[-1], self._dims(self.initial[0]), lifted) if dy is not None else None
        with op.inside(body):
            gates, time, *state = given
            out, new = self.advance(gates, time, tuple(state))
            found = sweep([out, *new], [dout, *back], [gates, *state])
            made = [found.get(value) for value in (*state, gates)]
            for dx, like in zip(made, (*state, gates)):
                body.outputs.append(self._zeros(like, lifted) if dx is None else self._end(body, dx))
        number, order = len(steps), int(not self.backwards)
        types = [(value.dtype or ir.DataType.FLOAT, None) for value in (*self.initial, self.gates)]
        attributes = {
            "body": body,
            "num_scan_inputs": number,
            "scan_input_directions": [order] * number,
            "scan_output_directions": [order],
        }
        *dstate, dgates = op.append("Scan", [*carried, *steps], attributes, types)
        batch = self._dims(self.gates)
        swapped = self._raw(dgates, [1, 0, 2], False)
        dims: Dims = (batch[1], batch[0], batch[2])
        whole = op.lift_value(swapped, dims) if lifted else self._shaped(swapped, dims)
        return op.Transpose(whole, perm=[1, 0, 2]), [
            op.lift_value(value, self._dims(like)) if lifted else self._shaped(value, self._dims(like))
            for value, like in zip(dstate, self.initial)
        ]

    def _before(self) -> list[ir.Value]:
        """The state before each step, each [T, B, H]."""
        op, body = self.op, ir.Graph([], [], nodes=[], name="forth")
        state = [self._input(body, value, self._dims(value)) for value in self.initial]
        gates, time = (self._input(body, value, self._dims(value)[1:]) for value in (self.gates, self._times()))
        with op.inside(body):
            _, new = self.advance(gates, time, tuple(state))
            for value in (*new, *state):
                body.outputs.append(self._end(body, value))
        order, number = int(self.backwards), len(self.initial)
        attributes = {
            "body": body,
            "num_scan_inputs": 2,
            "scan_input_directions": [order] * 2,
            "scan_output_directions": [order] * number,
        }
        types = [self._type(value) for value in self.initial]
        types += [(dtype, (self._dims(self.gates)[0], *(dims or (None, None)))) for dtype, dims in types]
        return list(op.append("Scan", [*self.initial, self.gates, self._times()], attributes, types)[number:])

    def _times(self) -> ir.Value:
        return self.op.Range(0, scalar(self.op, self.op.shape(self.gates, 0, 1)), 1)

    def _input(self, body: ir.Graph, value: ir.Value, dims: Dims, lifted: bool = False) -> ir.Value:
        """An input of a body that is handed ``value``, or one step of it."""
        stored: Dims = (None, *dims[1:]) if lifted else dims
        made = ir.Value(name=self.op.name("step"), type=ir.TensorType(value.dtype or ir.DataType.FLOAT))
        made.shape = ir.Shape(stored)
        body.inputs.append(made)
        self.op.variables.add(made)
        return self.op.lift_value(made, dims) if lifted else made

    def _raw(self, value: ir.Value, perm: list[int], lifted: bool) -> ir.Value:
        """The transpose of a value as it is stored."""
        dims = self._dims(value)
        known: Dims = (None, *dims[1:]) if lifted else dims
        types = [(value.dtype or ir.DataType.FLOAT, tuple(known[axis] for axis in perm))]
        return self.op.append("Transpose", [value], {"perm": perm}, types)[0]

    def _end(self, body: ir.Graph, value: ir.Value) -> ir.Value:
        """An output of a body. An Identity only where it is no result of its own: the runtime loses what it is of."""
        node = value.producer()
        if node is not None and node.graph is body and value not in body.outputs:
            return value
        return self.op.append("Identity", [value], {}, [(value.dtype or ir.DataType.FLOAT, None)])[0]

    def _stored_zero(self, lifted: bool) -> ir.Value:
        zero = self._zeros(self.initial[0], lifted)
        return self.op.lift_value(zero, self._dims(self.initial[0])) if lifted else zero

    def _zeros(self, like: ir.Value, lifted: bool) -> ir.Value:
        """Zeros in the shape in which the gradient of ``like`` is stored."""
        op, (dtype, dims) = self.op, self._type(like)
        shape = op.shape(like)
        if lifted:
            shape = op.concat([op.Mul(op.copies, op.shape(like, 0, 1)), op.shape(like, 1)])
        known: Dims | None = (None, *dims[1:]) if lifted and dims is not None else dims
        return op.append("Expand", [op.constant(np.zeros((), dtype.numpy())), shape], {}, [(dtype, known)])[0]

    def _type(self, value: ir.Value) -> tuple[ir.DataType, Dims | None]:
        return value.dtype or ir.DataType.FLOAT, self._dims(value)

    def _dims(self, value: ir.Value) -> Dims:
        return self.op.dims(value) if value.shape is not None or self.op.lifted(value) else (None, None, None)

    def _shaped(self, value: ir.Value, dims: Dims) -> ir.Value:
        value.shape = ir.Shape(dims)
        return value
