"""Reverse-mode sweep over the nodes between a value and a score.

The driver prunes to the path, looks rules up, accumulates, sums over broadcast axes and checks every gradient against
the value that it belongs to. Rules do none of this.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

import onnx_ir as ir

from fastcam_export.autodiff import rules as _rules  # noqa: F401  (fills the registry)
from fastcam_export.autodiff.core.builder import FLOATS, Builder
from fastcam_export.autodiff.core.errors import UnsupportedOperator
from fastcam_export.autodiff.core.function_bodies import find, made_from
from fastcam_export.autodiff.core.rule import Gradient, Lookup, Node, Rule, _Zero, describe
from fastcam_export.autodiff.core.shapes import adopt_dims, sum_to
from fastcam_export.autodiff.core.stopped import is_stopped
from fastcam_export.autodiff.core.straight_through import DEQUANTIZE, MOVES, is_code, is_step
from fastcam_export.graph.query import captured

NO_RULE = "there is no gradient rule for it"
OPTIMISED = frozenset(["com.microsoft", "com.microsoft.nchwc"])
UNOPTIMISED = "ONNX Runtime has already optimised this file: give the file from before that"


def path(nodes: Iterable[ir.Node], sources: Iterable[ir.Value], sinks: Iterable[ir.Value]) -> list[ir.Node]:
    """Those of ``nodes`` (a graph's, each behind what it reads) through which a float ``source`` reaches a ``sink``.

    A derivative flows through floating point values and through the integers that stand for them in quantised graphs;
    shapes, indices and masks are constants to it. A value whose type nobody knows (a custom operator's) counts as one:
    leaving it out would be a silent zero. So does the picture itself where it is of integers, until it is made a float.
    """
    reached = set(sources)
    pixels = {value for value in reached if _is_integer(value)}
    forward = []
    for node in nodes:
        if any(value in reached for value in _differentiable_inputs(node)):
            if node.op_type in ON_PIXELS and pixels.intersection(node.inputs):
                pixels.update(value for value in node.outputs if _is_integer(value))
            outputs = [value for value in node.outputs if value in pixels or _flows(value)]
            reached.update(outputs)
            if outputs:
                forward.append(node)
    needed = set(sinks)
    between = []
    for node in reversed(forward):
        if any(value in needed for value in node.outputs):
            needed.update(value for value in _differentiable_inputs(node) if value in reached)
            between.append(node)
    return between[::-1]


ON_PIXELS = MOVES | {"Add", "Cast", "Clip", "DepthToSpace", "Div", "GatherND", "Mul", "Pad", "Resize", "SpaceToDepth"}
ON_PIXELS |= {"Sub", "Tile", "Upsample", "Where"}
"""Operators that models apply to pictures of integers before these become floats."""


def _is_integer(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.is_integer() and not is_code(value)


def _flows(value: ir.Value) -> bool:
    if is_stopped(value):
        return False
    return value.dtype is None or (value.dtype.is_floating_point() and not is_step(value)) or is_code(value)


def _differentiable_inputs(node: ir.Node) -> Iterator[ir.Value]:
    """What a node reads, its bodies included, but for inputs of which only type or shape matter."""
    rule = find(node)
    ignored = rule.ignores if rule is not None else frozenset()
    yield from (value for index, value in enumerate(node.inputs) if value is not None and index not in ignored)
    yield from captured(node)


def unsupported(nodes: Iterable[ir.Node]) -> list[ir.Node]:
    """Those of ``nodes`` that no rule differentiates."""
    return [node for node in nodes if find(node) is None]


def backward(
    op: Builder, cotangents: Mapping[ir.Value, ir.Value], wrt: Sequence[ir.Value], rules: Lookup = find
) -> dict[ir.Value, ir.Value | None]:
    """Append the gradient of ``sum_v <cotangents[v], v>`` with respect to each value in ``wrt``.

    Args:
        op: builder of the graph.
        cotangents: by the values that they belong to.
        wrt: values of the graph.
        rules: those by which nodes are differentiated, the registered ones or a mode's.

    Returns:
        The gradient of each value; None where it is structurally zero (no path, or only paths without derivative).

    Raises:
        UnsupportedOperator: an operator on the path has no rule, or no rule for the input that is needed.
    """
    op.variables.update(wrt)
    nodes = path(op.graph, wrt, cotangents)
    for node in unsupported(nodes):
        if any(value.dtype is None for value in node.outputs):
            raise _refusal(op, node, NO_RULE, rules)  # nothing behind it has a known type either
    return sweep(op, nodes, cotangents, wrt, rules)


def sweep(
    op: Builder,
    nodes: Sequence[ir.Node],
    cotangents: Mapping[ir.Value, ir.Value],
    wrt: Sequence[ir.Value],
    rules: Lookup = find,
) -> dict[ir.Value, ir.Value | None]:
    """:func:`backward` over ``nodes``, the path; they need not be a graph's."""
    wanted = {*wrt, *(value for node in nodes for value in node.outputs)}
    parts: dict[ir.Value, list[ir.Value]] = {value: [seed] for value, seed in cotangents.items()}

    def total(value: ir.Value) -> ir.Value | None:
        terms = parts.get(value)
        if terms is None:
            return None
        while len(terms) > 1:
            terms[:2] = [op.Add(*terms[:2])]
        return terms[0]

    for node in reversed(nodes):
        dys = tuple(total(value) for value in node.outputs)
        if any(dy is not None for dy in dys):
            for value, gradient in _gradients(op, node, dys, wanted, rules):
                parts.setdefault(value, []).append(gradient)
    return {value: total(value) for value in wrt}


def _gradients(
    op: Builder, node: ir.Node, dys: tuple[ir.Value | None, ...], wanted: set[ir.Value], rules: Lookup
) -> list[tuple[ir.Value, ir.Value]]:
    """(input, its gradient) for those inputs of ``node`` that are wanted and have one."""
    try:
        rule = rules(node)
        if rule is None:
            raise UnsupportedOperator(NO_RULE)
        if rule.expand is not None:
            return _through_definition(op, node, rule, dys, wanted, rules)
        if not rule.several and (dys[0] is None or any(dy is not None for dy in dys[1:])):
            raise UnsupportedOperator("only its first output has a gradient rule")
        result = rule.gradients(op, Node(node, dys), next(dy for dy in dys if dy is not None))
        by_index: Mapping[int, Gradient] = {0: result} if isinstance(result, ir.Value) else result
        made = []
        for index, value in enumerate(node.inputs):
            if value is None or value not in wanted or not _flows(value):
                continue
            if value.dtype not in (None, *FLOATS) and node.op_type not in (DEQUANTIZE, *MOVES):
                what = "quantised integers" if is_code(value) else f"numbers of type {value.dtype}"
                raise UnsupportedOperator(f"it computes with {what} ({value.name!r})")
            if value.dtype is None:
                raise UnsupportedOperator(f"the type of its input {index} ({value.name!r}) is unknown")
            gradient = by_index.get(index)
            if gradient is None:
                raise UnsupportedOperator(f"there is no gradient rule for its input {index} ({value.name!r})")
            if not isinstance(gradient, _Zero):
                emitted = gradient if isinstance(gradient, ir.Value) else gradient()
                made.append((value, _fit(op, node, rule, emitted, value)))
        return made
    except _Refusal as error:  # of a node of its definition
        raise _refusal(op, node, f"it is made of {describe(error.node)}: {error.why}", rules) from error
    except UnsupportedOperator as error:
        raise _refusal(op, node, str(error), rules) from error


def _through_definition(
    op: Builder,
    node: ir.Node,
    rule: Rule,
    dys: tuple[ir.Value | None, ...],
    wanted: set[ir.Value],
    rules: Lookup,
) -> list[tuple[ir.Value, ir.Value]]:
    """As :func:`_gradients`, through a copy of the operator's definition."""
    assert rule.expand is not None
    wrt = [value for value in dict.fromkeys(_differentiable_inputs(node)) if value in wanted and _flows(value)]
    op.variables.update(wrt)
    if rule.within is not None:
        found = rule.within(op, Node(node, dys), wrt, partial(through_copies, op, rules=rules))
    else:
        found = through_copies(op, rule.expand(op, Node(node, dys)), dys, wrt, rules)
    return [(value, _fit(op, node, rule, gradient, value)) for value, gradient in found.items() if gradient is not None]


def through_copies(
    op: Builder,
    copies: Sequence[ir.Value | None],
    dys: Sequence[ir.Value | None],
    wrt: Sequence[ir.Value],
    rules: Lookup = find,
) -> dict[ir.Value, ir.Value | None]:
    """The gradients through emitted ``copies`` of a node's outputs, whose cotangents are ``dys``."""
    seeds: dict[ir.Value, ir.Value] = {}
    for index, dy in enumerate(dys):
        if dy is not None:
            copy = copies[index] if index < len(copies) else None
            if copy is None:
                raise UnsupportedOperator(f"there is no gradient rule for its output {index}")
            dy = adopt_dims(op, dy, op.dims(copy))
            seeds[copy] = op.Add(seeds[copy], dy) if copy in seeds else dy
    return sweep(op, path(made_from(wrt, seeds), wrt, seeds), seeds, wrt, rules)


class _Refusal(UnsupportedOperator):
    """The refusal of a node, with the reason alone."""

    def __init__(self, message: str, node: ir.Node, why: str) -> None:
        super().__init__(message)
        self.node, self.why = node, why


def _refusal(op: Builder, node: ir.Node, why: str, rules: Lookup) -> UnsupportedOperator:
    advice = "choose a layer after it (fastcam inspect lists them; with vjp, a value), or export the model without it"
    if rules is not find:
        advice = "export without input_gradient (--input-gradient), or with another mode"
    return _Refusal(
        f"cannot differentiate {describe(node)} of opset {op.version}, through which the gradient has to pass: {why}; "
        f"{advice if node.domain not in OPTIMISED else UNOPTIMISED}",
        node,
        why,
    )


def _fit(op: Builder, node: ir.Node, rule: Rule, gradient: ir.Value, value: ir.Value) -> ir.Value:
    """The gradient in the shape and type of its value, or an error that names the rule: then it is a defect."""
    if rule.broadcasts:
        gradient = sum_to(op, gradient, value)
    have, want = op.dims(gradient), op.dims(value)
    clash = len(have) != len(want) or any(
        isinstance(h, int) and isinstance(w, int) and h != w for h, w in zip(have, want)
    )
    if clash or gradient.dtype != (gradient.dtype if is_code(value) else value.dtype):
        raise RuntimeError(
            f"the rule of {describe(node)} gave {gradient.dtype}{have} as gradient of {value.name!r}, which is "
            f"{value.dtype}{want}"
        )
    return adopt_dims(op, gradient, want)
