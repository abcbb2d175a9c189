"""Small models of many kinds, as text: what is mutated, and what is damaged from the start."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper, parser

import fastcam

SIDE, CHANNELS, CLASSES = 8, 6, 4
BODY = "c = Conv <pads = [1, 1, 1, 1]> (x, w)  feat = Relu (c)"
ROWS = "k = Constant <value_ints = [0, 6, 64]> ()  r = Reshape (feat, k)"
MEAN = "p = GlobalAveragePool (feat)  g = Flatten (p)"
HEAD = f"{MEAN}  y = MatMul (g, m)"
YES = "t = Constant <value = bool {1}> ()"
IMAGE = f"float[N, 3, {SIDE}, {SIDE}] x"
SCORES = f"float[N, {CLASSES}] y"

GRAPHS = {
    "classifier": (IMAGE, SCORES, f"{BODY} {HEAD}"),
    "softmax": (IMAGE, f"float[N, {CLASSES}] z", f"{BODY} {HEAD}  z = Softmax <axis = 1> (y)"),
    "free": ("float[N, 3, h, w] x", SCORES, f"{BODY} {HEAD}"),
    "two inputs": (f"{IMAGE}, float[N, {CLASSES}] b", f"float[N, {CLASSES}] z", f"{BODY} {HEAD}  z = Add (y, b)"),
    "top": (
        IMAGE, "float[N, 2] v, int64[N, 2] i", f"{BODY} {HEAD}  k = Constant <value_ints = [2]> ()  v, i = TopK (y, k)"
    ),
    "detector": (
        IMAGE, "float[N, 64, 6] z",
        f"{BODY} {ROWS}  z = Transpose <perm = [0, 2, 1]> (r)",
    ),
    "segmenter": (IMAGE, f"float[N, {CHANNELS}, {SIDE}, {SIDE}] z", f"{BODY} z = Sigmoid (feat)"),
    "branch": (
        IMAGE, f"float[N, {CLASSES}] z",
        f"{BODY} {HEAD}  {YES}  z = If (t) <then_branch = a () => (float[N, {CLASSES}] s)"
        f" {{ s = Identity (y) }}, else_branch = b () => (float[N, {CLASSES}] q) {{ q = Neg (y) }}>",
    ),
    "loop": (
        IMAGE, f"float[N, {CLASSES}] z",
        f"{BODY} {HEAD}  n = Constant <value = int64 {{3}}> ()  {YES}  z = Loop (n, t, y) "
        f"<body = b (int64 i, bool e, float[N, {CLASSES}] u) => (bool o, float[N, {CLASSES}] v) "
        "{ o = Identity (e)  v = Add (u, u) }>",
    ),
    "list": (
        IMAGE, f"float[N, {CLASSES}] z",
        f"{BODY} {HEAD}  q = SequenceConstruct (y, y)  n = Constant <value = int64 {{1}}> ()  z = SequenceAt (q, n)",
    ),
    "sizes": (
        IMAGE, f"float[N, {CLASSES}] z",
        f"{BODY} {HEAD}  s = Shape (y)  f = Constant <value_float = 0.5> ()  e = Expand (f, s)  "
        "o = ConstantOfShape (s)  h = Add (e, o)  z = Add (y, h)",
    ),
    "integers": (
        IMAGE, f"float[N, {CLASSES}] z",
        f"{BODY} {HEAD}  s = Constant <value_float = 0.1> ()  o = Constant <value = int8 {{0}}> ()  "
        "q = QuantizeLinear (y, s, o)  z = DequantizeLinear (q, s, o)",
    ),
    "function": (IMAGE, f"float[N, {CLASSES}] z", f"{BODY} {HEAD}  z = own.Twice (y)"),
    "recurrent": (
        IMAGE, f"float[N, {CLASSES}] z",
        f"{BODY} {MEAN}  a = Constant <value_ints = [0]> ()  t = Unsqueeze (g, a)  "
        f"yy, z0 = LSTM <hidden_size = {CLASSES}> (t, lw, lr)  z = Squeeze (z0, a)",
    ),
    "attention": (
        IMAGE, SCORES,
        f"{BODY} {ROWS}  t = Transpose <perm = [0, 2, 1]> (r)  "
        "s = MatMul (t, r)  a = Softmax <axis = -1> (s)  v = MatMul (a, t)  g = ReduceMean <keepdims = 0> (v, one)  "
        "y = MatMul (g, m)",
    ),
}  # fmt: skip
"""(inputs, outputs, nodes) in ONNX's textual form."""


def model(name: str, opset: int = 18) -> onnx.ModelProto:
    """One of :data:`GRAPHS`, with the weights that it reads."""
    inputs, outputs, nodes = GRAPHS[name]
    graph = parser.parse_graph(f"g ({inputs}) => ({outputs}) {{ {nodes} }}")
    used = {read for node in graph.node for read in node.input}
    rng = np.random.default_rng(0)
    shapes = {
        "w": (CHANNELS, 3, 3, 3), "m": (CHANNELS, CLASSES), "lw": (1, 4 * CLASSES, CHANNELS),
        "lr": (1, 4 * CLASSES, CLASSES),
    }  # fmt: skip
    weights = {key: rng.standard_normal(shape).astype(np.float32) for key, shape in shapes.items()}
    weights["one"] = np.array([1])
    graph.initializer.extend(numpy_helper.from_array(w, key) for key, w in weights.items() if key in used)
    opsets = [helper.make_opsetid("", opset)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    if name == "function":
        made.opset_import.append(helper.make_opsetid("own", 1))
        twice = helper.make_node("Add", ["a", "a"], ["b"])
        made.functions.append(helper.make_function("own", "Twice", ["a"], ["b"], [twice], opsets))
    return made


def every() -> dict[str, onnx.ModelProto]:
    """All of them, one also in an old form, and the bundled model."""
    made = {name: model(name) for name in GRAPHS}
    old = model("classifier", 9)
    old.ir_version = 3
    old.graph.input.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims) for tensor in old.graph.initializer
    )
    bundled = onnx.load(Path(fastcam.__file__).parent / "data" / "scenes.onnx")
    return {**made, "old": old, "bundled": bundled}
