"""Cases of recurrent operators, and their definition in NumPy: ONNX's reference evaluator has only a part of them."""

import numpy as np
from onnx.reference.op_run import OpRun

from support.rules.case import Free, N, one

ACTIVATIONS = {
    "sigmoid": lambda x, a, b: 1 / (1 + np.exp(-x)),
    "tanh": lambda x, a, b: np.tanh(x),
    "relu": lambda x, a, b: np.maximum(x, 0),
    "softsign": lambda x, a, b: x / (1 + np.abs(x)),
    "softplus": lambda x, a, b: np.logaddexp(x, 0),
    "affine": lambda x, a, b: a * x + b,
    "scaledtanh": lambda x, a, b: a * np.tanh(b * x),
    "hardsigmoid": lambda x, a, b: np.clip(a * x + b, 0, 1),
    "leakyrelu": lambda x, a, b: np.where(x > 0, x, a * x),
    "thresholdedrelu": lambda x, a, b: np.where(x > a, x, 0),
    "elu": lambda x, a, b: np.where(x > 0, x, a * np.expm1(x)),
}
ONLY_ALPHA = {"leakyrelu", "thresholdedrelu", "elu"}
BOTH = {"affine", "scaledtanh", "hardsigmoid"}


def functions(names, alphas, betas, clip):
    """The activations as functions of one argument, which is clipped."""
    alphas, betas, made = list(alphas or ()), list(betas or ()), []
    for name in map(str.lower, names):
        a = alphas.pop(0) if name in ONLY_ALPHA | BOTH else None
        b = betas.pop(0) if name in BOTH else None
        made.append(
            lambda x, f=ACTIVATIONS[name], a=a, b=b, bounded=True: f(
                np.clip(x, -clip, clip) if clip and bounded else x, a, b
            )
        )
    return made


class Recurrent(OpRun):
    """One sequence of the batch at a time, in the order in which its direction reads it."""

    DEFAULTS: tuple = ()
    STATES = 1

    def _run(self, x, w, r, b=None, lengths=None, h0=None, c0=None, p=None, activation_alpha=None,
             activation_beta=None, activations=None, clip=None, direction=None, hidden_size=None, layout=None,
             **given):  # fmt: skip
        x, (h0, c0) = (x, (h0, c0)) if not layout else (
            x.swapaxes(0, 1), [s if s is None else s.swapaxes(0, 1) for s in (h0, c0)]
        )  # fmt: skip
        size, (steps, batch, _), dirs = r.shape[2], x.shape, w.shape[0]
        act = functions(activations or self.DEFAULTS * dirs, activation_alpha, activation_beta, clip)
        y = np.zeros((steps, dirs, batch, size), x.dtype)
        ends = [np.zeros((dirs, batch, size), x.dtype) for _ in range(self.STATES)]
        for d in range(dirs):
            wb, rb = np.split(b[d], 2) if b is not None else (np.zeros(w.shape[1]),) * 2
            own = act[d * len(self.DEFAULTS) :][: len(self.DEFAULTS)]
            for n in range(batch):
                state = [np.zeros(size) if s is None else s[d, n] for s in (h0, c0)[: self.STATES]]
                times = range(steps if lengths is None else lengths[n])
                for t in times[:: -1 if direction == "reverse" or d else 1]:
                    peep = np.zeros(3 * size) if p is None else p[d]
                    state = self.step(x[t, n] @ w[d].T + wb, r[d], rb, state, own, peep, given)
                    y[t, d, n] = state[0]
                for end, value in zip(ends, state):
                    end[d, n] = value
        if layout:
            y, ends = y.transpose(2, 0, 1, 3), [end.swapaxes(0, 1) for end in ends]
        return (y, *ends)[: len(self.output)]


class RNN(Recurrent):
    DEFAULTS = ("Tanh",)

    def step(self, wx, r, rb, state, act, peep, given):
        return [act[0](wx + r @ state[0] + rb)]


class GRU(Recurrent):
    DEFAULTS = ("Sigmoid", "Tanh")

    def step(self, wx, r, rb, state, act, peep, given):
        (h,) = state
        (wz, wr, wn), (rz, rr, rn), (bz, br, bn) = (np.split(v, 3) for v in (wx, r, rb))
        z, reset = act[0](wz + rz @ h + bz), act[0](wr + rr @ h + br)
        n = act[1](wn + (reset * (rn @ h + bn) if given["linear_before_reset"] else rn @ (reset * h) + bn))
        return [(1 - z) * n + z * h]


class LSTM(Recurrent):
    DEFAULTS = ("Sigmoid", "Tanh", "Tanh")
    STATES = 2

    def step(self, wx, r, rb, state, act, peep, given):
        h, c = state
        i, o, f, g = np.split(wx + r @ h + rb, 4)
        pi, po, pf = np.split(peep, 3)
        i = act[0](i + pi * c)
        f = 1 - i if given["input_forget"] else act[0](f + pf * c)
        c = f * c + i * act[1](g)
        return [act[0](o + po * c) * act[2](c, bounded=False), c]


MENDED = [RNN, GRU, LSTM]

STEPS, INPUT, HIDDEN = 4, 3, 2
OUTPUTS = {"RNN": ("y", "yh"), "GRU": ("y", "yh"), "LSTM": ("y", "yh", "yc")}
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
LENGTHS = np.array([2, 4], np.int32)


FREE = Free("S", (3, 5))
"""A length that only a run tells: the gradient goes through a Scan, and weights have none."""


def case(
    op_type, *, bias=True, lengths=None, initial=True, peepholes=False, cotangents=None, batch=N, steps=STEPS, **given
):
    dirs = 2 if given.get("direction") == "bidirectional" else 1
    batch = 2 if lengths is not None else batch
    first = bool(given.get("layout"))
    state = ((batch, dirs, HIDDEN) if first else (dirs, batch, HIDDEN)) if initial else None
    operands = {
        "x": (batch, steps, INPUT) if first else (steps, batch, INPUT),
        "w": (dirs, GATES[op_type] * HIDDEN, INPUT),
        "r": (dirs, GATES[op_type] * HIDDEN, HIDDEN),
        "b": (dirs, 2 * GATES[op_type] * HIDDEN) if bias else None,
        "lengths": lengths,
        "h": state,
    }
    if op_type == "LSTM":
        operands |= {"c": state, "p": (dirs, 3 * HIDDEN) if peepholes else None}
    outputs = OUTPUTS[op_type]
    if steps is FREE:
        given["wrt"] = ("x", *(name for name in ("h", "c") if operands.get(name) is not None))
    return one(
        op_type, **operands, **given, hidden_size=HIDDEN, outputs=outputs, cotangents=cotangents, runtime=not first
    )


def common(op_type):
    directions = ("forward", "reverse", "bidirectional")
    return [
        *(case(op_type, direction=direction) for direction in directions),
        *(case(op_type, direction=direction, lengths=LENGTHS) for direction in directions),
        case(op_type, bias=False, initial=False),
        case(op_type, cotangents=("yh",)),
        case(op_type, clip=0.5),
        case(op_type, layout=1, direction="bidirectional"),
        case(op_type, steps=FREE, direction="bidirectional"),
        case(op_type, steps=FREE, direction="reverse", initial=False, cotangents=("y",)),
        case(op_type, steps=FREE, lengths=np.array([2, 3], np.int32), direction="bidirectional"),
        case(op_type, steps=FREE, cotangents=("yh",), clip=0.5),
        case(op_type, steps=FREE, layout=1, direction="bidirectional"),
    ]


CASES: dict = {
    "RNN": [
        *common("RNN"),
        *(case("RNN", activations=[name]) for name in ("Relu", "Softsign", "Softplus", "Sigmoid")),
        *(
            case("RNN", activations=[name], activation_alpha=[0.4], activation_beta=[0.3])
            for name in ("Affine", "ScaledTanh", "HardSigmoid")
        ),
        *(case("RNN", activations=[name], activation_alpha=[0.4]) for name in ("LeakyRelu", "ThresholdedRelu", "Elu")),
    ],
    "GRU": [
        *common("GRU"),
        case("GRU", linear_before_reset=1, direction="bidirectional"),
        case("GRU", linear_before_reset=1, clip=0.4),
        case("GRU", steps=FREE, linear_before_reset=1),
    ],
    "LSTM": [
        *common("LSTM"),
        case("LSTM", peepholes=True, direction="bidirectional"),
        case("LSTM", peepholes=True, input_forget=1),
        case("LSTM", cotangents=("yc",)),
        case("LSTM", steps=FREE, peepholes=True, cotangents=("y", "yc")),
        case("LSTM", activations=["HardSigmoid", "Tanh", "Softsign"], activation_alpha=[0.3], activation_beta=[0.5]),
    ],
}
