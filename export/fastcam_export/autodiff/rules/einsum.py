"""Einstein summation: its gradient is one again."""

from __future__ import annotations

import string
from functools import partial

import numpy as np
import onnx_ir as ir

from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.core.rule import Gradients, Node, rule
from fastcam_export.autodiff.core.shapes import scalar, sizes, spread


@rule("Einsum", broadcasts=True)
def einsum(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """y[o] = sum_... a[s] b[t] ...: da[s] = sum_... dy[o] b[t] ..., over the letters that a does not have.

    A letter of a alone was summed: the gradient is the same all along it. A letter that a has twice took its diagonal:
    the gradient lies there, among zeros.
    """
    terms, result = equation(op, node)
    return {index: partial(_operand_gradient, op, node, dy, terms, result, index) for index in range(len(terms))}


def equation(op: Builder, node: Node) -> tuple[list[str], str]:
    """A letter for every axis of each operand and of the result; those of an ellipsis align at the right."""
    given = node.node.attributes.get_string("equation").replace(" ", "")
    left, _, right = given.partition("->")
    terms = left.split(",")
    if "->" not in given:
        letters = left.replace(",", "").replace(".", "")
        right = ("..." if "." in left else "") + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    spare = [letter for letter in string.ascii_letters if letter not in given]
    numbers = [op.rank(x) - len(term.replace("...", "")) for term, x in zip(terms, node.inputs)]
    most = "".join(spare[: max(numbers)])
    spelt = [term.replace("...", most[len(most) - number :]) for term, number in zip(terms, numbers)]
    return spelt, right.replace("...", most)


def _operand_gradient(op: Builder, node: Node, dy: ir.Value, terms: list[str], result: str, index: int) -> ir.Value:
    x, own = node.inputs[index], terms[index]
    others = [_without_ones(op, term, value) for i, (term, value) in enumerate(zip(terms, node.inputs)) if i != index]
    once = "".join(dict.fromkeys(own))
    common = "".join(c for c in once if c in result or any(c in term for term, _ in others))
    dx = _contract(op, [(result, dy), *others], common)
    # one axis for each of x: of a letter that comes again, or that only x has, of size one
    missing = [axis for axis, c in enumerate(own) if c in own[:axis] or c not in common]
    dx = op.Unsqueeze(dx, missing) if missing else dx
    for axis, c in enumerate(own):
        if c in own[:axis]:
            dx = op.Where(_diagonal(op, x, own.index(c), axis), dx, 0.0)
    target = [1 if c in common else size for c, size in zip(own, sizes(op, x))]
    return spread(op, dx, target) if set(own) - set(common) else dx


def _without_ones(op: Builder, term: str, x: ir.Value) -> tuple[str, ir.Value]:
    """An operand without its axes of size one, which runtimes broadcast."""
    ones = [axis for axis, size in enumerate(op.dims(x)) if size == 1]
    return "".join(c for axis, c in enumerate(term) if axis not in ones), op.Squeeze(x, ones) if ones else x


def _contract(op: Builder, operands: list[tuple[str, ir.Value]], result: str) -> ir.Value:
    """Einsum without the forms that runtimes know less well: operands without axes, and those of one operand."""
    factors = [value for term, value in operands if not term]
    operands = [(term, value) for term, value in operands if term]
    if len(operands) == 1 and sorted(operands[0][0]) == sorted(result):
        (term, y) = operands[0]
        y = y if term == result else op.Transpose(y, perm=[term.index(c) for c in result])
    elif operands:
        y = op.Einsum(*(value for _, value in operands), equation=f"{','.join(t for t, _ in operands)}->{result}")
    else:
        y, factors = factors[0], factors[1:]
    for factor in factors:
        y = op.Mul(y, factor)
    return y


def _diagonal(op: Builder, x: ir.Value, first: int, second: int) -> ir.Value:
    """bool, one where the indices along two axes of x are equal, of size one along the others."""
    rank = op.rank(x)
    positions = op.Range(0, scalar(op, op.shape(x, first, first + 1)), 1)
    rows, columns = (
        op.Reshape(positions, np.array([-1 if axis == at else 1 for axis in range(rank)])) for at in (first, second)
    )
    return op.Equal(rows, columns)
