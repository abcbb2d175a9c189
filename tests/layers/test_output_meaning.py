"""What outputs are taken for: the graph tells it, names tell it where the graph does not, and a doubt is a question."""

import numpy as np
import pytest
from onnx import helper

from fastcam.schema import FastcamError
from fastcam_export import export_model
from fastcam_export.graph.load import load
from fastcam_export.layers.image_input import find_image
from fastcam_export.layers.output_meaning import output_meanings
from support.models.heads_model import detector, heads
from support.models.many_outputs import INT64, SIZE, images, matrix, network, node, run, value

BOX = node("MatMul", "g w4", "box")
POINTS = node("MatMul", "g w10", "points")
FACE = (node("MatMul", "g w2", "l"), node("Softmax", "l", "face"))
LOGITS = node("MatMul", "g w3", "logits")


def vector(name, k):
    return value(name, ["N", k])


CHOSEN = {
    "softmax behind boxes": ([BOX, POINTS, *FACE], [vector("box", 4), vector("points", 10), vector("face", 2)], "face"),
    "softmax of any name": ([node("MatMul", "g w4", "a"), *FACE], [vector("a", 4), vector("face", 2)], "face"),
    "sigmoid behind numbers": (
        [POINTS, node("MatMul", "g w3", "l"), node("Sigmoid", "l", "s")], [vector("points", 10), vector("s", 3)], "s"
    ),
    "logits behind an embedding": (
        [node("Identity", "g", "e"), node("MatMul", "e w3", "y")], [vector("e", 6), vector("y", 3)], "y"
    ),
    "logits in front of an embedding": (
        [node("MatMul", "g w3", "y"), node("MatMul", "g w10", "embedding")],
        [vector("y", 3), vector("embedding", 10)], "y",
    ),
    "a name that speaks of classes": ([POINTS, LOGITS], [vector("points", 10), vector("logits", 3)], "logits"),
    "logits and their softmax": (
        [LOGITS, node("Softmax", "logits", "p")], [vector("logits", 3), vector("p", 3)], "logits"
    ),
    "a vector of length one beside it": (
        [node("ReduceL2", "g one", "length"), node("Div", "g length", "e"), node("MatMul", "g w3", "y")],
        [vector("e", 6), vector("y", 3)], "y",
    ),
    "a map beside it": (
        [node("Conv", "feat k", "m"), LOGITS], [value("m", ["N", 3, 8, 8]), vector("logits", 3)], "logits"
    ),
}  # fmt: skip
ASKED = {
    "two softmaxes": (
        [*FACE, LOGITS, node("Softmax", "logits", "age")], [vector("face", 2), vector("age", 3)],
        "may be the class scores: face [N, 2], age [N, 3]",
    ),
    "two vectors": (
        [node("MatMul", "g w3", "a"), node("MatMul", "g w10", "b")], [vector("a", 3), vector("b", 10)], "a [N, 3]"
    ),
    "only boxes": ([BOX], [vector("box", 4)], "box (N x 4: boxes or coordinates)"),
    "only an embedding": (
        [node("ReduceL2", "g one", "length"), node("Div", "g length", "e")], [vector("e", 6)], "e (N x 6: an embedding)"
    ),
}  # fmt: skip


def made(ends, outputs, **constants):
    return network(ends, outputs, one=[1], k=np.ones((3, 6, 1, 1), np.float32), **constants)


@pytest.mark.parametrize("name", CHOSEN)
def test_the_output_that_reads_as_class_scores_wins(name):
    ends, outputs, chosen = CHOSEN[name]
    export = export_model(made(ends, outputs), check=False)
    assert export.metadata.score.output == chosen
    classes = next(one for one in outputs if one.name == chosen).type.tensor_type.shape.dim[1].dim_value
    weights = run(export.model, {"image": images(), "fastcam.targets": np.array([[1]])})["fastcam.weights"]
    np.testing.assert_allclose(weights[:, 0], np.tile(matrix(classes)[:, 1] / SIZE**2, (2, 1)), rtol=1e-5)
    others = [one.name for one in outputs if one.name != chosen]
    if name != "logits and their softmax":
        assert all(f"{other} [N, " in export.metadata.score.reason for other in others)
        assert "--output-name" in "\n".join(export.summary())


@pytest.mark.parametrize("name", ASKED)
def test_a_doubt_is_a_question(name):
    ends, outputs, message = ASKED[name]
    with pytest.raises(FastcamError, match=message.replace("[", r"\[").replace("(", r"\(").replace(")", r"\)")):
        export_model(made(ends, outputs), check=False)
    wanted = outputs[0].name
    assert export_model(made(ends, outputs), output_name=wanted, check=False).metadata.score.output == wanted


def test_one_output_says_nothing_of_a_choice():
    export = export_model(made([LOGITS], [vector("logits", 3)]), check=False)
    assert (
        export.metadata.score.reason == "" and '"reason": ""' not in export.metadata.to_json().split('"score"')[1][:120]
    )


@pytest.mark.parametrize(
    ("ends", "output"),
    [
        ([LOGITS, node("ArgMax", "logits", "label", axis=1)], value("label", ["N", 1], INT64)),
        ([LOGITS, node("Softmax", "logits", "p"), node("TopK", "p two", "values indices")], value("values", ["N", 2])),
        ([LOGITS, node("TopK", "logits two", "values indices")], value("indices", ["N", 2], INT64)),
        ([LOGITS, node("Softmax", "logits", "p"), node("ReduceMax", "p one", "best")], value("best", ["N", 1])),
    ],
    ids=["ArgMax", "TopK values", "TopK indices", "ReduceMax"],
)
def test_a_decision_is_explained_at_the_scores_in_front(ends, output):
    source = network(ends, [output], two=[2], one=[1])
    export = export_model(source)
    assert export.metadata.score.classes == 3 and f"in front of {ends[-1].op_type}" in export.metadata.score.reason
    feeds = {"image": images()}
    before, after = run(source, feeds), run(export.model, feeds | {"fastcam.targets": np.array([[-1, 2]])})
    assert list(after)[:2] == [output.name, export.metadata.score.output]
    np.testing.assert_array_equal(before[output.name], after[output.name])
    scores = after[export.metadata.score.output]
    classes = np.stack([scores.argmax(1), np.full(2, 2)], 1)
    np.testing.assert_array_equal(after["fastcam.classes"], classes)
    np.testing.assert_allclose(after["fastcam.weights"], matrix(3).T[classes] / SIZE**2, rtol=1e-5)


def test_the_best_place_of_each_class_is_a_score_of_the_class():
    """Global maximum pooling behind a sigmoid; the maximum over classes would be the best class's probability."""
    ends = [node("Conv", "feat k", "m"), node("Sigmoid", "m", "p"), node("ReduceMax", "p places", "scores", keepdims=0)]
    export = export_model(made(ends, [value("scores", ["N", 3])], places=[2, 3]), check=False)
    assert (export.metadata.score.output, export.metadata.score.classes) == ("scores", 3)


def meanings(model):
    graph = load(model).model.graph
    return {one.output: one for one in output_meanings(graph, find_image(graph))}


def test_heads_of_every_kind():
    kinds = {name: one.kind for name, one in meanings(heads()).items()}
    assert kinds == {
        "logits": "scores", "embedding": "embedding", "map": "map", "dense": "unknown", "words": "sequence",
        "numbers": "scores",
    }  # fmt: skip
    assert {name: one.kind for name, one in meanings(detector()[0]).items()} == {
        "boxes": "boxes",
        "scores": "box scores",
    }


@pytest.mark.parametrize("end", ["Softmax", "LogSoftmax"])
def test_the_axis_of_a_softmax_is_followed_through_views_and_transposes(end):
    ends = [
        node("Conv", "feat k", "m"),
        node("Transpose", "m", "t", perm=[0, 2, 3, 1]),
        node("Reshape", "t rows", "r"),
        node(end, "r", "s", axis=-1),
        node("Reshape", "s maps", "nhwc"),
        node("Transpose", "nhwc", "nchw", perm=[0, 3, 1, 2]),
    ]
    outputs = [value("nhwc", ["N", 8, 8, 3]), value("nchw", ["N", 3, 8, 8])]
    kernel = np.ones((3, 6, 1, 1), np.float32)
    found = meanings(network(ends, outputs, k=kernel, rows=[-1, 3], maps=[-1, 8, 8, 3]))
    assert {name: (one.kind, one.axis, one.activation) for name, one in found.items()} == {
        "nhwc": ("map", 3, end), "nchw": ("map", 1, end),
    }  # fmt: skip


def test_steps_come_first_where_images_come_second():
    ends = [
        node("Transpose", "feat", "t", perm=[3, 0, 1, 2]),
        node("Reshape", "t steps", "r"),
        node("MatMul", "r wide", "l"),
        node("Softmax", "l", "p", axis=2),
    ]
    wide = np.ones((48, 5), np.float32)
    found = meanings(network(ends, [value("p", [8, 2, 5])], batch=2, steps=[8, 2, 48], wide=wide))["p"]
    assert (found.kind, found.axis, found.steps) == ("sequence", 2, 0)


def test_boxes_beside_scores_for_each():
    ends = [node("Conv", "feat k", "m"), node("Reshape", "m rows", "r"), node("Transpose", "r", "t", perm=[0, 2, 1])]
    ends += [node("Split", "t", "boxes l", axis=2), node("Softmax", "l", "scores", axis=2)]
    ends[-2].attribute.append(helper.make_attribute("num_outputs", 2))
    outputs = [value("scores", ["N", 64, 4]), value("boxes", ["N", 64, 4])]
    found = meanings(network(ends, outputs, k=np.ones((8, 6, 1, 1), np.float32), rows=[-1, 8, 64]))
    assert (found["scores"].kind, found["boxes"].kind) == ("box scores", "boxes")
