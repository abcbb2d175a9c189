"""Matrix products."""

from __future__ import annotations

import onnx_ir as ir

from fastcam_export.autodiff.emitter import Emitter
from fastcam_export.autodiff.registry import Gradients, Node, rule
from fastcam_export.autodiff.shapes import reshape_like, sum_to


@rule("Gemm")
def gemm(op: Emitter, node: Node, dy: ir.Value) -> Gradients:
    """y = alpha A' B' + beta C, where ' may transpose: dA' = alpha dy B'^T, dB' = alpha A'^T dy, dC = beta dy"""
    a, b = node.inputs[:2]
    trans_a, trans_b = node.integer("transA", 0), node.integer("transB", 0)

    def scaled(x: ir.Value, factor: float) -> ir.Value:
        return x if factor == 1.0 else op.Mul(x, factor)

    def grad_a() -> ir.Value:
        da = op.MatMul(scaled(dy, node.number("alpha", 1.0)), b if trans_b else _transposed(op, b))
        return _transposed(op, da) if trans_a else da

    def grad_b() -> ir.Value:
        db = op.MatMul(a if trans_a else _transposed(op, a), scaled(dy, node.number("alpha", 1.0)))
        return _transposed(op, db) if trans_b else db

    return {0: grad_a, 1: grad_b, 2: lambda: sum_to(op, scaled(dy, node.number("beta", 1.0)), node.inputs[2])}


@rule("MatMul")
def matmul(op: Emitter, node: Node, dy: ir.Value) -> Gradients:
    """dA = dy B^T, dB = A^T dy, batch axes summed where broadcast; a vector is a matrix of one row or column"""
    a, b = node.inputs
    row, column = op.rank(a) == 1, op.rank(b) == 1
    a2 = op.Unsqueeze(a, [0]) if row else a
    b2 = op.Unsqueeze(b, [1]) if column else b
    dy = op.Unsqueeze(dy, [-1]) if column else dy
    dy = op.Unsqueeze(dy, [-2]) if row else dy

    def grad_a() -> ir.Value:
        da = sum_to(op, op.MatMul(dy, _transposed(op, b2)), a2)
        return reshape_like(op, da, a) if row else da

    def grad_b() -> ir.Value:
        db = sum_to(op, op.MatMul(_transposed(op, a2), dy), b2)
        return reshape_like(op, db, b) if column else db

    return {0: grad_a, 1: grad_b}


def _transposed(op: Emitter, x: ir.Value) -> ir.Value:
    rank = op.rank(x)
    return op.Transpose(x, perm=[*range(rank - 2), rank - 1, rank - 2])
