"""Backward modes that hand a quantity R down from the score, layer by layer, so that (but for biases) its sum stays.

What is carried is R itself, not a derivative: every operator on the way has a rule here or none, and then the mode says
nothing of it. Layers z_k = sum_j x_j w_jk + b_k hand R_k to their inputs by one of

    epsilon   R_j = sum_k x_j w_jk / (z_k + eps sign(z_k)) R_k             Bach et al. 2015, equation 58
    positive  R_j = sum_k (x_j w_jk)+ / (sum_j (x_j w_jk)+ + b_k+) R_k     its equation 60, alpha 1, beta 0
    gamma     as epsilon, of x_j w_jk + g (x_j w_jk)+ and b_k + g b_k+      Montavon et al. 2019, section 10.2
    winning   as positive, without biases                                   Zhang et al. 2016, equation 3

and a mode says which of them is for convolutions and which for fully connected layers:

    excitation               winning everywhere, from one at the class: the marginal winning probability (MWP)
    contrastive-excitation   the same, less MWP of the class with negated weights in the score's own layer (c-MWP)
    lrp-epsilon              epsilon everywhere, from the score
    lrp-composite            epsilon at fully connected layers, positive at convolutions (Kohlbrenner et al. 2020)
    lrp-gamma                epsilon at fully connected layers, gamma (1/4) at convolutions

A BatchNormalization behind a convolution is folded into it where signs of weights matter: in all but epsilon, of which
it is a layer like others. R passes an activation function unchanged, a max pool as the gradient does (to the winner),
a mean or a residual sum by the parts that its addends have in it, and the gate of a product (x sigmoid(..)) gets
nothing (Arras et al. 2017).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

import onnx_ir as ir

from fastcam.schema import FastcamError, Mode
from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.core.errors import UnsupportedOperator
from fastcam_export.autodiff.core.function_bodies import find
from fastcam_export.autodiff.core.rule import ZERO, Gradients, Node, Rule
from fastcam_export.autodiff.core.shapes import adopt_dims
from fastcam_export.autodiff.modified.relu_modes import Backward
from fastcam_export.graph.constants import SMALL, constant_array, is_constant
from fastcam_export.graph.query import only_consumer

EPSILON = 1e-9
"""Keeps the quotient finite and does no more; Captum's default."""
GAMMA = 0.25
"""Montavon et al. 2019, and Captum's default."""

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
DENSE = ("Gemm", "MatMul")
LINEAR = ("AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum", "Resize")
PASSED = (
    *("Celu", "Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LRN", "LeakyRelu", "Mish", "PRelu", "Relu", "Selu"),
    *("Shrink", "Sigmoid", "Softplus", "Softsign", "Swish", "Tanh", "ThresholdedRelu"),
)
"""Activation functions, and LRN as Zhang et al. treat it."""
KEPT = frozenset(
    [
        *("Cast", "CastLike", "CenterCropPad", "Concat", "DepthToSpace", "Dropout", "Expand", "Flatten", "Gather"),
        *("GlobalMaxPool", "Identity", "MaxPool", "Pad", "ReduceMax", "Reshape", "Slice", "SpaceToDepth", "Split"),
        *("Squeeze", "Tile", "Transpose", "Unsqueeze"),
        *("com.microsoft.FusedConv", "com.microsoft.FusedGemm", "com.microsoft.FusedMatMul"),
    ]
)
"""Operators that move values, or take the largest: R goes where the gradient goes."""

Part = Callable[[Builder, ir.Value], ir.Value]
"""What of some weights counts."""


@dataclass(frozen=True)
class Share:
    """How a layer's output is divided among its inputs.

    Attributes:
        up: what of the weights counts for inputs that are not negative; None for all of them, whatever the input.
        down: what counts for negative inputs.
        bias: whether the bias has a part, which then is lost.
        signed: whether the whole may be negative.
    """

    up: Part | None = None
    down: Part | None = None
    bias: bool = True
    signed: bool = True


def _positive(op: Builder, w: ir.Value) -> ir.Value:
    return op.Relu(w)


def _negative(op: Builder, w: ir.Value) -> ir.Value:
    return op.Min(w, 0.0)


def _with(part: Part, op: Builder, w: ir.Value) -> ir.Value:
    """w + gamma w+ for inputs that are not negative, w + gamma w- for others"""
    return op.Add(w, op.Mul(part(op, w), GAMMA))


def _of_negated(part: Part, op: Builder, w: ir.Value) -> ir.Value:
    return part(op, op.Neg(w))


EVERYTHING = Share()
POSITIVE = Share(_positive, _negative, signed=False)
FAVOURED = Share(partial(_with, _positive), partial(_with, _negative))
WINNING = replace(POSITIVE, bias=False)
LOSING = Share(partial(_of_negated, _positive), partial(_of_negated, _negative), bias=False, signed=False)

SHARES: dict[Mode, tuple[Share, Share]] = {
    "excitation": (WINNING, WINNING),
    "contrastive-excitation": (WINNING, WINNING),
    "lrp-epsilon": (EVERYTHING, EVERYTHING),
    "lrp-composite": (POSITIVE, EVERYTHING),
    "lrp-gamma": (FAVOURED, EVERYTHING),
}
"""Of convolutions, and of all else."""


def relevance_mode(name: Mode, score: ir.Value) -> Backward:
    """The mode called ``name`` for an explained score.

    Raises:
        FastcamError: it is contrastive, and several layers make the score.
    """
    convolution, other = SHARES[name]
    rules = {op_type: Rule(partial(_layer, other if op_type in DENSE else convolution)) for op_type in WEIGHTED}
    if name == "contrastive-excitation":
        top = _top(score)
        rules |= {op_type: Rule(partial(_contrast, top)) for op_type in WEIGHTED}
    rules |= {op_type: Rule(partial(_linear, other)) for op_type in LINEAR}
    rules |= {op_type: Rule(partial(_addition, other), broadcasts=True) for op_type in ("Add", "Sub", "Sum")}
    rules |= dict.fromkeys(PASSED, Rule(_passed))
    rules |= {"Mul": Rule(_product, broadcasts=True), "Div": Rule(_quotient, broadcasts=True)}
    rules["BatchNormalization"] = Rule(partial(_batch_normalization, convolution))
    return Backward(name, rules, KEPT)


def seed_of(op: Builder, name: Mode, one: ir.Value, score: ir.Value) -> ir.Value:
    """What a relevance mode begins with, where ``one`` is one in the place of the target."""
    if name.startswith("lrp"):
        return op.Mul(one, score)
    positions = [d for d in op.dims(score)[2:] if d != 1]
    if any(not isinstance(d, int) for d in positions):
        raise FastcamError(f"{name} of a map of scores needs its size in the file; export the model with a fixed size")
    for d in positions:
        one = op.Mul(one, 1 / float(d or 1))
    return one


def _top(score: ir.Value) -> ir.Node:
    """The layer that makes the score."""
    found, stack = set(), [score]
    while stack:
        node = stack.pop().producer()
        if node is not None and node.op_type in WEIGHTED:
            found.add(node)
        elif node is not None:
            stack += [value for value in node.inputs if value is not None]
    if len(found) != 1:
        raise FastcamError(
            f"contrastive-excitation needs one layer with weights that makes the score, this model has {len(found)}; "
            "export with input_gradient 'excitation'"
        )
    return found.pop()


# ---- the rules: dy is R of the output


def _layer(share: Share, op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """A layer with weights, which are constants: by its share, see above"""
    data, weights = 0, 1
    if node.node.op_type in DENSE and is_constant(node.inputs[0]):
        data, weights = 1, 0
    if not is_constant(node.inputs[weights]):
        raise UnsupportedOperator("both its inputs depend on the image")
    return {data: lambda: _handed_down(op, node, dy, share, data)}


def _contrast(top: ir.Node, op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """winning; in the score's own layer less that of the negated weights"""
    if node.node is not top:
        return _layer(WINNING, op, node, dy)
    data = 1 if node.node.op_type in DENSE and is_constant(node.inputs[0]) else 0
    losing = partial(_handed_down, op, node, dy, LOSING, data)
    return {data: lambda: op.Sub(_handed_down(op, node, dy, WINNING, data), losing())}


def _handed_down(op: Builder, node: Node, dy: ir.Value, share: Share, data: int) -> ir.Value:
    """R of input ``data``: sum over parts of x dz/dx^T (R / z), with z the node once more, of what counts."""
    x = node.inputs[data]
    if share.up is None or share.down is None:
        return op.Mul(x, pulled(op, node.node, ratio(op, dy, node.y, share), data))
    w, bias = _folded(op, node, data)
    parts = [(x, share.up)]
    if not _never_negative(x):
        parts = [(op.Relu(x), share.up), (op.Min(x, 0.0), share.down)]
    copies = []
    for number, (part, counted) in enumerate(parts):
        inputs = [part, counted(op, w)] if data == 0 else [counted(op, w), part]
        if bias is not None and share.bias and number == 0:
            inputs.append(share.up(op, bias))
        copies.append(_again(op, node, inputs))
    z = copies[0] if len(copies) == 1 else op.Add(*copies)
    divided = ratio(op, dy, z, share)
    shares = [op.Mul(part, pulled(op, _made(copy), divided, data)) for (part, _), copy in zip(parts, copies)]
    return shares[0] if len(shares) == 1 else op.Add(*shares)


def _linear(share: Share, op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """A mean or a sum, whose weights are all alike or positive"""
    x, y = node.x, node.y
    if share.signed or _never_negative(x):
        return {0: lambda: op.Mul(x, pulled(op, node.node, ratio(op, dy, y, share), 0))}
    rest: list[ir.Value | None] = list(node.node.inputs[1:])

    def positive() -> ir.Value:
        z = _again(op, node, [op.Relu(x), *rest])
        return op.Mul(op.Relu(x), pulled(op, _made(z), ratio(op, dy, z, share), 0))

    return {0: positive}


def _addition(share: Share, op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """y = a + b: R_a = a / y R; where only what is positive counts, a+ / (a+ + b+) R. A constant is a bias."""
    minus = node.node.op_type == "Sub"
    terms = {i: op.Neg(x) if minus and i else x for i, x in enumerate(node.inputs) if not is_constant(x)}
    if share.signed:
        divided = ratio(op, dy, node.y, share)
        return {i: partial(op.Mul, term, divided) for i, term in terms.items()}
    if len(terms) == 1:
        return dict.fromkeys(terms, dy)
    counted = {i: op.Relu(term) for i, term in terms.items()}
    divided = ratio(op, dy, op.Sum(*counted.values()), share)
    return {i: partial(op.Mul, term, divided) for i, term in counted.items()}


def _passed(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """R passes unchanged"""
    return {0: dy}


def _product(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """R goes to the factor that depends on the image; of two to the one that is no gate"""
    for signal, gate in ((0, 1), (1, 0)):
        if is_constant(node.inputs[gate]):
            return {signal: dy}
    for signal, gate in ((0, 1), (1, 0)):
        if _is_gate(node.inputs[gate]) and not _is_gate(node.inputs[signal]):
            return {signal: dy, gate: ZERO}
    raise UnsupportedOperator("both factors depend on the image, and it is not clear which of them is a gate")


def _quotient(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """R passes a division by a constant"""
    if not is_constant(node.inputs[1]):
        raise UnsupportedOperator("its divisor depends on the image")
    return {0: dy}


def _batch_normalization(share: Share, op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """A scaling of each channel: by epsilon, unless folded into the convolution before it, or without bias"""
    made = node.x.producer()
    if not share.bias or (share.up is not None and made is not None and _folds_into(made) is node.node):
        return {0: dy}
    return {0: lambda: op.Mul(node.x, pulled(op, node.node, ratio(op, dy, node.y, EVERYTHING), 0))}


# ---- their parts


def ratio(op: Builder, r: ir.Value, z: ir.Value, share: Share) -> ir.Value:
    """R / z; zero where nothing counts."""
    if share.signed:
        return op.Div(r, op.Add(z, op.Where(op.Less(z, 0.0), -EPSILON, EPSILON)))
    return op.Where(op.Greater(z, 0.0), op.Div(r, z), 0.0)


def pulled(op: Builder, node: ir.Node, dy: ir.Value, index: int) -> ir.Value:
    """The vector-Jacobian product of a node, by its registered rule."""
    rule = find(node)
    assert rule is not None and not rule.broadcasts
    found = rule.gradients(op, Node(node, (dy,)), dy)
    gradient = found if isinstance(found, ir.Value) else found[index]
    value = node.inputs[index]
    assert value is not None and gradient is not ZERO
    return adopt_dims(op, gradient if isinstance(gradient, ir.Value) else gradient(), op.dims(value))  # type: ignore[operator]


def _again(op: Builder, node: Node, inputs: list[ir.Value | None] | list[ir.Value]) -> ir.Value:
    """The node once more, with other inputs."""
    attributes = {name: attribute.value for name, attribute in node.node.attributes.items()}
    return adopt_dims(op, op.emit(node.node.op_type, *inputs, **attributes), op.dims(node.y))


def _made(value: ir.Value) -> ir.Node:
    node = value.producer()
    assert node is not None
    return node


def _folds_into(node: ir.Node) -> ir.Node | None:
    """The BatchNormalization that alone reads a convolution's result."""
    reader = only_consumer(node.outputs[0])
    both = reader is not None and node.op_type == "Conv" and reader.op_type == "BatchNormalization"
    return reader if both else None


def _folded(op: Builder, node: Node, data: int) -> tuple[ir.Value, ir.Value | None]:
    """Weights and bias of a layer, with the BatchNormalization behind it."""
    w, bias = node.inputs[1 - data], node.input(2)
    normalization = _folds_into(node.node)
    if normalization is None:
        return w, bias
    behind = Node(normalization, ())
    _, gain, shift, mean, variance = behind.inputs
    scale = op.Div(gain, op.Sqrt(op.Add(variance, behind.number("epsilon", 1e-5))))
    centred = op.Neg(mean) if bias is None else op.Sub(bias, mean)
    return op.Mul(w, op.Reshape(scale, [-1] + [1] * (op.rank(w) - 1))), op.Add(op.Mul(centred, scale), shift)


GATES = frozenset(["Clip", "Erf", "HardSigmoid", "Sigmoid", "Softmax", "Tanh"])
"""Bounded functions."""
AROUND = frozenset(["Add", "Div", "Expand", "Identity", "Mul", "Reshape", "Squeeze", "Transpose", "Unsqueeze"])


def _is_gate(value: ir.Value) -> bool:
    """Whether a value is a bounded function, perhaps scaled and shifted by constants."""
    node = value.producer()
    if node is None or node.op_type in GATES:
        return node is not None
    varying = [x for x in node.inputs if x is not None and not is_constant(x)]
    return node.op_type in AROUND and len(varying) == 1 and _is_gate(varying[0])


def _never_negative(value: ir.Value) -> bool:
    """Whether the file says that a value is nowhere below zero."""
    node = value.producer()
    if node is None:
        array = constant_array(value, SMALL)
        return array is not None and bool((array >= 0).all())
    if node.op_type in ("Relu", "Sigmoid", "HardSigmoid", "Softmax", "Abs", "Exp", "Softplus"):
        return True
    if node.op_type == "Clip":
        return _all_never_negative(node.inputs[1:2])
    if node.op_type in ("Concat", "Add", "Sum"):
        return _all_never_negative(node.inputs)
    moved = node.op_type in KEPT or node.op_type in LINEAR
    return moved and node.op_type != "Resize" and _all_never_negative(node.inputs[:1])


def _all_never_negative(values: Iterable[ir.Value | None]) -> bool:
    given = [value for value in values if value is not None]
    return bool(given) and all(map(_never_negative, given))
