"""ShapleyCAM: weights of second order, by differentiating the gradient's own nodes once more.

With A the layer, y the score, g = dy/dA and H the Hessian of y with respect to A, channels are weighted by

    w_k = mean_ij (g - 1/2 H A)^k_ij        M = sum_k w_k A^k           Cai 2025, arXiv 2501.06261

the Shapley values of a game whose payoff is y to the second order around A. H A is the gradient of <g, A>, where the A
of the product is held fixed. Where the score is linear in A, w is Grad-CAM's weight; it is not where the score is a
probability or its logarithm (--score log-probability), or the layer lies further up.

Both sweeps are made once, for one target, in nodes that are taken away again; what they found is emitted once more for
all targets, which the builder's axis of copies then runs through. So nothing is computed T times that does not depend
on the target, and the second sweep sees ordinary nodes, not those that hold several targets together.
"""

from __future__ import annotations

import onnx_ir as ir

from fastcam.schema import FastcamError
from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.core.function_bodies import made_from
from fastcam_export.autodiff.core.inlining import again
from fastcam_export.autodiff.core.rule import RULES, ZERO, Gradients, Node, Rule
from fastcam_export.autodiff.core.shapes import product, reshape_to, sizes, wide
from fastcam_export.autodiff.modified.relu_modes import Backward
from fastcam_export.autodiff.reverse import backward, path
from fastcam_export.autodiff.rules.activation import STEEP
from fastcam_export.graph.query import is_added
from fastcam_export.layers.layout import Layout


def shapleycam(op: Builder, layer: ir.Value, layout: Layout, seed: ir.Value, score: ir.Value) -> ir.Value:
    """[N, h, w]: the weighted sum of the layer's maps, signed, once per target."""
    gradient, curvature = second_order(op, layer, seed, score)
    if curvature is not None:
        gradient = op.Sub(gradient, op.Mul(curvature, 0.5))
    axes = [2, 3] if op.rank(layout.maps(op, layer, layer)) == 4 else [2, 3, 4]
    weights = op.ReduceMean(layout.maps(op, wide(op, gradient), layer), axes, keepdims=0)
    maps = layout.maps(op, wide(op, layer), layer)
    n, channels, *grid = sizes(op, maps)
    rows = op.MatMul(op.Unsqueeze(weights, [1]), reshape_to(op, maps, [n, channels, product(op, grid)]))
    return reshape_to(op, rows, [n, *grid])


def second_order(op: Builder, layer: ir.Value, seed: ir.Value, score: ir.Value) -> tuple[ir.Value, ir.Value | None]:
    """g and H A in the shape of ``layer``, once per target; None for H A where the file says that it is zero.

    Raises:
        FastcamError: the score does not depend on the layer, or by quantised values, whose gradient is no derivative.
    """
    between = path(op.graph, [layer], [score])
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in between):
        raise FastcamError("shapleycam needs second derivatives, which rounding has none of; give the float model")
    one = ir.Value(name=op.name("one"), type=ir.TensorType(seed.dtype or ir.DataType.FLOAT))
    one.shape = ir.Shape(op.dims(seed))
    before, scratch = len(op.graph), op.beside()
    gradient = backward(scratch, {score: one}, [layer])[layer]
    if gradient is None:
        raise FastcamError(f"the score does not depend on layer {layer.name!r}; name another layer")
    curvature = backward(scratch, {gradient: layer}, [layer], TWICE.find)[layer]
    drafts = list(op.graph)[before:]
    wanted = [gradient] if curvature is None else [gradient, curvature]
    copies = again(op, made_from([score, layer, one], wanted), {one: seed})
    for node in reversed(drafts):
        op.graph.remove(node, safe=True)
    g, *rest = (copies[value] for value in wanted)
    assert g is not None
    return g, (rest[0] if rest else None)


def _step(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """Masks of ReLUs and maxima, HardSigmoids so steep that they are steps, have no derivative; others have theirs"""
    if is_added(node.node) and abs(node.number("alpha", 0.2)) == STEEP:
        return {0: ZERO}
    return RULES["HardSigmoid"].gradients(op, node, dy)


TWICE = Backward("gradient", {"HardSigmoid": Rule(_step)})
"""The rules by which the gradient's own nodes are differentiated."""
