"""Attention operators of ONNX Runtime (com.microsoft), by the standard operators that they fuse.

Their definitions are those of ONNX Runtime's ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import onnx_ir as ir

from fastcam_export.autodiff.core.attention import (
    FILTER,
    causal,
    heads,
    hidden,
    last_keys,
    masked,
    merged,
    mixed,
    packed,
    positions,
    rotation,
    scores,
    width,
)
from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.core.errors import UnsupportedOperator
from fastcam_export.autodiff.core.rule import Node, expansion
from fastcam_export.autodiff.core.shapes import sizes, spread

fusion = partial(expansion, domain="com.microsoft")


@fusion("Attention", ignores=[3, 6])
def attention(op: Builder, node: Node) -> list[ir.Value | None]:
    """y = softmax(q k' / sqrt(H) + masks) v of [q, k, v] = x w + b; the second output is [k, v] with the past"""
    places = {"bias": 2, "mask": 3, "past": 4, "added": 5}
    return packed(op, node.node, node.x, node.inputs[1], places, node.integers("qkv_hidden_sizes"))


@fusion("MultiHeadAttention", ignores=[4, 8, 9])
def multi_head_attention(op: Builder, node: Node) -> list[ir.Value | None]:
    """y = softmax((q + b_q) (k + b_k)' / sqrt(H) + masks) (v + b_v); then k and v with the past, and the scores"""
    if node.input(9) is not None:
        raise UnsupportedOperator("it reads the keys of other beams")
    number, value = node.integer("num_heads"), node.number("mask_filter_value", FILTER)
    q, k, v = _three(op, node, number)
    for index, old in ((6, node.input(6)), (7, node.input(7))):
        if old is not None:
            k, v = (op.Concat(old, k, axis=2), v) if index == 6 else (k, op.Concat(old, v, axis=2))
    s = scores(op, q, k, node.number("scale", 0.0))
    mask = node.input(4)
    biases: list[ir.Value | None] = [causal(op, s, value)] if node.integer("unidirectional", 0) else []
    biases += [masked(op, mask, s, value)] if mask is not None and op.rank(mask) > 1 else []
    if mask is not None and op.rank(mask) == 1:
        biases.append(_lengths(op, mask, s, value))
    return [mixed(op, s, [*biases, node.input(5)], v), k, v, s]


def _three(op: Builder, node: Node, number: int) -> list[ir.Value]:
    """Queries, keys and values as [B, N, S, H], with their biases."""
    begin, made = 0, []
    for x in (node.input(i) for i in range(3)):
        if x is None or op.rank(x) == 5:
            raise UnsupportedOperator("its queries, keys and values are packed")
        if op.rank(x) == 4:  # keys and values of another model, by heads already
            made.append(x)
            continue
        bias, size = node.input(3), width(op, x, 2)
        total = x if bias is None else op.Add(x, op.Slice(bias, [begin], [begin + size], [0]))
        made.append(heads(op, total, number))
        begin += size
    return made


def _lengths(op: Builder, mask: ir.Value, s: ir.Value, value: float) -> ir.Value | None:
    """As :func:`masked`; [3 * B + 2] is numbers of keys, and where those of each image begin in a list of all."""
    batch = op.dims(s)[0]
    if isinstance(batch, int) and op.dims(mask)[0] == 3 * batch + 2:
        mask = op.Slice(mask, [0], [batch], [0])
    return masked(op, mask, s, value)


@fusion("GroupQueryAttention", ignores=[5, 6, 9])
def group_query_attention(op: Builder, node: Node) -> list[ir.Value | None]:
    """y = softmax(q k' / sqrt(H) + masks) v, several heads of q to one of k and v, causal, perhaps rotated"""
    _refuse_group(op, node)
    number, shared = node.integer("num_heads"), node.integer("kv_num_heads")
    q, k, v = _grouped(op, node, number, shared)
    if node.integer("do_rotary", 0):
        q, k = map(_rotation(op, node, q), (q, k))
    past = [node.input(index) for index in (3, 4)]
    if past[0] is not None:
        k, v = (op.Concat(old, x, axis=2) for old, x in zip(past, (k, v)))
    s = scores(op, q, _repeated(op, k, number // shared), node.number("scale", 0.0), node.number("softcap", 0.0))
    biases: list[ir.Value | None] = [causal(op, s, -np.inf)] if node.integer("causal", 1) else []
    window = node.integer("local_window_size", -1)
    if window > 0:
        biases.append(_window(op, s, window))
    sink = node.input(11)
    if sink is None and not node.integer("smooth_softmax", 0):
        return [mixed(op, s, [*biases, node.input(10)], _repeated(op, v, number // shared)), k, v]
    return [_with_sink(op, s, [*biases, node.input(10)], _repeated(op, v, number // shared), sink), k, v]


def _refuse_group(op: Builder, node: Node) -> None:
    """Raise where the operator does more than is known here."""
    lengths, total = node.constant(5, "seqlens_k"), node.constant(6, "total_sequence_length")
    if any(node.input(index) is not None for index in range(12, 17)):
        raise UnsupportedOperator("it normalises, or its keys are quantised")
    if lengths is None or total is None or (lengths + 1 != total.reshape(())).any():
        raise UnsupportedOperator("its images have keys of different numbers")
    past, query = node.input(3), op.dims(node.x)[1]
    before = 0 if past is None else width(op, past, 2)
    if not isinstance(query, int) or before + query != int(total.reshape(())):
        raise UnsupportedOperator("the past has room for more keys than there are")


def _grouped(op: Builder, node: Node, number: int, shared: int) -> list[ir.Value]:
    if node.input(1) is None:
        size = width(op, node.x, 2) // (number + 2 * shared)
        ends = np.cumsum([number * size, shared * size, shared * size])
        parts = [op.Slice(node.x, [begin], [end], [2]) for begin, end in zip([0, *ends], ends)]
    else:
        parts = [node.inputs[index] for index in range(3)]
    return [heads(op, x, count) for x, count in zip(parts, (number, shared, shared))]


def _rotation(op: Builder, node: Node, q: ir.Value) -> Callable[[ir.Value], ir.Value]:
    cos, sin, places = (node.input(index) for index in (7, 8, 9))
    assert cos is not None and sin is not None
    if places is None:
        past = node.input(3)
        places = positions(op, q, 2)
        places = op.Unsqueeze(places if past is None else op.Add(places, width(op, past, 2)), [0])
    return rotation(op, cos, sin, places, bool(node.integer("rotary_interleaved", 0)))


def _repeated(op: Builder, x: ir.Value, times: int) -> ir.Value:
    """[B, N, T, H] with each head ``times`` times."""
    if times == 1:
        return x
    many = op.Expand(op.Unsqueeze(x, [2]), np.array([1, 1, times, 1, 1]))
    return op.Reshape(many, [0, width(op, x, 1) * times, -1, width(op, x, 3)])


def _window(op: Builder, s: ir.Value, window: int) -> ir.Value:
    """[S, T]: a query sees itself and ``window`` - 1 keys before it."""
    first = op.Sub(op.Unsqueeze(last_keys(op, s), [1]), window)
    return hidden(op, op.Greater(op.Unsqueeze(positions(op, s, 3), [0]), first), s, -np.inf)


def _with_sink(op: Builder, s: ir.Value, biases: list[ir.Value | None], v: ir.Value, sink: ir.Value | None) -> ir.Value:
    """As :func:`mixed` where one more key, of score 0 or ``sink`` [N], has the value 0."""
    for bias in biases:
        s = s if bias is None else op.Add(s, bias)
    zero = np.zeros((), (s.dtype or ir.DataType.FLOAT).numpy())
    column = spread(op, zero, [*sizes(op, s)[:3], 1])
    if sink is not None:
        column = op.Add(column, op.Unsqueeze(sink, [0, 2, 3]))
    wide = op.Softmax(op.Concat(s, column, axis=3), axis=-1)
    return merged(op, op.MatMul(op.Slice(wide, [0], [-1], [3]), v))


@fusion("EmbedLayerNormalization", ignores=[0, 1, 7, 8])
def embed_layer_normalization(op: Builder, node: Node) -> list[ir.Value | None]:
    """y = LayerNormalization(s), s = words[ids] + places[0, 1, ...] + segments[segment ids], the third output"""
    words, places, segments = (node.input(i) for i in (2, 3, 4))
    rows = node.input(8)
    total = op.Add(op.Gather(words, node.x, axis=0), op.Gather(places, rows or positions(op, node.x, 1), axis=0))
    if segments is not None and node.input(1) is not None:
        total = op.Add(total, op.Gather(segments, node.input(1), axis=0))
    y = op.LayerNormalization(total, node.input(5), node.input(6), axis=-1, epsilon=node.number("epsilon", 1e-12))
    return [y, None, total]
