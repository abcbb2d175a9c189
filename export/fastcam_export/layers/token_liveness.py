"""Which positions of a map the score depends on: behind a vision transformer's last attention, none of them.

Only the class token is read there, so the gradient at all positions is zero. Such a layer is refused by name, with the
nearest that works, and "auto" takes the last value in front of it through which all passes that positions do for the
score, up to the first matrix product: the first norm of the last block. The check measures the same, for graphs that
this analysis cannot follow: a gradient of exact zeros is refused if other positions leave every score as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx_ir as ir

from fastcam_export.autodiff.core.straight_through import is_step
from fastcam_export.autodiff.reverse import path
from fastcam_export.graph.query import known_dims, reads
from fastcam_export.layers.axis_semantics import Axes, integers, is_spatial, slices, without_positions
from fastcam_export.layers.axis_tracing import CHANNELS_SECOND, Known, is_pointwise, reduced_axes


def live(graph: ir.Graph, known: Known, *scores: ir.Value) -> Callable[[ir.Node, ir.Value], bool]:
    """Whether one of the scores depends on the image positions of a value through a node that reads it.

    Behind a vision transformer's last attention only the class token is read: its other tokens still reach the score's
    node list, but not the score. What cannot be told counts as a dependence; the check measures it.
    """
    nodes = set(path(graph, list(known), scores))
    alive: dict[ir.Value, bool] = dict.fromkeys(scores, True)

    def through(node: ir.Node, value: ir.Value) -> bool:
        if node not in nodes:
            return False
        axes = known.get(value)
        if axes is None or not any(map(is_spatial, axes)) or mixes(node, value, known):
            return True
        return any(_hands_on(node, index, axes, known, alive) for index in range(len(node.outputs)))

    for node in reversed(graph):
        if node in nodes:
            for value in reads(node):
                alive[value] = alive.get(value, False) or through(node, value)
    return through


def _hands_on(node: ir.Node, index: int, axes: Axes, known: Known, alive: Mapping[ir.Value, bool]) -> bool:
    """Whether positions of the first input are in an output that the score depends on."""
    out = node.outputs[index]
    if not alive.get(out, False) or is_step(out):  # a scale that all positions decide is a constant to the gradient
        return False
    told = known.get(out)
    if told is not None and any(map(is_spatial, told)):
        return True
    return not _selects_others(node, index, axes)


def _selects_others(node: ir.Node, index: int, axes: Axes) -> bool:
    """Whether a Gather, Slice or Split takes none of the positions: only class tokens and their like."""
    rank = len(axes)
    if node.op_type == "Gather":
        which = integers(node.inputs[1])
        axis = axes[node.attributes.get_int("axis", 0) % rank]
        size = axis[0].size if axis else None
        if which is None or (size is None and min(which, default=0) < 0):
            return False
        picked = [i + (size or 0) if i < 0 else i for i in which]
        return all(without_positions(axis, i, i + 1) for i in picked)
    if node.op_type == "Slice":
        return any(without_positions(axes[a % rank], b[0], b[1]) for a, b in (slices(node) or {}).items())
    if node.op_type == "Split":
        axis_index = node.attributes.get_int("axis", 0) % rank
        sizes = [(known_dims(v) or [None] * rank)[axis_index] for v in node.outputs]
        if None in sizes[: index + 1]:
            return False
        start = sum(s for s in sizes[:index] if s is not None)
        return without_positions(axes[axis_index], start, start + (sizes[index] or 0))
    return False


PRODUCTS = frozenset({"FusedGemm", "Gemm", "MatMul", "QGemm", "QLinearMatMul"})
PRODUCTS |= {"DynamicQuantizeMatMul", "MatMulInteger", "MatMulIntegerToFloat"}


def mixes(node: ir.Node, value: ir.Value, known: Known) -> bool:
    """Whether a node computes each of its outputs from several positions of ``value``."""
    axes = known[value]
    if node.op_type in PRODUCTS:
        return _contracts(node, value, axes)
    if node.op_type in ("Softmax", "LogSoftmax", "LpNormalization", "CumSum"):
        axis = integers(node.inputs[1]) if node.op_type == "CumSum" else [node.attributes.get_int("axis", -1)]
        return axis is None or is_spatial(axes[axis[0] % len(axes)])
    if node.op_type in ("LayerNormalization", "RMSNormalization"):
        return any(map(is_spatial, axes[node.attributes.get_int("axis", -1) % len(axes) :]))
    if node.op_type.startswith("Reduce"):
        which = reduced_axes(node, len(axes))
        return which is None or any(is_spatial(axes[i]) for i in which)
    if node.op_type in CHANNELS_SECOND:
        return not (is_pointwise(node) or node.op_type in ("BatchNormalization", "LRN"))
    return node.op_type in ("Attention", "Einsum", "GroupQueryAttention", "MultiHeadAttention", "QAttention")


def _contracts(node: ir.Node, value: ir.Value, axes: Axes) -> bool:
    first = node.inputs[0] is value
    if node.op_type in ("Gemm", "FusedGemm", "QGemm"):
        transposed = node.attributes.get_int("transA" if first else "transB", 0)
        return is_spatial(axes[0 if first == bool(transposed) else 1])
    return is_spatial(axes[-1] if first or len(axes) < 2 else axes[-2])
