"""Exports that take uint8 frames: the file's own preprocessing against OpenCV's, and against a NumPy formula."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from fastcam import Explainer, FastcamError
from fastcam.cli.shared.options import picture_files
from fastcam.image import preprocess
from fastcam.schema import preset
from fastcam_export import export_model
from fastcam_export.artifacts import engines, uint8_frames
from support.models import small_models

SIZES = [(31, 47), (12, 9), (20, 8), (7, 40), (8, 12), (96, 128)]


def picture(size, seed=0):
    """Smooth, with some noise."""
    rng = np.random.default_rng(seed)
    rough = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    smooth = cv2.resize(rough, size[::-1], interpolation=cv2.INTER_CUBIC).astype(int)
    return np.clip(smooth + rng.integers(-9, 10, smooth.shape), 0, 255).astype(np.uint8)


def model(size=12, batch="N"):
    return small_models.classifier(size=size, batch=batch)


def prepared(exported, frame):
    """The network's input as the file makes it."""
    proto = type(exported.model)()
    proto.CopyFrom(exported.model)
    proto.graph.output.append(onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, None))
    return onnxruntime.InferenceSession(proto.SerializeToString()).run(["image"], {uint8_frames.INPUT: frame})[0]


@pytest.fixture(scope="module")
def exports():
    """One export per resize rule, frames of any size."""
    made = {}
    for rule in ("stretch", "crop", "letterbox"):
        made[rule] = export_model(model(), preprocess="imagenet", resize=rule, frames=True)
    return made


@pytest.mark.parametrize(("rule", "size"), list(itertools.product(("stretch", "crop", "letterbox"), SIZES)))
def test_the_input_is_what_opencv_makes(exports, rule, size):
    how, frame = exports[rule].metadata.preprocessing, picture(size)
    wanted, _ = preprocess.prepare(frame, how)
    off = np.abs(prepared(exports[rule], frame[None]) - wanted) * np.reshape(how.std, (1, 3, 1, 1)) / how.scale
    assert off.max() < 2.02  # OpenCV rounds twice where one axis shrinks and the other grows
    assert (off > 0.02).mean() < (0.002 if min(size) >= 24 else 0.25)


@pytest.mark.parametrize("color", ["RGB", "BGR", "GRAY"])
def test_the_input_is_what_numpy_makes(color):
    how = preset("tf128", size=(9, 14), resize="letterbox", color=color)
    exported = small_contract(color)
    for size in SIZES:
        frame = picture(size, 1)
        wanted = uint8_frames.expected(frame, how)
        off = np.abs(prepared(exported, frame[None])[0] - wanted) * 128
        assert off.max() < 1.01 and (off > 0.02).mean() < 0.03, size


def small_contract(color):
    rng = np.random.default_rng(0)
    made = small_models.classifier(size=8)
    channels = 1 if color == "GRAY" else 3
    shape = made.graph.input[0].type.tensor_type.shape.dim
    shape[1].dim_value, shape[2].dim_value, shape[3].dim_value = channels, 9, 14
    weights = rng.standard_normal((4, channels, 3, 3)).astype(np.float32)
    made.graph.initializer[0].CopyFrom(small_models.numpy_helper.from_array(weights, "w1"))
    how = preset("tf128", size=(9, 14), resize="letterbox", color=color)
    return export_model(made, preprocess=how, frames=True)


def test_the_explanation_is_that_of_the_plain_export(exports):
    plain = Explainer(export_model(model(), preprocess="imagenet").model.SerializeToString())
    framed = Explainer(exports["stretch"].model.SerializeToString())
    given = [picture((48, 60), seed) for seed in range(3)] + [picture((36, 24), 3)]
    ours, theirs = framed(given, targets=[-1, 2]), plain(given, targets=[-1, 2])
    np.testing.assert_array_equal(ours.classes, theirs.classes)
    scale = np.abs(theirs.maps).max()
    assert np.abs(ours.maps - theirs.maps).max() < 0.01 * scale
    assert ours.heatmaps.shape == theirs.heatmaps.shape == (4, 2, 12, 12)
    assert ours.geometry == theirs.geometry and ours.overlay(0).shape == (48, 60, 3)


def test_a_batch_of_frames_is_one_run_and_sizes_may_differ(exports):
    explainer = Explainer(exports["crop"].model.SerializeToString(), batch_size=2)
    given = [picture((30, 40), seed) for seed in range(5)]
    whole = explainer(np.stack(given))
    for i, frame in enumerate(given):
        np.testing.assert_allclose(whole[i].maps, explainer(frame).maps, rtol=1e-5, atol=1e-6)
    mixed = explainer([given[0], picture((17, 23)), given[1], given[2]], targets=[[0], [1], [2], [3]])
    assert mixed.classes[:, 0].tolist() == [0, 1, 2, 3] and [g.original for g in mixed.geometry][1] == (17, 23)
    np.testing.assert_allclose(mixed[3].maps, explainer(given[2], targets=3).maps, rtol=1e-5, atol=1e-6)
    assert explainer.metadata.frames and explainer.input_shape[3] == 3


def test_a_stream_of_frames(exports):
    explainer = Explainer(exports["stretch"].model.SerializeToString(), batch_size=3)
    given = [picture((30, 40), 0), picture((30, 40), 1), picture((20, 30), 2)]
    found = [frame.explanation for frame in explainer.stream(iter(given))]
    for one, frame in zip(found, given):
        np.testing.assert_allclose(one.maps, explainer(frame).maps, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch", ["N", 2])
def test_frames_of_one_size(exports, batch):
    exported = export_model(model(batch=batch), preprocess="imagenet", resize="letterbox", frames=(30, 50))
    frame = np.stack([picture((30, 50), seed) for seed in range(2)])
    np.testing.assert_array_equal(prepared(exported, frame), prepared(exports["letterbox"], frame))
    operators = {node.op_type for node in exported.model.graph.node if node.name.startswith("fastcam.frames.")}
    assert operators <= {
        "Cast",
        "Gather",
        "MatMul",
        "Mul",
        "Reshape",
        "Round",
        "Sub",
        "Transpose",
        "Unsqueeze",
        "Where",
    }
    explainer = Explainer(exported.model.SerializeToString())
    assert explainer(frame).maps.shape[0] == 2
    with pytest.raises(FastcamError, match="takes frames of 50 x 30, this one is 40 x 30; resize it"):
        explainer(picture((30, 40)))


def test_frames_and_other_options():
    for_tensorrt = {"preprocess": "unit", "for_engine": "tensorrt", "frames": (20, 30)}
    exported = export_model(model(), **for_tensorrt)
    assert exported.metadata.frames and exported.engine == ()
    graph = ir.from_proto(exported.model).graph
    assert engines.refused(graph, "tensorrt") == []
    readers = [node.op_type for node in exported.model.graph.node if uint8_frames.INPUT in node.input]
    assert readers == ["Cast"]
    guided = export_model(model(), preprocess="unit", frames=True, input_gradient="guided", emit="gradients")
    assert Explainer(guided.model.SerializeToString())(picture((20, 30))).input_gradients.shape == (1, 1, 3, 12, 12)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "frames need a preprocessing of a known size"),
        ({"preprocess": "unit", "frames": (0, 4)}, "give True, or .height, width."),
        ({"preprocess": "unit", "frames": (1, 2, 3)}, "give True, or .height, width."),
        ({"preprocess": "unit", "for_engine": "tensorrt"}, "for tensorrt frames must have one size"),
        ({"preprocess": "unit", "on_demand": True}, "frames and on_demand do not go together"),
        ({"preprocess": "unit", "targets": "cotangent"}, "frames and targets cotangent do not go together"),
    ],
)
def test_what_frames_do_not_go_with(options, words):
    with pytest.raises(FastcamError, match=words):
        export_model(model(), **{"frames": True, **options})


def test_what_a_file_of_frames_does_not_take(exports):
    data = exports["stretch"].model.SerializeToString()
    with pytest.raises(FastcamError, match=r"takes pictures, uint8 .* got floats"):
        Explainer(data)(np.zeros((1, 12, 12, 3), np.float32))
    with pytest.raises(FastcamError, match="prepares its frames itself; leave preprocess out"):
        Explainer(data, preprocess="unit")


def test_real_pictures(assets):
    """All photos, OpenCV's pixels: what the two round differently, in shares of all values."""
    exported = export_model(model(size=64), preprocess="imagenet", resize="crop", frames=True, check=False)
    how = exported.metadata.preprocessing
    for path in picture_files([assets / "photos"])[:6]:
        frame = preprocess.decode(path)
        wanted, _ = preprocess.prepare(frame, how)
        off = np.abs(prepared(exported, frame[None]) - wanted) * np.reshape(how.std, (1, 3, 1, 1)) / how.scale
        assert off.max() < 1.02 and (off > 0.02).mean() < 0.002, path.name
