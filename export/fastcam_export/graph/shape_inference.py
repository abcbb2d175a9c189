"""Shape inference, also behind operators whose result ONNX's own inference does not know.

Such a node is replaced, for the inference alone, by standard nodes whose result has the same type and shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx
from onnx import NodeProto, helper

from fastcam_export.graph.query import is_added
from fastcam_export.graph.shape_refinement import refine

StandIn = Callable[[NodeProto], list[NodeProto]]

PREFIX = "fastcam_inference."
"""Begins the names of values that only stand-ins make."""


def _like_first(node: NodeProto) -> list[NodeProto]:
    """The first output has type and shape of the first input."""
    return [helper.make_node("Identity", node.input[:1], node.output[:1])]


def _standard(op_type: str, *names: str) -> StandIn:
    """The operator that is fused, with those of its attributes that its shape depends on."""

    def make(node: NodeProto) -> list[NodeProto]:
        made = helper.make_node(op_type, node.input[:2], node.output[:1])
        made.attribute.extend(attribute for attribute in node.attribute if attribute.name in names)
        return [made]

    return make


def _skipped(node: NodeProto) -> list[NodeProto]:
    """As :func:`_like_first`; the second and third output are a number for each row, the fourth is like the first."""
    made, x, axes = _like_first(node), node.input[0], f"{PREFIX}{node.output[0]}.axes"
    if any(node.output[1:3]):
        made.append(helper.make_node("Constant", [], [axes], value_ints=[-1]))
    made += [helper.make_node("ReduceMean", [x, axes], [name]) for name in node.output[1:3] if name]
    return made + [helper.make_node("Identity", [x], [name]) for name in node.output[3:4]]


def _product(node: NodeProto) -> list[NodeProto]:
    """The type of the first input; the shape, where no operand is transposed, is that of a MatMul."""
    flags = ("transA", "transB", "transBatchA", "transBatchB")
    if any(attribute.name in flags and attribute.i for attribute in node.attribute):
        return _transposed_product(node)
    return [helper.make_node("MatMul", node.input[:2], node.output[:1])]


def _transposed_product(node: NodeProto) -> list[NodeProto]:
    """A MatMul by Einsum, which knows both orders of the last two axes."""
    flags = {attribute.name: attribute.i for attribute in node.attribute}
    if flags.get("transBatchA") or flags.get("transBatchB"):
        return [node]
    a, b = ("...ji" if flags.get("transA") else "...ij"), ("...kj" if flags.get("transB") else "...jk")
    return [helper.make_node("Einsum", node.input[:2], node.output[:1], equation=f"{a},{b}->...ik")]


def _unpooled(node: NodeProto) -> list[NodeProto]:
    """The type of the first input; the shape is the one that is asked for."""
    if len(node.input) < 3 or not node.input[2]:
        return [node]
    zeros = f"{PREFIX}{node.output[0]}"
    filled = helper.make_node("ConstantOfShape", [node.input[2]], [zeros])
    return [filled, helper.make_node("CastLike", [zeros, node.input[0]], node.output[:1])]


def _floats(op_type: str, *indices: int, like: int | None = None, names: Sequence[str] = ()) -> StandIn:
    """The operator on the numbers that integers stand for; the result in the type of the zero point ``like``."""

    def make(node: NodeProto) -> list[NodeProto]:
        prefix, made = f"{PREFIX}{node.output[0]}", []
        chosen = [i for i in indices or range(2, len(node.input), 3) if i < len(node.input)]
        for i in chosen:
            made.append(helper.make_node("Cast", [node.input[i]], [f"{prefix}.{i}"], to=onnx.TensorProto.FLOAT))
        typed = like is not None and like < len(node.input) and bool(node.input[like])
        result = f"{prefix}.y" if typed else node.output[0]
        made.append(helper.make_node(op_type, [f"{prefix}.{i}" for i in chosen], [result]))
        made[-1].attribute.extend(attribute for attribute in node.attribute if attribute.name in names)
        if typed and like is not None:
            made.append(helper.make_node("CastLike", [result, node.input[like]], node.output[:1]))
        last = any(attribute.name == "channels_last" and attribute.i for attribute in node.attribute)
        return [node] if last else made

    return make


def _recurrent(node: NodeProto) -> list[NodeProto]:
    """An LSTM of floats."""
    made = helper.make_node("LSTM", [node.input[0], node.input[0], node.input[0]], node.output)
    made.attribute.extend(a for a in node.attribute if a.name in ("direction", "hidden_size", "layout"))
    return [made]


def _attention(node: NodeProto) -> list[NodeProto]:
    """The first output has the shape of the input, but the width of the values: the last part of input x weights."""
    prefix, (x, w) = f"{PREFIX}{node.output[0]}", node.input[:2]
    made = []
    if node.op_type == "QAttention":
        made = [
            helper.make_node("Cast", [value], [f"{prefix}.{i}"], to=onnx.TensorProto.FLOAT)
            for i, value in enumerate((x, w))
        ]
        x, w = (f"{prefix}.{i}" for i in (0, 1))
    sizes = next((list(a.ints) for a in node.attribute if a.name == "qkv_hidden_sizes"), [])
    parts = [f"{prefix}.q", f"{prefix}.k", node.output[0]]
    made.append(helper.make_node("MatMul", [x, w], [f"{prefix}.all"]))
    if sizes:
        made.append(helper.make_node("Constant", [], [f"{prefix}.sizes"], value_ints=sizes))
    given = [f"{prefix}.all", *([f"{prefix}.sizes"] if sizes else [])]
    made.append(helper.make_node("Split", given, parts, axis=2, num_outputs=None if sizes else 3))
    if len(node.output) < 2 or not node.output[1]:
        return made
    number = next((a.i for a in node.attribute if a.name == "num_heads"), 1)
    old = {"Attention": 4, "QAttention": 8}[node.op_type]
    past = node.input[old] if len(node.input) > old else ""
    made += _by_heads(f"{prefix}.present", f"{prefix}.k", number, "")
    made.append(helper.make_node("Constant", [], [f"{prefix}.first"], value_ints=[0]))
    made.append(helper.make_node("Unsqueeze", [f"{prefix}.present", f"{prefix}.first"], [f"{prefix}.one"]))
    both = [f"{prefix}.both" if past else node.output[1]]
    made.append(helper.make_node("Concat", [f"{prefix}.one"] * 2, both, axis=0))
    return made + ([helper.make_node("Concat", [past, *both], [node.output[1]], axis=3)] if past else [])


def _of_queries(node: NodeProto) -> list[NodeProto]:
    """The first output has the shape of the queries, with the width of the values; then keys and values by heads."""
    q, k, v = [*node.input, "", ""][:3]
    given = {attribute.name: attribute.i for attribute in node.attribute}
    past = list(node.input[3:5] if node.op_type == "GroupQueryAttention" else node.input[6:8])
    number = given.get("kv_num_heads", given.get("num_heads", 1))
    made: list[NodeProto] = []
    if q and not k and "kv_num_heads" in given:
        made, (q, k, v) = _unpacked(node, given["num_heads"], number)
    if not k or not v:
        return [node]
    made.append(helper.make_node("Identity", [q], node.output[:1]))
    if "kv_num_heads" not in given:
        made[-1] = helper.make_node("Einsum", [q, k, v], node.output[:1], equation="bsd,btd,bte->bse")
    for name, x, old in zip(node.output[1:3], (k, v), [*past, "", ""]):
        made += _by_heads(name, x, number, old) if name else []
    return made


def _unpacked(node: NodeProto, number: int, shared: int) -> tuple[list[NodeProto], list[str]]:
    """Queries, keys and values that lie side by side."""
    prefix = f"{PREFIX}{node.output[0]}"
    made = [
        helper.make_node("Constant", [], [f"{prefix}.all"], value_ints=[0, 0, number + 2 * shared, -1]),
        helper.make_node("Constant", [], [f"{prefix}.each"], value_ints=[number, shared, shared]),
        helper.make_node("Constant", [], [f"{prefix}.flat"], value_ints=[0, 0, -1]),
        helper.make_node("Reshape", [node.input[0], f"{prefix}.all"], [f"{prefix}.heads"]),
        helper.make_node("Split", [f"{prefix}.heads", f"{prefix}.each"], [f"{prefix}.h{i}" for i in range(3)], axis=2),
    ]
    names = [f"{prefix}.{i}" for i in range(3)]
    made += [helper.make_node("Reshape", [f"{prefix}.h{i}", f"{prefix}.flat"], [name]) for i, name in enumerate(names)]
    return made, names


def _by_heads(name: str, x: str, number: int, past: str) -> list[NodeProto]:
    """[B, N, T, H] of [B, S, N * H], behind the past."""
    prefix = f"{PREFIX}{name}"
    made = [
        helper.make_node("Constant", [], [f"{prefix}.sizes"], value_ints=[0, 0, number, -1]),
        helper.make_node("Reshape", [x, f"{prefix}.sizes"], [f"{prefix}.heads"]),
        helper.make_node("Transpose", [f"{prefix}.heads"], [f"{prefix}.new" if past else name], perm=[0, 2, 1, 3]),
    ]
    return made + ([helper.make_node("Concat", [past, f"{prefix}.new"], [name], axis=2)] if past else [])


def _embedded(node: NodeProto) -> list[NodeProto]:
    """A vector for each word."""
    sums = [name for name in node.output[2:3] if name]
    return [helper.make_node("Gather", [node.input[2], node.input[0]], [name]) for name in (node.output[0], *sums)]


MICROSOFT = "com.microsoft"
POOL = ("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides")
WINDOW = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
STAND_INS: dict[tuple[str, str], StandIn] = {
    ("", "GroupNormalization"): _like_first,
    ("", "MaxUnpool"): _unpooled,
    ("", "MeanVarianceNormalization"): _like_first,
    **{(MICROSOFT, name): _like_first for name in ("Gelu", "BiasGelu", "FastGelu", "QuickGelu", "BiasAdd")},
    (MICROSOFT, "SkipLayerNormalization"): _skipped,
    (MICROSOFT, "SkipSimplifiedLayerNormalization"): _skipped,
    (MICROSOFT, "Attention"): _attention,
    (MICROSOFT, "QAttention"): _attention,
    (MICROSOFT, "EmbedLayerNormalization"): _embedded,
    (MICROSOFT, "GroupQueryAttention"): _of_queries,
    (MICROSOFT, "MultiHeadAttention"): _of_queries,
    (MICROSOFT, "FusedConv"): _standard("Conv", *WINDOW),
    (MICROSOFT, "FusedGemm"): _standard("Gemm", "alpha", "beta", "transA", "transB"),
    (MICROSOFT, "FusedMatMul"): _product,
    (MICROSOFT, "TransposeMatMul"): _product,
    **{(MICROSOFT, f"QLinear{name}"): _like_first for name in ("LeakyRelu", "Sigmoid", "Softmax")},
    (MICROSOFT, "QLinearAdd"): _floats("Add", 0, 3, like=7),
    (MICROSOFT, "QLinearMul"): _floats("Mul", 0, 3, like=7),
    (MICROSOFT, "QLinearWhere"): _floats("Sum", 0, 1, 4, like=8),
    (MICROSOFT, "QLinearConcat"): _floats("Concat", like=1, names=["axis"]),
    (MICROSOFT, "QLinearConv"): _floats("Conv", 0, 3, like=7, names=WINDOW),
    (MICROSOFT, "QLinearAveragePool"): _floats("AveragePool", 0, like=4, names=POOL),
    (MICROSOFT, "QLinearGlobalAveragePool"): _floats("GlobalAveragePool", 0, like=4),
    (MICROSOFT, "QGemm"): _floats("Gemm", 0, 3, like=8, names=["transA", "transB"]),
    (MICROSOFT, "MatMulIntegerToFloat"): _floats("MatMul", 0, 1),
    (MICROSOFT, "DynamicQuantizeMatMul"): _floats("MatMul", 0, 1),
    (MICROSOFT, "DynamicQuantizeLSTM"): _recurrent,
}
"""(domain, operator) -> nodes that have the same result types, for operators of which ONNX infers none."""


def infer_types(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` with type and shape of all values that can be inferred, in ``value_info`` and in its outputs.

    Raises:
        onnx.shape_inference.InferenceError: the shapes that the model declares contradict each other.
    """
    inferred = _inferred(model, frozenset())
    typed = {value.name for value in (*inferred.graph.value_info, *inferred.graph.output) if value.HasField("type")}
    by_heads = frozenset(
        node.output[0]
        for node in model.graph.node
        if node.op_type == "MultiHeadAttention" and node.output[0] not in typed and all(node.input[:3])
    )
    return _inferred(model, by_heads) if by_heads else inferred


def _inferred(model: onnx.ModelProto, by_heads: frozenset[str]) -> onnx.ModelProto:
    """The same, where the attentions that make ``by_heads`` have keys and values [B, N, T, H], as wide as queries."""
    nodes = list(model.graph.node)
    stood_in = [_like_first(node) if by_heads.intersection(node.output) else _stand_in(node) for node in nodes]
    copy = model
    if any(made is not None for made in stood_in):
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        del copy.graph.node[:]
        for node, made in zip(nodes, stood_in):
            copy.graph.node.extend([node] if made is None else made)
    inferred = onnx.shape_inference.infer_shapes(copy, data_prop=True)
    refine(inferred)
    known = [value for value in inferred.graph.value_info if not is_added(value)]
    if copy is not model:
        made_of = iter(list(inferred.graph.node))
        seen = [[next(made_of) for _ in made or [node]] for node, made in zip(nodes, stood_in)]
        del inferred.graph.node[:]
        inferred.graph.node.extend(node if made else own[0] for node, made, own in zip(nodes, stood_in, seen))
    del inferred.graph.value_info[:]
    inferred.graph.value_info.extend(known)
    return inferred


def _stand_in(node: NodeProto) -> list[NodeProto] | None:
    find = STAND_INS.get(("" if node.domain == "ai.onnx" else node.domain, node.op_type))
    return find(node) if find is not None else None
