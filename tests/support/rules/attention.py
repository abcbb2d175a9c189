"""Cases of ONNX Runtime's attention operators: as ``support.rules.fused.fused`` takes them."""

import numpy as np

R = np.random.default_rng(0)
TWO = {"num_heads": 2}
WHOLE = {"x": (2, 4, 6), "w": (6, 24), "b": (24,)}
APART = {"q": (2, 3, 8), "k": (2, 5, 8), "v": (2, 5, 8)}
BY_HEADS = {"q": (2, 3, 8), "k": (2, 2, 5, 4), "v": (2, 2, 5, 4)}
SELF = dict.fromkeys("qkv", (2, 3, 8))
PAST = {**SELF, "b": (24,), "m": None, "a": None, "old_k": (2, 2, 2, 4), "old_v": (2, 2, 2, 4)}
GROUPS = {"num_heads": 4, "kv_num_heads": 2}


def ids(*rows):
    return np.array(rows, np.int32)


def bits(*shape):
    return R.integers(0, 2, shape).astype(np.int32)


GROUPED = {"q": (2, 5, 64), "k": (2, 5, 32), "v": (2, 5, 32), "old_k": None, "old_v": None, "last": ids(4, 4),
           "total": np.array(5, np.int32)}  # fmt: skip
TOGETHER = {**GROUPED, "q": (2, 5, 128), "k": None, "v": None}
TABLES = {name: R.random((9, 8)).astype(np.float32) for name in ("cos", "sin")}
NONE = {"cos": None, "sin": None, "places": None}
ONE_MORE = {"q": (2, 1, 64), "k": (2, 1, 32), "v": (2, 1, 32), "old_k": (2, 2, 3, 16), "old_v": (2, 2, 3, 16),
            "last": ids(3, 3), "total": np.array(4, np.int32)}  # fmt: skip
WORDS = {"ids": ids([1, 2, 0], [3, 1, 1]), "seg": ids([0, 1, 1], [0, 0, 1]), "w": (5, 8), "p": (4, 8), "s": (2, 8),
         "g": (8,), "beta": (8,)}  # fmt: skip
CASES = [
    ("Attention", WHOLE, TWO),
    ("Attention", WHOLE, {**TWO, "unidirectional": 1, "scale": 0.3}),
    ("Attention", {**WHOLE, "m": ids(3, 4)}, {**TWO, "unidirectional": 1}),
    ("Attention", {**WHOLE, "m": ids(3, 4, 1, 0)}, TWO),
    ("Attention", {**WHOLE, "m": bits(2, 4)}, {**TWO, "mask_filter_value": -5.0}),
    ("Attention", {**WHOLE, "m": bits(2, 4, 4)}, {**TWO, "mask_filter_value": -5.0}),
    ("Attention", {**WHOLE, "m": ids([1], [1])}, TWO),
    ("Attention", {**WHOLE, "m": None, "past": None, "a": (1, 2, 4, 4)}, TWO),
    ("Attention", {**WHOLE, "m": bits(2, 7), "past": (2, 2, 2, 3, 4)}, {**TWO, "mask_filter_value": -5.0}, 2),
    ("Attention", {**WHOLE, "m": None, "past": (2, 2, 2, 3, 4)}, TWO, 2, 1, 5),
    ("Attention", {"x": (2, 4, 6), "w": (6, 20), "b": (20,)}, {**TWO, "qkv_hidden_sizes": [8, 8, 4]}),
    ("MultiHeadAttention", APART, TWO),
    ("MultiHeadAttention", {**APART, "v": (2, 5, 12), "b": (28,)}, {**TWO, "scale": 0.3}),
    ("MultiHeadAttention", {**APART, "b": None, "m": ids(3, 5)}, TWO),
    ("MultiHeadAttention", {**APART, "b": None, "m": bits(2, 5)}, {**TWO, "mask_filter_value": -5.0}),
    ("MultiHeadAttention", {**APART, "b": None, "m": bits(2, 3, 5)}, {**TWO, "mask_filter_value": -5.0}),
    ("MultiHeadAttention", {**APART, "b": (24,), "m": None, "a": (2, 2, 3, 5)}, TWO),
    ("MultiHeadAttention", BY_HEADS, TWO),
    ("MultiHeadAttention", {**BY_HEADS, "b": (24,), "m": ids(3, 5)}, {**TWO, "scale": 0.3}),
    ("MultiHeadAttention", {**BY_HEADS, "b": None, "m": None, "a": (2, 2, 3, 5)}, TWO),
    ("MultiHeadAttention", PAST, {**TWO, "unidirectional": 1}, 3),
    ("MultiHeadAttention", PAST, TWO, 3, 1, 4),
    ("MultiHeadAttention", PAST, TWO, 3, 2, 4),
    ("GroupQueryAttention", GROUPED, {**GROUPS, "softcap": 1.5, "scale": 0.4}, 3),
    ("GroupQueryAttention", GROUPED, {**GROUPS, "local_window_size": 2}, 3),
    ("GroupQueryAttention", GROUPED, {**GROUPS, "smooth_softmax": 1}, 3),
    ("GroupQueryAttention", {**GROUPED, **TABLES}, {**GROUPS, "do_rotary": 1}, 3),
    ("GroupQueryAttention", {**GROUPED, **TABLES}, {**GROUPS, "do_rotary": 1, "rotary_interleaved": 1}, 3, 1, 4),
    ("GroupQueryAttention", {**TOGETHER, **TABLES}, {**GROUPS, "do_rotary": 1}, 3),
    ("GroupQueryAttention", {**ONE_MORE, **TABLES}, {**GROUPS, "do_rotary": 1}, 3),
    ("GroupQueryAttention", {**GROUPED, **NONE, "a": (2, 4, 5, 5)}, GROUPS, 3),
    ("GroupQueryAttention", {**GROUPED, **NONE, "a": None, "sink": (4,)}, GROUPS, 3),
    ("EmbedLayerNormalization", WORDS, {"epsilon": 0.1}, 2, 0, 3),
    ("EmbedLayerNormalization", {**WORDS, "seg": None, "s": None}, {"epsilon": 0.1}, 2, 0, 3),
    ("EmbedLayerNormalization", {**WORDS, "m": bits(2, 3), "at": ids([1, 0, 3], [1, 2, 2])}, {}, 3, 2, 3),
]  # fmt: skip
