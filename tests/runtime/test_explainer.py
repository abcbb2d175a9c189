"""Explainer and Explanation over a hand-made exported file, against NumPy, torch and SciPy; and every bad input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np
import onnx
import pytest
import scipy.ndimage
import torch
from onnx import numpy_helper

import fastcam
from fastcam import Explainer, FastcamError, methods
from fastcam.results.explanation import unique_stems
from fastcam.schema import EMITS, METADATA_KEY, Preprocessing, preset
from fastcam.targets import Targets, read_labels, short_label
from support.contract_model import PATCH, ContractModel, brightness_model, random_model

LABELS = ("n001 ignored", "n02123045 tabby, tabby cat", "crane", "n02012849 crane, bird", "golden retriever")


def batch(count, size=(32, 32), seed=1, channels=3):
    return np.random.default_rng(seed).random((count, channels, *size)).astype(np.float32)


def noise(height=40, width=50, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model():
    return random_model(end="Softmax", labels=LABELS)


@pytest.fixture(scope="module")
def explainer(model):
    return Explainer(model.file())


# --- numbers ----------------------------------------------------------------------------------------------------


def expected_boxes(heatmaps, threshold, connectivity):
    """The box of the largest component of every heatmap, by SciPy."""
    structure = np.ones((3, 3)) if connectivity == 8 else None
    boxes = np.zeros((*heatmaps.shape[:2], 4))
    for index in np.ndindex(*heatmaps.shape[:2]):
        heat = heatmaps[index]
        labels, count = scipy.ndimage.label((heat >= threshold * heat.max()) & (heat > 0), structure)
        if count:
            largest = int(np.argmax(np.bincount(labels.ravel())[1:]))
            rows, columns = scipy.ndimage.find_objects(labels)[largest]
            boxes[index] = columns.start, rows.start, columns.stop, rows.stop
    return boxes


@pytest.mark.parametrize("kernels", ["native", "reference"])
@pytest.mark.parametrize("end", ["", "Softmax", "Sigmoid"])
@pytest.mark.parametrize("emit", EMITS)
def test_every_number_follows_from_the_formulas(emit, end, kernels):
    model, x = random_model(seed=1, end=end), batch(3)
    found = Explainer(model.file(emit), kernels=kernels)(x, targets=[-1, 2, -5], threshold=0.3, connectivity=4)
    classes = model.classes(x, [-1, 2, -5])
    np.testing.assert_array_equal(found.classes, classes)
    np.testing.assert_allclose(found.scores, model.scores(x), rtol=1e-5, atol=1e-6)
    signed = model.signed(x, classes)
    np.testing.assert_allclose(found.maps, np.maximum(signed, 0), rtol=1e-4, atol=1e-6 * np.abs(signed).max())
    peaks = found.maps.max(axis=(2, 3), keepdims=True)
    low = torch.tensor(found.maps / np.where(peaks > 0, peaks, 1))
    up = torch.nn.functional.interpolate(low, size=(32, 32), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(found.heatmaps, up.numpy(), atol=1e-5)
    np.testing.assert_array_equal(found.boxes, expected_boxes(found.heatmaps, 0.3, 4))
    negative = "no_positive" if emit == "cam" else "all_negative"
    expected = np.where((signed > 0).any(axis=(2, 3)), "ok", negative)
    np.testing.assert_array_equal(np.array(found.status), expected)
    assert {"ok", negative} == set(expected.ravel())  # the case covers both
    assert (found.boxes[expected != "ok"] == 0).all() and (found.heatmaps[expected != "ok"] == 0).all()
    assert set(found.outputs) == {"scores"}


def test_gradcam_weights_are_the_spatial_mean_of_the_gradient():
    gradients = np.random.default_rng(0).normal(size=(2, 3, 4, 5, 6)).astype(np.float32)
    expected = np.array([[[plane.astype(np.float64).sum() / 30 for plane in t] for t in n] for n in gradients])
    found = methods.gradcam_weights(gradients)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_zero_gradient_and_non_finite_are_told_apart(model):
    dead = replace(model, head=np.vstack([model.head[:4], np.zeros((1, 6), np.float32)]), end="")
    x = batch(2)
    x[1, 0, 3, 3] = np.nan
    found = Explainer(dead.file())(x, targets=[4, 0])
    assert found.status[0][0] == "zero_gradient" and found.status[1] == ("non_finite", "non_finite")
    assert np.isfinite(found.heatmaps).all() and (found.heatmaps[1] == 0).all() and (found.boxes[1] == 0).all()
    assert found.to_dict()["images"][1]["targets"][0]["score"] is None
    json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.parametrize("resize", ["stretch", "crop", "letterbox"])
@pytest.mark.parametrize("original", [(240, 400), (300, 150), (64, 64)])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_the_box_surrounds_the_bright_object_in_original_pixels(resize, original, layout):
    height, width = original
    how = preset("unit", size=(96, 128), resize=resize, layout=layout, pad_value=0)
    explainer = Explainer(brightness_model((96, 128), how, layout=layout).file())
    image = np.zeros((height, width, 3), np.uint8)
    side = min(original) * 0.5
    x0, y0 = round(width / 2 - side * 0.45), round(height / 2 - side * 0.3)
    x1, y1 = round(width / 2 + side * 0.35), round(height / 2 + side * 0.45)
    image[y0:y1, x0:x1] = 255
    found = explainer(image, targets=[0, 1], threshold=0.5)
    geometry = found.geometry[0]
    # the map has one cell per 4 x 4 input pixels: that, in original pixels, is the resolution there is
    cell = PATCH * (geometry.source[2] - geometry.source[0]) / (geometry.target[2] - geometry.target[0])
    cell = max(cell, PATCH * (geometry.source[3] - geometry.source[1]) / (geometry.target[3] - geometry.target[1]))
    np.testing.assert_allclose(found.boxes[0, 0], [x0, y0, x1, y1], atol=cell + 1)
    assert found.status == (("ok", "all_negative"),) and not found.boxes[0, 1].any()
    heat = geometry.heatmap_to_original(found.heatmaps[0, 0])
    assert heat[y0:y1, x0:x1].mean() > 0.5 > 0.1 > np.delete(heat, slice(int(y0 - cell), int(y1 + cell)), axis=0).max()


def test_components_are_in_original_pixels_and_the_largest_gives_the_box():
    how = preset("unit", size=(64, 64))
    image = np.zeros((128, 256, 3), np.uint8)
    image[16:48, 32:96] = 255
    image[64:128, 160:256] = 255
    found = Explainer(brightness_model((64, 64), how).file())(image, targets=0, threshold=0.9)
    parts = found.components[0][0]
    assert len(parts) == 2
    # scale 4 across, 2 down; at 90 % of the peak a region loses at most half a cell (4 px) at each side
    np.testing.assert_allclose(parts[:, :4], [[32, 16, 96, 48], [160, 64, 256, 128]], atol=9)
    areas = (parts[:, 2] - parts[:, 0]) * (parts[:, 3] - parts[:, 1]) / 8
    np.testing.assert_allclose(parts[:, 4], areas, rtol=0.1)
    np.testing.assert_array_equal(found.boxes[0, 0], parts[1, :4])


def test_heat_on_letterbox_bars_gives_no_box():
    how = preset("unit", size=(64, 64), resize="letterbox", pad_value=255)
    found = Explainer(brightness_model((64, 64), how).file())(
        np.zeros((32, 128, 3), np.uint8), targets=0, threshold=0.5
    )
    assert found.status == (("ok",),) and found.components[0][0].shape == (0, 5)
    assert not found.boxes.any() and found.to_dict()["images"][0]["targets"][0]["box"] is None


def test_grey_models_take_colour_pictures():
    how = preset("unit", size=(32, 32), color="GRAY")
    found = Explainer(brightness_model((32, 32), how).file())(np.full((32, 32, 3), 255, np.uint8), targets=0)
    np.testing.assert_allclose(found.maps[0, 0] * 64, 0.3, rtol=1e-5)


# --- batches, targets, inputs -----------------------------------------------------------------------------------


def same(a, b):
    for name in ("scores", "classes", "maps", "heatmaps", "boxes"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-5, atol=1e-6, err_msg=name)
    assert a.status == b.status and a.files == b.files and a.geometry == b.geometry
    for one, other in zip(a.components, b.components, strict=True):
        for parts, others in zip(one, other, strict=True):
            np.testing.assert_allclose(parts, others, rtol=1e-5)


@pytest.mark.parametrize("fixed", [1, 2, 3, 5, 8])
def test_fixed_batches_give_what_a_free_batch_gives(model, explainer, fixed):
    x, targets = batch(5), [[-1, 0], [1, 1], [-2, 3], [4, -5], [2, -1]]
    fixed_batch = Explainer(replace(model, batch=fixed).file())
    assert fixed_batch.batch_size == fixed and fixed_batch.input_shape == (fixed, 3, 32, 32)
    for chosen in (targets, -1):
        found = fixed_batch(x, targets=chosen)
        same(found, explainer(x, targets=chosen))
        np.testing.assert_allclose(found.outputs["scores"], model.scores(x), rtol=1e-5)


def test_chunks_give_what_one_run_gives(model, explainer):
    pictures = [noise(30 + i, 60 - i, seed=i) for i in range(7)]
    targets = [[i % 5, -1] for i in range(7)]
    chunked = Explainer(model.file(), batch_size=3)(pictures, targets)
    same(chunked, explainer(pictures, targets))
    assert len(chunked) == 7 and chunked.outputs["scores"].shape == (7, 5)
    np.testing.assert_array_equal(chunked.images[5], pictures[5])


def test_targets_per_image_are_the_images_own(model, explainer):
    x = batch(2)
    found = explainer(x, targets=[["tabby", -1], [0, -2]])
    ranked = model.classes(x, [-1, -2])
    np.testing.assert_array_equal(found.classes, [[1, ranked[0, 0]], [0, ranked[1, 1]]])
    np.testing.assert_allclose(found.maps, np.maximum(model.signed(x, found.classes), 0), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("tabby", 1),
        ("Tabby Cat", 1),
        ("n02123045 tabby, tabby cat", 1),
        ("tabby, tabby cat", 1),
        ("n02123045", 1),
        ("crane", 2),  # the whole label goes before a part of another
        ("crane, bird", 3),
        ("  golden   RETRIEVER ", 4),
    ],
)
def test_class_names_are_found(name, index):
    assert Targets(5, LABELS).resolve(name, 1).classes.tolist() == [[index]]


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (5, "class 5 is out of range: the model has 5 classes, 0 to 4, or -1 to -5"),
        (-6, "class -6 is out of range"),
        ([0, 1000], "class 1000 is out of range"),
        ("taby", "no class 'taby'; did you mean 'tabby'"),
        ("zeppelin", "no class 'zeppelin'; the model knows 5 classes"),
        ("", "no class ''"),
        (True, "must be a class index"),
        (1.5, "must be a class index"),
        (None, "must be a class index"),
        ([], "no targets"),
        ([[], []], "no targets"),
        ([[0], [1], [2]], "targets for 3 images were given, but there are 2"),
        ([[0], []], "no targets"),
        ([[0], 1], "both were given"),
        (np.zeros((2, 1, 1), np.int64), "must be a class index"),
    ],
)
def test_impossible_targets_are_refused(explainer, targets, words):
    with pytest.raises(FastcamError, match=words) as caught:
        explainer(batch(2), targets=targets)
    assert "\n" not in str(caught.value)


def test_ambiguous_and_nameless_classes_ask_for_the_index():
    twins = Targets(3, ("crane", "cock", "crane"))
    with pytest.raises(FastcamError, match=r"'Crane' is ambiguous: 0 \(crane\), 2 \(crane\); give the index"):
        twins.one("Crane")
    with pytest.raises(FastcamError, match="no class names"):
        Targets(3, None).one("crane")


def test_labels_are_shortened_for_captions():
    assert [short_label(label) for label in LABELS[1:4]] == ["tabby", "crane", "crane"]
    assert short_label("n64 console, game") == "n64 console"


def test_labels_come_from_a_file_or_a_list(model, tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("\ufeffa\nb\nü\nd\ne\n\n", encoding="utf-8")
    for labels in (path, str(path), ["a", "b", "ü", "d", "e"]):
        assert Explainer(model.file(), labels=labels)(batch(1), targets="Ü").classes.tolist() == [[2]]
    assert read_labels(path, None) == ("a", "b", "ü", "d", "e")
    with pytest.raises(FastcamError, match="2 labels do not fit a model with 5 classes"):
        Explainer(model.file(), labels=["a", "b"])
    with pytest.raises(FastcamError, match=r"absent\.txt: cannot be read"):
        Explainer(model.file(), labels="absent.txt")


@pytest.mark.parametrize("mode", ["default", "required"])
def test_the_targets_input_may_be_required(model, mode):
    found = Explainer(model.file(targets=mode))(batch(2))
    np.testing.assert_array_equal(found.classes, model.classes(batch(2), [-1]))


def test_constant_targets_cannot_be_changed(model):
    constant = Explainer(model.file(targets="constant"))
    np.testing.assert_array_equal(constant(batch(2)).classes, model.classes(batch(2), [-1]))
    for targets in (0, [-1, -2], "tabby"):
        with pytest.raises(FastcamError, match="constant targets"):
            constant(batch(2), targets=targets)


def test_pictures_arrive_in_every_form(explainer, tmp_path):
    image = noise()
    path = tmp_path / "ein Bild.png"
    cv2.imwrite(str(path), image[..., ::-1])
    found = [explainer(source) for source in (image, [image], path, str(path), [path], torch.tensor(image))]
    for other in found[1:]:
        np.testing.assert_array_equal(found[0].heatmaps, other.heatmaps)
    assert found[3].files == (str(path),) and found[0].files == (None,)
    np.testing.assert_array_equal(found[2].image(), image)


def test_tensors_of_other_float_types_are_cast(explainer):
    x = batch(2)
    same(explainer(x), explainer(torch.tensor(x)))
    same(explainer(x), explainer(x.astype(np.float64)))
    same(explainer(x), explainer(np.ascontiguousarray(x[:, :, ::-1])[:, :, ::-1]))


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ([], "no images"),
        (batch(2, (32, 31)), r"must be \[N, 3, 32, 32\]"),
        (batch(2, channels=1), "a float tensor must be"),
        (batch(1)[0], "a float tensor must be"),
        (np.zeros((0, 3, 32, 32), np.float32), "no elements"),
        (np.zeros((2, 9, 9, 3), np.uint8), "as a list"),
        (np.zeros((0, 9, 3), np.uint8), "no pixels: 9 x 0"),
        ([np.zeros((9, 9, 3), np.uint8), "absent.png"], r"absent\.png: cannot be read"),
        ([batch(1)[0]], "must be uint8"),
        (7, "must be uint8"),
    ],
)
def test_impossible_images_are_refused(explainer, images, words):
    with pytest.raises(FastcamError, match=words) as caught:
        explainer(images)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("settings", [{"threshold": 0}, {"threshold": 1.5}, {"connectivity": 6}])
def test_impossible_settings_are_refused(explainer, settings):
    with pytest.raises(FastcamError):
        explainer(batch(1), **settings)


# --- preprocessing ----------------------------------------------------------------------------------------------


def test_without_preprocessing_pictures_are_refused_and_tensors_work(model):
    plain = replace(model, preprocessing=None).file()
    with pytest.raises(FastcamError, match="--preprocess, one of: imagenet, tf"):
        Explainer(plain)(noise())
    found = Explainer(plain)(batch(2))
    np.testing.assert_allclose(found.scores, model.scores(batch(2)), rtol=1e-5)
    assert found.overlay().shape == (32, 32, 3)


@pytest.mark.parametrize("given", ["imagenet", preset("imagenet", size=(32, 32)), preset("imagenet", size=None)])
def test_preprocessing_can_be_said_by_the_user(model, given):
    image = noise(32, 32)
    found = Explainer(replace(model, preprocessing=None).file(), preprocess=given)(image)
    x = (image / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(found.scores, model.scores(x.transpose(2, 0, 1)[None]), rtol=1e-4)


def test_a_preset_keeps_the_resize_rule_of_the_file(model):
    file = replace(model, preprocessing=preset("imagenet", size=(32, 32), resize="letterbox")).file()
    how = Explainer(file, preprocess="tf").metadata.preprocessing
    assert how == preset("tf", size=(32, 32), resize="letterbox")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("imagnet", "no preprocessing preset 'imagnet'"),
        (Preprocessing(size=(64, 64)), r"the input of .* is \(32, 32\)"),
    ],
)
def test_preprocessing_that_does_not_fit_is_refused(model, given, words):
    with pytest.raises(FastcamError, match=words):
        Explainer(model.file(), preprocess=given)


def test_a_grey_preprocessing_does_not_fit_a_colour_model(model):
    grey = Explainer(model.file(), preprocess=preset("unit", size=(32, 32), color="GRAY"))
    with pytest.raises(FastcamError, match="takes 3 channels, its preprocessing makes 1"):
        grey(noise())


def test_models_of_free_size_see_pictures_in_their_own():
    model = random_model(size=("H", "W"), preprocessing=preset("unit", size=None))
    explainer = Explainer(model.file())
    image = noise(48, 80)
    found = explainer(image, targets=1)
    x = image.transpose(2, 0, 1)[None] / 255
    np.testing.assert_allclose(found.maps, np.maximum(model.signed(x, np.array([[1]])), 0), rtol=1e-4, atol=1e-7)
    assert found.heatmaps.shape == (1, 1, 48, 80)
    with pytest.raises(FastcamError, match="one by one"):
        explainer([noise(48, 80), noise(48, 84)])


# --- explanations -----------------------------------------------------------------------------------------------


def test_explanations_are_indexed_by_image(explainer):
    pictures = [noise(seed=i) for i in range(3)]
    found = explainer(pictures, targets=[-1, -2])
    assert len(found) == 3 and [len(one) for one in found] == [1, 1, 1]
    same(found[1], explainer(pictures[1], targets=[-1, -2]))
    np.testing.assert_array_equal(found[-1].maps, found.maps[2:])
    np.testing.assert_array_equal(found[1:].outputs["scores"], found.outputs["scores"][1:])
    with pytest.raises(IndexError):
        found[3]
    with pytest.raises(AttributeError):
        found.boxes = None


def test_an_overlay_is_the_blend_with_box_and_caption():
    how = preset("unit", size=(64, 64))
    image = np.zeros((128, 192, 3), np.uint8)
    image[60:100, 60:120] = 255
    found = Explainer(brightness_model((64, 64), how).file())(image, targets=[0, 1])
    drawn = found.overlay(0, 0, alpha=0.5)
    assert drawn.shape == image.shape and drawn.dtype == np.uint8
    # far from box and caption: half the picture, half the colour of the heat there
    heat = found.geometry[0].heatmap_to_original(found.heatmaps[0, 0])
    v = np.rint(heat[80, 90] * 255) / 255
    jet = np.clip(1.5 - np.abs(4 * v - np.array([3, 2, 1])), 0, 1) * 255
    np.testing.assert_allclose(drawn[80, 90], 0.5 * image[80, 90] + 0.5 * jet, atol=1.01)
    np.testing.assert_allclose(drawn[120, 10], [0, 0, 64], atol=1)
    x0, y0, x1, y1 = found.boxes[0, 0].astype(int)
    assert (drawn[y0, x0 + 3 : x1 - 3] == 255).all() and (drawn[y0 + 3 : y1 - 3, x0] == 255).all()
    np.testing.assert_array_equal(found.overlay(alpha=0.5), drawn)
    np.testing.assert_array_equal(found.overlay(0, -2), drawn)
    assert (found.heatmap_image(0, 1) == [0, 0, 128]).all()  # nothing speaks for class 1: cold everywhere
    for bad in ({"target": 2}, {"colors": "rainbow"}, {"alpha": 2.0}):
        with pytest.raises(FastcamError):
            found.overlay(0, **bad)


def test_small_overlays_can_be_magnified():
    image = np.zeros((30, 40, 3), np.uint8)
    image[10:26, 8:30] = 255
    explainer = Explainer(brightness_model((32, 32), preset("unit", size=(32, 32))).file())
    found = explainer(image, targets=0, threshold=1.0)
    assert found.overlay().shape == (30, 40, 3)
    drawn = found.overlay(min_side=100, alpha=1.0)
    assert drawn.shape == (120, 160, 3)
    # the heat is drawn at the large size, not magnified in blocks
    heat = cv2.resize(found.heatmaps[0, 0], (160, 120), interpolation=cv2.INTER_LINEAR)
    v = np.rint(np.clip(heat, 0, 1) * 255)[..., None] / 255
    jet = np.clip(1.5 - np.abs(4 * v - np.array([3, 2, 1])), 0, 1) * 255
    seen = np.ones((120, 160), bool)
    x0, y0, x1, y1 = np.rint(found.boxes[0, 0] * 4).astype(int)
    seen[:30] = seen[y0 - 4 : y1 + 4, x0 - 4 : x1 + 4] = False  # caption and box
    assert np.ptp(heat[seen]) > 0.5
    np.testing.assert_allclose(drawn[seen], jet[seen], atol=6)


def test_to_dict_says_everything_but_the_pixels(explainer, tmp_path):
    path = tmp_path / "cat.png"
    cv2.imwrite(str(path), noise(40, 50))
    found = explainer([path, noise(20, 30)], targets=[1, -1])
    report = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert report["model"] == "contract.onnx" and report["layer"] == "features" and report["method"] == "gradcam"
    assert report["score"] == {"output": "scores", "kind": "logit"} and report["threshold"] == 0.15
    first, second = report["images"]
    assert (first["file"], first["width"], first["height"]) == (str(path), 50, 40)
    assert (second["file"], second["width"], second["height"]) == (None, 30, 20)
    for i, image in enumerate(report["images"]):
        for t, target in enumerate(image["targets"]):
            index = int(found.classes[i, t])
            assert target["class"] == index and target["label"] == LABELS[index]
            assert target["score"] == pytest.approx(float(found.scores[i, index]))
            assert target["status"] == found.status[i][t]
            box = found.boxes[i, t] if found.status[i][t] == "ok" else None
            assert target["box"] == (None if box is None else pytest.approx(box, abs=0.006))
            parts = [[part[key] for key in ("x0", "y0", "x1", "y1", "pixels")] for part in target["components"]]
            np.testing.assert_allclose(np.reshape(parts, (-1, 5)), found.components[i][t], atol=0.006)


def test_save_writes_overlays_and_one_report(explainer, tmp_path):
    path = tmp_path / "my cat.png"
    cv2.imwrite(str(path), noise(300, 250))
    found = explainer([path, noise(300, 250, 1)], targets=[1, 4])
    written = found.save(tmp_path / "new" / "out")
    assert [item.name for item in written] == [
        "my-cat-1-tabby.png",
        "my-cat-2-golden-retriever.png",
        "image-1-1-tabby.png",
        "image-1-2-golden-retriever.png",
        "explanation.json",
    ]
    assert sorted(os.listdir(tmp_path / "new" / "out")) == sorted(item.name for item in written)
    np.testing.assert_array_equal(cv2.imread(str(written[1]))[..., ::-1], found.overlay(0, 1))
    assert json.loads(written[-1].read_text(encoding="utf-8")) == found.to_dict()
    found.save(tmp_path / "new" / "out")  # once more, over it
    assert len(os.listdir(tmp_path / "new" / "out")) == 5


def test_a_save_that_fails_leaves_nothing(explainer, tmp_path, monkeypatch):
    found = explainer([noise(), noise()])
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file", tmp_path / "file" / "sub"):
        with pytest.raises(FastcamError, match="cannot be written"):
            found.save(folder)
    calls = []

    def full_disk(image):
        calls.append(image)
        if len(calls) == 2:
            raise FastcamError("disk full")
        return b"png"

    monkeypatch.setattr("fastcam.render.drawing.encode_png", full_disk)
    with pytest.raises(FastcamError, match="disk full"):
        found.save(tmp_path / "out")
    assert os.listdir(tmp_path) == ["file"] and (tmp_path / "file").read_text() == "in the way"


def test_file_stems_are_unique():
    assert unique_stems(["a/cat.png", "b/cat.jpg", "cat_2.png", None]) == ["cat", "cat_2", "cat_2_2", "image-3"]
    assert unique_stems([None]) == ["image"] and unique_stems(["???.png"]) == ["image"]


# --- threads ----------------------------------------------------------------------------------------------------


def test_eight_threads_share_one_explainer(explainer):
    pictures = [noise(seed=i) for i in range(4)]
    alone = [explainer(picture, targets=[-1, 2]) for picture in pictures]
    with ThreadPoolExecutor(8) as pool:
        shared = list(pool.map(lambda i: explainer(pictures[i % 4], targets=[-1, 2]), range(64)))
    for i, found in enumerate(shared):
        for name in ("scores", "classes", "maps", "heatmaps", "boxes"):
            np.testing.assert_array_equal(getattr(found, name), getattr(alone[i % 4], name))
        assert found.status == alone[i % 4].status


# --- files that cannot be explained -----------------------------------------------------------------------------


def without_output(data, name):
    model = onnx.load_from_string(data)
    outputs = [output for output in model.graph.output if output.name != name]
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: b"", "not an ONNX file, or cut short"),
        (lambda data: b"hello", "not an ONNX file, or cut short"),
        (lambda data: data[: len(data) // 2], "not an ONNX file, or cut short"),
        (lambda data: data[:-3], "not an ONNX file, or cut short"),
        (lambda data: without_output(data, "fastcam.weights"), "lacks fastcam.weights"),
        (lambda data: data.replace(b'"schema": 1', b'"schema": 9'), "metadata schema 9"),
        (lambda data: data.replace(b'"emit"', b'"time"'), "metadata is incomplete"),
        (lambda data: random_model().file(metadata=False), "was not exported by FastCAM; run: fastcam export"),
    ],
)
@pytest.mark.parametrize("as_path", [True, False])
def test_files_that_cannot_be_explained(model, tmp_path, change, words, as_path):
    given = change(model.file())
    if as_path:
        (tmp_path / "odd.onnx").write_bytes(given)
        given = tmp_path / "odd.onnx"
    with pytest.raises(FastcamError, match=words) as caught:
        Explainer(given)
    assert "\n" not in str(caught.value)
    if as_path and "metadata" not in words:
        assert str(given) in str(caught.value)


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(FastcamError, match=r"absent\.onnx: no such file"):
        Explainer(tmp_path / "absent.onnx")
    with pytest.raises(FastcamError, match="not a file"):
        Explainer(tmp_path)


@pytest.mark.parametrize("as_path", [True, False])
def test_missing_external_data_is_named(model, tmp_path, as_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where ONNX Runtime looks for the data of a model given as bytes
    path = tmp_path / "model.onnx"
    proto = onnx.load_from_string(model.file())
    onnx.save_model(proto, path, save_as_external_data=True, location="model.data", size_threshold=256)
    assert Explainer(path)(batch(1)).classes.shape == (1, 1)
    for damage, words in ((lambda file: os.truncate(file, 100), "cut short"), (os.unlink, "model.data, is missing")):
        damage(tmp_path / "model.data")
        with pytest.raises(FastcamError, match=f"external data.*{words}") as caught:
            Explainer(path if as_path else path.read_bytes())
        assert "\n" not in str(caught.value)


def test_further_required_inputs_are_named(model):
    proto = onnx.load_from_string(model.file())
    proto.graph.input.append(onnx.helper.make_tensor_value_info("extra", 1, [1]))
    proto.graph.node.append(onnx.helper.make_node("Add", ["logits", "extra"], ["unused"]))
    with pytest.raises(FastcamError, match=r"needs further inputs \(extra\)"):
        Explainer(proto.SerializeToString())


def test_a_failing_run_is_reported_in_one_line(model):
    proto = onnx.load_from_string(model.file())
    proto.graph.initializer.append(numpy_helper.from_array(np.array([7, 3]), "shape"))  # fits no batch of scores
    proto.graph.node.append(onnx.helper.make_node("Reshape", ["logits", "shape"], ["odd"]))
    proto.graph.output.append(onnx.helper.make_tensor_value_info("odd", 1, [7, 3]))
    broken = Explainer(proto.SerializeToString())
    with pytest.raises(FastcamError, match="ONNX Runtime could not run it") as caught:
        broken(batch(1))
    assert "\n" not in str(caught.value)


def test_half_precision_inputs_and_maps_are_read(model):
    proto = onnx.load_from_string(model.file())
    proto.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    for node in proto.graph.node:
        node.input[:] = ["image32" if name == "image" else name for name in node.input]
    proto.graph.node.insert(0, onnx.helper.make_node("Cast", ["image"], ["image32"], to=1))
    found = Explainer(proto.SerializeToString())(batch(2))
    np.testing.assert_allclose(found.scores, model.scores(batch(2)), atol=2e-3)


# --- providers, threads, installation ---------------------------------------------------------------------------


def test_threads_and_batch_size_must_be_positive(model):
    assert Explainer(model.file(), threads=1, providers="cpu")(batch(1)).status[0][0] in ("ok", "all_negative")
    with pytest.raises(FastcamError, match="threads must be at least 1"):
        Explainer(model.file(), threads=0)
    with pytest.raises(FastcamError, match="batch size must be at least 1"):
        Explainer(model.file(), batch_size=0)
    with pytest.raises(FastcamError, match="no kernels 'fast'"):
        Explainer(model.file(), kernels="fast")


def fresh(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_importing_fastcam_loads_nothing_heavy():
    heavy = ["onnx", "torch", "cv2", "cupy", "onnxruntime", "onnx_ir", "fastcam_export", "fastcam_bench"]
    found = fresh(f"import sys, fastcam; print([name for name in {heavy} if name in sys.modules])")
    assert found.stdout.strip() == "[]", found.stderr


def test_the_run_time_never_loads_the_export_step():
    code = (
        "import sys, fastcam, fastcam.cli, fastcam.explainer, fastcam.results.explanation; fastcam.Explainer; "
        "print([name for name in ('onnx', 'onnx_ir', 'torch', 'cv2', 'cupy', 'fastcam_export') if name in sys.modules])"
    )
    found = fresh(code)
    assert found.stdout.strip() == "[]", found.stderr


@pytest.mark.parametrize(
    ("module", "words"), [("onnxruntime", "pip install fastcam[cpu]"), ("cv2", "pip install opencv-python")]
)
def test_what_is_not_installed_is_named(module, words):
    code = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from fastcam import FastcamError\nfrom fastcam.image import preprocess as image\n"
        "from fastcam.runtime import session\n"
        "try: image.opencv(); session.create_session(b'')\n"
        "except FastcamError as error: print(error)"
    )
    found = fresh(code)
    assert words in found.stdout and found.stdout.count("\n") == 1, found.stderr


def test_lazy_names_are_the_real_ones():
    assert fastcam.Explainer is Explainer and fastcam.Explanation.__name__ == "Explanation"
    with pytest.raises(AttributeError):
        fastcam.absent  # noqa: B018


def test_metadata_key_is_what_the_file_carries(model):
    proto = onnx.load_from_string(model.file())
    assert [entry.key for entry in proto.metadata_props] == [METADATA_KEY]
    assert isinstance(model, ContractModel)
