"""Operators that ONNX Runtime's optimiser writes (com.microsoft), by the standard operators that they fuse.

Their definitions are those of ONNX Runtime's ContribOperators.md.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import onnx_ir as ir

from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.core.errors import UnsupportedOperator
from fastcam_export.autodiff.core.rule import Node, expansion

fusion = partial(expansion, domain="com.microsoft")

WINDOW = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")


@fusion("FusedConv")
def fused_conv(op: Builder, node: Node) -> list[ir.Value | None]:
    """y = activation(Conv(x, w, b) + z)"""
    attributes = _attributes(node)
    y = op.Conv(*(node.input(i) for i in range(3)), **{name: attributes[name] for name in WINDOW if name in attributes})
    z = node.input(3)
    return [_activated(op, y if z is None else op.Add(y, z), attributes)]


@fusion("FusedGemm")
def fused_gemm(op: Builder, node: Node) -> list[ir.Value | None]:
    """y = activation(Gemm(a, b, c))"""
    attributes = _attributes(node)
    own = {name: attributes[name] for name in ("alpha", "beta", "transA", "transB") if name in attributes}
    return [_activated(op, op.Gemm(*(node.input(i) for i in range(3)), **own), attributes)]


@fusion("FusedMatMul", "TransposeMatMul")
def fused_matmul(op: Builder, node: Node) -> list[ir.Value | None]:
    """y = alpha a b, with the last two axes of either exchanged where transA, transB say so"""
    a, b = node.inputs
    if node.integer("transBatchA", 0) or node.integer("transBatchB", 0):
        raise UnsupportedOperator("its batch axes are transposed")
    y = op.MatMul(
        _exchanged(op, a) if node.integer("transA", 0) else a, _exchanged(op, b) if node.integer("transB", 0) else b
    )
    alpha = node.number("alpha", 1.0)
    return [y if alpha == 1.0 else op.Mul(y, alpha)]


@fusion("Gelu", "BiasGelu")
def gelu(op: Builder, node: Node) -> list[ir.Value | None]:
    """y = x Phi(x), of x + b where a bias is given"""
    x = _biased(op, node, 1)
    cdf = op.Mul(op.Add(op.Erf(op.Mul(x, 1 / math.sqrt(2))), 1.0), 0.5)
    return [op.Mul(x, cdf)]


@fusion("FastGelu")
def fast_gelu(op: Builder, node: Node) -> list[ir.Value | None]:
    """y = x (1 + tanh(c (x + 0.044715 x^3))) / 2, c = sqrt(2 / pi), of x + b where a bias is given"""
    x = _biased(op, node, 1)
    inner = op.Mul(op.Mul(x, op.Add(op.Mul(op.Mul(x, x), 0.044715), 1.0)), math.sqrt(2 / math.pi))
    return [op.Mul(x, op.Mul(op.Add(op.Tanh(inner), 1.0), 0.5))]


@fusion("QuickGelu")
def quick_gelu(op: Builder, node: Node) -> list[ir.Value | None]:
    """y = x sigmoid(alpha x)"""
    return [op.Mul(node.x, op.Sigmoid(op.Mul(node.x, node.number("alpha", 1.702))))]


@fusion("BiasAdd")
def bias_add(op: Builder, node: Node) -> list[ir.Value | None]:
    """y = x + bias + skip"""
    x, bias, skip = node.inputs
    return [op.Add(op.Add(x, bias), skip)]


@fusion("SkipLayerNormalization")
def skip_layer_normalization(op: Builder, node: Node) -> list[ir.Value | None]:
    """y = LayerNormalization(s), s = x + skip + bias; then the mean of s, 1 / sqrt(its variance + epsilon), and s"""
    total, scale, beta = op.Add(node.x, node.inputs[1]), node.inputs[2], node.input(3)
    total = total if node.input(4) is None else op.Add(total, node.input(4))
    epsilon = node.number("epsilon", 1e-12)
    y, mean, inverse = op.emit_all("LayerNormalization", total, scale, beta, outputs=3, axis=-1, epsilon=epsilon)
    return [y, mean, inverse, total]


@fusion("SkipSimplifiedLayerNormalization")
def skip_simplified_layer_normalization(op: Builder, node: Node) -> list[ir.Value | None]:
    """y = s r scale, s = x + skip + bias, r = 1 / sqrt(mean(s^2) + epsilon); the third output is r, the fourth s"""
    total = op.Add(node.x, node.inputs[1])
    total = total if node.input(3) is None else op.Add(total, node.input(3))
    mean = op.ReduceMean(op.Mul(total, total), [-1], keepdims=1)
    inverse = op.Reciprocal(op.Sqrt(op.Add(mean, node.number("epsilon", 1e-12))))
    return [op.Mul(op.Mul(total, inverse), node.inputs[2]), None, inverse, total]


def _attributes(node: Node) -> dict[str, Any]:
    return {name: attribute.value for name, attribute in node.node.attributes.items()}


def _activated(op: Builder, x: ir.Value, attributes: dict[str, Any]) -> ir.Value:
    """The activation that a fusion names, with its parameters in the order in which the operator lists them."""
    name = attributes.get("activation", "")
    if not name:
        return x
    numbers = list(attributes.get("activation_params", ()))
    numbers = numbers or [v for k, v in attributes.items() if k in ("activation_alpha", "activation_beta")]
    if name in ("Relu", "Sigmoid", "Tanh") and not numbers:
        return op.emit(name, x)
    if name == "LeakyRelu" and len(numbers) < 2:
        return op.LeakyRelu(x, **({"alpha": numbers[0]} if numbers else {}))
    if name == "HardSigmoid" and len(numbers) == 2:
        return op.HardSigmoid(x, alpha=numbers[0], beta=numbers[1])
    if name == "Clip" and len(numbers) == 2:
        return op.Clip(x, float(numbers[0]), float(numbers[1]))
    raise UnsupportedOperator(f"there is no gradient rule for its activation {name}")


def _exchanged(op: Builder, x: ir.Value) -> ir.Value:
    rank = op.rank(x)
    return op.Transpose(x, perm=[*range(rank - 2), rank - 1, rank - 2]) if rank > 1 else x


def _biased(op: Builder, node: Node, index: int) -> ir.Value:
    bias = node.input(index)
    return node.x if bias is None else op.Add(node.x, bias)
