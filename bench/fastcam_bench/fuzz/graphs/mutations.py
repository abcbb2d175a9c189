"""What can be wrong with a model, one function a kind: each changes a sound one in place."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

Mutation = Callable[[onnx.ModelProto, np.random.Generator], None]
T = TypeVar("T")

NUMBERS = (0, 1, -1, 2, 3, 7, 255, 65536, 2**31 - 1, 2**31, -(2**31), 2**32, 2**40, 2**62, 2**63 - 1, -(2**63))
KINDS = (0, *range(1, 24), 99, 2**31 - 1)
"""Of elements: floats, integers, text, bool, halves, complex, float8, int4, what a newer ONNX has, and none."""
TEXTS = ("", " ", "x", "feat", "nowhere", "a\nb", "\0", "ж" * 40, "n" * 5000, "../../etc/passwd", "fastcam.classes")
OPERATORS = (
    "Add", "ArgMax", "Cast", "Concat", "ConstantOfShape", "Conv", "ConvTranspose", "CumSum", "Dropout", "Einsum",
    "Expand", "Flatten", "Gather", "Gemm", "GridSample", "Identity", "If", "Loop", "LSTM", "MatMul", "MaxPool",
    "MaxUnpool", "NonMaxSuppression", "NoSuch", "NonZero", "OneHot", "Optional", "Pad", "QLinearConv", "RandomNormal",
    "Range", "ReduceMean", "Relu", "Reshape", "Resize", "Scan", "ScatterND", "SequenceConstruct", "SequenceEmpty",
    "Shape", "Size", "Slice", "Softmax", "Split", "SplitToSequence", "Squeeze", "StringNormalizer", "Tile", "TopK",
    "Transpose", "Unsqueeze", "Where",
)  # fmt: skip
DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc", "own", "no.such", "ж")
PLACES = ("", "nowhere.bin", "../../../../etc/passwd", "/etc/passwd", "/dev/zero", ".", "m.onnx", "a\0b", "n" * 5000)


def one(random: np.random.Generator, of: Sequence[T]) -> T:
    """One of them."""
    return of[int(random.integers(len(of)))]


def some(random: np.random.Generator, of: Sequence[T]) -> T | None:
    """One of them, None where there is none."""
    return one(random, of) if len(of) else None


def values(graph: onnx.GraphProto) -> list[str]:
    """The names in a graph."""
    names = [name for node in graph.node for name in (*node.input, *node.output)]
    return [*names, *(each.name for each in (*graph.input, *graph.output, *graph.initializer)), "nowhere", ""]


def graphs(model: onnx.ModelProto) -> list[onnx.GraphProto]:
    """The graph and the bodies in it."""
    found = [model.graph]
    for graph in found:
        found += [a.g for node in graph.node for a in node.attribute if a.HasField("g")]
    return found


# ---- nodes


def rewired(model: onnx.ModelProto, random: np.random.Generator) -> None:
    """A node reads or makes something else: cycles, values made twice, names that nobody makes."""
    graph = one(random, graphs(model))
    node = some(random, graph.node)
    if node is None:
        return
    names = node.input if random.random() < 0.7 else node.output
    how, name = random.integers(4), one(random, values(model.graph))
    if how == 0 or not names:
        names.append(name)
    elif how == 1:
        names.pop(int(random.integers(len(names))))
    else:
        names[int(random.integers(len(names)))] = name


def listed_otherwise(model: onnx.ModelProto, random: np.random.Generator) -> None:
    """A node missing, twice, or in another place; or none left."""
    nodes = one(random, graphs(model)).node
    if not nodes:
        return
    i, j = random.integers(len(nodes), size=2)
    copies = list(nodes)
    how = random.integers(10)
    if how < 3:
        copies.pop(i)
    elif how < 6:
        copies.insert(j, copies[i])
    elif how < 9:
        copies[i], copies[j] = copies[j], copies[i]
    else:
        copies = []
    made = [onnx.NodeProto.FromString(each.SerializeToString()) for each in copies]
    del nodes[:]
    nodes.extend(made)


def another_operator(model: onnx.ModelProto, random: np.random.Generator) -> None:
    """A node of another kind, domain or name."""
    node = some(random, one(random, graphs(model)).node)
    if node is not None and random.random() < 0.7:
        node.op_type = one(random, OPERATORS)
    elif node is not None:
        node.domain, node.name = one(random, DOMAINS), one(random, TEXTS)


def grown(model: onnx.ModelProto, random: np.random.Generator) -> None:
    """A value that would take more memory than there is, added to one that is read."""
    node = some(random, model.graph.node)
    if node is None or not node.input:
        return
    sizes = [one(random, NUMBERS) for _ in range(int(random.integers(1, 4)))]
    model.graph.initializer.append(numpy_helper.from_array(np.array(sizes, np.int64), "bomb.sizes"))
    count = numpy_helper.from_array(np.array([0, one(random, NUMBERS), 1], np.int64), "bomb.count")
    read = node.input[0]
    made = [
        [helper.make_node("ConstantOfShape", ["bomb.sizes"], ["bomb"])],
        [helper.make_node("Expand", [read, "bomb.sizes"], ["bomb"])],
        [helper.make_node("Tile", [read, "bomb.sizes"], ["bomb"])],
        [helper.make_node("Resize", [read, "", "", "bomb.sizes"], ["bomb"])],
        [helper.make_node("RandomNormal", [], ["bomb"], shape=sizes)],
        [helper.make_node("Pad", [read, "bomb.sizes"], ["bomb"])],
        [
            helper.make_node("Split", ["bomb.count"], ["b0", "b1", "b2"], axis=0, num_outputs=3),
            *(helper.make_node("Squeeze", [f"b{i}"], [f"s{i}"]) for i in range(3)),
            helper.make_node("Range", ["s0", "s1", "s2"], ["range"]),
            helper.make_node("Cast", ["range"], ["bomb"], to=TensorProto.FLOAT),
        ],
    ]  # fmt: skip
    model.graph.initializer.append(count)
    nodes = [*one(random, made), helper.make_node("ReduceMax", ["bomb"], ["largest"], keepdims=0)]
    nodes.append(helper.make_node("Add", [read, one(random, ["bomb", "largest"])], ["grown"]))
    for at, each in enumerate(model.graph.node):
        if each == node:
            node.input[0] = "grown"
            for new in reversed(nodes):
                model.graph.node.insert(at, new)
            return


# ---- attributes


def another_attribute(model: onnx.ModelProto, random: np.random.Generator) -> None:
    """An attribute of another type or value, one that is none, the same twice, or one less."""
    node = some(random, [node for node in model.graph.node if node.attribute] or model.graph.node)
    if node is None:
        return
    attribute = some(random, node.attribute)
    if attribute is None or random.random() < 0.1:
        node.attribute.append(helper.make_attribute(one(random, ["axis", "pads", "to", "body", "none"]), 3))
        return
    name, how = attribute.name, random.integers(8)
    numbers = [one(random, NUMBERS) for _ in range(int(random.integers(0, 5)))]
    if how == 0:
        attribute.type = int(random.integers(0, 15))
    elif how == 1:
        node.attribute.append(attribute)
    elif how == 2:
        attribute.name = one(random, TEXTS)
    elif how == 3:
        attribute.Clear()
    elif how < 6 and attribute.HasField("i"):
        attribute.i = one(random, NUMBERS)
    elif how < 6 and len(attribute.ints):
        attribute.ints[:] = numbers
    elif attribute.HasField("t"):
        damaged(attribute.t, random)
    else:
        made: list[Any] = [
            float("nan"),
            numbers or [1.5],
            "\0",
            b"\xff\xfe",
            [b"\xff"],
            helper.make_graph([], "", [], []),
        ]
        attribute.CopyFrom(helper.make_attribute(name or "a", one(random, made)))


def references(model: onnx.ModelProto, random: np.random.Generator) -> None:
    """An attribute that refers to one of a function, outside of any."""
    node = some(random, model.graph.node)
    if node is not None:
        node.attribute.append(AttributeProto(name="axis", ref_attr_name="nowhere", type=AttributeProto.INT))


# ---- weights


def damaged(tensor: TensorProto, random: np.random.Generator) -> None:
    """A tensor of another type, shape or length, with what is no number, or elsewhere."""
    how = random.integers(9)
    if how == 0:
        tensor.data_type = one(random, KINDS)
    elif how == 1 and tensor.dims:
        tensor.dims[int(random.integers(len(tensor.dims)))] = one(random, NUMBERS)
    elif how == 2:
        tensor.dims[:] = [one(random, NUMBERS) for _ in range(int(random.integers(0, 5)))]
    elif how == 3:
        tensor.raw_data = tensor.raw_data[: int(random.integers(len(tensor.raw_data) + 1))]
    elif how == 4:
        tensor.raw_data += bytes(int(random.integers(1, 9)))
    elif how == 5:
        tensor.float_data.extend([1.0, float("nan")])
    elif how == 6:
        ends = (b"\xff" * 4, b"\x00\x00\x80\x7f", b"\x00\x00\xc0\x7f")
        tensor.raw_data = one(random, ends) + tensor.raw_data[4:]
    elif how == 7:
        tensor.name = one(random, TEXTS)
    else:
        elsewhere(tensor, random)


def elsewhere(tensor: TensorProto, random: np.random.Generator) -> None:
    """A tensor whose content is in another file, or should be."""
    tensor.data_location = TensorProto.EXTERNAL
    if random.random() < 0.5:
        tensor.ClearField("raw_data")
    for key in ("location", "offset", "length", "checksum"):
        if random.random() < 0.7:
            numbers = [str(one(random, NUMBERS)), "ten", "1e9", "9" * 400]
            tensor.external_data.add(key=key, value=one(random, PLACES if key == "location" else numbers))


def another_weight(model: onnx.ModelProto, random: np.random.Generator) -> None:
    """A weight that is damaged, missing, twice or sparse."""
    graph = model.graph
    tensor = some(random, graph.initializer)
    if tensor is None:
        return
    how = random.random()
    if how < 0.75:
        damaged(tensor, random)
    elif how < 0.82:
        graph.initializer.remove(tensor)
    elif how < 0.89:
        graph.initializer.append(tensor)
    else:
        sparse = graph.sparse_initializer.add()
        sparse.values.CopyFrom(numpy_helper.from_array(np.ones(2, np.float32), tensor.name))
        sparse.indices.CopyFrom(numpy_helper.from_array(np.array([0, one(random, NUMBERS)]), "i"))
        sparse.dims.extend(tensor.dims if random.random() < 0.5 else [one(random, NUMBERS)])
        if random.random() < 0.7:
            graph.initializer.remove(tensor)


# ---- inputs and outputs


def another_value(model: onnx.ModelProto, random: np.random.Generator) -> None:
    """An input, an output or a note of another type, shape or name; missing, twice, or of a further one."""
    graph = one(random, graphs(model))
    group = one(random, [graph.input, graph.input, graph.output, graph.value_info])
    value, how = some(random, group), random.integers(12)
    if value is None or how == 0:
        shape = [one(random, NUMBERS) for _ in range(int(random.integers(0, 5)))]
        group.append(helper.make_tensor_value_info(one(random, [*values(graph), "more"]), one(random, KINDS), shape))
    elif how == 1:
        value.type.tensor_type.elem_type = one(random, KINDS)
    elif how < 6 and value.type.tensor_type.shape.dim:
        dim = one(random, value.type.tensor_type.shape.dim)
        if random.random() < 0.7:
            dim.dim_value = one(random, NUMBERS)
        else:
            dim.dim_param = one(random, TEXTS)
    elif how == 6:
        one(random, [value.type.Clear, lambda: value.type.tensor_type.ClearField("shape")])()
    elif how == 7:
        value.name = one(random, [*values(graph), *TEXTS])
    elif how == 8:
        group.remove(value)
    elif how == 9:
        group.append(value)
    elif how == 10:
        inner = helper.make_tensor_type_proto(one(random, KINDS), [1])
        kinds = (
            helper.make_sequence_type_proto(inner), helper.make_optional_type_proto(inner),
            helper.make_map_type_proto(7, inner), helper.make_sparse_tensor_type_proto(1, [2]),
        )  # fmt: skip
        value.type.CopyFrom(one(random, kinds))
    else:
        value.type.tensor_type.shape.dim.add(dim_value=one(random, NUMBERS))


# ---- the file


def another_version(model: onnx.ModelProto, random: np.random.Generator) -> None:
    """Another version of the format or of operators, of a domain that is unknown, missing or twice."""
    how = random.integers(4)
    if how == 0:
        model.ir_version = one(random, NUMBERS)
    elif how == 1 and model.opset_import:
        model.opset_import[0].version = one(random, (*NUMBERS, 7, 8, 9, 11, 13, 17, 21, 23, 25))
    elif how == 2:
        del model.opset_import[:]
    else:
        model.opset_import.add(domain=one(random, DOMAINS), version=one(random, NUMBERS))


def functions(model: onnx.ModelProto, random: np.random.Generator) -> None:
    """Functions that call themselves or each other, take something else, stand in for an operator, or double."""
    node = some(random, model.graph.node)
    if node is None:
        return
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    first, second = "F", one(random, ["F", "G"])
    bodies = [(first, second), (second, first)]
    if random.random() < 0.3:  # each calls the next one twice
        bodies = [(f"F{i or ''}", f"F{i + 1}") for i in range(int(random.integers(2, 40)))]
        first = "F"
    for name, called in bodies:
        calls = [
            helper.make_node(called, ["a"], ["b"], domain="own"), helper.make_node(called, ["b"], ["c"], domain="own")
        ]  # fmt: skip
        inputs = ["a"] if random.random() < 0.8 else ["a", "b"]
        model.functions.append(helper.make_function("own", name, inputs, ["c"], calls, opsets))
    if random.random() < 0.2:
        model.functions[-1].domain, model.functions[-1].name = "", node.op_type
    if "own" not in [each.domain for each in model.opset_import]:
        model.opset_import.add(domain="own", version=1)
    del node.attribute[:]
    node.op_type, node.domain = first, "own"


def notes(model: onnx.ModelProto, random: np.random.Generator) -> None:
    """What a file says of itself: names of classes, sizes, FastCAM's own metadata, an empty name."""
    huge = "9" * 4000
    said = {
        "names": ("{0: 'a'", "{0: 'a', -1: 'b'}", f"{{{huge}: 'a'}}", "[" * 5000, "{'a': 0}", "null", "x()"),
        "imgsz": ("[0, 0]", f"[{huge}, 3]", "[65536, 65536]", "[-1, 3]", "ten", "[1099511627776, 1099511627776]"),
        "fastcam": ("", "{}", '{"schema": 1}', '{"schema": "' + huge + '"}', "[" * 5000, "null", '{"schema": 1e999}'),
        "classes": ("a,b", "[]", '["a"]', '{"0": 1}'),
    }  # fmt: skip
    key = one(random, tuple(said))
    model.metadata_props.add(key=key, value=one(random, said[key]))


def own_metadata(model: onnx.ModelProto, random: np.random.Generator) -> None:
    """A lie in the metadata of an exported file: a field that is missing, or of another type or value."""
    entry = next((each for each in model.metadata_props if each.key == "fastcam"), None)
    if entry is None:
        return notes(model, random)
    try:
        said = json.loads(entry.value)
    except (ValueError, RecursionError):
        return None
    holder = said
    for _ in range(int(random.integers(1, 4))):
        inner = holder[one(random, list(holder))] if isinstance(holder, dict) and holder else None
        if not isinstance(inner, dict) or not inner:
            break
        holder = inner
    if isinstance(holder, dict) and holder:
        name = one(random, list(holder))
        lies: tuple[Any, ...] = (
            *NUMBERS,
            *TEXTS,
            None,
            True,
            0.5,
            float("nan"),
            float("inf"),
            [],
            [0],
            ["a", 1],
            {},
            {"a": {}},
            [[[]]],
        )
        if random.random() < 0.15:
            del holder[name]
        else:
            holder[name] = one(random, lies)
    entry.value = json.dumps(said)
    return None


MUTATIONS: tuple[Mutation, ...] = (
    rewired, rewired, listed_otherwise, another_operator, another_operator, grown, another_attribute, another_attribute,
    references, another_weight, another_weight, another_value, another_value, another_version, functions, own_metadata,
)  # fmt: skip


def mutated(model: onnx.ModelProto, random: np.random.Generator) -> bytes:
    """The bytes of ``model`` with one to three mutations; of some a name that is no text."""
    for _ in range(int(random.choice([1, 1, 1, 2, 3]))):
        one(random, MUTATIONS)(model, random)
    data: bytes = model.SerializeToString()
    if random.random() < 0.03:
        names = [name for name in values(model.graph) if len(name) > 1]
        name = one(random, names).encode() if names else b"x"
        data = data.replace(name, b"\xcf" + name[1:-1] + b"\xff")
    return data


def bytes_changed(data: bytes, random: np.random.Generator) -> bytes:
    """Some bytes changed, removed, repeated, or all behind a place cut off."""
    made = bytearray(data)
    for _ in range(int(random.integers(1, 6))):
        if not made:
            break
        at, how = int(random.integers(len(made))), random.integers(7)
        length = int(random.integers(1, 9))
        if how < 3:
            made[at] = int(random.integers(256))
        elif how == 3:
            del made[at : at + length]
        elif how == 4:
            made[at:at] = made[at : at + length] * int(random.integers(1, 4))
        elif how == 5:
            made[at : at + length] = random.bytes(length)
        elif random.random() < 0.2:
            del made[at:]
    return bytes(made)
