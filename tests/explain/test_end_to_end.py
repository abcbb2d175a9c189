"""From an ONNX file to the heatmap: the bundled model, real models and photos, and public graphs of real exporters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from fastcam import Explainer
from fastcam.evaluation.scenes import CLASSES, scene, scenes
from fastcam.schema import METADATA_KEY, OUTPUTS, PREFIX, preset
from fastcam_bench.models.train_bundled import PICTURE_SEED, PICTURE_SIZE
from fastcam_export import export_model
from fastcam_export.verify.session import quiet_session
from support.models.contract_model import brightness_model

DATA = Path(str(files("fastcam"))) / "data"
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
IMAGENET = (np.array([0.485, 0.456, 0.406]) * 255, np.array([0.229, 0.224, 0.225]) * 255)


def session(model):
    """A plain ONNX Runtime session of a ModelProto."""
    return quiet_session(model, threads=1)


def run(model, feed, names=None):
    return session(model).run(names, feed)


def with_output(model, value):
    """A copy of a model with one more output."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.append(onnx.ValueInfoProto(name=value))
    return copy


def weight(model, name):
    return numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == name)).astype(np.float64)


def share(a, b):
    """Largest difference as a share of the largest value of ``b``."""
    return np.abs(np.asarray(a, np.float64) - b).max() / np.abs(b).max()


def iou(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


# --- the bundled model ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundled():
    """One Explainer of the bundled model per emit level."""
    made = {}
    for emit in OUTPUTS:
        result = export_model(
            DATA / "scenes.onnx", emit=emit, preprocess="imagenet", labels=DATA / "scenes.labels.txt", check=False
        )
        made[emit] = Explainer(result.model.SerializeToString(), batch_size=4)
    return made


@pytest.fixture(scope="module")
def pictures():
    return [each.image for each in scenes(6, seed=77, size=160)]


def network_input(pictures):
    """The bundled model's preprocessing, in float64 until the end."""
    images = np.stack([cv2.resize(p, (128, 128), interpolation=cv2.INTER_AREA) for p in pictures])
    return ((images - IMAGENET[0]) / IMAGENET[1]).transpose(0, 3, 1, 2).astype(np.float32)


def test_the_box_of_every_class_lies_on_its_object(bundled):
    truth = scene(PICTURE_SEED, PICTURE_SIZE)
    names = [item.class_name for item in truth.objects]
    found = bundled["weights"](DATA / "scene.jpg", targets=names)
    assert found.status == (("ok",) * len(names),)
    for t, item in enumerate(truth.objects):
        assert found.label(0, t) == item.class_name and found.score(0, t) > 0.9
        assert iou(found.boxes[0, t], item.box) > 0.3, item.class_name
        heat = found.geometry[0].heatmap_to_original(found.heatmaps[0, t])
        y, x = np.unravel_index(heat.argmax(), heat.shape)
        x0, y0, x1, y1 = item.box
        assert x0 <= x < x1 and y0 <= y < y1, item.class_name
        # nowhere near as much heat on the other objects, relative to their size
        own = heat[item.mask].mean()
        assert all(heat[other.mask].mean() < own / 2 for other in truth.objects if other is not item)


def test_heat_lies_on_the_objects_of_scenes_that_the_model_never_saw(bundled):
    inside, even = [], []
    for each in scenes(12, seed=5_150, size=192):
        present = sorted({item.class_index for item in each.objects})
        found = bundled["weights"](each.image, targets=present)
        for t, index in enumerate(present):
            mask = each.class_mask(index)
            heat = found.geometry[0].heatmap_to_original(found.heatmaps[0, t])
            inside.append(heat[mask].sum() / heat.sum() if heat.any() else 0)
            even.append(mask.mean())
    assert np.mean(inside) > 3 * np.mean(even)


def test_the_emit_levels_give_the_same_maps(bundled, pictures):
    results = [explainer(pictures, targets=[-1, -2, 4]) for explainer in bundled.values()]
    first = results[0]
    assert (first.maps.max(axis=(2, 3)) > 0).any(axis=1).all()
    for other in results[1:]:
        assert (other.classes == first.classes).all()
        assert np.array_equal(other.scores, first.scores)
        assert np.abs(other.maps - first.maps).max() <= 1e-5 * first.maps.max()
        assert np.abs(other.heatmaps - first.heatmaps).max() <= 1e-4
        assert other.metadata.emit != first.metadata.emit


def test_the_map_is_the_papers_formula_on_plain_tensors(bundled, pictures):
    """ReLU(sum_k alpha_k A^k), with alpha the spatial mean of the gradients that the file gives."""
    raw = bundled["gradients"](pictures, targets=[-1, -3])
    found = bundled["weights"](pictures, targets=[-1, -3])
    x = network_input(pictures)
    exported = export_model(DATA / "scenes.onnx", emit="gradients", check=False).model
    names = [PREFIX + "activations", PREFIX + "gradients"]
    a, g = (v.astype(np.float64) for v in run(exported, {"image": x, PREFIX + "targets": np.array([[-1, -3]])}, names))
    expected = np.maximum(np.einsum("ntk,nkhw->nthw", g.mean((3, 4)), a), 0)
    assert share(found.maps, expected) < 1e-4 and share(raw.maps, expected) < 1e-4


def test_weights_and_maps_equal_pytorchs_autograd(bundled, pictures):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of this test")
    from fastcam_bench.models import bundled_net
    from fastcam_bench.oracles import torch_oracle as oracle

    model = onnx.load(DATA / "scenes.onnx")
    parameters = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in model.graph.initializer}
    ops = bundled_net.TorchOps(parameters, training=False)
    x = network_input(pictures)
    found = bundled["weights"](pictures, targets=[0, 5, -1])
    logits = bundled_net.network(ops, torch.from_numpy(x)).detach()
    np.testing.assert_allclose(torch.sigmoid(logits).numpy(), found.scores, atol=1e-5)
    a = run(with_output(model, found.metadata.layer.value), {"image": x})[1]
    gradients = oracle.gradients_at(lambda inputs: bundled_net.network(ops, inputs), x, a, found.classes)
    expected = np.maximum(np.einsum("ntk,nkhw->nthw", gradients.mean((3, 4)), a), 0)
    assert oracle.difference(found.maps, expected) <= 1e-4


def test_ranks_and_names_mean_the_classes_that_numpy_sorts_out(bundled, pictures):
    found = bundled["weights"](pictures, targets=[-1, -2, -3, -10])
    order = np.argsort(-found.scores, axis=1, kind="stable")
    assert (found.classes == order[:, [0, 1, 2, 9]]).all()
    for i, picture in enumerate(pictures[:2]):
        named = bundled["weights"](picture, targets=[CLASSES[k] for k in found.classes[i]])
        assert (named.classes[0] == found.classes[i]).all()
        np.testing.assert_allclose(named.maps[0], found.maps[i], atol=1e-5 * found.maps.max())


def test_a_batch_gives_what_its_pictures_give_one_by_one(bundled, pictures):
    together = bundled["weights"](pictures, targets=[-1, 2])
    for i, picture in enumerate(pictures):
        alone = bundled["weights"](picture, targets=[-1, 2])
        assert (alone.classes[0] == together.classes[i]).all() and alone.status[0] == together.status[i]
        np.testing.assert_allclose(alone.maps[0], together.maps[i], atol=1e-5 * together.maps.max())
        np.testing.assert_allclose(alone.boxes[0], together.boxes[i], atol=2)


def test_five_targets_and_targets_per_image_share_one_run(bundled, pictures):
    five = bundled["weights"](pictures, targets=[-1, 0, 3, 7, 9])
    assert five.maps.shape[:2] == (6, 5)
    per_image = [[int(five.classes[i, (t + i) % 5]) for t in range(5)] for i in range(6)]
    turned = bundled["weights"](pictures, targets=per_image)
    for i in range(6):
        expected = five.maps[i, [(t + i) % 5 for t in range(5)]]
        np.testing.assert_allclose(turned.maps[i], expected, atol=1e-5 * five.maps.max())


def test_earlier_stages_can_be_explained_too(bundled, pictures):
    for layer, side in (("stage1/relu2", 32), ("stage3/relu2", 16)):
        made = export_model(DATA / "scenes.onnx", layer=layer, preprocess="imagenet")
        assert made.check["bit_identical"]
        found = Explainer(made.model.SerializeToString())(pictures[:2])
        assert found.maps.shape[2:] == (side, side) and (found.maps.max(axis=(1, 2, 3)) > 0).all()


def test_the_exported_file_is_an_ordinary_onnx_model(bundled, pictures):
    made = export_model(DATA / "scenes.onnx").model
    onnx.checker.check_model(made, full_check=True)
    source = onnx.load(DATA / "scenes.onnx")
    assert [v.name for v in made.graph.output] == [v.name for v in source.graph.output] + list(OUTPUTS["weights"])
    assert {entry.domain for entry in made.opset_import} == {""}
    added = [n for n in made.graph.node if n.name.startswith(PREFIX)]
    assert added and all(not n.domain for n in added)
    x = np.random.default_rng(0).standard_normal((3, 3, 128, 128), np.float32)
    plain = run(source, {"image": x})[0]
    assert run(made, {"image": x})[0].tobytes() == plain.tobytes()  # without targets: the default is [[-1]]
    assert (run(made, {"image": x}, [PREFIX + "classes"])[0][:, 0] == plain.argmax(axis=1)).all()


# --- the command line, as a person runs it ------------------------------------------------------------------------


def fastcam(*arguments, cwd):
    environment = {**os.environ, "PYTHONUTF8": "1"}
    command = [sys.executable, "-m", "fastcam", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, check=False)


def test_demo_then_explain_with_the_file_that_it_wrote(tmp_path):
    shown = fastcam("demo", cwd=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, ""), shown.stderr
    lines = [line.split(": ", 1) for line in shown.stdout.splitlines() if ": " in line]
    said = [name for what, name in lines if what in ("exported model", "heatmap", "strip")]
    written = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert sorted([*said, os.path.join("demo", "explanation.json")]) == written
    for name in written:
        path = tmp_path / name
        if path.suffix == ".png" and path.name.startswith("scene-"):
            assert cv2.imread(str(path)).shape == (PICTURE_SIZE, PICTURE_SIZE, 3)
    exported = onnx.load(tmp_path / "demo" / "scenes.cam.onnx")
    assert METADATA_KEY in {entry.key for entry in exported.metadata_props}

    again = fastcam("explain", "demo/scenes.cam.onnx", DATA / "scene.jpg", "-t", "star", "--json", cwd=tmp_path)
    assert (again.returncode, again.stderr) == (0, ""), again.stderr
    target = json.loads(again.stdout)["images"][0]["targets"][0]
    star = next(item for item in scene(PICTURE_SEED, PICTURE_SIZE).objects if item.class_name == "star")
    assert target["class"] == CLASSES.index("star") and iou(target["box"], star.box) > 0.3


# --- real models and photos ---------------------------------------------------------------------------------------

REAL = {
    "squeezenet1.1": ("imagenet", IMAGENET, 0),
    "mobilenet_v2_1.0_224_quant.float": ("tf128", (np.full(3, 128.0), np.full(3, 128.0)), 1),
}


@pytest.fixture(scope="module", params=REAL)
def real(request, assets):
    """A real classifier: name, source, Export."""
    path = assets / "models" / f"{request.param}.onnx"
    return request.param, onnx.load(path), export_model(path, preprocess=REAL[request.param][0])


def test_squeezenet_equals_its_published_outputs_through_the_exported_file(assets):
    source = onnx.load(assets / "models" / "squeezenet1.1.onnx")
    exported = export_model(assets / "models" / "squeezenet1.1.onnx").model
    before, after = session(source), session(exported)
    for i in range(3):
        x = np.load(assets / "models" / "squeezenet1.1_reference" / f"ref_input_{i}.npy")
        expected = np.load(assets / "models" / "squeezenet1.1_reference" / f"ref_output_{i}.npy")
        logits = after.run(None, {"data": x})[0]
        assert np.abs(logits - expected.reshape(logits.shape)).max() <= 2e-4
        assert logits.tobytes() == before.run(None, {"data": x})[0].tobytes()


@pytest.mark.parametrize("photo", ["samoyed_256.png", "parrot.jpg"])
def test_photos_equal_a_computation_in_numpy(real, assets, photo):
    """Preprocessing, logits, the gradient of the head on paper, the map and the box, without FastCAM's code."""
    name, source, exported = real
    _, (mean, std), offset = REAL[name]
    bgr = cv2.imread(str(assets / "photos" / photo))
    small = cv2.resize(bgr, (224, 224), interpolation=cv2.INTER_AREA)[..., ::-1]
    x = ((small - mean) / std).transpose(2, 0, 1)[None].astype(np.float32)
    layer = exported.metadata.layer.value
    logits, a = run(with_output(source, layer), {source.graph.input[0].name: x})
    a = a.astype(np.float64)
    true = {"samoyed_256.png": 258, "parrot.jpg": 88}[photo] + offset
    assert logits.argmax() == true
    if name.startswith("squeezenet"):  # mean over places of ReLU(W A + b)
        w, b = (weight(source, f"squeezenet0_conv25_{which}") for which in ("weight", "bias"))
        on = (np.einsum("k,khw->hw", w[true, :, 0, 0], a[0]) + b[true]) > 0
        alpha = w[true, :, 0, 0] * on.mean() / on.size
    else:  # W mean(A) + b
        alpha = weight(source, "w_273")[true, :, 0, 0] / a[0, 0].size
    expected = np.maximum(np.einsum("k,khw->hw", alpha, a[0]), 0)

    found = Explainer(exported.model.SerializeToString())(assets / "photos" / photo, targets=[-1, true], threshold=0.3)
    assert found.classes.tolist() == [[true, true]]
    np.testing.assert_allclose(found.scores, logits, atol=1e-4)
    assert share(found.maps[0, 0], expected) < 1e-4
    np.testing.assert_allclose(found.maps[0, 0], found.maps[0, 1], rtol=1e-5)

    heat = cv2.resize(expected / expected.max(), (224, 224), interpolation=cv2.INTER_LINEAR)
    assert np.abs(found.heatmaps[0, 0] - heat).max() < 1e-4
    mask = (found.heatmaps[0, 0] >= 0.3 * found.heatmaps[0, 0].max()).astype(np.uint8)
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    left, top, width, height, _ = stats[1 + stats[1:, cv2.CC_STAT_AREA].argmax()]
    scale = np.array([bgr.shape[1], bgr.shape[0]] * 2) / 224
    assert count > 1
    np.testing.assert_allclose(found.boxes[0, 0], np.array([left, top, left + width, top + height]) * scale, atol=0.01)


def test_heatmaps_lie_on_the_objects_of_the_photos(real, assets):
    from fastcam_bench.accuracy.photos import measure, read_photos

    name, _, exported = real
    explainer = Explainer(exported.model.SerializeToString())
    known = [photo for photo in read_photos(assets / "photos") if photo.box]
    found = explainer([p.path for p in known], targets=[[p.class_index + REAL[name][2]] for p in known])
    seen = [
        measure(g.heatmap_to_original(heat[0]), p.box)
        for p, g, heat in zip(known, found.geometry, found.heatmaps, strict=True)
    ]
    assert len(known) == 10
    assert sum(each["pointing_hit"] for each in seen) >= 8
    assert np.mean([each["energy_inside"] for each in seen]) > 1.25 * np.mean([each["box_area"] for each in seen])


def test_the_measures_of_the_photo_table_equal_counts_on_paper(tmp_path):
    photos = pytest.importorskip("fastcam_bench.accuracy.photos")
    heat = np.zeros((10, 20), np.float32)
    heat[2:6, 4:8] = 1  # 16, of which 2 x 4 = 8 lie in the box
    heat[3, 5] = 3
    found = photos.measure(heat, (4, 2, 14, 4))
    assert found == {"energy_inside": 0.556, "box_area": 0.1, "pointing_hit": True}  # (8 + 2) / (16 + 2), 20 / 200
    assert photos.iou((0, 0, 4, 4), (2, 2, 6, 6)) == pytest.approx(4 / 28)
    assert photos.iou((0, 0, 4, 4), (4, 0, 6, 6)) == 0.0 == photos.iou((0, 0, 0, 0), (0, 0, 6, 6))

    model = brightness_model((64, 64), preset("unit", size=(64, 64)))
    picture = np.zeros((64, 128, 3), np.uint8)
    picture[8:24, 16:48] = 255
    cv2.imwrite(str(tmp_path / "one.png"), picture)
    even = photos.shift(Explainer(model.file()), photos.Photo(tmp_path / "one.png"))
    np.testing.assert_allclose(even, [0, 0], atol=1e-6)  # nothing in our geometry prefers a side


# --- public graphs of real exporters --------------------------------------------------------------------------------

GRAPHS = [*sorted(path.stem for path in LIGHT.glob("light_*.onnx")), "mnist", "resnet20_cifar10"]

LARGE = {"light_vgg19", "light_zfnet512"}
"""Hundreds of megabytes of the nodes that AlexNet has too: ``make test-all`` has them."""


def graph(name, assets_folder):
    return onnx.load((LIGHT if name.startswith("light_") else assets_folder() / "models") / f"{name}.onnx")


def free_batch(model):
    """A copy with a free batch; a Reshape to [1, ...] keeps its input's batch instead."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    constants = {t.name: t for t in copy.graph.initializer}
    for value in (*copy.graph.input, *copy.graph.output):
        if value.name not in constants:
            value.type.tensor_type.shape.dim[0].dim_param = "N"
    del copy.graph.value_info[:]
    for node in copy.graph.node:
        shape = constants.get(node.input[1]) if node.op_type == "Reshape" else None
        if shape is not None and numpy_helper.to_array(shape)[0] == 1:
            sides = numpy_helper.to_array(shape).copy()
            sides[0] = 0
            shape.CopyFrom(numpy_helper.from_array(sides, shape.name))
    return copy


@pytest.mark.parametrize("free", [False, True], ids=["fixed", "free"])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in LARGE else ()) for name in GRAPHS]
)
def test_public_graphs_export_at_their_default_layer_and_pass_the_check(name, free, request):
    model = graph(name, lambda: request.getfixturevalue("assets"))
    made = export_model(free_batch(model) if free else model)
    assert made.check["output_difference"] <= 1e-4 and made.check["gradient_error"] <= 1e-2
    softmax = any(word in made.metadata.score.output for word in ("prob", "softmax"))
    assert made.metadata.score.kind == ("logit" if softmax else "raw")
    batch = made.model.graph.output[-1].type.tensor_type.shape.dim[0]
    assert batch.dim_param == "N" if free or name.startswith("resnet20") else batch.dim_value == 1


def test_mnist_equals_a_computation_in_numpy(assets):
    """ReLU map [16, 14, 14] -> MaxPool 3, stride 3 -> 256 -> 10: each window's weight goes to its first maximum."""
    source = onnx.load(assets / "models" / "mnist.onnx")
    made = export_model(assets / "models" / "mnist.onnx", emit="gradients", preprocess="raw")
    assert made.metadata.layer.value == "ReLU114_Output_0" and made.metadata.preprocessing.color == "GRAY"
    digit = np.zeros((56, 56, 3), np.uint8)
    cv2.putText(digit, "7", (12, 46), cv2.FONT_HERSHEY_SIMPLEX, 1.6, (255, 255, 255), 5)
    x = cv2.resize(digit[..., 0], (28, 28), interpolation=cv2.INTER_AREA)[None, None].astype(np.float32)
    logits, a = run(with_output(source, "ReLU114_Output_0"), {"Input3": x})
    w = weight(source, "Parameter193").reshape(16, 4, 4, 10)
    explainer = Explainer(made.model.SerializeToString())
    found = explainer(digit, targets=[-1, 3, 8])
    assert np.array_equal(found.scores, logits) and found.classes[0, 0] == logits.argmax() == 7
    for t, c in enumerate(found.classes[0]):
        gradient = np.zeros((16, 14, 14))
        for k, i, j in np.ndindex(16, 4, 4):
            window = a[0, k, 3 * i : 3 * i + 3, 3 * j : 3 * j + 3]
            y, x_ = np.unravel_index(window.argmax(), (3, 3))
            gradient[k, 3 * i + y, 3 * j + x_] = w[k, i, j, c]
        expected = np.maximum(np.einsum("k,khw->hw", gradient.mean((1, 2)), a[0].astype(np.float64)), 0)
        assert np.abs(found.maps[0, t] - expected).max() <= 1e-4 * expected.max()


def test_resnet20_equals_a_computation_in_numpy(assets):
    """Global average pooling and a linear layer: alpha is a row of the weights over the number of places."""
    source = onnx.load(assets / "models" / "resnet20_cifar10.onnx")
    made = export_model(assets / "models" / "resnet20_cifar10.onnx", preprocess="imagenet")
    small = [cv2.imread(str(assets / "photos" / f), cv2.IMREAD_COLOR)[..., ::-1] for f in ("cat_720p.jpg", "bird.png")]
    x = np.stack([cv2.resize(p, (32, 32), interpolation=cv2.INTER_AREA) for p in small])
    x = ((x - IMAGENET[0]) / IMAGENET[1]).transpose(0, 3, 1, 2).astype(np.float32)
    logits, a = run(with_output(source, made.metadata.layer.value), {"input": x})
    found = Explainer(made.model.SerializeToString())([np.ascontiguousarray(p) for p in small], targets=[-1, 3, 2])
    np.testing.assert_allclose(found.scores, logits, atol=1e-5)
    alpha = weight(source, "linear.weight")[found.classes] / (a.shape[2] * a.shape[3])
    expected = np.maximum(np.einsum("ntk,nkhw->nthw", alpha, a.astype(np.float64)), 0)
    assert share(found.maps, expected) < 1e-4
