"""Matrix products."""

from __future__ import annotations

import onnx_ir as ir

from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.core.masked_rows import are_weights, zero_rows
from fastcam_export.autodiff.core.rule import Gradients, Node, rule
from fastcam_export.autodiff.core.shapes import cast_like, reshape_like, scalar, sum_to


@rule("Gemm")
def gemm(op: Builder, node: Node, dy: ir.Value) -> Gradients:
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
def matmul(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dA = dy B^T, dB = A^T dy, batch axes summed where broadcast; a vector is a matrix of one row or column"""
    a, b = node.inputs
    row, column = op.rank(a) == 1, op.rank(b) == 1
    if not (row or column) and are_weights(a):
        a, dy = zero_rows(op, a, dy, -1)
    elif not (row or column) and are_weights(b):
        b, dy = zero_rows(op, b, dy, -2)
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


def _transposed(op: Builder, x: ir.Value) -> ir.Value:
    rank = op.rank(x)
    return op.Transpose(x, perm=[*range(rank - 2), rank - 1, rank - 2])


@rule("Det")
def det(op: Builder, node: Node, dy: ir.Value) -> Gradients:
    """dx = dy times the cofactors: (-1)^(i + j) times the determinant without row i and column j, so that it also holds
    where x has no inverse"""
    x, rank = node.x, op.rank(node.x)
    seed = op.Unsqueeze(dy, [rank - 2, rank - 1])
    if op.dims(x)[-1] == 1:
        return seed
    number = op.shape(x, rank - 1)
    every, fewer = (op.Range(0, scalar(op, n), 1) for n in (number, op.Sub(number, 1)))
    rows, columns = op.Unsqueeze(every, [1]), op.Unsqueeze(fewer, [0])
    rest = op.Add(columns, op.Cast(op.GreaterOrEqual(columns, rows), to=int(ir.DataType.INT64)))  # [n, n - 1]
    minors = op.Gather(op.Gather(x, rest, axis=rank - 2), rest, axis=rank)  # [.., row, n - 1, column, n - 1]
    order = [*range(rank - 2), rank - 2, rank, rank - 1, rank + 1]
    odd = op.Mod(op.Add(rows, op.Unsqueeze(every, [0])), 2)
    sign = op.Sub(1.0, op.Mul(cast_like(op, odd, x), 2.0))
    return op.Mul(seed, op.Mul(op.Det(op.Transpose(minors, perm=order)), sign))
