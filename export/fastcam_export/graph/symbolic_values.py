"""What small integer values of a graph hold, element by element, where shapes are known only in part.

Older exporters write ``view(n, -1, 8, 32)`` as Shape, Gather, Unsqueeze and Concat: the elements of such a vector are
numbers, and products of free dimensions (see :mod:`fastcam_export.graph.symbolic_dims`), or nothing is known of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from fastcam_export.graph.query import Dim
from fastcam_export.graph.symbolic_dims import Product, divided, equal, from_dim, plus, times, volume

Elements = npt.NDArray[np.object_]
"""Array of elements: numbers, booleans, Products and None."""
Attributes = Mapping[str, Any]

LIMIT = 64
"""Elements above which a value is not looked into: shapes, pads and axes are shorter."""
INTEGERS = (TensorProto.INT64, TensorProto.INT32)


def of_array(array: npt.NDArray[Any]) -> Elements | None:
    """The elements of a constant, if it is short."""
    if array.size > LIMIT or array.dtype.kind not in "iubf":
        return None
    return np.array([each.item() for each in array.reshape(-1)], object).reshape(array.shape)


def of_tensor(tensor: TensorProto) -> Elements | None:
    """As :func:`of_array`."""
    if math.prod(tensor.dims) > LIMIT or tensor.data_location == TensorProto.EXTERNAL:
        return None
    return of_array(numpy_helper.to_array(tensor))


def numbers(elements: Elements | None) -> list[Any] | None:
    """The elements in a row, if all are numbers."""
    flat = None if elements is None else elements.reshape(-1).tolist()
    return flat if flat is not None and all(isinstance(each, (bool, int, float)) for each in flat) else None


def compute(
    node: onnx.NodeProto, inputs: Sequence[Elements | None], shapes: Sequence[Sequence[Dim] | None]
) -> Elements:
    """The elements of the only output of ``node``.

    Args:
        node: of the default domain.
        inputs: elements of its inputs, None where nothing is known.
        shapes: shapes of its inputs, None where not even the number of axes is known.

    Raises:
        LookupError: nothing is known of them.
        ValueError: the inputs do not fit together.
    """
    attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    if node.op_type == "Constant":
        found = _constant(attributes)
    elif node.op_type in ("Shape", "Size"):
        found = _dimensions(node.op_type, attributes, shapes[0])
    else:
        given = [each for each, name in zip(inputs, node.input) if name]
        if not given or any(each is None for each in given) or node.op_type not in OPERATORS:
            raise LookupError(node.op_type)
        found = OPERATORS[node.op_type](attributes, *inputs)
    if found is None or found.size > LIMIT:
        raise LookupError(node.op_type)
    return found


def _constant(attributes: Attributes) -> Elements | None:
    ((name, value),) = attributes.items()
    if name == "value":
        return of_tensor(value)
    return of_array(np.array(value)) if name in ("value_int", "value_ints", "value_float", "value_floats") else None


def _dimensions(op_type: str, attributes: Attributes, shape: Sequence[Dim] | None) -> Elements | None:
    if shape is None:
        return None
    dims = [from_dim(dim) for dim in shape]
    if op_type == "Size":
        return _array(volume(dims), ())
    dims = dims[attributes.get("start", 0) : attributes.get("end", len(dims))]
    return _array(dims, (len(dims),))


def _array(elements: Any, shape: tuple[int, ...]) -> Elements:
    """An array of Products, which NumPy must not look into."""
    made = np.empty(shape, object)
    made[...] = elements
    return made


def _elementwise(function: Callable[..., Any]) -> Callable[..., Elements]:
    """An operator on elements; what one of them depends on and is not known makes it unknown."""

    def one(*elements: Any) -> Any:
        return None if any(each is None for each in elements) else function(*elements)

    def apply(attributes: Attributes, *inputs: Elements) -> Elements:
        return np.asarray(np.frompyfunc(one, len(inputs), 1)(*inputs), object)

    return apply


def _on_numbers(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, of numbers only."""
    return lambda *elements: None if any(isinstance(each, Product) for each in elements) else function(*elements)


def _exact(on_sizes: Callable[..., Any], on_floats: Callable[..., Any]) -> Callable[..., Any]:
    """Arithmetic of sizes, or of floating point numbers, in float32 as the graph computes."""

    def apply(a: Any, b: Any) -> Any:
        if isinstance(a, float) and isinstance(b, float):
            with np.errstate(all="ignore"):
                return float(on_floats(np.float32(a), np.float32(b)))
        return None if isinstance(a, float) or isinstance(b, float) else on_sizes(a, b)

    return apply


def _cast(attributes: Attributes, x: Elements) -> Elements | None:
    to = attributes["to"]
    if to in INTEGERS:
        return _elementwise(lambda e: e if isinstance(e, Product) else int(e) if math.isfinite(e) else None)({}, x)
    if to == TensorProto.FLOAT:
        return _elementwise(_on_numbers(lambda e: float(np.float32(e))))({}, x)
    return _elementwise(_on_numbers(bool))({}, x) if to == TensorProto.BOOL else None


def _gather(attributes: Attributes, x: Elements, indices: Elements) -> Elements | None:
    where = numbers(indices)
    if where is None:
        return None
    taken = x.take(np.array(where, np.int64), axis=attributes.get("axis", 0))
    return taken.reshape(indices.shape) if x.ndim == 1 else None


def _slice(
    attributes: Attributes,
    x: Elements,
    starts: Elements,
    ends: Elements,
    axes: Elements | None = None,
    steps: Elements | None = None,
) -> Elements | None:
    begin, end = numbers(starts), numbers(ends)
    along = list(range(starts.size)) if axes is None else numbers(axes)
    step = [1] * starts.size if steps is None else numbers(steps)
    if begin is None or end is None or along is None or step is None or 0 in step:
        return None
    parts = [slice(None)] * x.ndim
    for axis, *bounds in zip(along, begin, end, step):
        parts[axis] = slice(*bounds)
    return x[tuple(parts)]


def _concat(attributes: Attributes, *parts: Elements) -> Elements:
    return np.concatenate(parts, axis=attributes["axis"])


def _flat(attributes: Attributes, x: Elements, target: Elements | None = None) -> Elements | None:
    """Squeeze and Unsqueeze between a number and a vector of one element."""
    return x.reshape(()) if x.shape == (1,) else None


def _lifted(attributes: Attributes, x: Elements, axes: Elements | None = None) -> Elements | None:
    return x.reshape((1,)) if x.ndim == 0 else None


def _reshape(attributes: Attributes, x: Elements, target: Elements) -> Elements | None:
    shape = numbers(target)
    return x.reshape(shape) if shape is not None and 0 not in shape else None


def _product(attributes: Attributes, x: Elements, axes: Elements | None = None) -> Elements | None:
    if x.ndim != 1:
        return None
    return _array(volume(x.tolist()), (1,) if attributes.get("keepdims", 1) else ())


def _filled(attributes: Attributes, shape: Elements) -> Elements | None:
    sizes, value = numbers(shape), attributes.get("value")
    if sizes is None or math.prod(sizes) > LIMIT:
        return None
    return _array(0.0 if value is None else numpy_helper.to_array(value).item(), tuple(sizes))


def _range(attributes: Attributes, start: Elements, limit: Elements, delta: Elements) -> Elements | None:
    ends = [numbers(each) for each in (start, limit, delta)]
    if any(each is None or not isinstance(each[0], int) for each in ends):
        return None
    steps = range(*(each[0] for each in ends if each is not None))
    return _array(list(steps), (len(steps),)) if len(steps) <= LIMIT else None


def _remainder(a: Any, b: Any) -> Any:
    """What a / b leaves, of numbers that are not negative, and of a free dimension that is a multiple of b."""
    if isinstance(a, int) and isinstance(b, int):
        return a % b if a >= 0 and b > 0 else None
    even = not isinstance(a, float) and isinstance(b, int) and divided(a, b) is not None
    return 0 if even else None


def _where(condition: Any, a: Any, b: Any) -> Any:
    return a if condition else b


OPERATORS: dict[str, Callable[..., Elements | None]] = {
    "Add": _elementwise(_exact(plus, lambda a, b: a + b)),
    "Cast": _cast,
    "Ceil": _elementwise(_on_numbers(lambda e: float(math.ceil(e)))),
    "Concat": _concat,
    "ConstantOfShape": _filled,
    "Div": _elementwise(_exact(divided, lambda a, b: a / b)),
    "Equal": _elementwise(equal),
    "Floor": _elementwise(_on_numbers(lambda e: float(math.floor(e)))),
    "Gather": _gather,
    "Identity": lambda attributes, x: x,
    "Mod": _elementwise(_remainder),
    "Mul": _elementwise(_exact(times, lambda a, b: a * b)),
    "Neg": _elementwise(lambda e: -e if isinstance(e, float) else times(e, -1)),
    "Not": _elementwise(_on_numbers(lambda e: not e)),
    "Range": _range,
    "ReduceProd": _product,
    "Reshape": _reshape,
    "Slice": _slice,
    "Squeeze": _flat,
    "Sub": _elementwise(_exact(lambda a, b: plus(a, times(b, -1)), lambda a, b: a - b)),
    "Transpose": lambda attributes, x: x.transpose(attributes.get("perm")),
    "Unsqueeze": _lifted,
    "Where": _elementwise(_where),
}
"""How sizes are computed with, as (attributes, *elements of the inputs) -> elements of the output, None: unknown."""
