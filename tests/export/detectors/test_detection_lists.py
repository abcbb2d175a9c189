"""The list that Caffe and OpenVINO end a detector in, [1, 1, boxes, 7]: image, label, score and corners; -1 ends it."""

import numpy as np
import pytest

from fastcam import Explainer
from fastcam_export import export_model, inspect_model
from support.models.many_outputs import SIZE, network, node, run, value

ROWS, END = 8, 5
SHAPES = {"[1, 1, N, 7]": [1, 1, ROWS, 7], "[1, N, 7]": [1, ROWS, 7], "[N, 7]": [ROWS, 7]}
LABELS = [1, 2, 3, 1, 2, 3, 1, 2]


def detector(shape, ends=END, pixels=1.0):
    """Scores and corners of the mean of the maps, behind the image (-1 from row ``ends`` on) and a label."""
    rng = np.random.default_rng(0)
    table = np.array([[-1 if row >= ends else 0, label] for row, label in enumerate(LABELS)], np.float32)
    weights = {
        "wide": rng.standard_normal((6, 5 * ROWS)).astype("f") * 0.3, "table": np.array([1, ROWS, 5]),
        "head": table[None], "parts": np.array([1, 2, 2]), "half": np.float32(pixels / 2), "out": np.array(shape),
    }  # fmt: skip
    nodes = [
        node("MatMul", "g wide", "flat"), node("Reshape", "flat table", "numbers"), node("Sigmoid", "numbers", "s"),
        node("Split", "s parts", "score low size", axis=2), node("Mul", "low half", "a"), node("Mul", "size half", "b"),
        node("Add", "a b", "d"), node("Concat", "head score a d", "rows", axis=2), node("Reshape", "rows out", "found"),
    ]  # fmt: skip
    return network(nodes, [value("found", shape)], batch=1, **weights)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("pixels", [1.0, 8.0], ids=["shares", "pixels"])
def test_boxes_are_read_from_the_list(shape, pixels):
    made = detector(SHAPES[shape], pixels=pixels)
    found = inspect_model(made)
    assert found.taken_for.startswith("a detector") and found.command == "fastcam export MODEL.onnx"
    export = export_model(made, layer="feat", emit="gradients", preprocess="unit")
    assert export.metadata.cotangents[0].answer == "box" and export.check["gradient_error"] < 1e-4
    picture = np.random.default_rng(1).integers(0, 255, (SIZE, SIZE, 3), np.uint8)
    e = Explainer(export.model.SerializeToString())(picture, targets=["box:box=-1", "box:1", "box:box=-1,x1"])
    rows = run(made, {"image": picture.transpose(2, 0, 1)[None].astype("f") / 255})["found"].reshape(ROWS, 7)
    held = rows[:END]
    best, first = held[:, 2].argmax(), np.where(held[:, 1] == 1, held[:, 2], -1).argmax()
    (one, other, side) = e.targets[0]
    assert (one.name, other.name) == (f"class {LABELS[best]} (box {best})", f"class 1 (box {first})")
    np.testing.assert_allclose(one.box, rows[best, 3:] * SIZE / pixels, rtol=1e-4)
    np.testing.assert_allclose(e.scores[0], [rows[best, 2], rows[first, 2], rows[best, 5]], rtol=1e-4)
    assert side.name.startswith("x1")


def test_a_map_of_one_class_that_is_seven_wide_is_no_list():
    ends = [node("MaxPool", "feat", "small", kernel_shape=[2, 2]), node("Conv", "small k", "found")]
    made = network(ends, [value("found", [1, 1, 7, 7])], batch=1, k=np.ones((1, 6, 1, 1), "f"))
    made.graph.node[-2].attribute[0].ints[:] = [2, 2]
    assert export_model(made, check=False).metadata.cotangents[0].answer == "region"
