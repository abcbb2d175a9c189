"""Outputs that are maps, lists or texts: the scores in front of them are explained, and they stay in the file."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from fastcam import Explainer
from fastcam_export import export_model
from support.models.many_outputs import FLOAT, INT64, SIZE, images, matrix, network, node, run, value

NAMES = ["a", "b", "c"]
ML = "ai.onnx.ml"
HEAD = [node("MatMul", "g w3", "logits"), node("Softmax", "logits", "p", axis=1)]
TENSOR = helper.make_tensor_type_proto(FLOAT, [])
MAPS = helper.make_value_info(
    "maps", helper.make_sequence_type_proto(helper.make_map_type_proto(TensorProto.STRING, TENSOR))
)
LIST = helper.make_value_info("list", helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, None)))
ZIP = node("ZipMap", "p", "maps", domain=ML, classlabels_strings=NAMES)
TEXT = [
    node("ArgMax", "p", "index", axis=1, keepdims=0),
    node("ArrayFeatureExtractor", "names index", "label", domain=ML),
]
NUMBERS = node("ZipMap", "p", "maps", domain=ML, classlabels_int64s=[7, 8, 9])
P, LABEL = value("p", ["N", 3]), value("label", None, TensorProto.STRING)
MODELS = {
    "map alone": ([ZIP], [MAPS]),
    "map of numbers": ([NUMBERS], [MAPS]),
    "scores and map": ([ZIP], [P, MAPS]),
    "label and map": ([*TEXT, ZIP], [LABEL, MAPS]),
    "a list of scores and features": ([node("SequenceConstruct", "p g", "list")], [LIST]),
    "label by a table": (
        [TEXT[0], node("LabelEncoder", "index", "label", domain=ML, keys_int64s=[0, 1, 2], values_strings=NAMES)],
        [LABEL],
    ),
}


def model(name, opset=18):
    ends, outputs = MODELS[name]
    if name == "map of numbers":
        outputs = [helper.make_value_info("maps", MAPS.type)]
        outputs[0].type.sequence_type.elem_type.map_type.key_type = INT64
    return network([*HEAD, *ends], outputs, opset=opset, domains=[(ML, 2)], names=np.array(NAMES, object))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("opset", [12, 18])
def test_the_scores_in_front_are_explained_and_the_outputs_stay(name, opset):
    if name == "a list of scores and features" and opset == 12:
        pytest.skip("one opset is enough")
    source = model(name, opset=opset)
    export = export_model(source)
    assert export.check["bit_identical"] and export.metadata.score.kind == "logit"
    assert export.metadata.labels == (tuple(NAMES) if "classlabels_strings" in str(source) else None)
    feeds = {"image": images()}
    before, after = run(source, feeds), run(export.model, feeds | {"fastcam.targets": np.array([[-1, 2]])})
    assert list(after)[: len(before)] == list(before)
    for output in before:
        assert str(after[output]) == str(before[output])
    p = after[export.metadata.score.output]
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-5)
    classes = np.stack([p.argmax(1), np.full(2, 2)], 1)
    np.testing.assert_array_equal(after["fastcam.classes"], classes)
    np.testing.assert_allclose(after["fastcam.weights"], matrix(3).T[classes] / SIZE**2, rtol=1e-5)


@pytest.mark.parametrize("on_demand", [False, True])
def test_an_explainer_explains_beside_maps_and_texts(tmp_path, on_demand):
    export_model(model("label and map"), tmp_path / "m.cam.onnx", on_demand=on_demand)
    e = Explainer(tmp_path / "m.cam.onnx", "cpu")(images(3), targets=[-1, "b"])
    assert e.labels == tuple(NAMES) and e.classes[:, 1].tolist() == [1] * 3
    assert [max(one, key=one.get) for one in e.outputs["maps"]] == [NAMES[k] for k in e.classes[:, 0]]
    assert e.outputs["label"].ravel().tolist() == [NAMES[k] for k in e.classes[:, 0]]


def test_the_line_of_the_summary_names_what_stands_behind():
    lines = "\n".join(export_model(model("map alone"), check=False).summary())
    assert "it ends in the softmax 'p', in front of ZipMap" in lines and "names   3, from the node ZipMap" in lines
