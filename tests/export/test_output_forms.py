"""Class scores in other forms than [N, classes]: one number for two classes, maps with the classes last."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from fastcam import Explainer
from fastcam.schema import FastcamError
from fastcam_export import export_model
from fastcam_export.layers import output_meaning
from support.models.many_outputs import INT64, SIZE, images, matrix, network, node, run, value

# ---- one number

S = node("MatMul", "g w1", "s")
ENDS = {
    "[N, 1] behind a sigmoid": ([S, node("Sigmoid", "s", "p")], value("p", ["N", 1])),
    "[N] behind a sigmoid": ([S, node("Sigmoid", "s", "q"), node("Squeeze", "q one", "p")], value("p", ["N"])),
    "[N], squeezed before it": ([S, node("Squeeze", "s one", "q"), node("Sigmoid", "q", "p")], value("p", ["N"])),
    "[N, 1, 1, 1]": (
        [node("Conv", "mean k1", "s"), node("Sigmoid", "s", "p")], value("p", ["N", 1, 1, 1]),
    ),
    "[N, 1] of logits": ([node("MatMul", "g w1", "p")], value("p", ["N", 1])),
    "[N] of logits": ([S, node("Reshape", "s flat", "p")], value("p", ["N"])),
}  # fmt: skip
DECIDED = {
    "above a half": [node("Greater", "p half", "b"), node("Cast", "b", "y", to=TensorProto.INT64)],
    "rounded": [node("Round", "p", "r"), node("Cast", "r", "y", to=TensorProto.INT64)],
}


def one_number(ends, output):
    constants = {"one": [1], "flat": [-1], "half": np.float32(0.5), "k1": matrix(1).T[:, :, None, None]}
    return network(ends, [output], **constants)


def seen(model, x):
    """The logit of each picture, in closed form from the feature map."""
    feat = run(network([node("Identity", "feat", "y")], [value("y", None)]), {"image": x})["y"]
    return feat, feat.mean((2, 3)) @ matrix(1)[:, 0]


@pytest.fixture(scope="module")
def pictures():
    """Two pictures of either class, brought there by their sign."""
    x = images(12, seed=5) + np.random.default_rng(6).normal(0, 3, (12, 3, 1, 1)).astype(np.float32)
    _, s = seen(None, x)
    order = np.argsort(s)
    assert s[order[1]] < 0 < s[order[-2]]
    return x[[order[0], order[-1], order[1], order[-2]]]


@pytest.mark.parametrize("name", ENDS)
def test_one_number_is_two_classes(tmp_path, pictures, name):
    """Below one half the predicted class is the other one, and its map has the other sign."""
    export_model(one_number(*ENDS[name]), tmp_path / "m.cam.onnx", labels=["cat", "dog"])
    explainer = Explainer(tmp_path / "m.cam.onnx", "cpu")
    e = explainer(pictures, targets=[-1, "dog", "cat"])
    feat, s = seen(None, pictures)
    assert e.classes.tolist() == [[0, 1, 0], [1, 1, 0], [0, 1, 0], [1, 1, 0]]
    assert [e.label(i) for i in range(4)] == ["cat", "dog", "cat", "dog"]
    p = 1 / (1 + np.exp(-s.astype(np.float64)))
    wanted = np.stack([1 - p, p], 1) if "logits" not in name else np.stack([-s, s], 1)
    np.testing.assert_allclose(e.scores, wanted, rtol=1e-5, atol=1e-6)
    signed = np.einsum("nkhw,k->nhw", feat, matrix(1)[:, 0]) / SIZE**2
    sign = np.where(s > 0, 1, -1)[:, None, None]
    np.testing.assert_allclose(e.maps[:, 0], np.maximum(sign * signed, 0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(e.maps[:, 1], np.maximum(signed, 0), rtol=1e-4, atol=1e-6)
    assert explainer.predict(pictures).classes.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("kind", ["probability", "log-probability"])
def test_its_probability_and_the_logarithm(pictures, kind):
    export = export_model(one_number(*ENDS["[N, 1] behind a sigmoid"]), score=kind)
    found = run(export.model, {"image": pictures, "fastcam.targets": np.array([[0, 1]])})["fastcam.weights"]
    _, s = seen(None, pictures)
    p = 1 / (1 + np.exp(-s.astype(np.float64)))[:, None, None]
    slope = np.concatenate([-p * (1 - p), p * (1 - p)], 1) if kind == "probability" else np.concatenate([-p, 1 - p], 1)
    np.testing.assert_allclose(found, slope * matrix(1)[:, 0] / SIZE**2, rtol=1e-4, atol=1e-8)


def test_one_name_is_that_of_the_second_class():
    export = export_model(one_number(*ENDS["[N, 1] behind a sigmoid"]), labels=["dog"], check=False)
    assert export.metadata.labels == ("not dog", "dog") and export.metadata.score.classes == 2
    assert "class 1 above 0.5, class 0 below" in "\n".join(export.summary())
    with pytest.raises(FastcamError, match="3 labels do not fit a model with 2 classes"):
        export_model(one_number(*ENDS["[N, 1] behind a sigmoid"]), labels=["a", "b", "c"], check=False)


@pytest.mark.parametrize("name", ["[N, 1] of logits", "[N] of logits"])
def test_a_number_without_names_is_explained_as_it_is(tmp_path, pictures, name):
    """A regression: no class, and no other sign."""
    export_model(one_number(*ENDS[name]), tmp_path / "m.cam.onnx")
    e = Explainer(tmp_path / "m.cam.onnx", "cpu")(pictures)
    feat, s = seen(None, pictures)
    np.testing.assert_allclose(e.scores[:, 0], s, rtol=1e-5)
    signed = np.einsum("nkhw,k->nhw", feat, matrix(1)[:, 0]) / SIZE**2
    np.testing.assert_allclose(e.maps[:, 0], np.maximum(signed, 0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", DECIDED)
def test_a_decision_about_one_number(pictures, name):
    ends = [*ENDS["[N, 1] behind a sigmoid"][0], *DECIDED[name]]
    source = one_number(ends, value("y", ["N", 1], INT64))
    export = export_model(source)
    after = run(export.model, {"image": pictures})
    np.testing.assert_array_equal(after["fastcam.classes"], after["y"])
    assert export.metadata.score.output == "p"


# ---- maps with the classes last

KERNEL = np.random.default_rng(9).standard_normal((3, 6, 1, 1)).astype(np.float32)
M = node("Conv", "feat k", "m")
T = node("Transpose", "m", "t", perm=[0, 2, 3, 1])
ROWS = [T, node("Reshape", "t rows", "r"), node("Softmax", "r", "s", axis=-1), node("Reshape", "s maps", "y")]
LAST = {
    "logits": [M, node("Transpose", "m", "y", perm=[0, 2, 3, 1])],
    "logits with a bias behind": [M, T, node("Add", "t bias", "y")],
    "softmax": [M, T, node("Softmax", "t", "y", axis=3)],
    "softmax before the transpose": [
        M,
        node("Softmax", "m", "s", axis=1),
        node("Transpose", "s", "y", perm=[0, 2, 3, 1]),
    ],
    "softmax of rows": [M, *ROWS],
    "sigmoid": [M, T, node("Sigmoid", "t", "y")],
}


def maps(ends, outputs=None, **more):
    outputs = outputs or [value("y", ["N", 8, 8, 3])]
    return network(ends, outputs, k=KERNEL, rows=[-1, 3], maps=[-1, 8, 8, 3], bias=np.ones(3, np.float32), **more)


@pytest.mark.parametrize("name", LAST)
def test_the_classes_of_a_map_may_be_its_last_axis(tmp_path, name):
    source = maps(LAST[name])
    export = export_model(source, tmp_path / "m.cam.onnx", output_name="y", layer="feat")
    assert (export.metadata.score.classes, export.metadata.score.axis) == (3, 3)
    assert export.metadata.score.kind == ("raw" if "logits" in name else "logit")
    e = Explainer(tmp_path / "m.cam.onnx", "cpu")(images(), targets=[-1, 2])
    y = run(source, {"image": images()})["y"]
    np.testing.assert_allclose(e.scores, y.sum((1, 2)), rtol=1e-5)
    found = run(export.model, {"image": images(), "fastcam.targets": np.array([[0, 2]])})
    np.testing.assert_allclose(found["fastcam.weights"], np.tile(KERNEL[[0, 2], :, 0, 0], (2, 1, 1)), rtol=1e-4)


def test_a_region_reads_the_last_axis_where_the_graph_tells(tmp_path):
    source = maps(LAST["softmax"])
    export = export_model(source, tmp_path / "m.cam.onnx", targets="cotangent", layer="feat")
    assert export.metadata.cotangents[0].axes == "HWC"
    y = run(source, {"image": images()})["y"]
    wanted = [[float(one[one.argmax(2) == c, c].sum()) for c in (0, 1)] for one in y]
    there = all(np.any(one.argmax(2) == c) for one in y for c in (0, 1))
    assert there
    e = Explainer(tmp_path / "m.cam.onnx", "cpu")(images(), cotangent=["region:0", "region:1"])
    np.testing.assert_allclose([[e.score(i, t) for t in range(2)] for i in range(2)], wanted, rtol=1e-5)


def test_a_segmenter_that_ends_in_argmax_is_explained_in_front_of_it():
    source = maps([M, T, node("ArgMax", "t", "y", axis=3)], [value("y", ["N", 8, 8, 1], INT64)])
    export = export_model(source, output_name="y", layer="feat")
    assert (export.metadata.score.output, export.metadata.score.axis, export.metadata.score.classes) == ("t", 3, 3)


def test_a_layout_that_nothing_tells_is_a_question(monkeypatch):
    """Where the axes of the image cannot be followed, and the sides could be anything."""
    monkeypatch.setattr(output_meaning, "trace", lambda graph, image: {})
    cut = [M, node("Slice", "m zero seven three", "n"), node("Transpose", "n", "y", perm=[0, 2, 3, 1])]
    source = maps(cut, [value("y", ["N", 8, 7, 3])], zero=[0], seven=[7], three=[3])
    for targets in ("default", "cotangent"):
        with pytest.raises(FastcamError, match=r"layout of output 'y' .* is not clear.* --output-layout NCHW or NHWC"):
            export_model(source, output_name="y", layer="feat", targets=targets, check=False)
    options = {"output_name": "y", "layer": "feat", "output_layout": "NHWC"}
    assert export_model(source, check=False, **options).metadata.score.classes == 3
    export = export_model(source, targets="cotangent", check=False, **options)
    assert export.metadata.cotangents[0].axes == "HWC"


def test_the_layout_is_one_of_two():
    with pytest.raises(FastcamError, match="output_layout is 'HWC'; it must be one of: NCHW, NHWC"):
        export_model(helper.make_model(helper.make_graph([], "g", [], [])), output_layout="HWC")
