"""A Gather that only restates a shape: how exporters write a strided view of memory that is in order already."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from fastcam_export.graph.constants import constant_array
from fastcam_export.graph.query import dims_of, in_default_domain
from fastcam_export.graph.symbolic_dims import from_dim, volume


@dataclass(frozen=True)
class _Affine:
    """Integers ``steps[a] * i_a`` summed over the axes a, an axis of one element with step 0."""

    steps: tuple[int, ...]
    counted: frozenset[int]
    """Axes along which a Range counts, as far as the run time says."""


def in_order(node: ir.Node) -> bool:
    """Whether a Gather takes all elements of a vector in their order, as a Reshape does.

    The index is that of ``torch.as_strided`` in a file whose batch is free: Range times a number, plus constants.
    """
    x, index = node.inputs[:2]
    if x is None or index is None or x.shape is None or len(x.shape) != 1 or index.shape is None:
        return False
    have, want = (volume([from_dim(dim) for dim in dims_of(value)]) for value in (x, node.outputs[0]))
    found = _affine(index)
    inner = [d for d in index.shape[1:] if isinstance(d, int)]
    if found is None or have is None or have != want or len(inner) != len(index.shape) - 1 or not found.counted <= {0}:
        return False
    expected = [math.prod(inner[a:]) for a in range(len(inner) + 1)]
    sizes = [None, *inner]
    return all(step == e or size == 1 for step, e, size in zip(found.steps, expected, sizes))


def _affine(value: ir.Value | None) -> _Affine | None:
    """How an integer value follows from its place; None if it does not in this way."""
    known = constant_array(value)
    if known is not None:
        return _of_array(known)
    node = value.producer() if value is not None else None
    if node is None or not in_default_domain(node):
        return None
    first = node.inputs[0] if node.inputs else None
    arrays = [constant_array(x) for x in node.inputs]
    if node.op_type == "Range":
        plain = arrays[0] is not None and arrays[2] is not None and arrays[0] == 0 and arrays[2] == 1
        return _Affine((1,), frozenset({0})) if plain else None
    inner = _affine(first)
    if inner is None:
        return None
    if node.op_type in ("Cast", "Identity"):
        return inner
    if node.op_type == "Mul" and arrays[1] is not None and arrays[1].size == 1:
        return _Affine(tuple(int(arrays[1].item()) * step for step in inner.steps), inner.counted)
    if node.op_type == "Unsqueeze" and arrays[1] is not None:
        return _unsqueezed(inner, [int(a) for a in arrays[1].reshape(-1)])
    other = _affine(node.inputs[1]) if node.op_type == "Add" else None
    return _sum(inner, other) if other is not None else None


def _of_array(array: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> _Affine | None:
    if array.size == 0 or array.dtype.kind != "i":
        return None
    origin = (0,) * array.ndim
    steps = tuple(
        int(array[(*origin[:a], 1, *origin[a + 1 :])] - array[origin]) if n > 1 else 0
        for a, n in enumerate(array.shape)
    )
    grid = sum((step * i for step, i in zip(steps, np.indices(array.shape))), np.zeros(array.shape, np.int64))
    return _Affine(steps, frozenset()) if np.array_equal(grid, array) else None


def _unsqueezed(inner: _Affine, axes: list[int]) -> _Affine:
    rank = len(inner.steps) + len(axes)
    new = {axis % rank for axis in axes}
    old = [axis for axis in range(rank) if axis not in new]
    steps = [0] * rank
    for step, axis in zip(inner.steps, old):
        steps[axis] = step
    return _Affine(tuple(steps), frozenset(old[axis] for axis in inner.counted))


def _sum(a: _Affine, b: _Affine) -> _Affine | None:
    rank = max(len(a.steps), len(b.steps))
    shifted = []
    for one in (a, b):
        by = rank - len(one.steps)
        shifted.append(((0,) * by + one.steps, {axis + by for axis in one.counted}))
    (first, counted), (second, others) = shifted
    if any(x and y for x, y in zip(first, second)):
        return None
    return _Affine(tuple(x + y for x, y in zip(first, second)), frozenset(counted | others))
