"""What the attention of a vision transformer says of its tokens: rollout, and LeGrad.

A^l [N, heads, L, L] are the attention matrices of layer l, behind their softmax; Z^l the tokens behind that layer, the
sum that its residual branches end in.

    rollout   e^T B^m ... B^1 with B^l = (mean_heads A^l + I) / 2: e takes the tokens that the score reads (the class
              token, or the mean over positions). Abnar & Zuidema 2020, "Quantifying Attention Flow in Transformers",
              section 3. "rollout-max" and "rollout-min" take the largest or smallest of the heads, and give the rows
              of A^l + I the sum one. It is the same for all classes.
    legrad    mean over l, heads and rows of ReLU(d s^l / d A^l), where s^l is the model's own head on the mean of all
              tokens of Z^l. Bousselham et al. 2024, "LeGrad", arXiv 2404.03214, section 3, and the authors' code. That
              the map is brought to 0..1 is left to whoever shows it.

The matrices are found by structure: a Softmax over the last axis whose result multiplies values; or the operator
Attention, whose definition is emitted once more, for it keeps its matrices to itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from fastcam.schema import FastcamError, Mode
from fastcam_export.autodiff.core import batching
from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.core.function_bodies import find, made_from
from fastcam_export.autodiff.core.inlining import again
from fastcam_export.autodiff.core.rule import Node, describe
from fastcam_export.autodiff.core.shapes import Size, expand_like, reshape_to, sizes, wide
from fastcam_export.autodiff.modified.attention_lrp import multiplies
from fastcam_export.autodiff.pooled import sparse_seeds
from fastcam_export.autodiff.reverse import backward, path, through_copies
from fastcam_export.graph.constants import Array, is_constant
from fastcam_export.graph.query import in_default_domain
from fastcam_export.layers.layout import Layout
from fastcam_export.layers.target_layer import Maps, find_layers

FUSIONS: dict[Mode, str] = {"rollout": "ReduceMean", "rollout-max": "ReduceMax", "rollout-min": "ReduceMin"}
"""What becomes of the heads."""


@dataclass(frozen=True)
class Transformer:
    """The attention layers between image and score.

    Attributes:
        attentions: their Softmax, or Attention, nodes, first to last.
        streams: for each the tokens behind it.
        layout: of the last of these.
        score: what was traced.
    """

    attentions: tuple[ir.Node, ...]
    streams: tuple[ir.Value, ...]
    layout: Layout
    score: ir.Value
    live: bool

    @property
    def last(self) -> ir.Value:
        """The tokens that the head reads."""
        return self.streams[-1]

    @property
    def length(self) -> int:
        """Number of tokens."""
        height_width = self.layout.fixed_grid
        assert height_width is not None and self.layout.suffix is not None
        return self.layout.prefix + int(np.prod(height_width)) + self.layout.suffix


def transformer(maps: Maps, mode: Mode) -> Transformer:
    """Find the attention layers of a model.

    Raises:
        FastcamError: there are none, or not what ``mode`` needs of them.
    """
    nodes = path(maps.graph, [maps.image], [maps.score])
    attentions = tuple(node for node in nodes if _is_attention(node))
    if not attentions:
        raise FastcamError(
            f"the model has no attention between image and score (a Softmax that multiplies values), of which {mode} "
            "is made; export with another mode (--input-gradient gradient)"
        )
    order = {node: at for at, node in enumerate(nodes)}
    sums = [layer.value for layer in find_layers(maps, None) if _is_residual(layer.value)]
    ends = [*(order[node] for node in attentions[1:]), len(nodes)]
    streams = tuple(_stream(sums, order, node, end, mode) for node, end in zip(attentions, ends))
    layout = maps.layout(streams[-1])
    if layout is not None and "L" not in layout.order:
        raise FastcamError(
            f"the model's tokens lie in a grid ({layout.name}), among whose windows it attends, and {mode} needs "
            "attention among all tokens; export with another mode (--input-gradient gradient)"
        )
    if layout is None or layout.fixed_grid is None or layout.suffix is None:
        raise FastcamError(f"{mode} needs to know the number of tokens; export the model with a fixed image size")
    return Transformer(attentions, streams, layout, maps.score, maps.live(streams[-1]))


def _is_attention(node: ir.Node) -> bool:
    """Whether a node's softmax is that of an attention: its last axis is summed over in a product with values."""
    if not in_default_domain(node) or node.op_type not in ("Softmax", "Attention"):
        return False
    value = node.outputs[0]
    rank = len(value.shape) if value.shape is not None else 0
    return node.op_type == "Attention" or (
        rank in (3, 4) and node.attributes.get_int("axis", -1) in (-1, rank - 1) and multiplies(value)
    )


def _is_residual(value: ir.Value) -> bool:
    node = value.producer()
    return node is not None and node.op_type == "Add" and not any(map(is_constant, node.inputs))


def _stream(sums: Sequence[ir.Value], order: dict[ir.Node, int], attention: ir.Node, end: int, mode: Mode) -> ir.Value:
    """The last residual sum behind an attention and in front of the next one."""
    behind = [v for v in sums if (made := v.producer()) is not None and order[attention] < order[made] < end]
    if not behind:
        raise FastcamError(
            f"no residual sum of all tokens follows {describe(attention)}, as {mode} needs it; export with another "
            "mode (--input-gradient gradient)"
        )
    return behind[-1]


# ---- the matrices


Copies = list["ir.Value | None"]


def _matrices(op: Builder, model: Transformer, attention: ir.Node, mode: Mode) -> tuple[ir.Value, Copies]:
    """A^l, and copies of an Attention's outputs that were made with it; of a Softmax none."""
    value, copies = attention.outputs[0], Copies()
    if attention.op_type == "Attention":
        rule = find(attention)
        assert rule is not None and rule.expand is not None
        copies = list(rule.expand(op, Node(attention, ())))
        inputs, made = [x for x in attention.inputs if x is not None], [x for x in copies if x is not None]
        value = next(node.outputs[0] for node in made_from(inputs, made) if node.op_type == "Softmax")
    length, dims = model.length, op.dims(value)
    if dims[-2:] != (length, length):
        among = " x ".join(str(d) for d in dims[-2:])
        raise FastcamError(
            f"{describe(attention)} is no attention among all {length} tokens (its matrices are {among}), of which "
            f"{mode} is made; export with another mode (--input-gradient gradient)"
        )
    return value, copies


# ---- rollout


def rollout(op: Builder, model: Transformer, mode: Mode) -> ir.Value:
    """[N, h, w]: how much of each position the tokens that the score reads are made of, once per target."""
    row: ir.Value = op.constant(_start(op, model))
    for attention in reversed(model.attentions):
        matrices = wide(op, _per_image(op, model, _matrices(op, model, attention, mode)[0]))
        heads = op.emit(FUSIONS[mode], matrices, [1], keepdims=0)
        if mode == "rollout":  # rows of a softmax sum to one
            share = op.Mul(row, 0.5)
        else:
            total = op.Add(op.ReduceSum(heads, [2], keepdims=0), 1.0)
            share = op.Div(row, op.Unsqueeze(total, [1]))
        row = op.Add(op.MatMul(share, heads), share)
    found = _positions(op, model, op.Squeeze(row, [1]))
    return batching.repeated(op, found) if op.copies is not None else found


def _start(op: Builder, model: Transformer) -> Array:
    """[1, 1, L]: the share that each token has in what the score reads."""
    place = sparse_seeds.token(op, model.last, model.score, model.layout.order.index("L"))
    row = np.zeros((1, 1, model.length), np.float32)
    if place is not None:
        row[..., place] = 1
    elif model.live:
        row[..., model.layout.prefix : model.length - (model.layout.suffix or 0)] = 1
    else:
        row[..., : model.layout.prefix] = 1
    row /= row.sum()
    return row


def _per_image(op: Builder, model: Transformer, matrices: ir.Value) -> ir.Value:
    """Matrices as [N, heads, L, L], where images and heads may lie along one axis."""
    if op.rank(matrices) == 4:
        return matrices
    length = model.length
    return reshape_to(op, matrices, [_images(op, model), -1, length, length])


def _images(op: Builder, model: Transformer) -> Size:
    return sizes(op, model.last)[model.layout.order.index("N")]


def _positions(op: Builder, model: Transformer, tokens: ir.Value) -> ir.Value:
    """[N, h, w] of [N, L]."""
    grid = model.layout.fixed_grid
    assert grid is not None
    start = model.layout.prefix
    kept = op.Slice(tokens, [start], [start + int(np.prod(grid))], [1])
    return reshape_to(op, kept, [_images(op, model), *grid])


# ---- LeGrad


def legrad(op: Builder, model: Transformer, seed: ir.Value) -> ir.Value:
    """[N, h, w], once per target: the mean over layers of what raises the layer's score."""
    head = path(op.graph, [model.last], [model.score])
    axis = model.layout.order.index("L")
    total: ir.Value | None = None
    for attention, stream in zip(model.attentions, model.streams):
        pooled = expand_like(op, op.ReduceMean(stream, [axis], keepdims=1), stream)  # whichever tokens the head reads
        score = again(op, head, {model.last: pooled})[model.score]
        assert score is not None
        of_layer = _sensitivity(op, model, attention, score, seed)
        total = of_layer if total is None else op.Add(total, of_layer)
    assert total is not None
    return _positions(op, model, op.Mul(total, 1 / len(model.attentions)))


def _sensitivity(op: Builder, model: Transformer, attention: ir.Node, score: ir.Value, seed: ir.Value) -> ir.Value:
    """[N, L]: the mean over heads and rows of ReLU(d score / d A)."""
    matrices, copies = _matrices(op, model, attention, "legrad")
    read = attention.outputs[0]
    narrowed = sparse_seeds.of_token(op, {score: seed}, read)
    cotangents = narrowed.cotangents if narrowed is not None else {score: seed}
    gradient = backward(op, cotangents, [read])[read]
    if gradient is not None and attention.op_type == "Attention":
        gradient = through_copies(op, copies, [gradient], [matrices])[matrices]
    if gradient is None:
        raise FastcamError(f"the score does not depend on {describe(attention)}; export without input_gradient")
    length = model.length
    heads = op.dims(matrices)[1] if op.rank(matrices) == 4 else None
    rows = heads * length if isinstance(heads, int) else -1
    flat = reshape_to(op, op.Relu(gradient), [_images(op, model), rows, length])
    return op.ReduceMean(flat, [1], keepdims=0)
