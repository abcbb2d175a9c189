"""Backward modes: what is read off a backward pass in which a few rules are replaced, and nothing else.

"gradient" replaces none (Simonyan et al. 2014, "Deep Inside Convolutional Networks"). Two modes replace the rule of
ReLU, y = max(x, 0):

    guided          dx = max(dy, 0) where x > 0     Springenberg et al. 2015, "Striving for Simplicity"
    deconvolution   dx = max(dy, 0)                 Zeiler & Fergus 2014, "Visualizing and Understanding CNNs"

A ReLU is also Clip from zero on (ReLU6) and Max with the constant zero; where a Clip has an upper end, guided wants
x below it. Neither paper says anything of other activations, which keep their gradient, as in Captum and
pytorch-grad-cam (whose hooks are on torch.nn.ReLU alone: they leave ReLU6 as it is, too).
:mod:`fastcam_export.autodiff.modified.lrp` has the modes that hand a quantity down from layer to layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import onnx_ir as ir

from fastcam.schema import FastcamError, Mode
from fastcam_export.autodiff import rules as _rules  # noqa: F401  (fills the registry)
from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.core.errors import UnsupportedOperator
from fastcam_export.autodiff.core.function_bodies import find
from fastcam_export.autodiff.core.residues import rectified
from fastcam_export.autodiff.core.rule import RULES, Function, Gradients, Node, Rule
from fastcam_export.autodiff.core.shapes import cast_like
from fastcam_export.autodiff.rules.activation import between_0_and_6, is_relu6
from fastcam_export.graph.constants import constant_array
from fastcam_export.graph.query import in_default_domain, qualified_op_type


@dataclass(frozen=True)
class Backward:
    """A mode: :meth:`find` is the lookup of rules by which the driver differentiates.

    Attributes:
        name: what it is called.
        rules: the replaced rules, by operator.
        kept: operators whose registered rule it keeps; None for all. Others have no meaning in the mode.
    """

    name: Mode
    rules: Mapping[str, Rule] = field(default_factory=dict)
    kept: frozenset[str] | None = None

    def find(self, node: ir.Node) -> Rule | None:
        """The rule for ``node``.

        Raises:
            UnsupportedOperator: the mode has no meaning for the operator.
        """
        name = qualified_op_type(node)
        if name in self.rules:
            return self.rules[name]
        if self.kept is not None and name not in self.kept:
            raise UnsupportedOperator(f"{self.name} says nothing of such an operator")
        return find(node)


def replaced(op_type: str, function: Function) -> Rule:
    """The registered rule of ``op_type`` with another function in its place."""
    return replace(RULES[op_type], gradients=function, expand=None)


def relu_mode(name: Mode) -> Backward:
    """ "gradient", "guided" or "deconvolution"."""
    if name == "gradient":
        return Backward(name)
    through = {"guided": _guided, "deconvolution": _deconvolution}[name]
    rules = {op_type: replaced(op_type, partial(_relu, through)) for op_type in RELUS}
    return Backward(name, {**rules, "QuantizeLinear": replaced("QuantizeLinear", _quantized)})


RELUS = ("Clip", "Max", "Relu")
"""Operators that may be a ReLU."""

Through = Callable[[Builder, Node, ir.Value], ir.Value]


def is_relu(node: ir.Node) -> bool:
    """Whether a node is max(x, 0), or that up to an upper end."""
    if node.op_type not in RELUS or not in_default_domain(node):
        return False
    return node.op_type == "Relu" or any(_is_zero(value) for value in node.inputs[:2])


def _is_zero(value: ir.Value | None) -> bool:
    """Whether a value is the constant zero, perhaps cast."""
    made = value.producer() if value is not None else None
    if made is not None and made.op_type in ("Cast", "CastLike"):
        return _is_zero(made.inputs[0])
    array = constant_array(value, 1) if value is not None else None
    return array is not None and array.size == 1 and not array.any()


def _relu(through: Through, op: Builder, node: Node, dy: ir.Value) -> Gradients:
    if not is_relu(node.node):
        return RULES[node.node.op_type].gradients(op, node, dy)
    return {index: partial(through, op, node, dy) for index in range(len(node.node.inputs))}


def _guided(op: Builder, node: Node, dy: ir.Value) -> ir.Value:
    """dx = max(dy, 0) where x > 0, and below the upper end where there is one"""
    high = node.input(2) if node.node.op_type == "Clip" else None
    if high is not None and is_relu6(node):
        return between_0_and_6(op, node, rectified(op, dy))
    if high is not None:
        inside = op.And(op.Greater(node.y, 0.0), op.Less(node.y, high))
        return op.Mul(op.Relu(dy), cast_like(op, inside, dy))
    found = RULES["Relu"].gradients(op, node, rectified(op, dy))
    assert isinstance(found, ir.Value)
    return found


def _deconvolution(op: Builder, node: Node, dy: ir.Value) -> ir.Value:
    """dx = max(dy, 0), whatever x was"""
    return op.Relu(dy)


def _quantized(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    raise UnsupportedOperator("the ReLUs of a quantised model are part of its rounding; give the float model")


def refuse_without_relu(nodes: Iterable[ir.Node], mode: Mode) -> None:
    """Raise where no node is a ReLU: the mode would be the gradient under another name."""
    if not any(is_relu(node) or node.domain == "com.microsoft" for node in nodes):
        raise FastcamError(
            f"the model has no ReLU between image and score, without which {mode} is its plain gradient; "
            "export with input_gradient 'gradient' (--input-gradient gradient)"
        )
