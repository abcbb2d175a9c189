"""Sizes as they are known before the run: numbers, and products of numbers and free dimensions (``4*N``)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from fastcam_export.graph.query import Dim, is_added


@dataclass(frozen=True)
class Product:
    """``factor`` times the free dimensions ``names``, sorted, at least one; the same name stands for the same size."""

    factor: int
    names: tuple[str, ...]


Known = int | Product
"""A size that is known as far as it can be."""

_PRODUCT = re.compile(r"(?:(\d+)\*)?([A-Za-z_]\w*(?:\*[A-Za-z_]\w*)*)")


def targets_axis(graph: ir.Graph) -> str:
    """The name of the axis of targets in a file's own shapes: T, or another where the model has a T of its own.

    Two axes of one name have one size, to the exporter and to the runtime.
    """
    values = (*graph.inputs, *graph.outputs, *(value for node in graph for value in node.outputs))
    shapes = (value.shape for value in values if value.shape is not None and not is_added(value))
    taken = {name for shape in shapes for dim in shape for name in re.findall(r"\w+", str(dim))}
    return next(name for name in ("T", "targets_T", "fastcam_targets_T") if name not in taken)


def from_dim(dim: Dim) -> Known | None:
    """The size that a dimension says; a name that is no product of names stands for itself."""
    if dim is None or isinstance(dim, int):
        return dim
    match = _PRODUCT.fullmatch(dim)
    if match is None:
        return Product(1, (dim,))
    return product_of(int(match[1] or 1), match[2].split("*"))


def to_dim(size: Known | None) -> Dim:
    """The dimension that says this size."""
    if not isinstance(size, Product):
        return size if size is not None and size >= 0 else None
    if size.factor < 1:
        return None
    if size.factor == 1 and len(size.names) == 1:
        return size.names[0]
    names = (name if name.isidentifier() else f"({name})" for name in size.names)
    return "*".join([*([str(size.factor)] if size.factor > 1 else []), *names])


def product_of(factor: int, names: Sequence[str]) -> Known:
    """``factor`` times ``names``."""
    return Product(factor, tuple(sorted(names))) if names and factor else factor


def _parts(size: Known) -> tuple[int, tuple[str, ...]]:
    return (size.factor, size.names) if isinstance(size, Product) else (size, ())


def times(a: Known, b: Known) -> Known:
    """a b"""
    (fa, na), (fb, nb) = _parts(a), _parts(b)
    return product_of(fa * fb, [*na, *nb])


def plus(a: Known, b: Known) -> Known | None:
    """a + b, of multiples of the same names"""
    (fa, na), (fb, nb) = _parts(a), _parts(b)
    if na == nb or not fa or not fb:
        return product_of(fa + fb, na or nb)
    return None


def divided(a: Known, b: Known) -> Known | None:
    """a / b where it comes out even or both are numbers, as ONNX divides integers: towards zero"""
    (fa, na), (fb, nb) = _parts(a), _parts(b)
    if not fb:
        return None
    if not na and not nb:
        return abs(fa) // abs(fb) * (1 if (fa < 0) == (fb < 0) else -1)
    left = Counter(na)
    left.subtract(nb)
    if fa % fb or min(left.values(), default=0) < 0:
        return None
    return product_of(fa // fb, list(left.elements()))


def equal(a: Known, b: Known) -> bool | None:
    """Whether a = b; a multiple of free dimensions, which are not negative, is no number below zero."""
    if a == b:
        return True
    if not isinstance(a, Product) and not isinstance(b, Product):
        return False
    number, free = (b, a) if isinstance(a, Product) else (a, b)
    below = isinstance(free, Product) and free.factor > 0 and isinstance(number, int) and number < 0
    return False if below else None


def volume(dims: Sequence[Known | None]) -> Known | None:
    """The product of all dimensions."""
    total: Known = 1
    for dim in dims:
        if dim is None:
            return None
        total = times(total, dim)
    return total


def reshaped(before: Sequence[Known | None], target: Sequence[Known | None], zero_copies: bool = True) -> list[Dim]:
    """The shape after a Reshape of ``before`` to ``target`` (a 0 copies, -1 is what is left over, None is unknown).

    Elements are neither lost nor made, so one dimension that is not known follows from the others.
    """
    dims: list[Known | None] = []
    for index, size in enumerate(target):
        copied = size == 0 and zero_copies
        dims.append((before[index] if index < len(before) else None) if copied else None if size == -1 else size)
    total, missing = volume(before), [index for index, size in enumerate(dims) if size is None]
    if len(missing) == 1 and total is not None:
        rest = volume([size for size in dims if size is not None])
        assert rest is not None
        dims[missing[0]] = divided(total, rest)
    return [to_dim(size) for size in dims]
