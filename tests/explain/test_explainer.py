"""Explainer over a hand-made exported file: its numbers against NumPy, torch and SciPy; batches, threads, bad input."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.ndimage
import torch

import fastcam
from fastcam import Explainer, FastcamError, methods
from fastcam.schema import EMITS, preset
from fastcam_export import export_model
from support.models.contract_model import LABELS, PATCH, batch, brightness_model, noise, random_model, same

MOST_STEPS = 310
"""Functions that a call calls. After a run, which empties the caches, each takes up to a microsecond."""


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


# --- batches, targets, inputs -----------------------------------------------------------------------------------


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


# --- providers, threads, installation ---------------------------------------------------------------------------


def test_threads_and_batch_size_must_be_positive(model):
    assert Explainer(model.file(), threads=1, providers="cpu")(batch(1)).status[0][0] in ("ok", "all_negative")
    with pytest.raises(FastcamError, match="threads must be at least 1"):
        Explainer(model.file(), threads=0)
    with pytest.raises(FastcamError, match="batch size must be at least 1"):
        Explainer(model.file(), batch_size=0)
    with pytest.raises(FastcamError, match="no kernels 'fast'"):
        Explainer(model.file(), kernels="fast")


def test_gradients_at_the_image_run_as_many_pairs_of_image_and_target_as_the_batch_has_images(monkeypatch):
    data = Path(fastcam.__file__).parent / "data"
    made = export_model(data / "scenes.onnx", preprocess="imagenet", input_gradient="gradient", check=False)
    file = made.model.SerializeToString()
    pictures = list(np.random.default_rng(0).integers(0, 256, (5, 128, 128, 3), np.uint8))
    explainer, ran = Explainer(file, batch_size=4, threads=1), []
    network = explainer._network
    forward = network.forward
    monkeypatch.setattr(network, "forward", lambda tensor, *rest: (ran.append(len(tensor)), forward(tensor, *rest))[1])
    asked = {count: explainer(pictures, targets=list(range(count))) for count in (1, 2, 6)}
    assert ran == [4, 1, 2, 2, 1, 1, 1, 1, 1, 1]
    ran.clear()
    streamed = {count: list(explainer.stream(pictures, list(range(count)))) for count in (1, 2, 6)}
    assert ran == [4, 1, 2, 2, 1, 1, 1, 1, 1, 1]
    ran.clear()
    own = list(explainer.stream(pictures, lambda number, _: [0, 1] if number < 3 else [0]))
    assert ran == [2, 1, 2]
    assert [len(each.explanation.classes[0]) for each in own] == [2, 2, 2, 1, 1]
    alone = Explainer(file, batch_size=1, threads=1)
    for count, frames in streamed.items():
        for picture, frame in zip(pictures, frames, strict=True):
            wanted = alone(picture, targets=list(range(count)))
            np.testing.assert_allclose(frame.explanation.input_gradients, wanted.input_gradients, rtol=1e-4, atol=1e-7)
    for count, found in asked.items():
        wanted = alone(pictures, targets=list(range(count)))
        np.testing.assert_allclose(found.input_gradients, wanted.input_gradients, rtol=1e-4, atol=1e-7)


def test_a_call_that_asks_as_one_before_takes_few_steps_in_python(explainer):
    picture, options = noise(40, 60), {"targets": -1, "threshold": 0.2}
    first, steps = explainer(picture, **options), []
    sys.setprofile(lambda frame, event, argument: steps.append(event) if event in ("call", "c_call") else None)
    try:
        again = explainer(picture, **options)
    finally:
        sys.setprofile(None)
    same(first, again)
    assert len(steps) < MOST_STEPS
