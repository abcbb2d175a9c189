"""What ONNX Runtime's attention operators compute, in standard operators.

Letters of shapes: B images, N heads, S queries, T keys (those of the past first), H numbers a head.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.core.errors import UnsupportedOperator
from fastcam_export.autodiff.core.shapes import scalar
from fastcam_export.graph.query import input_at

FILTER = -10000.0
"""What is added to the score of a key that is masked, where an operator says nothing else."""


def heads(op: Builder, x: ir.Value, number: int) -> ir.Value:
    """[B, S, N * H] as [B, N, S, H]."""
    return op.Transpose(op.Reshape(x, [0, 0, number, width(op, x, -1) // number]), perm=[0, 2, 1, 3])


def merged(op: Builder, y: ir.Value) -> ir.Value:
    """[B, N, S, H] as [B, S, N * H]."""
    number, size = width(op, y, 1), width(op, y, -1)
    return op.Reshape(op.Transpose(y, perm=[0, 2, 1, 3]), [0, 0, number * size])


def width(op: Builder, x: ir.Value, axis: int) -> int:
    """A dimension that must be known."""
    size = op.dims(x)[axis]
    if not isinstance(size, int):
        raise UnsupportedOperator(f"the size of axis {axis} of {x.name!r} is only known at run time")
    return size


def scores(op: Builder, q: ir.Value, k: ir.Value, scale: float, cap: float = 0.0) -> ir.Value:
    """scale q k', [B, N, S, T], of which cap tanh(s / cap) where a cap is given."""
    factor = scale or 1 / math.sqrt(width(op, q, -1))
    s = op.MatMul(op.Mul(q, factor), op.Transpose(k, perm=[0, 1, 3, 2]))
    return op.Mul(op.Tanh(op.Div(s, cap)), cap) if cap else s


def mixed(op: Builder, s: ir.Value, biases: Sequence[ir.Value | None], v: ir.Value) -> ir.Value:
    """softmax(s + biases) v, [B, S, N * H]."""
    for bias in biases:
        s = s if bias is None else op.Add(s, bias)
    return merged(op, op.MatMul(op.Softmax(s, axis=-1), v))


def positions(op: Builder, x: ir.Value, axis: int) -> ir.Value:
    """int64: 0, 1, ... along an axis of ``x``."""
    axis %= op.rank(x)
    return op.Range(0, scalar(op, op.shape(x, axis, axis + 1)), 1)


def hidden(op: Builder, shown: ir.Value, like: ir.Value, value: float) -> ir.Value:
    """What to add to scores of the type of ``like``: 0 where ``shown``, else ``value``."""
    dtype = (like.dtype or ir.DataType.FLOAT).numpy()
    return op.Where(shown, op.constant(np.zeros((), dtype)), op.constant(np.asarray(value, dtype)))


def last_keys(op: Builder, s: ir.Value) -> ir.Value:
    """int64 [S]: the key that belongs to each query of scores [B, N, S, T]; the past has no queries."""
    counts = [scalar(op, op.shape(s, axis, axis + 1)) for axis in (2, 3)]
    return op.Add(positions(op, s, 2), op.Sub(counts[1], counts[0]))


def causal(op: Builder, s: ir.Value, value: float) -> ir.Value:
    """[S, T]: a query sees the keys up to its own."""
    shown = op.LessOrEqual(op.Unsqueeze(positions(op, s, 3), [0]), op.Unsqueeze(last_keys(op, s), [1]))
    return hidden(op, shown, s, value)


def masked(op: Builder, mask: ir.Value, s: ir.Value, value: float) -> ir.Value | None:
    """What a mask of integers adds to the scores, in a form that broadcasts with them.

    Args:
        mask: lengths [B]; ends, then starts [2 * B]; keys [B, T]; or [B, S, T]: 1 for what is seen.
    """
    dims, batch = op.dims(mask), op.dims(s)[0]
    if len(dims) == 2 and dims[1] == 1 and op.dims(s)[3] != 1:
        return None  # of one column: no mask
    if len(dims) in (2, 3):
        shown = op.Cast(mask, to=int(ir.DataType.BOOL))
        return hidden(op, op.Unsqueeze(shown, [1, 2] if len(dims) == 2 else [1]), s, value)
    if len(dims) != 1:
        raise UnsupportedOperator(f"a mask of {len(dims)} axes has no gradient rule")
    column, ends = positions(op, s, 3), op.Cast(mask, to=int(ir.DataType.INT64))
    if isinstance(batch, int) and dims[0] == 2 * batch:
        ends, starts = (op.Slice(ends, [begin], [begin + batch], [0]) for begin in (0, batch))
    elif dims[0] in (1, batch) and dims[0] is not None:
        starts = None
    else:
        raise UnsupportedOperator("its mask has one axis, of another size than the images")
    shown = op.Less(column, op.Unsqueeze(ends, [1, 2, 3]))
    if starts is not None:
        shown = op.And(shown, op.GreaterOrEqual(column, op.Unsqueeze(starts, [1, 2, 3])))
    return hidden(op, shown, s, value)


def packed(
    op: Builder, node: ir.Node, x: ir.Value, w: ir.Value, places: dict[str, int], sizes: Sequence[int] = ()
) -> list[ir.Value | None]:
    """com.microsoft.Attention: x w + bias is queries, keys and values; y, and the keys and values with the past.

    Args:
        node: for its attributes and its other inputs.
        x, w: [B, S, D], [D, 3 * N * H]; as they are, or what integers stand for.
        places: which inputs are "bias", "mask", "past" and "added".
        sizes: the widths of queries, keys and values, where they are not equal.
    """
    given = {name: input_at(node, index) for name, index in places.items()}
    number = int(_attribute(node, "num_heads"))
    if _attribute(node, "do_rotary", 0) or _attribute(node, "past_present_share_buffer", 0):
        raise UnsupportedOperator("it rotates its queries, or shares the buffer of the past")
    total = op.MatMul(x, w)
    total = total if given["bias"] is None else op.Add(total, given["bias"])
    each = list(sizes) or [width(op, total, -1) // 3] * 3
    ends = np.cumsum(each)
    parts = (op.Slice(total, [end - size], [end], [2]) for size, end in zip(each, ends))
    q, k, v = (heads(op, part, number) for part in parts)
    past = given["past"]
    if past is not None:
        old = [op.Squeeze(op.Slice(past, [i], [i + 1], [0]), [0]) for i in (0, 1)]
        k, v = (op.Concat(a, b, axis=2) for a, b in zip(old, (k, v)))
    s, value = scores(op, q, k, _attribute(node, "scale", 0.0)), _attribute(node, "mask_filter_value", FILTER)
    biases = [causal(op, s, value)] if _attribute(node, "unidirectional", 0) else []
    mask = given["mask"]
    y = mixed(op, s, [*biases, given.get("added"), masked(op, mask, s, value) if mask is not None else None], v)
    return [y, op.Concat(op.Unsqueeze(k, [0]), op.Unsqueeze(v, [0]), axis=0) if len(node.outputs) > 1 else None]


def rotation(
    op: Builder, cos: ir.Value, sin: ir.Value, places: ir.Value, interleaved: bool
) -> Callable[[ir.Value], ir.Value]:
    """A function that rotates pairs of numbers of [B, N, S, H] by tables [L, R / 2] at ``places`` [B, S]."""
    half = width(op, cos, -1)
    c, s = (op.Unsqueeze(op.Gather(table, places, axis=0), [1]) for table in (cos, sin))

    def cut(x: ir.Value, begin: int, end: int, step: int = 1) -> ir.Value:
        return op.Slice(x, [begin], [end], [-1], [step])

    def rotated(x: ir.Value) -> ir.Value:
        size = width(op, x, -1)
        pairs = ((0, 2 * half, 2), (1, 2 * half, 2)) if interleaved else ((0, half, 1), (half, 2 * half, 1))
        a, b = (cut(x, *each) for each in pairs)
        first, second = op.Sub(op.Mul(a, c), op.Mul(b, s)), op.Add(op.Mul(a, s), op.Mul(b, c))
        if interleaved:
            both = op.Concat(op.Unsqueeze(first, [-1]), op.Unsqueeze(second, [-1]), axis=-1)
            turned = op.Reshape(both, [0, 0, 0, 2 * half])
        else:
            turned = op.Concat(first, second, axis=-1)
        return turned if size == 2 * half else op.Concat(turned, cut(x, 2 * half, size), axis=-1)

    return rotated


def _attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    return node.attributes[name].value if name in node.attributes else default
