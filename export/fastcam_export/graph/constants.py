"""What is known of a graph's values without running it: constants, and what is computed from constants alone.

Exporters write axes, pads and shapes as small computations (a Constant through Reshape and Cast, one dimension of a
Shape); rules need them as numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from fastcam_export.graph.query import in_default_domain

Array = npt.NDArray[Any]

SMALL = 4096
"""Elements up to which a computation on constants is carried out."""
COUNTING = frozenset({ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL})
"""Types of the values that are computed: what axes, pads and shapes are made of."""
RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)


_found: ContextVar[dict[ir.Value, ir.TensorProtocol | Array | None] | None] = ContextVar("_found", default=None)


@contextmanager
def remembered() -> Iterator[None]:
    """While it lasts each constant is looked for once; the graph must stay as it is, its shapes too."""
    if _found.get() is not None:
        yield
        return
    token = _found.set({})
    try:
        yield
    finally:
        _found.reset(token)


def constant_array(value: ir.Value | None, limit: int = 1 << 62) -> Array | None:
    """The content of ``value`` if it is known and has at most ``limit`` elements, else None.

    An initializer that is also a graph input is only a default, so it is not known.
    """
    if value is None or value.is_graph_input():
        return None
    known = _found.get()
    if known is None:
        found = _look(value)
    elif value in known:
        found = known[value]
    else:
        found = known[value] = _look(value)
    if found is None or found.size > limit:
        return None
    return found if isinstance(found, np.ndarray) else found.numpy()


def constant_arrays(values: Iterable[ir.Value | None], limit: int = 1 << 62) -> list[Array | None] | None:
    """The content of each value, None for one that is not given; None where one is not known."""
    arrays = []
    for value in values:
        array = constant_array(value, limit)
        if array is None and value is not None:
            return None
        arrays.append(array)
    return arrays


def _look(value: ir.Value) -> ir.TensorProtocol | Array | None:
    """A constant as the file has it, or as it is computed; None if it is none."""
    tensor = ir.convenience.get_const_tensor(value)
    return tensor if tensor is not None else _computed(value)


def _computed(value: ir.Value) -> Array | None:
    node = value.producer()
    if value.dtype not in COUNTING:  # never the network itself, whose every value leads back to all its inputs
        return None
    if node is None or not in_default_domain(node) or node.op_type in RANDOM or len(node.outputs) != 1:
        return None
    if node.op_type == "Shape":
        return _shape(node)
    if node.op_type == "Gather" and (dimension := _one_dimension(node)) is not None:
        return dimension
    if not node.inputs or any(attribute.type == ir.AttributeType.GRAPH for attribute in node.attributes.values()):
        return None
    if value.shape is not None and _too_large(value.shape):
        return None
    arrays = constant_arrays(node.inputs, SMALL)
    if arrays is None or _grown(node.op_type, arrays) > SMALL:
        return None
    opsets = node.graph.opset_imports if node.graph is not None else {}
    return evaluate(ir.to_proto(node), arrays, opsets.get("", 18))  # the graph of a branch does not name its opset


def is_constant(value: ir.Value | None) -> bool:
    """Whether nothing that the caller gives is in a value but its size."""
    stack, seen = [value], {value}
    while stack:
        each = stack.pop()
        if each is None:
            continue
        if each.is_graph_input() and each.const_value is None:
            return False
        node = each.producer()
        sized = node is None or node.op_type in ("Shape", "Size")
        behind = [] if sized or node is None else [x for x in node.inputs if x not in seen]
        seen.update(behind)
        stack += behind
    return True


def evaluate(node: Any, arrays: list[Array | None], opset: int) -> Array:
    """The only output of a NodeProto for these inputs (None: not given), by ONNX's reference implementation."""
    feeds = {name: array for name, array in zip(node.input, arrays) if array is not None}
    return np.asarray(ReferenceEvaluator(node, opsets={"": opset}).run(None, feeds)[0])  # type: ignore[index]


def _shape(node: ir.Node) -> Array | None:
    """Shape of a value whose dimensions are all known, of those that are asked for."""
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    if shape is None:
        return None
    start = node.attributes.get_int("start", 0)
    end = node.attributes.get_int("end", len(shape))
    dims = list(shape)[start:end]
    return np.array(dims, np.int64) if all(isinstance(d, int) for d in dims) else None


def _one_dimension(node: ir.Node) -> Array | None:
    """Gather of known dimensions from the Shape of a value of which others, the batch, are free."""
    source = node.inputs[0].producer() if node.inputs[0] is not None else None
    indices = constant_array(node.inputs[1], SMALL)
    if source is None or source.op_type != "Shape" or indices is None or source.inputs[0] is None:
        return None
    shape = source.inputs[0].shape
    if shape is None or source.attributes.get_int("start", 0) != 0 or source.attributes.get("end") is not None:
        return None
    dims = np.array([d if isinstance(d, int) else -1 for d in shape], np.int64)[indices]
    return None if np.any(dims < 0) else np.asarray(dims)


def _too_large(shape: ir.Shape) -> bool:
    dims = [d for d in shape if isinstance(d, int)]
    return len(dims) == len(shape) and math.prod(dims) > SMALL


def _grown(op_type: str, arrays: list[Array | None]) -> float:
    """At least how many elements an operator makes of inputs whose numbers say how many; 0 of other operators."""
    x, *others = [array for array in arrays if array is not None]
    sizes = [abs(int(size)) for size in (others[0] if others else x).ravel()]
    if op_type in ("Expand", "ConstantOfShape"):
        return math.prod(sizes)
    if op_type == "Tile":
        return x.size * math.prod(sizes)
    if op_type in ("Pad", "OneHot", "Resize", "Upsample"):
        return max(sizes, default=0)
    if op_type == "Range" and len(others) == 2:
        return abs(float(others[0]) - float(x)) / max(abs(float(others[1])), 1e-300)
    return 0
