"""The bundled model and picture: small, accurate on scenes that it never saw, right about the picture."""

from __future__ import annotations

from importlib.resources import files

import cv2
import numpy as np
import onnx
import pytest
from onnx import numpy_helper, shape_inference

from fastcam.evaluation.scenes import CLASSES, scene, scenes
from fastcam.schema import preset
from fastcam_bench.models import bundled_net, train_bundled

onnxruntime = pytest.importorskip("onnxruntime")

DATA = files("fastcam") / "data"
FRESH_SEED = 20_000  # neither the training's nor the report's


def prepare(images):
    """The formula of fastcam.schema.Preprocessing, in float64: a stretch to 128 x 128, then the ImageNet statistics."""
    p = preset("imagenet")
    small = [cv2.resize(image, (128, 128), interpolation=cv2.INTER_LINEAR) for image in images]
    x = (np.stack(small).astype(np.float64) * p.scale - p.mean) / p.std
    return x.transpose(0, 3, 1, 2).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    return onnx.load_from_string((DATA / "scenes.onnx").read_bytes())


@pytest.fixture(scope="module")
def run():
    session = onnxruntime.InferenceSession((DATA / "scenes.onnx").read_bytes(), providers=["CPUExecutionProvider"])
    return lambda x: session.run(["probabilities"], {"image": x})[0]


@pytest.fixture(scope="module")
def fresh():
    return list(scenes(200, FRESH_SEED))


def picture():
    raw = np.frombuffer((DATA / "scene.jpg").read_bytes(), np.uint8)
    return cv2.imdecode(raw, cv2.IMREAD_COLOR)[..., ::-1]


def test_the_file_is_at_most_one_megabyte_and_its_labels_are_the_classes(model):
    assert len((DATA / "scenes.onnx").read_bytes()) <= 1_000_000
    assert tuple((DATA / "scenes.labels.txt").read_text().split()) == CLASSES
    onnx.checker.check_model(model, full_check=True)


def test_it_ends_in_a_sigmoid_and_offers_four_stages_as_target_layers(model):
    graph = shape_inference.infer_shapes(model).graph
    assert [(n.op_type, n.input[0]) for n in graph.node[-1:]] == [("Sigmoid", "head/linear")]
    shapes = {v.name: [d.dim_value or d.dim_param for d in v.type.tensor_type.shape.dim] for v in graph.value_info}
    maps = [shapes[f"stage{i}/relu2"] for i in (1, 2, 3, 4)]
    assert maps == [["N", 32, 32, 32], ["N", 48, 16, 16], ["N", 64, 16, 16], ["N", 112, 16, 16]]
    assert len({n.name for n in graph.node}) == len(graph.node)


def test_it_knows_the_classes_in_scenes_that_it_never_saw(run, fresh):
    probabilities = run(prepare([s.image for s in fresh]))
    truth = np.stack([s.present for s in fresh])
    result = train_bundled.accuracy(probabilities, truth)
    assert result["mean_average_precision"] > 0.97
    assert result["label_accuracy"] > 0.95
    assert min(result["average_precision"].values()) > 0.93


def test_larger_and_smaller_pictures_are_recognised_as_well(run):
    for size in (64, 384):
        few = list(scenes(100, FRESH_SEED + 1, size))
        right = (run(prepare([s.image for s in few])) >= 0.5) == np.stack([s.present for s in few])
        assert right.mean() > 0.94


def test_a_batch_gives_what_its_pictures_give_alone(run, fresh):
    x = prepare([s.image for s in fresh[:5]])
    assert np.allclose(run(x), np.concatenate([run(x[i : i + 1]) for i in range(5)]), atol=1e-6)


def test_the_bundled_picture_is_the_generators_and_is_classified_right(run):
    example = scene(train_bundled.PICTURE_SEED, train_bundled.PICTURE_SIZE)
    shown = picture()
    assert shown.shape == example.image.shape
    error = shown.astype(float) - example.image
    assert 10 * np.log10(255**2 / (error**2).mean()) > 28  # dB: JPEG of a slightly noisy picture
    assert len({o.class_name for o in example.objects}) >= 3
    probabilities = run(prepare([shown]))[0]
    assert ((probabilities >= 0.5) == example.present).all()
    assert probabilities[example.present].min() > 0.9
    assert probabilities[~example.present].max() < 0.1


def test_average_precision_equals_the_area_under_the_precision_recall_steps():
    rng = np.random.default_rng(0)
    scores, truth = rng.random(60), rng.random(60) < 0.3
    area, recall = 0.0, 0.0
    for threshold in sorted(scores, reverse=True):
        chosen = scores >= threshold
        now = (truth & chosen).sum() / truth.sum()
        area += (now - recall) * truth[chosen].mean()
        recall = now
    assert train_bundled.average_precision(scores, truth) == pytest.approx(area)
    assert train_bundled.average_precision(scores, scores > 0.5) == 1


def test_the_data_do_not_depend_on_the_number_of_workers():
    one, two = (train_bundled.dataset(6, 5, train_bundled.TRAIN_SIZES, workers) for workers in (1, 2))
    assert (one[0] == two[0]).all()
    assert (one[1] == two[1]).all()


def test_the_file_computes_what_pytorch_computes_with_its_weights(model, run, fresh):
    pytest.importorskip("torch", reason="torch is only needed to train the model")
    parameters = {t.name: numpy_helper.to_array(t).copy() for t in model.graph.initializer}
    x = prepare([s.image for s in fresh[:20]])
    assert np.abs(train_bundled.torch_probabilities(parameters, x) - run(x)).max() < 1e-5
    assert onnx.load_from_string(bundled_net.to_onnx(parameters, len(CLASSES))) == model


def test_training_learns_a_handful_of_scenes():
    torch = pytest.importorskip("torch", reason="torch is only needed to train the model")
    before = torch.random.get_rng_state()
    images, truth = train_bundled.dataset(32, 1, (128,), 1)
    messages = []
    train_bundled.train(images, truth, epochs=6, batch=16, rate=4e-3, seconds=600, say=messages.append)
    torch.random.set_rng_state(before)
    losses = [float(m.split("loss ")[1].split()[0]) for m in messages]
    assert len(losses) == 6
    assert losses[-1] < 0.97 * losses[0]
