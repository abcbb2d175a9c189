"""What an engine does not read is refused or reported, and the list of what it reads is whole."""

import re

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from fastcam.schema import FastcamError
from fastcam_export import export_model, inspect_model
from fastcam_export.artifacts import engines
from support.models.chains import Builder
from support.models.small_models import CLASSES, classifier
from support.rules.explained import noise


def test_the_models_own_nodes_are_reported():
    builder = Builder().node("MaxPool", kernel_shape=[2, 2], dilations=[2, 2]).node("Sigmoid").mean()
    made = export_model(builder.model(), layer="map", for_engine="tensorrt")
    assert made.engine == (
        "TensorRT 10.15: it does not read MaxPool of the model itself (1x): its dilations must be one",
    )
    assert any("warning: " + made.engine[0] in line for line in made.summary())
    assert inspect_model(builder.model(), for_engine="tensorrt").engine == made.engine
    assert inspect_model(builder.model()).engine == ()


def test_an_opset_that_the_engine_does_not_read_is_reported():
    made = export_model(classifier(25), for_engine="tensorrt", check=False)
    assert made.engine == ("TensorRT 10.15: it reads opsets 9 to 24, the model has 25",)


def scoring(*nodes, weights=(), classes=CLASSES, image=("N", 3, 4, 4)):
    """A model whose nodes lead from "image" to "scores"."""
    made = [helper.make_node(*node[:3], **(node[3] if len(node) > 3 else {})) for node in nodes]
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, image)]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", classes])]
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in dict(weights).items()]
    graph = helper.make_graph(made, "scoring", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def test_an_added_node_that_the_engine_does_not_read_is_refused():
    """CumProd is in no list of TensorRT's, nor is the Det whose gradient needs Det again."""
    model = scoring(
        ("Relu", ["image"], ["map"]),
        ("Det", ["map"], ["volume"]),
        ("MatMul", ["volume", "w"], ["scores"]),
        weights={"w": noise(3, CLASSES)},
    )
    with pytest.raises(FastcamError) as caught:
        export_model(model, layer="map", for_engine="tensorrt", check=False)
    assert re.search(r"the gradient needs .*Det.*TensorRT 10.15 does not read .*later layer", str(caught.value))
    assert "\n" not in str(caught.value)


def test_a_sum_whose_axes_only_the_run_time_knows_is_one_over_known_axes():
    """Whether the mask, of free height, is broadcast over the map's, the engine's builder cannot know."""
    model = scoring(
        ("Relu", ["image"], ["map"]),
        ("Slice", ["map", "zero", "mostly", "rows"], ["part"]),
        ("Add", ["part", "map"], ["both"]),
        ("GlobalAveragePool", ["both"], ["mean"]),
        ("Flatten", ["mean"], ["flat"]),
        ("MatMul", ["flat", "w"], ["scores"]),
        weights={
            "w": noise(3, CLASSES),
            "zero": np.array([0]),
            "mostly": np.array([2**31]),
            "rows": np.array([2]),
        },
        image=("N", 3, "H", "W"),
    )
    made = export_model(model, layer="map", for_engine="tensorrt", check=False).model
    assert any(node.op_type == "ReduceSum" for node in made.graph.node)  # a computed axis is one that it does not read


def test_an_unknown_number_of_classes_is_refused():
    model = scoring(
        ("Relu", ["image"], ["map"]),
        ("GlobalAveragePool", ["map"], ["mean"]),
        ("Flatten", ["mean"], ["scores"]),
        classes="C",
        image=("N", "C", 4, 4),
    )
    with pytest.raises(FastcamError, match=r"number of classes .* fixed number of classes") as caught:
        export_model(model, layer="map", for_engine="tensorrt", check=False)
    assert "\n" not in str(caught.value)


def test_an_unknown_engine_is_refused():
    with pytest.raises(FastcamError, match="for_engine is 'openvino'; it must be one of: onnxruntime, cuda, tensorrt"):
        export_model(classifier(), for_engine="openvino")
    with pytest.raises(FastcamError, match="for_engine"):
        inspect_model(classifier(), for_engine="openvino")


def graph_of(op_type, inputs, outputs=("y",), constants=(), dtype=TensorProto.FLOAT, shape=(2, 3, 8, 8), **attributes):
    values = [
        helper.make_tensor_value_info(name, dtype, shape) for name in inputs if name and name not in dict(constants)
    ]
    tensors = [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in dict(constants).items()]
    made = [helper.make_empty_tensor_value_info(name) for name in outputs]
    graph = helper.make_graph([helper.make_node(op_type, inputs, outputs, **attributes)], "one", values, made, tensors)
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])).graph


RESTRICTED = {
    "not in its list": (graph_of("Col2Im", ["x", "a", "b"]), "not in its list of operators"),
    "a type": (graph_of("Relu", ["x"], dtype=TensorProto.INT8), "it does not take INT8"),
    "a constant": (graph_of("ReduceSum", ["x", "axes"]), "its input 1 must be a constant"),
    "a bound": (graph_of("TopK", ["x", "k"], ["v", "i"], {"k": [3840]}), "its input 1 must be a constant below 3840"),
    "outputs": (graph_of("MaxPool", ["x"], ["y", "i"], kernel_shape=[2, 2]), "only its first 1 output(s) can be used"),
    "ones": (graph_of("AveragePool", ["x"], kernel_shape=[2, 2], dilations=[2, 1]), "its dilations must be one"),
    "ranks": (
        graph_of("MaxPool", ["x"], shape=(2, 3, 8), kernel_shape=[2]),
        "its input has 3 axes, not 4 or 5",
    ),
    "values": (
        graph_of("ScatterND", ["x", "i", "u"], reduction="add"),
        "its reduction must be none",
    ),
    "zero": (
        graph_of("QuantizeLinear", ["x", "s", "z"], constants={"s": np.float32(1), "z": np.uint8(3)}),
        "its input 2 must be zero",
    ),
    "read": (graph_of("TopK", ["x", "k"], ["v", "i"], {"k": [3839]}), None),
    "read, int64": (graph_of("Add", ["x", "x"], dtype=TensorProto.INT64), None),
}


@pytest.mark.parametrize("what", RESTRICTED)
def test_restrictions(what):
    graph, reason = RESTRICTED[what]
    assert [why for _, why in engines.refused(graph, "tensorrt")] == ([] if reason is None else [reason])
    assert engines.refused(graph, "onnxruntime") == []


def test_the_list_is_complete_and_says_where_it_is_from():
    matrix = engines.matrix("tensorrt")
    assert (
        matrix["source"].startswith("https://github.com/onnx/onnx-tensorrt/") and matrix["version"] in matrix["source"]
    )
    assert not set(matrix["operators"]) & set(matrix["not_supported"])
    allowed = {*engines.TESTS, "types", "note"}
    assert all(set(entry) <= allowed and entry["types"] for entry in matrix["operators"].values())
    since = {schema.name: schema.since_version for schema in onnx.defs.get_all_schemas() if not schema.domain}
    missing = set(since) - set(matrix["operators"]) - set(matrix["not_supported"])
    assert all(since[name] >= matrix["opsets"][1] for name in missing), missing
