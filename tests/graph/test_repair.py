"""Files that ONNX Runtime runs although what they declare is wrong or missing: repaired, said, explained rightly."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import fastcam
from fastcam.schema import FastcamError
from fastcam_export import export_model, inspect_model
from fastcam_export.graph.load import load
from support.models.quantized import run_targets
from support.rules.runs import run

RNG = np.random.default_rng(0)
W, B = RNG.standard_normal((6, 3, 3, 3)).astype(np.float32) / 3, RNG.standard_normal(6).astype(np.float32)
FC, FB = RNG.standard_normal((6, 4)).astype(np.float32), RNG.standard_normal(4).astype(np.float32)
WEIGHTS = {"W": W, "B": B, "FC": FC, "FB": FB}
IMAGES = RNG.random((2, 3, 16, 16), dtype=np.float32)
node, value = helper.make_node, helper.make_tensor_value_info
BODY = [node("Conv", ["x", "W", "B"], ["c"], pads=[1, 1, 1, 1]), node("Relu", ["c"], ["feat"])]
HEAD = [
    node("GlobalAveragePool", ["feat"], ["g"]),
    node("Flatten", ["g"], ["v"]),
    node("Gemm", ["v", "FC", "FB"], ["y"]),
]


def net(nodes=(*BODY, *HEAD), x=("N", 3, 16, 16), y=("N", 4), notes=(), opset=13):
    graph = helper.make_graph(
        list(nodes),
        "g",
        [value("x", TensorProto.FLOAT, x)],
        [value("y", TensorProto.FLOAT, y)],
        [numpy_helper.from_array(array, name) for name, array in WEIGHTS.items()],
        value_info=list(notes),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def by_hand(target=1):
    """Grad-CAM at ``feat``: the pooled gradient is the column of the matrix over the map's area."""
    probe = net()
    probe.graph.output.append(value("feat", TensorProto.FLOAT, None))
    maps = run(probe, {"x": IMAGES})["feat"]
    return np.maximum(np.einsum("nkhw,k->nhw", maps, FC[:, target] / 256), 0)


def assert_explained(model, word, tmp_path, **options):
    """The export says what it repaired, and its file explains both pictures."""
    exported = export_model(model, tmp_path / "m.cam.onnx", layer="feat", **options)
    assert any(word in line for line in exported.summary()), exported.summary()
    assert any(word in text for text in inspect_model(model).repairs)
    found = fastcam.Explainer(tmp_path / "m.cam.onnx", "cpu")(IMAGES, targets=1)
    np.testing.assert_allclose(found.maps[:, 0], by_hand(), rtol=1e-4, atol=1e-6)


def backwards(model):
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def unnamed(model):
    model.graph.name = ""
    return model


def untyped(model):
    model.graph.output[0].ClearField("type")
    return model


def without_axes(model):
    model.graph.input[0].type.tensor_type.ClearField("shape")
    return model


def as_function(model):
    """The body in a function whose nodes stand in the wrong order."""
    model.functions.append(
        helper.make_function("own", "Body", ["x", "W", "B"], ["feat"], BODY[::-1], [helper.make_opsetid("", 13)])
    )
    del model.graph.node[:2]
    model.graph.node.insert(0, node("Body", ["x", "W", "B"], ["feat"], domain="own"))
    model.opset_import.append(helper.make_opsetid("own", 1))
    return model


def in_a_branch(model):
    """A head in the branches of an If, whose nodes stand in the wrong order."""
    branches = [
        helper.make_graph(
            [node("Gemm", ["v", "FC", "FB"], [f"out{i}"]), *HEAD[1::-1]], "b", [], [value(f"out{i}", 1, None)]
        )
        for i in range(2)
    ]
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    del model.graph.node[2:]
    model.graph.node.append(node("If", ["yes"], ["y"], then_branch=branches[0], else_branch=branches[1]))
    return model


STALE = [value("feat", TensorProto.FLOAT, [1, 6, 16, 16]), value("v", TensorProto.FLOAT, [1, 6])]
REPAIRED = {
    "sizes of a batch of one in value_info": (net(notes=STALE), "contradict"),
    "sizes of a batch of one at the output": (net(y=(1, 4)), "contradict"),
    "an output of another rank": (net(y=("N", 4, 1, 1)), "contradict"),
    "an output named after another axis": (net(x=("N", 3, "h", "w"), y=("h", 4)), "contradict"),
    "a batch of -1": (net(x=(-1, 3, 16, 16), y=(-1, 4)), "below zero"),
    "nodes backwards": (backwards(net()), "order"),
    "nodes of a function backwards": (as_function(net()), "order"),
    "nodes of a branch backwards": (in_a_branch(net()), "order"),
    "a graph without a name": (unnamed(net()), "named"),
    "an output without a type": (untyped(net()), "type of y"),
    "an input without axes": (without_axes(net()), "axes of x"),
}


@pytest.mark.parametrize("what", REPAIRED)
def test_a_file_that_runs_is_explained_and_the_repair_said(what, tmp_path):
    assert_explained(*REPAIRED[what], tmp_path)


def test_shapes_of_the_exported_file_are_those_of_a_run_and_so_are_those_on_demand(tmp_path):
    model = net(y=(1, 4), notes=STALE)
    exported = export_model(model, emit="gradients").model
    for output, array in zip(exported.graph.output, run(exported, {"x": IMAGES}).values()):
        dims = [d.dim_value or None for d in output.type.tensor_type.shape.dim]
        assert all(dim in (None, size) for dim, size in zip(dims, array.shape)) and len(array) == 2
    assert_explained(model, "contradict", tmp_path, on_demand=True)


def test_nothing_is_said_of_a_file_that_is_right():
    assert load(net()).repairs == () and load(net(y=("N", None))).repairs == ()
    assert load(net(x=(1, 3, 16, 16), y=(1, 4))).repairs == ()


def test_one_name_for_the_batch_and_the_height_is_two(tmp_path):
    """Sizes are read off the first axis of a name: here the batch would be taken for the height."""
    model = net(x=("N", 3, "N", "W"))
    del model.graph.node[2:4]
    model.graph.node.insert(2, node("ReduceMean", ["feat"], ["v"], axes=[2, 3], keepdims=0))
    assert_explained(model, "told apart", tmp_path)


def test_an_import_that_is_missing_is_added(tmp_path):
    model = net()
    model.graph.node[1].CopyFrom(node("Gelu", ["c"], ["feat"], domain="com.microsoft"))
    exported = export_model(model, layer="c")
    assert any("com.microsoft" in line for line in exported.summary()) and exported.check["bit_identical"]
    bare = net()
    del bare.opset_import[:]
    loaded = load(bare)
    assert "ai.onnx" in loaded.repairs[0] and loaded.model.graph.opset_imports[""] == 18


def test_nodes_that_wait_for_each_other_are_refused():
    model = net()
    model.graph.node[0].input[0] = "y"
    with pytest.raises(FastcamError, match="circle"):
        load(model)


def test_weights_listed_as_inputs_and_nodes_of_one_name_are_no_hindrance(tmp_path):
    model = net()
    model.graph.input.extend(value(name, TensorProto.FLOAT, array.shape) for name, array in WEIGHTS.items())
    for each in model.graph.node:
        each.name = "same"
    assert_explained(model, "4 nodes named apart", tmp_path)


MOVES = {
    "Transpose": ([node("Transpose", ["x"], ["m"], perm=[0, 3, 1, 2])], (2, 16, 16, 3)),
    "Gather": ([node("Gather", ["x", "bgr"], ["m"], axis=1)], (2, 3, 16, 16)),
    "Slice and Pad": (
        [node("Slice", ["x", "i0", "i9", "ax"], ["s"]), node("Pad", ["s", "pads"], ["m"])],
        (2, 3, 16, 18),
    ),
    "Concat": (
        [node("Split", ["x", "parts"], ["a", "b"], axis=1), node("Concat", ["b", "a"], ["m"], axis=1)],
        (2, 3, 16, 16),
    ),
    "Reshape and Resize": (
        [node("Reshape", ["x", "sh"], ["r"]), node("Resize", ["r", "", "two"], ["m"], mode="nearest")],
        (2, 3, 4, 16),
    ),
}
EXTRA = {
    "bgr": np.array([2, 1, 0]), "i0": np.array([0]), "i9": np.array([16]), "ax": np.array([3]),
    "pads": np.array([0] * 8), "parts": np.array([1, 2]), "sh": np.array([-1, 3, 8, 8]),
    "two": np.float32([1, 1, 2, 2]),
}  # fmt: skip


@pytest.mark.parametrize("moves", MOVES)
def test_a_picture_of_bytes_may_be_moved_before_it_is_made_a_float(moves):
    nodes, shape = MOVES[moves]
    cast = [node("Cast", ["m"], ["f"], to=TensorProto.FLOAT), node("Conv", ["f", "W", "B"], ["c"], pads=[1, 1, 1, 1])]
    model = net([*nodes, *cast, BODY[1], *HEAD])
    model.graph.input[0].CopyFrom(value("x", TensorProto.UINT8, ["N", *shape[1:]]))
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in EXTRA.items())
    exported = export_model(model)
    assert exported.metadata.layer.value == "feat" and exported.check["gradient_error"] < 1e-4
    pixels = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
    got = run_targets(exported.model, {"x": pixels, "fastcam.targets": np.array([[2]])})
    np.testing.assert_allclose(got["fastcam.weights"], np.tile(FC[:, 2] / 256, (2, 1, 1)), rtol=1e-5)


@pytest.mark.parametrize("opset", [13, 18])
def test_an_output_without_a_shape_is_read_off_the_graph(tmp_path, opset):
    model = net(y=None, opset=opset)
    assert not model.graph.output[0].type.tensor_type.HasField("shape")
    exported = export_model(model, tmp_path / "m.cam.onnx", layer="feat")
    assert exported.metadata.score.classes == 4 and not exported.repairs
    found = fastcam.Explainer(tmp_path / "m.cam.onnx", "cpu")(IMAGES, targets=1)
    np.testing.assert_allclose(found.maps[:, 0], by_hand(), rtol=1e-4, atol=1e-6)
