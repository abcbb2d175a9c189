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


def _sum_too(node: NodeProto) -> list[NodeProto]:
    """As :func:`_like_first`, and the fourth output has the type and shape of the first."""
    more = [helper.make_node("Identity", node.input[:1], node.output[3:4])] if len(node.output) > 3 else []
    return [*_like_first(node), *more]


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


MICROSOFT = "com.microsoft"
POOL = ("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides")
WINDOW = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
STAND_INS: dict[tuple[str, str], StandIn] = {
    ("", "GroupNormalization"): _like_first,
    ("", "MaxUnpool"): _unpooled,
    ("", "MeanVarianceNormalization"): _like_first,
    **{(MICROSOFT, name): _like_first for name in ("Gelu", "BiasGelu", "FastGelu", "QuickGelu", "BiasAdd")},
    (MICROSOFT, "SkipLayerNormalization"): _sum_too,
    (MICROSOFT, "SkipSimplifiedLayerNormalization"): _sum_too,
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
    nodes = list(model.graph.node)
    stood_in = [_stand_in(node) for node in nodes]
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
