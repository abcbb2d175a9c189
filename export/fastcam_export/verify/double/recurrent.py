"""LSTM, GRU and RNN said with a Scan of products and elementwise operators, for which the runtime has float64 kernels.

The formulas are those of ONNX's specification, written a second time: the check would not find a fault of the gradient
rules (:mod:`fastcam_export.autodiff.rules.recurrent`) if it used them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fastcam_export.verify.double.emitter import Emitter

GATES = {"RNN": ("h",), "GRU": ("z", "r", "h"), "LSTM": ("i", "o", "f", "c")}
DEFAULTS = {"RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh")}
PARAMETERS = {
    "affine": (1.0, 0.0),
    "elu": (1.0, None),
    "hardsigmoid": (0.2, 0.5),
    "leakyrelu": (0.01, None),
    "scaledtanh": (1.0, 1.0),
    "thresholdedrelu": (1.0, None),
}
"""Defaults of alpha and beta of the activations that have them."""


def spelled(graph: onnx.GraphProto) -> None:
    """Replace the recurrent nodes of ``graph`` by Scans over their time steps."""
    if all(node.op_type not in GATES for node in graph.node):
        return
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        if node.op_type in GATES and node.domain in ("", "ai.onnx"):
            graph.node.extend(_Recurrent(graph, node).nodes())
        else:
            graph.node.append(node)


class _Recurrent(Emitter):
    """One recurrent node, said anew."""

    def __init__(self, graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
        super().__init__(graph, node)
        self.inputs = [*node.input, *[""] * (8 - len(node.input))]
        self.gates, self.size = GATES[node.op_type], self.given["hidden_size"]
        self.states = ("h", "c") if node.op_type == "LSTM" else ("h",)
        self.batch_first = self.given.get("layout", 0)

    def nodes(self) -> list[onnx.NodeProto]:
        """The nodes that give its outputs."""
        x = self.emit("Transpose", self.inputs[0], perm=[1, 0, 2]) if self.batch_first else self.inputs[0]
        kind = self.given.get("direction", b"forward").decode()
        backwards = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[kind]
        runs = [self.direction(x, number, reverse) for number, reverse in enumerate(backwards)]
        axis, first = [1], self.constant([0])
        all_steps = self.emit("Concat", *(self.emit("Unsqueeze", run[-1], axis) for run in runs), axis=1)
        ends = [
            self.emit("Concat", *(self.emit("Unsqueeze", run[i], first) for run in runs), axis=0)
            for i in range(len(self.states))
        ]
        orders = ([2, 0, 1, 3], [1, 0, 2]) if self.batch_first else ([0, 1, 2, 3], [0, 1, 2])
        for i, (output, value) in enumerate(zip(self.node.output, (all_steps, *ends))):
            if output:
                self.into.append(helper.make_node("Transpose", [value], [output], perm=orders[i > 0]))
        return self.into

    # ---- one direction

    def direction(self, x: str, number: int, reverse: bool) -> list[str]:
        """The last states, and the hidden states of all steps [T, B, H]."""
        w, r, b, p = (self.of_direction(i, number) for i in (1, 2, 3, 7))
        gates = self.emit("MatMul", x, self.emit("Transpose", w, perm=[1, 0]))
        wb, rb = self.emit_all("Split", b, outputs=2, axis=0, num_outputs=2) if b else ("", "")
        gates = self.emit("Add", gates, wb) if wb else gates
        recurrent = self.emit("Transpose", r, perm=[1, 0])
        initial = [self.initial(x, which, number) for which, _ in zip((5, 6), self.states)]
        body = self.body(number, recurrent, rb, p)
        steps = self.emit("Shape", x, start=0, end=1)
        scalar = self.emit("Reshape", steps, self.constant(np.zeros(0)))
        times = self.emit("Range", 0, scalar, 1)
        outputs = self.emit_all(
            "Scan",
            *initial,
            gates,
            times,
            outputs=len(self.states) + 1,
            body=body,
            num_scan_inputs=2,
            scan_input_directions=[int(reverse)] * 2,
            scan_output_directions=[int(reverse)],
        )
        return list(outputs)

    def of_direction(self, index: int, number: int) -> str:
        """A weight of one direction, without that axis; "" where it is not given."""
        name = self.inputs[index]
        return self.emit("Gather", name, self.constant(number), axis=0) if name else ""

    def initial(self, x: str, which: int, number: int) -> str:
        """[B, H]: a state before the first step."""
        if self.inputs[which]:
            return self.emit("Gather", self.inputs[which], self.constant(number), axis=int(self.batch_first))
        shape = self.emit("Concat", self.emit("Shape", x, start=1, end=2), self.constant([self.size]), axis=0)
        zero = numpy_helper.from_array(np.zeros(1))
        return self.emit("ConstantOfShape", shape, value=zero)

    def body(self, number: int, recurrent: str, bias: str, peepholes: str) -> onnx.GraphProto:
        """One step: the states, W x + Wb of the step and its number -> the states, and the hidden state as a result."""
        outside, self.into = self.into, []
        names = DEFAULTS[self.node.op_type]
        kinds = _activations(self.given, names)[number * len(names) : (number + 1) * len(names)]
        states, gates, time = [self.fresh() for _ in self.states], self.fresh(), self.fresh()
        step = {"RNN": self.rnn, "GRU": self.gru, "LSTM": self.lstm}[self.node.op_type]
        made = step(kinds, gates, states, recurrent, bias, peepholes)
        result = made[0]
        if self.inputs[4]:
            lengths = self.emit("Cast", self.inputs[4], to=TensorProto.INT64)
            active = self.emit("Unsqueeze", self.emit("Greater", lengths, time), [1])
            result = self.emit("Where", active, made[0], 0.0)
            made = [self.emit("Where", active, new, old) for new, old in zip(made, states)]
        ends = [self.emit("Identity", value) for value in (*made, result)]
        double = TensorProto.DOUBLE
        inputs = [helper.make_tensor_value_info(name, double, None) for name in (*states, gates)]
        inputs.append(helper.make_tensor_value_info(time, TensorProto.INT64, None))
        outputs = [helper.make_tensor_value_info(name, double, None) for name in ends]
        graph = helper.make_graph(self.into, self.fresh(), inputs, outputs)
        self.into = outside
        return graph

    # ---- steps: h, and of LSTM c

    def rnn(self, kinds: list[Any], x: str, states: list[str], r: str, b: str, p: str) -> list[str]:
        """h' = f(W x + R h + b)"""
        return [self.act(kinds[0], self.emit("Add", x, self.recur(states[0], r, b)))]

    def gru(self, kinds: list[Any], x: str, states: list[str], r: str, b: str, p: str) -> list[str]:
        """z, r = f(W x + R h + b), h' = (1 - z) n + z h, with n = g(W x + R (r h) + b) or g(W x + r (R h + Rb))"""
        h = states[0]
        own, there = self.split(x), self.split(self.recur(h, r, b))
        z, reset = (self.act(kinds[0], self.emit("Add", a, c)) for a, c in zip(own[:2], there[:2]))
        if self.given.get("linear_before_reset", 0):
            inner = self.emit("Mul", reset, there[2])
        else:
            inner = self.split(self.recur(self.emit("Mul", reset, h), r, b))[2]
        n = self.act(kinds[1], self.emit("Add", own[2], inner))
        return [self.emit("Add", n, self.emit("Mul", z, self.emit("Sub", h, n)))]

    def lstm(self, kinds: list[Any], x: str, states: list[str], r: str, b: str, p: str) -> list[str]:
        """c' = f c + i g, h' = o tanh(c'); peepholes P from c to i and f, from c' to o"""
        h, c = states
        i, o, f, new = self.split(self.emit("Add", x, self.recur(h, r, b)))
        pi, po, pf = self.emit_all("Split", p, outputs=3, axis=0, num_outputs=3) if p else ("", "", "")
        i = self.act(kinds[0], self.peep(i, c, pi))
        f = self.emit("Sub", 1.0, i) if self.given.get("input_forget", 0) else self.act(kinds[0], self.peep(f, c, pf))
        kept = self.emit("Mul", f, c)
        c = self.emit("Add", kept, self.emit("Mul", i, self.act(kinds[1], new)))
        o = self.act(kinds[0], self.peep(o, c, po))
        return [self.emit("Mul", o, self.act(kinds[2], c, clip=False)), c]

    def peep(self, gate: str, cell: str, weights: str) -> str:
        return self.emit("Add", gate, self.emit("Mul", cell, weights)) if weights else gate

    def recur(self, h: str, r: str, b: str) -> str:
        product = self.emit("MatMul", h, r)
        return self.emit("Add", product, b) if b else product

    def split(self, x: str) -> list[str]:
        """The gates of [B, gates * H]."""
        return list(self.emit_all("Split", x, outputs=len(self.gates), axis=-1, num_outputs=len(self.gates)))

    def act(self, kind: tuple[str, float, float], x: str, clip: bool = True) -> str:
        """An activation, by operators that the runtime has in float64."""
        name, alpha, beta = kind
        limit = self.given.get("clip", 0.0) if clip else 0.0
        if limit:
            x = self.emit("Min", self.emit("Max", x, self.constant(-limit)), self.constant(limit))
        one, zero, a = 1.0, 0.0, alpha
        if name in ("tanh", "sigmoid", "relu"):
            return self.emit(name.capitalize(), x)
        if name == "affine":
            return self.emit("Add", self.emit("Mul", x, a), self.constant(beta))
        if name == "scaledtanh":
            return self.emit("Mul", self.emit("Tanh", self.emit("Mul", x, self.constant(beta))), a)
        if name == "hardsigmoid":
            line = self.emit("Add", self.emit("Mul", x, a), self.constant(beta))
            return self.emit("Min", self.emit("Max", line, zero), one)
        if name == "softsign":
            return self.emit("Div", x, self.emit("Add", self.emit("Abs", x), one))
        if name == "softplus":
            return self.emit("Log", self.emit("Add", self.emit("Exp", x), one))
        if name == "thresholdedrelu":
            return self.emit("Where", self.emit("Greater", x, a), x, zero)
        if name == "leakyrelu":
            low = self.emit("Mul", x, a)
        elif name == "elu":
            low = self.emit("Mul", self.emit("Sub", self.emit("Exp", x), one), a)
        else:
            raise NotImplementedError(f"activation {name}")  # the runtime then runs the node as it is, in float32
        return self.emit("Where", self.emit("Less", x, zero), low, x)


def _activations(given: dict[str, Any], defaults: tuple[str, ...]) -> list[tuple[str, float, float]]:
    """(name, alpha, beta) of the activations of all directions; parameters go, in order, to those that have them."""
    names = [name.decode().lower() for name in given.get("activations", ())]
    names = names or [name.lower() for name in defaults] * 2
    alphas, betas = (list(given.get(f"activation_{key}", ())) for key in ("alpha", "beta"))
    made = []
    for name in names:
        alpha, beta = PARAMETERS.get(name, (None, None))
        alpha = alphas.pop(0) if alphas and alpha is not None else alpha
        beta = betas.pop(0) if betas and beta is not None else beta
        made.append((name, alpha or 0.0, beta or 0.0))
    return made
