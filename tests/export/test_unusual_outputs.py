"""Outputs that newcomers' files have: scores with the images last, decisions, coarse grids, embeddings."""

import numpy as np
import pytest
from onnx import TensorProto

from fastcam.schema import FastcamError
from fastcam_export import export_model
from fastcam_export.verify.session import quiet_session
from support.models.checked_network import CLASSES, NODE, SIDE, VALUE, K, network

POOLED = [NODE("GlobalAveragePool", ["feat"], ["p"]), NODE("Flatten", ["p"], ["f"])]
SCORES = [*POOLED, NODE("MatMul", ["f", "v"], ["s"])]


def turned(images):
    return network([*SCORES, NODE("Transpose", ["s"], ["y"], perm=[1, 0])], outputs=[("y", [CLASSES, images])], end="")


def test_scores_whose_second_axis_is_the_images_are_turned():
    images = np.random.default_rng(0).standard_normal((4, 3, SIDE, SIDE)).astype(np.float32)
    straight = network(SCORES, outputs=[("s", ["N", CLASSES])], end="")
    found, expected = (
        quiet_session(export_model(model, layer="feat").model).run(
            ["fastcam.classes", "fastcam.weights"], {"image": images}
        )
        for model in (turned("N"), straight)
    )
    for ours, theirs in zip(found, expected):
        np.testing.assert_array_equal(ours, theirs)


def test_scores_of_which_no_axis_counts_the_images_are_refused():
    with pytest.raises(FastcamError, match=r"'y' has 3 rows for 2 images.*images come first"):
        export_model(turned("M"), layer="feat")


def test_logits_of_steps_and_images_are_a_text():
    """[steps, N, words] under the name of any scores, as PyTorch's CTC loss takes them."""
    nodes = [
        NODE("ReduceMean", ["feat", "rows"], ["mean"], keepdims=0),
        NODE("Transpose", ["mean"], ["steps"], perm=[2, 0, 1]),
        NODE("MatMul", ["steps", "v"], ["logits"]),
    ]
    model = network(nodes, {"rows": np.array([2])}, [("logits", [SIDE, "N", CLASSES])], end="")
    (found,) = export_model(model).metadata.cotangents
    assert (found.answer, found.axes) == ("words", "LNC")


def refused(model, **options):
    with pytest.raises(FastcamError) as caught:
        export_model(model, **options)
    return str(caught.value)


def test_what_suppression_decided_is_refused_with_what_to_name():
    nodes = [
        NODE("Flatten", ["feat"], ["flat"], axis=2),
        NODE("Reshape", ["feat", "shape"], ["scores"]),
        NODE("NonMaxSuppression", ["boxes", "scores", "most", "overlap", "least"], ["kept"]),
    ]
    constants = {
        "shape": np.array([1, K, SIDE * SIDE]),
        "boxes": np.random.default_rng(0).random((1, SIDE * SIDE, 4)).astype(np.float32),
        "most": np.array([5]),
        "overlap": np.float32([0.5]),
        "least": np.float32([0.1]),
    }
    model = network(nodes, constants, [("scores", [1, K, SIDE * SIDE])], image=(1, 3, SIDE, SIDE), end="")
    model.graph.output.append(VALUE("kept", TensorProto.INT64, ["M", 3]))
    message = refused(model, output_name="kept")
    assert "'kept' is what NonMaxSuppression decided" in message and "name scores (--targets cotangent)" in message


def test_a_segmenter_that_gives_the_best_class_alone_says_what_to_type():
    nodes = [NODE("Conv", ["feat", "k"], ["scores"]), NODE("ArgMax", ["scores"], ["mask"], axis=1, keepdims=0)]
    kernel = {"k": np.random.default_rng(0).standard_normal((5, K, 1, 1)).astype(np.float32)}
    model = network(nodes, kernel, outputs=(), end="")
    model.graph.output.append(VALUE("mask", TensorProto.INT64, ["N", SIDE, SIDE]))
    assert "--output-name mask explains a class" in refused(model)
    score = export_model(model, output_name="mask").metadata.score
    assert score.value == "scores" and score.classes == 5


def test_an_embedding_says_what_to_type():
    model = network(
        [*POOLED, NODE("LpNormalization", ["f"], ["embedding"], axis=1)], outputs=[("embedding", ["N", K])], end=""
    )
    assert "--targets cotangent --output-name embedding" in refused(model)
    assert export_model(model, targets="cotangent", output_name="embedding").metadata.cotangents


@pytest.mark.parametrize(("channels", "stride", "taken"), [(125, 32, "box"), (125, 8, "region"), (21, 32, "region")])
def test_a_coarse_grid_of_anchors_is_a_detector_s_without_class_names(channels, stride, taken):
    """Tiny YOLOv2 gives 5 (5 + 20) numbers at 1/32; a segmenter as many classes at a finer grid."""
    rng, side = np.random.default_rng(0), 64 // stride
    nodes = [
        NODE("MaxPool", ["feat"], ["q"], kernel_shape=[stride] * 2, strides=[stride] * 2),
        NODE("Conv", ["q", "k"], ["grid"]),
    ]
    kernel = {"k": rng.standard_normal((channels, K, 1, 1)).astype(np.float32)}
    model = network(nodes, kernel, [("grid", [1, channels, side, side])], image=(1, 3, 64, 64), end="")
    assert [one.answer for one in export_model(model).metadata.cotangents] == [taken]
