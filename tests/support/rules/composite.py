"""Cases of operators made of others: ONNX's function bodies, and fusions of ONNX Runtime."""

import numpy as np
from onnx.reference.op_run import OpRun

from support.rules.case import Free, N, ints, one

S = Free("S", (3, 5))
HEADS = (N, 4, S, 6)
GROUPED = {"q": (N, 3, 24), "k": (N, 5, 12), "v": (N, 5, 16), "q_num_heads": 4, "kv_num_heads": 2}
FIXED = dict.fromkeys("qkv", (N, 4, 3, 6))
PAST = {"mask": None, "past_k": (N, 4, 2, 6), "past_v": (N, 4, 2, 6)}
MASK = np.random.default_rng(0).random((3, 3)) < 0.7


def attention(opset=24, **operands):
    return one("Attention", opset=opset, **operands)


def attentions():
    same = dict.fromkeys("qkv", HEADS)
    return [
        attention(**same),
        attention(**same, is_causal=1),
        attention(q=HEADS, k=(N, 2, 5, 6), v=(N, 2, 5, 8), scale=0.3),
        attention(**GROUPED),
        attention(**GROUPED, is_causal=1, opset=23),
        attention(**FIXED, mask=MASK),
        attention(**FIXED, mask=(3, 3), opset=23),
        attention(**FIXED, mask=(N, 1, 3, 3), softcap=2.0),
        attention(**FIXED, **PAST, is_causal=1, outputs=("y", "all_k", "all_v")),
        attention(**FIXED, **PAST, outputs=("y", "all_k", "all_v"), cotangents=("all_k",), wrt=("k", "past_k")),
        *(
            attention(**FIXED, mask=(3, 3), softcap=cap, outputs=("y", "", "", "qk"), cotangents=("y", "qk"),
                      qk_matmul_output_mode=mode)
            for mode, cap in ((0, 0.0), (1, 2.0), (2, 2.0), (3, 2.0))  # of (0, 2.0) ONNX Runtime caps no weights
        ),
    ]  # fmt: skip


def rotations():
    table = {"cos": (10, 4), "sin": (10, 4), "position": np.array([[0, 1, 2], [4, 5, 3]])}
    return [
        one("RotaryEmbedding", x=(N, 4, S, 8), cos=(N, S, 4), sin=(N, S, 4), opset=23),
        one("RotaryEmbedding", x=(2, 4, 3, 8), **table, opset=23),
        one("RotaryEmbedding", x=(2, 4, 3, 8), **table, interleaved=1, opset=24),
        one("RotaryEmbedding", x=(N, S, 32), cos=(N, S, 2), sin=(N, S, 2), num_heads=4, rotary_embedding_dim=4,
            interleaved=1, opset=23),
    ]  # fmt: skip


def losses():
    labels, weights = {"labels": ints(1, 3, 0)}, {"weights": np.array([0.5, 1.0, 2.0, 0.25, 1.5])}
    picture = {"x": (2, 5, 3, 4), "labels": np.random.default_rng(2).integers(0, 5, (2, 3, 4))}
    forms = [
        {"x": (3, 5), **labels},
        {"x": (3, 5), **labels, **weights, "reduction": "sum"},
        {"x": (3, 5), **labels, "ignore_index": 3, "reduction": "none"},
        {**picture, **weights, "ignore_index": 0},
    ]
    return {
        op_type: [one(op_type, **form) for form in forms]
        for op_type in ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
    }


def grids():
    flat, solid = {"theta": (2, 2, 3), "size": ints(2, 3, 5, 4)}, {"theta": (2, 3, 4), "size": ints(2, 1, 3, 5, 4)}
    forms = [flat, {**flat, "align_corners": 1}, solid, {**solid, "align_corners": 1}]
    return [one("AffineGrid", opset=20, **form) for form in forms]


CASES: dict = {
    "AffineGrid": grids(),
    "Attention": attentions(),
    "RotaryEmbedding": rotations(),
    **losses(),
    "SwiGLU": [one("SwiGLU", a=(N, S), b=(N, S), alpha=1.5, opset=28, runtime=False)],
}


class AffineGrid(OpRun):
    """In the precision of theta."""

    def _run(self, theta, size, align_corners=None):
        ends = [1.0 if align_corners else 1 - 1 / n for n in size[2:]]
        mesh = np.meshgrid(*(np.linspace(-end, end, n) for end, n in zip(ends, size[2:])), indexing="ij")
        base = np.stack([*mesh[::-1], np.ones(mesh[0].shape)], -1)
        return ((base.reshape(-1, base.shape[-1]) @ theta.swapaxes(1, 2)).reshape(-1, *size[2:], len(mesh)),)


MENDED = [AffineGrid]
