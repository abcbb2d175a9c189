"""FullGrad: the gradient at the image and at every bias on the way, as one map at the image's size.

Of a network whose layers are linear or homogeneous (ReLU, pools) the score is exactly

    f(x) = sum_j x_j df/dx_j + sum_l sum_i b_i df/db_i                      Srinivas & Fleuret 2019, 1905.00780, eq. 2

over its biases b, also those that a BatchNormalization implies, beta - gamma mean / sigma (their section 3.2). Where a
layer is y = g(x) with another g, its implicit bias is y - g'(x) x; of a product of two values it is -x1 x2. The map is

    S = psi(x df/dx) + sum_l psi(f^b_l)      psi = sum over channels of bilinear upsampling of rescale(| . |)    eq. 3

where rescale brings minimum and maximum to 0 and 1, of all channels of a layer together, as the authors' code does: of
each channel alone, the sizes of the biases would have no part in it. Biases of vectors (fully connected layers) have no
place in the image; they are part of the sum, not of the map.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from fastcam.schema import FastcamError
from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.core.errors import UnsupportedOperator
from fastcam_export.autodiff.core.rule import Node, describe
from fastcam_export.autodiff.core.shapes import cast_like, wide
from fastcam_export.autodiff.modified.lrp import pulled
from fastcam_export.autodiff.modified.relu_modes import Backward
from fastcam_export.autodiff.reverse import backward, path
from fastcam_export.graph.constants import Array, constant_array, is_constant
from fastcam_export.graph.query import input_at
from fastcam_export.layers.layout import Layout
from fastcam_export.layers.target_layer import Maps

ACTIVATIONS = frozenset(
    [
        *("Celu", "Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "Mish", "Selu", "Shrink", "Sigmoid", "Softplus"),
        *("Softsign", "Swish", "Tanh", "ThresholdedRelu"),
    ]
)
"""Functions of each element, with an implicit bias."""
HOMOGENEOUS = frozenset(
    [
        *("Abs", "AveragePool", "Cast", "CastLike", "CenterCropPad", "Concat", "DepthToSpace", "Dropout", "Expand"),
        *("Flatten", "Gather", "GlobalAveragePool", "GlobalMaxPool", "Identity", "LeakyRelu", "MatMul", "MaxPool"),
        *("Neg", "PRelu", "Pad", "ReduceMax", "ReduceMean", "ReduceSum", "Relu", "Reshape", "Resize", "Slice"),
        *("SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
    ]
)
"""Operators without bias: g(x) = g'(x) x."""
BIASED = frozenset(["Add", "BatchNormalization", "Conv", "ConvTranspose", "Div", "Gemm", "Mul", "Sub", "Sum"])
FULLGRAD = Backward("fullgrad", {}, ACTIVATIONS | HOMOGENEOUS | BIASED)
"""The ordinary gradient, of networks of which the sum is known to be the score."""


WAY_OUT = "of which fullgrad says nothing; export with another mode (--input-gradient gradient)"


@dataclass(frozen=True)
class Terms:
    """The addends of the score, once per target.

    Attributes:
        image: x df/dx, in the shape of the image.
        biases: for values of the graph the bias times its gradient, in their shape.
    """

    image: ir.Value
    biases: tuple[tuple[ir.Value, ir.Value], ...]


def terms(op: Builder, image: ir.Value, score: ir.Value, seed: ir.Value) -> Terms:
    """Emit the addends of ``score``, whose cotangent is ``seed``.

    Raises:
        UnsupportedOperator: an operator on the way has a part in the score that no bias stands for.
    """
    nodes = [node for node in path(op.graph, [image], [score]) if _has_bias(node)]
    values = [node.outputs[0] for node in nodes]
    found = backward(op, {score: seed}, [image, *values], FULLGRAD.find)
    gradient = found[image]
    if gradient is None:
        raise FastcamError(f"the score does not depend on {image.name!r}; export without input_gradient")
    biases = []
    for node, value in zip(nodes, values):
        dy = found[value]
        if dy is not None:
            biases.append((value, _term(op, node, dy)))
    return Terms(op.Mul(gradient, image), tuple(biases))


def _has_bias(node: ir.Node) -> bool:
    """Whether a node adds something that does not grow with its inputs."""
    kind = node.op_type
    if kind in ("Conv", "ConvTranspose", "Gemm"):
        return input_at(node, 2) is not None
    if kind in ("Add", "Sub", "Sum"):
        return any(map(is_constant, node.inputs))
    if kind in ("Mul", "MatMul"):
        return not any(map(is_constant, node.inputs))
    if kind == "Div":
        return not is_constant(node.inputs[1])
    if kind == "Clip":
        low, high = (*node.inputs[1:3], None, None)[:2]
        zero = constant_array(low)
        return high is not None or (low is not None and (zero is None or bool(zero.any())))
    return kind in ACTIVATIONS or kind in ("BatchNormalization", "Pad")


def _term(op: Builder, node: ir.Node, dy: ir.Value) -> ir.Value:
    """The bias of a node times its gradient, in the shape of its output."""
    y, kind = node.outputs[0], node.op_type
    if kind == "Clip":
        return op.Mul(op.Mul(dy, y), cast_like(op, _at_an_end(op, node), dy))
    if kind in ACTIVATIONS:
        x = node.inputs[0]
        assert x is not None
        return op.Sub(op.Mul(dy, y), op.Mul(pulled(op, node, dy, 0), x))
    if kind == "Mul":
        return op.Neg(op.Mul(dy, y))
    if kind == "Div" and is_constant(node.inputs[0]):
        return op.Mul(op.Mul(dy, y), 2.0)  # c / x: y - (-c / x^2) x
    if kind == "Div":
        return op.Mul(dy, y)
    return op.Mul(dy, _bias(op, node))


def _at_an_end(op: Builder, node: ir.Node) -> ir.Value:
    """Where a Clip gives a constant, by its y: what reads its x undoes the runtime's fusion with the Conv before."""
    y, (low, high) = node.outputs[0], (*node.inputs[1:3], None, None)[:2]
    ends = [op.LessOrEqual(y, low)] if low is not None else []
    ends += [op.GreaterOrEqual(y, high)] if high is not None else []
    return ends[0] if len(ends) == 1 else op.Or(*ends)


def _bias(op: Builder, node: ir.Node) -> ir.Value:
    """The bias of a node, so that it broadcasts to the output."""
    seen, kind = Node(node, ()), node.op_type
    if kind in ("Conv", "ConvTranspose"):
        return _per_channel(op, seen.inputs[2], op.rank(node.outputs[0]))
    if kind == "Gemm":
        return op.Mul(seen.inputs[2], seen.number("beta", 1.0))
    if kind == "BatchNormalization":
        _, gain, shift, mean, variance = seen.inputs
        scale = op.Div(gain, op.Sqrt(op.Add(variance, seen.number("epsilon", 1e-5))))
        return _per_channel(op, op.Sub(shift, op.Mul(mean, scale)), op.rank(node.outputs[0]))
    if kind == "Sub":
        return op.Neg(seen.inputs[1]) if is_constant(seen.inputs[1]) else seen.inputs[0]
    if kind in ("Add", "Sum"):
        constants = [x for x in seen.inputs if is_constant(x)]
        return constants[0] if len(constants) == 1 else op.Sum(*constants)
    if kind == "Pad":
        filling = seen.constant(2, "filling")
        if filling is None or not filling.any():
            return op.constant(np.zeros((), np.float32))
        raise UnsupportedOperator(f"{describe(node)} pads with a number that is not zero, {WAY_OUT}")
    raise UnsupportedOperator(f"both factors of {describe(node)} depend on the image, {WAY_OUT}")


def _per_channel(op: Builder, bias: ir.Value, rank: int) -> ir.Value:
    return op.Reshape(bias, [1, -1, *[1] * (rank - 2)])


# ---- the map


def fullgrad(op: Builder, maps: Maps, seed: ir.Value, score: ir.Value) -> ir.Value:
    """[N, H, W]: the map at the image's size, once per target."""
    found = terms(op, maps.image, score, seed)
    by_grid: dict[tuple[int, ...], ir.Value] = {}
    size = _grid(maps.layout(maps.image), maps.image)
    assert size is not None
    for value, term in [(maps.image, found.image), *found.biases]:
        layout = maps.layout(value)
        grid = _grid(layout, value)
        if layout is None or grid is None:
            continue
        shown = _rescaled(op, layout.maps(op, term, value))
        by_grid[grid] = op.Add(by_grid[grid], shown) if grid in by_grid else shown
    total: ir.Value | None = None
    for grid, summed in by_grid.items():
        large = _upsampled(op, summed, grid, size)
        total = large if total is None else op.Add(total, large)
    assert total is not None
    return total


def _grid(layout: Layout | None, value: ir.Value) -> tuple[int, ...] | None:
    """(h, w) of a value; None where it is no map.

    Raises:
        FastcamError: it is free, or the value is a video's.
    """
    if layout is None:
        return None
    grid = layout.fixed_grid
    if grid is None or len(grid) != 2:
        what = "a fixed image size" if grid is None else "pictures"
        raise FastcamError(f"fullgrad needs {what} ({value.name!r} has the grid {layout.grid}); export another mode")
    return grid


def _rescaled(op: Builder, term: ir.Value) -> ir.Value:
    """[N, h, w] of [N, K, h, w]: the sum over channels of | . | brought to 0..1; zero where it is all the same."""
    size = wide(op, op.Abs(term))
    low, high = (op.emit(kind, size, [1, 2, 3], keepdims=1) for kind in ("ReduceMin", "ReduceMax"))
    channels = op.dims(term)[1]
    if not isinstance(channels, int):
        raise FastcamError("fullgrad needs to know the number of channels; export another mode")
    span = op.Sub(high, low)
    above = op.Sub(op.ReduceSum(size, [1], keepdims=1), op.Mul(low, float(channels)))
    share = op.Where(op.Greater(span, 0.0), op.Div(above, span), 0.0)
    return op.ReduceSum(share, [1], keepdims=0)


def _upsampled(op: Builder, x: ir.Value, grid: tuple[int, ...], size: tuple[int, ...]) -> ir.Value:
    """[N, H, W] of [N, h, w], bilinear, pixels by their centres: a product with a small matrix along each axis."""
    if grid == size:
        return x
    rows, columns = (bilinear(have, want) for have, want in zip(grid, size))
    return op.MatMul(op.constant(rows), op.MatMul(x, op.constant(np.ascontiguousarray(columns.T))))


def bilinear(have: int, want: int) -> Array:
    """float32 [want, have]: the weights of linear interpolation along one axis, half-pixel centres, edges repeated."""
    at = np.clip((np.arange(want) + 0.5) * have / want - 0.5, 0, have - 1)
    below = np.minimum(at.astype(np.int64), max(have - 2, 0))
    matrix = np.zeros((want, have), np.float32)
    matrix[np.arange(want), below] = 1 - (at - below)
    matrix[np.arange(want), np.minimum(below + 1, have - 1)] += at - below
    return matrix
