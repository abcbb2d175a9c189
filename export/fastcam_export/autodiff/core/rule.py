"""The table of gradient rules: which operator is differentiated by which function, and what such a function sees."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy.typing as npt
import onnx_ir as ir

from fastcam_export.autodiff.core.errors import UnsupportedOperator
from fastcam_export.autodiff.core.straight_through import ACTIVATIONS, seen
from fastcam_export.graph.constants import constant_array
from fastcam_export.graph.query import input_at, qualified_op_type

if TYPE_CHECKING:
    from fastcam_export.autodiff.core.builder import Builder


class _Zero:
    """The type of :data:`ZERO`."""

    def __repr__(self) -> str:
        return "ZERO"


ZERO: Final = _Zero()
"""A rule's word that an input carries no gradient (a derivative that is zero almost everywhere).

Leaving an input out of a rule's result means something else: nobody has derived it, and needing it is an error.
"""

Gradient = ir.Value | _Zero | Callable[[], ir.Value]
"""What a rule gives for one input: the gradient, ZERO, or a function that emits the gradient only if it is needed."""

Gradients = ir.Value | Mapping[int, Gradient]
"""What a rule returns: the gradient of each input by its index; a value alone is the gradient of input 0."""


class Node:
    """A node as its rule sees it.

    Values of an activation between layers of a quantised graph are seen as the next layer sees them, dequantised.

    Attributes:
        node: the node itself.
        x: its first input.
        y: its first output.
        inputs: the inputs that are given.
        outputs: all outputs.
        dys: the cotangent of each output, None where nothing downstream depends on it.
    """

    def __init__(self, node: ir.Node, dys: tuple[ir.Value | None, ...]) -> None:
        look = seen if node.op_type in ACTIVATIONS else _itself
        self.node = node
        self.dys = dys
        self.outputs = tuple(look(value) for value in node.outputs)
        self.inputs = tuple(look(value) for value in node.inputs if value is not None)
        self.x, self.y = self.inputs[0], self.outputs[0]

    def input(self, index: int) -> ir.Value | None:
        """Input ``index``; None where it is left out."""
        return input_at(self.node, index)

    def constant(self, index: int, name: str) -> npt.NDArray[Any] | None:
        """The content of input ``index``, called ``name``; None where it is left out.

        Raises:
            UnsupportedOperator: it is computed at run time.
        """
        value = input_at(self.node, index)
        if value is None:
            return None
        array = constant_array(value)
        if array is None:
            raise UnsupportedOperator(f"its {name} are only known at run time")
        return array

    def integer(self, name: str, default: int | None = None) -> int:
        """An integer attribute; without a default it is one that the operator requires."""
        return self.node.attributes.get_int(name, default)  # type: ignore[arg-type]

    def number(self, name: str, default: float) -> float:
        """A floating point attribute."""
        return self.node.attributes.get_float(name, default)

    def string(self, name: str, default: str) -> str:
        """A string attribute."""
        return self.node.attributes.get_string(name, default)

    def integers(self, name: str) -> list[int]:
        """An attribute that is a list of integers; empty where it is not given."""
        return list(self.node.attributes.get_ints(name, ()))


def _itself(value: ir.Value) -> ir.Value:
    return value


Found = dict[ir.Value, "ir.Value | None"]
"""Gradients by the value that they belong to; None where it is structurally zero."""

Sweep = Callable[[Sequence["ir.Value | None"], Sequence["ir.Value | None"], Sequence[ir.Value]], Found]
"""``(copies, dys, wrt) -> gradients``: the driver's sweep over copies of values whose cotangents are ``dys``."""

Within = Callable[["Builder", Node, Sequence[ir.Value], Sweep], Found]


@dataclass(frozen=True)
class Rule:
    """How an operator is differentiated: by its gradients, or through its definition by other operators.

    Attributes:
        gradients: ``(op, node, dy) -> Gradients``: ``op`` emits nodes (``op.Mul(a, b)``), ``dy`` is the cotangent of
            the node's output. Of an expansion it is not called.
        broadcasts: gradients may come in the output's shape; the driver sums over the axes that were broadcast.
        several: several outputs may have a cotangent: ``node.dys``; ``dy`` is then the first of them.
        ignores: inputs of which only type or shape matter, so that no path leads through them.
        expand: ``(op, node) -> outputs``: emits the operator's definition, a copy that the driver differentiates.
        within: ``(op, node, wrt, sweep) -> gradients``: differentiates bodies that it emits, by ``sweep``.
    """

    gradients: Callable[[Builder, Node, ir.Value], Gradients]
    broadcasts: bool = False
    several: bool = False
    ignores: frozenset[int] = frozenset()
    expand: Callable[[Builder, Node], Sequence[ir.Value | None]] | None = None
    within: Within | None = None


Lookup = Callable[[ir.Node], Rule | None]
"""Which rule differentiates a node; None where there is none. Raises UnsupportedOperator with a reason of its own."""

RULES: dict[str, Rule] = {}
"""Operator -> rule, for the opset form 18 and later (``load`` converts older files).

Operators of the default domain go by their name, others by domain and name: "com.microsoft.FusedConv".
"""

Function = Callable[["Builder", Node, ir.Value], Gradients]


def rule(
    *op_types: str, broadcasts: bool = False, several: bool = False, ignores: Collection[int] = (), domain: str = ""
) -> Callable[[Function], Function]:
    """Register a function as the :class:`Rule` of ``op_types``."""

    def register(function: Function) -> Function:
        for op_type in op_types:
            _register(domain, op_type, Rule(function, broadcasts, several, frozenset(ignores)))
        return function

    return register


Definition = Callable[["Builder", Node], Sequence["ir.Value | None"]]


def expansion(*op_types: str, ignores: Collection[int] = (), domain: str = "") -> Callable[[Definition], Definition]:
    """Register a function that emits what ``op_types`` compute, by operators that have rules: see ``Rule.expand``.

    It returns the outputs in their order; one that is needed and None, or not there, is refused. The model's own node
    stays as it is; what the definition emits is computed once more, for the backward pass only.
    """

    def register(function: Definition) -> Definition:
        for op_type in op_types:
            _register(domain, op_type, expanded(function, ignores))
        return function

    return register


def expanded(function: Definition, ignores: Collection[int] = ()) -> Rule:
    """The rule of an operator that is differentiated through its definition."""

    def gradients(op: Builder, node: Node, dy: ir.Value) -> Gradients:
        raise RuntimeError(f"{describe(node.node)} is differentiated through its definition")

    return Rule(gradients, several=True, ignores=frozenset(ignores), expand=function)


def within(op_type: str, domain: str = "") -> Callable[[Within], Within]:
    """Register a function that differentiates the bodies of ``op_type``: see ``Rule.within``."""

    def register(function: Within) -> Within:
        _register(domain, op_type, within_rule(function))
        return function

    return register


def within_rule(function: Within) -> Rule:
    """The rule of an operator that ``function`` differentiates by what it emits."""
    return replace(expanded(_no_definition), within=function)


def _no_definition(op: Builder, node: Node) -> Sequence[ir.Value | None]:
    raise RuntimeError(f"{describe(node.node)} is differentiated by its bodies")


def _register(domain: str, op_type: str, made: Rule) -> None:
    name = f"{domain}.{op_type}" if domain else op_type
    if name in RULES:
        raise RuntimeError(f"{name} has two gradient rules")
    RULES[name] = made


def find(node: ir.Node) -> Rule | None:
    """The registered rule for ``node``, or None."""
    return RULES.get(qualified_op_type(node))


def describe(node: ir.Node) -> str:
    """How error messages name a node: operator, name, domain."""
    domain = f"{node.domain}." if node.domain else ""
    return f"{domain}{node.op_type} (node {node.name or '<unnamed>'!r})"
