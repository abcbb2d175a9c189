"""Targets in words of outputs with one class: maps without other channels, and single numbers."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from fastcam import Explainer, FastcamError
from fastcam_export import export_model
from support.models.heads_model import images, run
from support.models.small_models import classifier

torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")


def one_channel(activation="Sigmoid", plain=False, bias=0.0):
    """A saliency map [N, 1, 8, 8], or [N, 8, 8]."""
    rng = np.random.default_rng(11)
    weights = {"w": rng.standard_normal((6, 3, 3, 3)), "v": rng.standard_normal((1, 6, 1, 1)), "b": np.array([bias])}
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["c"], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["layer"]),
        helper.make_node("Conv", ["layer", "v", "b"], ["o"]),
        helper.make_node(activation or "Identity", ["o"], ["y4"]),
        helper.make_node(*(("Squeeze", ["y4", "axes"]) if plain else ("Identity", ["y4"])), ["y"]),
    ]
    arrays = [numpy_helper.from_array(a.astype(np.float32), name) for name, a in weights.items()]
    arrays.append(numpy_helper.from_array(np.array([1]), "axes"))
    shape = ["N", 8, 8] if plain else ["N", 1, 8, 8]
    graph = helper.make_graph(
        nodes,
        "saliency",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        arrays,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("plain", [False, True], ids=["one channel", "no channel"])
@pytest.mark.parametrize(("activation", "present"), [("Sigmoid", 0.5), ("", 0.0)])
@pytest.mark.parametrize("spec", ["region:0", "region", "region:threshold=0.7"])
def test_a_map_of_one_class_is_explained_where_it_is_present(spec, activation, present, plain):
    """The value is the sum over the positions above one half of a probability, above zero of a logit."""
    model = one_channel(activation, plain)
    made = export_model(model, targets="cotangent", layer="layer", emit="gradients", preprocess="unit")
    e = Explainer(made.model.SerializeToString())(images(), targets=[spec])
    y = run(model, {"image": images()})["y"]
    above = 0.7 if "threshold" in spec else present
    np.testing.assert_allclose(e.scores[:, 0], np.where(y > above, y, 0).reshape(2, -1).sum(1), rtol=1e-5)
    assert e.label(0, 0) == "what is there" and e.maps.any()


def test_a_map_of_one_class_that_is_nowhere_says_how_large_it_is():
    made = export_model(one_channel(bias=-50.0), targets="cotangent", layer="layer", emit="gradients", check=False)
    explainer = Explainer(made.model.SerializeToString())
    with pytest.raises(FastcamError, match=r"what is there is nowhere .*largest score is .*give a threshold=NUMBER"):
        explainer(images(), targets="region")


@pytest.mark.parametrize("shape", [["N"], ["N", 1], ["N", 1, 1, 1]], ids=str)
def test_the_element_of_one_number_needs_no_index(shape):
    model = classifier()
    model.graph.node.append(helper.make_node("MatMul", ["logits", "column"], ["number"]))
    model.graph.node.append(helper.make_node("Reshape", ["number", "as"], ["one"]))
    arrays = {"column": np.arange(1, 6, dtype=np.float32)[:, None], "as": np.array([-1, *shape[1:]])}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("one", TensorProto.FLOAT, shape))
    explainer = Explainer(export_model(model, targets="cotangent").model.SerializeToString())
    pictures = np.random.default_rng(0).standard_normal((2, *explainer.metadata.input_shape[1:])).astype(np.float32)
    expected = run(model, {explainer.metadata.input: pictures})["one"].reshape(2)
    for target in ("element", "element:0", -1):
        np.testing.assert_allclose(explainer(pictures, targets=[target]).scores[:, 0], expected, rtol=1e-5)
    with pytest.raises(FastcamError, match=r"outside of|axes for one image"):
        explainer(pictures, targets="element:1")
