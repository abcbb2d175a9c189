"""Clean-up passes: each does what its name says, on FastCAM's own nodes, and results stay what they are."""

from importlib.resources import files

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from fastcam import schema
from fastcam_export import export_model, vjp
from fastcam_export.graph import cleanup
from support.models.small_models import classifier
from support.rules.runs import run

FIXED, FREE = (2, 3, 4), ("N", 3, 4)
X = np.random.default_rng(0).standard_normal(FIXED).astype(np.float32)
CONSTANTS = {
    "flat": np.array([-1, 12]),
    "back": np.array([-1, 3, 4]),
    "other": np.array([-1, 4, 3]),
    "as it was": np.array([0, 12]),
    "one": np.array([1], np.float32),
    "zero": np.array(0, np.float32),
    "integer zero": np.array(0),
    "wide one": np.ones((1, 1, 1, 1), np.float32),
    "two": np.array([2], np.float32),
    "again": np.array([2], np.float32),
    "open": np.array([-1]),
}
WEIGHT = np.arange(12, dtype=np.float32).reshape(3, 4)


def made(*nodes, dims=FREE, own=True, outputs=("y",)):
    """A graph of nodes (operator, inputs, output, attributes) that FastCAM added, or that are the model's own."""
    prefix = schema.PREFIX if own else ""
    known = {*(name for _, _, name, *_ in nodes), *CONSTANTS} - set(outputs)
    name = lambda n: prefix + n if n in known else n  # noqa: E731
    protos = [
        helper.make_node(op_type, [name(i) for i in inputs], [name(output)], prefix + f"node_{k}", **dict(*more))
        for k, (op_type, inputs, output, *more) in enumerate(nodes)
    ]
    read = {i for node in protos for i in node.input}
    tensors = [numpy_helper.from_array(a, name(n)) for n, a in CONSTANTS.items() if name(n) in read]
    tensors += [numpy_helper.from_array(WEIGHT, "w")] if "w" in read else []
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)]
    if schema.TARGETS in read:
        inputs.append(helper.make_tensor_value_info(schema.TARGETS, TensorProto.INT64, ["rows", "T"]))
    graph = helper.make_graph(protos, "g", inputs, [helper.make_empty_tensor_value_info(o) for o in outputs], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def cleaned(model, *which):
    """The model behind some of the passes (all where none is named), and whether they say to have changed it."""
    parsed = ir.from_proto(model)
    changed = [each(parsed.graph, {*parsed.graph.outputs}) for each in which] if which else cleanup.tidy(parsed.graph)
    return ir.to_proto(parsed), changed


def same_results(before, after):
    feeds = {"x": X, schema.TARGETS: np.array([[1, 2, 0]])}
    ours, theirs = run(after, feeds), run(before, feeds)
    assert ours.keys() == theirs.keys()
    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in theirs)


def kinds(model):
    return [node.op_type for node in model.graph.node]


TRANSPOSES = (("Transpose", ["x"], "a", {"perm": [2, 0, 1]}), ("Transpose", ["a"], "b", {"perm": [0, 2, 1]}))
TIDY = [
    ("remove_unused", [("Exp", ["x"], "a"), ("Neg", ["a"], "b"), ("Abs", ["x"], "y")], ["Abs"]),
    (
        "fold_known",
        [("Shape", ["x"], "a", {"start": 1, "end": 3}), ("Concat", ["open", "a"], "s", {"axis": 0}),
         ("Reshape", ["x", "s"], "r"), ("Expand", ["r", "a"], "y")],
        ["Expand"],
    ),
    (
        "share_dimensions",
        [("Abs", ["x"], "a"), ("Shape", ["a"], "n", {"start": 0, "end": 1}),
         ("Shape", ["x"], "m", {"start": 0, "end": 1}), ("Concat", ["n", "m"], "y", {"axis": 0})],
        ["Shape", "Concat"],
    ),
    ("share_common", [("Exp", ["x"], "a"), ("Exp", ["x"], "b"), ("Add", ["a", "b"], "y")], ["Exp", "Add"]),
    (
        "share_common",
        [("Mul", ["x", "two"], "a"), ("Mul", ["x", "again"], "b"), ("Add", ["a", "b"], "y")],
        ["Mul", "Add"],
    ),
    ("merge_transposes", [*TRANSPOSES, ("Abs", ["b"], "y")], ["Transpose", "Abs"]),
    (
        "merge_reshapes",
        [("Reshape", ["x", "flat"], "a"), ("Reshape", ["a", "other"], "b"), ("Abs", ["b"], "y")],
        ["Reshape", "Abs"],
    ),
    (
        "remove_identities",
        [("Reshape", ["x", "back"], "a"), ("Mul", ["a", "one"], "b"), ("Sub", ["b", "zero"], "c"),
         ("Div", ["c", "one"], "d"), ("Cast", ["d"], "e", {"to": 1}), ("Identity", ["e"], "f"),
         ("Transpose", ["f"], "g", {"perm": [0, 1, 2]}), ("Abs", ["g"], "y")],
        ["Abs"],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "nodes", "left"), TIDY)
def test_each_pass_is_needed_and_keeps_results(name, nodes, left, monkeypatch):
    before = made(*nodes)
    after, _ = cleaned(before)
    same_results(before, after)
    assert kinds(after) == left
    monkeypatch.setattr(cleanup, "PASSES", tuple(each for each in cleanup.PASSES if each.__name__ != name))
    without, _ = cleaned(before)
    same_results(before, without)
    assert len(kinds(without)) > len(left)


@pytest.mark.parametrize(("name", "nodes", "left"), TIDY)
def test_nodes_of_the_model_are_left_as_they_are(name, nodes, left):
    before = made(*nodes, own=False)
    after, _ = cleaned(before)
    assert list(after.graph.node) == list(before.graph.node)
    assert list(after.graph.initializer) == list(before.graph.initializer)


KEPT = [
    [("Reshape", ["x", "flat"], "a"), ("Reshape", ["a", "as it was"], "y")],  # the zero means the axis of a
    [("Mul", ["x", "wide one"], "y")],  # which adds an axis
    [("Add", ["x", "zero"], "y")],  # which makes -0.0 to 0.0
    [("Reshape", ["x", "other"], "y")],
    [("Cast", ["x"], "y", {"to": 11})],
    [("RandomUniformLike", ["x"], "a"), ("RandomUniformLike", ["x"], "b"), ("Sub", ["a", "b"], "y")],
    [("Identity", ["x"], "y")],  # an output
]


@pytest.mark.parametrize("nodes", KEPT)
def test_what_is_not_the_same_stays(nodes):
    before = made(*nodes)
    after, _ = cleaned(before)
    assert kinds(after) == kinds(before)


def test_a_pass_that_finds_nothing_says_so():
    model = made(("Transpose", ["x"], "a", {"perm": [1, 0, 2]}), ("Mul", ["a", "w"], "y"), dims=(3, 2, 4))
    after, changed = cleaned(model, *cleanup.PASSES)
    assert not any(changed) and kinds(after) == kinds(model)


def test_named_values_keep_their_names():
    """Which are read under these names though they are no outputs."""
    model = ir.from_proto(made(("Identity", ["x"], "a"), ("Identity", ["a"], "b"), ("Abs", ["b"], "y")))
    cleanup.tidy(model.graph, [model.graph[0].outputs[0]])
    assert [node.name for node in model.graph] == ["fastcam.node_0", "fastcam.node_2"]


def test_the_number_of_targets_is_no_dimension_of_the_model():
    """A model's own axis may be called T."""
    nodes = [
        ("Shape", ["x"], "n", {"start": 0, "end": 1}),
        ("Shape", [schema.TARGETS], "t", {"start": 1, "end": 2}),
        ("Concat", ["t", "n"], "y", {"axis": 0}),
    ]
    before = made(*nodes, dims=("T", 3, 4))
    after, _ = cleaned(before)
    assert kinds(after) == ["Shape", "Shape", "Concat"]
    assert run(after, {"x": X, schema.TARGETS: np.array([[1, 2, 0]])})["y"].tolist() == [3, 2]


def test_a_reshape_to_a_shape_with_the_number_of_targets_is_merged():
    nodes = [
        ("Reshape", ["x", "flat"], "a"),
        ("Shape", [schema.TARGETS], "t", {"start": 1, "end": 2}),
        ("Concat", ["t", "flat"], "s", {"axis": 0}),
        ("Reshape", ["a", "s"], "b"),
        ("Abs", ["b"], "y"),
    ]
    before = made(*nodes)
    after, _ = cleaned(before)
    assert kinds(after) == ["Shape", "Concat", "Reshape", "Abs"]
    feeds = {"x": X, schema.TARGETS: np.array([[1, 2]])}
    assert run(after, feeds)["y"].tobytes() == run(before, feeds)["y"].tobytes()


def attention(seed=0):
    """image [N, 3, 8, 8] -> convolution -> tokens -> LayerNormalization, attention of two heads, mean -> logits."""
    rng = np.random.default_rng(seed)
    tensors = {"w": rng.standard_normal((8, 3, 2, 2)), "fc": rng.standard_normal((8, 5)), "scale": np.ones(8)}
    tensors |= {f"w{name}": rng.standard_normal((8, 8)) / 3 for name in "qkv"}
    shapes = {"tokens": np.array([0, 8, 16]), "heads": np.array([0, 16, 2, 4]), "joined": np.array([0, 16, 8])}
    node = helper.make_node
    nodes = [
        node("Conv", ["image", "w"], ["c"], strides=[2, 2]),
        node("Reshape", ["c", "tokens"], ["r"]),
        node("Transpose", ["r"], ["t"], perm=[0, 2, 1]),
        node("LayerNormalization", ["t", "scale"], ["n"]),
    ]
    for name in "qkv":
        nodes += [node("MatMul", ["n", f"w{name}"], [f"{name}1"]), node("Reshape", [f"{name}1", "heads"], [f"{name}2"])]
        nodes.append(node("Transpose", [f"{name}2"], [name], perm=[0, 2, 3, 1] if name == "k" else [0, 2, 1, 3]))
    nodes += [
        node("MatMul", ["q", "k"], ["s"]),
        node("Softmax", ["s"], ["p"]),
        node("MatMul", ["p", "v"], ["o"]),
        node("Transpose", ["o"], ["o1"], perm=[0, 2, 1, 3]),
        node("Reshape", ["o1", "joined"], ["o2"]),
        node("Add", ["o2", "t"], ["z"]),
        node("ReduceMean", ["z", "axes"], ["m"], keepdims=0),
        node("MatMul", ["m", "fc"], ["logits"]),
    ]
    arrays = {n: a.astype(np.float32) for n, a in tensors.items()} | shapes | {"axes": np.array([1])}
    graph = helper.make_graph(
        nodes,
        "attention",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 5])],
        [numpy_helper.from_array(a, n) for n, a in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def bundled():
    return onnx.load(str(files("fastcam") / "data" / "scenes.onnx"))


EXPORTS = {
    "bundled": lambda: export_model(bundled(), emit="gradients", check=False).model,
    "middle": lambda: export_model(classifier(), layer="r1", emit="gradients", check=False).model,
    "attention": lambda: export_model(attention(), layer="c", emit="gradients", check=False).model,
    "vjp": lambda: vjp(attention()),
}


@pytest.mark.parametrize("name", EXPORTS)
def test_exports_are_tidy_and_give_the_same_bits(name, monkeypatch):
    tidied = EXPORTS[name]()
    monkeypatch.setattr(cleanup, "PASSES", (cleanup.remove_unused,))
    plain = EXPORTS[name]()
    rng = np.random.default_rng(0)
    (image, *_) = plain.graph.input
    size = [3, *(dim.dim_value for dim in image.type.tensor_type.shape.dim[1:])]
    feeds = {
        image.name: rng.standard_normal(size).astype(np.float32),
        schema.TARGETS: np.array([[-1, 2], [0, 1], [1, -2]]),
    }
    feeds["cotangent.logits"] = rng.standard_normal((3, 5)).astype(np.float32)
    ours, theirs = run(tidied, feeds), run(plain, feeds)
    assert all(ours[key].tobytes() == theirs[key].tobytes() for key in theirs)
    models_own = [[node for node in m.graph.node if not node.name.startswith(schema.PREFIX)] for m in (tidied, plain)]
    assert models_own[0] == models_own[1]
    assert len(tidied.graph.node) <= len(plain.graph.node)
    if name == "attention":
        assert len(tidied.graph.node) < len(plain.graph.node)
