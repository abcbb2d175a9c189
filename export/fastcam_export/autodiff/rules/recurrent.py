"""Recurrent operators, unrolled: a copy made of matrix products and activations, which the driver differentiates.

Of sequences whose length only a run tells the steps lie in two Scans, see
:mod:`fastcam_export.autodiff.core.through_time`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx_ir as ir

from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.core.errors import UnsupportedOperator
from fastcam_export.autodiff.core.rule import Found, Node, Sweep, within
from fastcam_export.autodiff.core.shapes import reshape_to, sizes, spread
from fastcam_export.autodiff.core.through_time import Recurrence

Activation = Callable[[ir.Value], ir.Value]

PARAMETERS = {
    "affine": (1.0, 0.0),
    "elu": (1.0, None),
    "hardsigmoid": (0.2, 0.5),
    "leakyrelu": (0.01, None),
    "scaledtanh": (1.0, 1.0),
    "thresholdedrelu": (1.0, None),
}
"""Defaults of alpha and beta; None where the activation has no beta."""
PLAIN = {"relu": "Relu", "sigmoid": "Sigmoid", "softplus": "Softplus", "softsign": "Softsign", "tanh": "Tanh"}


@dataclass(frozen=True)
class Direction:
    """One direction of a recurrent node, its weights without the axis of directions.

    Attributes:
        op: builder.
        node: the node.
        total: W x + Wb of all time steps, [T, B, gates * H].
        r: [H, gates * H], transposed.
        bias: Rb [gates * H], or None.
        peepholes: [3 * H], or None.
        activations: in the operator's order.
        size: H.
    """

    op: Builder
    node: Node
    total: ir.Value
    r: ir.Value
    bias: ir.Value | None
    peepholes: ir.Value | None
    activations: list[Activation]
    size: int

    def part(self, value: ir.Value, index: int, number: int = 1) -> ir.Value:
        """``number`` gates of [..., gates * H], from ``index`` on."""
        return self.op.Slice(value, [index * self.size], [(index + number) * self.size], [-1])

    def recur(self, h: ir.Value, begin: int, number: int) -> ir.Value:
        """R h + Rb of some gates."""
        product = self.op.MatMul(h, self.part(self.r, begin, number))
        return product if self.bias is None else self.op.Add(product, self.part(self.bias, begin, number))

    def act(self, index: int, x: ir.Value) -> ir.Value:
        """Activation ``index`` of x, clipped before it where the node says so."""
        clip = self.node.number("clip", 0.0)
        return self.activations[index](self.op.Clip(x, -clip, clip) if clip else x)


State = tuple[ir.Value, ...]
Step = Callable[[Direction, ir.Value, State], State]


@within("RNN")
def rnn(op: Builder, node: Node, wrt: Sequence[ir.Value], sweep: Sweep) -> Found:
    """h = f(W x + Wb + R h + Rb)"""
    return _gradients(_Recurrent(op, node, 1, ["Tanh"], [5], _rnn_step), wrt, sweep)


def _rnn_step(d: Direction, gates: ir.Value, state: State) -> State:
    return (d.act(0, d.op.Add(gates, d.recur(state[0], 0, 1))),)


@within("GRU")
def gru(op: Builder, node: Node, wrt: Sequence[ir.Value], sweep: Sweep) -> Found:
    """z, r = f(W x + R h + b); n = g(W x + Wb + R (r h) + Rb), or g(W x + Wb + r (R h + Rb)); h = (1 - z) n + z h"""
    return _gradients(_Recurrent(op, node, 3, ["Sigmoid", "Tanh"], [5], _gru_step), wrt, sweep)


def _gru_step(d: Direction, gates: ir.Value, state: State) -> State:
    op, h = d.op, state[0]
    both = d.act(0, op.Add(d.part(gates, 0, 2), d.recur(h, 0, 2)))
    z, r = d.part(both, 0), d.part(both, 1)
    after = d.node.integer("linear_before_reset", 0)
    inner = op.Mul(r, d.recur(h, 2, 1)) if after else d.recur(op.Mul(r, h), 2, 1)
    new = d.act(1, op.Add(d.part(gates, 2), inner))
    return (op.Add(op.Mul(op.Sub(1.0, z), new), op.Mul(z, h)),)


@within("LSTM")
def lstm(op: Builder, node: Node, wrt: Sequence[ir.Value], sweep: Sweep) -> Found:
    """i, f = f(W x + R h + P c + b); c' = f c + i g(...); o = f(... + P c'); h = o h(c')

    ``clip`` bounds the gates, and not c' before h: so ONNX Runtime reads the specification.
    """
    return _gradients(_Recurrent(op, node, 4, ["Sigmoid", "Tanh", "Tanh"], [5, 6], _lstm_step), wrt, sweep)


def _lstm_step(d: Direction, gates: ir.Value, state: State) -> State:
    op, (h, c) = d.op, state
    total = op.Add(gates, d.recur(h, 0, 4))  # input, output, forget, cell

    def gate(index: int, cell: ir.Value, peephole: int) -> ir.Value:
        x = d.part(total, index)
        return d.act(0, x if d.peepholes is None else op.Add(x, op.Mul(cell, d.part(d.peepholes, peephole))))

    i = gate(0, c, 0)
    forget = op.Sub(1.0, i) if d.node.integer("input_forget", 0) else gate(2, c, 2)
    c = op.Add(op.Mul(forget, c), op.Mul(i, d.act(1, d.part(total, 3))))
    return op.Mul(gate(1, c, 1), d.activations[2](c)), c


@dataclass(frozen=True)
class _Recurrent:
    """A recurrent node: the number of its gates, its activations, where its initial states are, and its step."""

    op: Builder
    node: Node
    gates: int
    defaults: list[str]
    initial: list[int]
    step: Step

    @property
    def x(self) -> ir.Value:
        """[T, B, I]"""
        batch_first = self.node.integer("layout", 0)
        return self.op.Transpose(self.node.x, perm=[1, 0, 2]) if batch_first else self.node.x

    @property
    def directions(self) -> list[bool]:
        """Of each direction whether it reads backwards."""
        kind = self.node.string("direction", "forward")
        return [False, True] if kind == "bidirectional" else [kind == "reverse"]

    def direction(self, index: int) -> tuple[Direction, State]:
        """One of them, and its first state."""
        d = _direction(self.op, self.node, self.x, self.gates, self.defaults, index)
        return d, tuple(_initial(self.op, self.node, self.x, each, index, d.size) for each in self.initial)

    def advance(self, d: Direction, gates: ir.Value, t: ir.Value, state: State) -> tuple[ir.Value, State]:
        """One step: its output, and the state behind it."""
        op, lengths = self.op, self.node.input(4)
        new = self.step(d, gates, state)
        if lengths is None:
            return new[0], new
        active = op.Unsqueeze(op.Greater(op.Cast(lengths, to=int(ir.DataType.INT64)), t), [1])
        kept = tuple(op.Where(active, after, before) for after, before in zip(new, state))
        return op.Where(active, new[0], 0.0), kept


def _gradients(r: _Recurrent, wrt: Sequence[ir.Value], sweep: Sweep) -> Found:
    length = r.op.dims(r.x)[0]
    if isinstance(length, int):
        return sweep(_unrolled(r, length), r.node.dys, wrt)
    if any(value in (r.node.input(index) for index in (2, 3, 7)) for value in wrt):
        raise UnsupportedOperator("the length of its sequences is only known at run time, and its weights are computed")
    return _through_time(r, wrt, sweep)


def _unrolled(r: _Recurrent, length: int) -> list[ir.Value]:
    """Y, and the last value of each state, of all directions."""
    op, rows, lasts = r.op, [], []
    for index, backwards in enumerate(r.directions):
        d, state = r.direction(index)
        outputs: dict[int, ir.Value] = {}
        for t in range(length)[:: -1 if backwards else 1]:
            gates = op.Squeeze(op.Slice(d.total, [t], [t + 1], [0]), [0])
            outputs[t], state = r.advance(d, gates, op.constant(np.array(t)), state)
        rows.append(_stacked(op, [outputs[t] for t in range(length)], 0))
        lasts.append(state)
    y = _stacked(op, rows, 1)  # [T, directions, B, H]
    ends = [_stacked(op, [state[which] for state in lasts], 0) for which in range(len(r.initial))]
    if r.node.integer("layout", 0):
        return [op.Transpose(y, perm=[2, 0, 1, 3]), *(op.Transpose(end, perm=[1, 0, 2]) for end in ends)]
    return [y, *ends]


def _through_time(r: _Recurrent, wrt: Sequence[ir.Value], sweep: Sweep) -> Found:
    """The gradient by a Scan back over the steps."""
    op, values, cotangents = r.op, list[ir.Value](), list[ir.Value]()
    first, *ends = [*r.node.dys, None, None][: 1 + len(r.initial)]
    if r.node.integer("layout", 0):
        first = None if first is None else op.Transpose(first, perm=[1, 2, 0, 3])
        ends = [None if end is None else op.Transpose(end, perm=[1, 0, 2]) for end in ends]

    def own(dy: ir.Value | None, index: int, axis: int) -> ir.Value | None:
        if dy is None:
            return None
        others = [size for each, size in enumerate(sizes(op, dy)) if each != axis]
        return reshape_to(op, op.Slice(dy, [index], [index + 1], [axis]), others)

    for index, backwards in enumerate(r.directions):
        d, state = r.direction(index)
        steps = Recurrence(op, partial(r.advance, d), d.total, state, backwards)
        dtotal, dstate = steps.gradients(own(first, index, 1), [own(end, index, 0) for end in ends], sweep)
        values += [d.total, *state]
        cotangents += [dtotal, *dstate]
    return sweep(values, cotangents, wrt)


def _stacked(op: Builder, values: list[ir.Value], axis: int) -> ir.Value:
    parts = [op.Unsqueeze(value, [axis]) for value in values]
    return parts[0] if len(parts) == 1 else op.Concat(*parts, axis=axis)


def _direction(op: Builder, node: Node, x: ir.Value, gates: int, defaults: list[str], index: int) -> Direction:
    def own(value: ir.Value | None) -> ir.Value | None:
        return None if value is None else op.Squeeze(op.Slice(value, [index], [index + 1], [0]), [0])

    w, r, bias, peepholes = (own(node.input(i)) for i in (1, 2, 3, 7))
    assert w is not None and r is not None
    size = op.dims(r)[1]
    if not isinstance(size, int):
        raise UnsupportedOperator("its hidden_size is only known at run time")
    total = op.MatMul(x, op.Transpose(w, perm=[1, 0]))
    recurrent = None
    if bias is not None:
        total = op.Add(total, op.Slice(bias, [0], [gates * size], [0]))
        recurrent = op.Slice(bias, [gates * size], [2 * gates * size], [0])
    chosen = _activations(op, node, defaults)[index * len(defaults) : (index + 1) * len(defaults)]
    return Direction(op, node, total, op.Transpose(r, perm=[1, 0]), recurrent, peepholes, chosen, size)


def _initial(op: Builder, node: Node, x: ir.Value, which: int, index: int, size: int) -> ir.Value:
    """[B, H]: a state before the first step."""
    value = node.input(which)
    if value is None:
        zero = np.zeros((), (x.dtype or ir.DataType.FLOAT).numpy())
        return spread(op, zero, [sizes(op, x)[1], size])
    axis = 1 if node.integer("layout", 0) else 0
    return op.Squeeze(op.Slice(value, [index], [index + 1], [axis]), [axis])


def _activations(op: Builder, node: Node, defaults: list[str]) -> list[Activation]:
    """Those of all directions. alpha and beta go, in order, to the activations that have one."""
    names = [name.lower() for name in node.node.attributes.get_strings("activations", ()) or defaults * 2]
    alphas, betas = (list(node.node.attributes.get_floats(f"activation_{key}", ())) for key in ("alpha", "beta"))
    made = []
    for name in names:
        if name in PLAIN:
            made.append(_plain(op, PLAIN[name]))
        elif name in PARAMETERS:
            alpha, beta = PARAMETERS[name]
            alpha = alphas.pop(0) if alphas else alpha
            beta = betas.pop(0) if betas and beta is not None else beta
            made.append(_parametric(op, name, alpha, beta or 0.0))
        else:
            raise UnsupportedOperator(f"activation {name} has no gradient rule")
    return made


def _plain(op: Builder, op_type: str) -> Activation:
    return lambda x: op.emit(op_type, x)


def _parametric(op: Builder, name: str, alpha: float, beta: float) -> Activation:
    made: dict[str, Activation] = {
        "affine": lambda x: op.Add(op.Mul(x, alpha), beta),
        "elu": lambda x: op.Elu(x, alpha=alpha),
        "hardsigmoid": lambda x: op.HardSigmoid(x, alpha=alpha, beta=beta),
        "leakyrelu": lambda x: op.LeakyRelu(x, alpha=alpha),
        "scaledtanh": lambda x: op.Mul(op.Tanh(op.Mul(x, beta)), alpha),
        "thresholdedrelu": lambda x: op.ThresholdedRelu(x, alpha=alpha),
    }
    return made[name]
