"""Heatmaps in other tools' styles against the very functions that these tools call: OpenCV's, Pillow's, torch's."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from fastcam import Explainer, FastcamError, kernels
from fastcam.image.preprocess import prepare
from fastcam.render import peer_styles
from fastcam.schema import preset
from support.models.contract_model import random_model

SIZES = [((7, 7), (224, 224)), ((13, 9), (50, 61)), ((14, 14), (10, 5))]


def signed(h, w):
    """Positive and negative values, one map without a positive one."""
    maps = np.random.default_rng(0).standard_normal((2, 3, h, w)).astype(np.float32)
    maps[1, 2] = -np.abs(maps[1, 2])
    return maps


def each(maps, function):
    """A function of one map, for every map."""
    return np.array([[function(m) for m in row] for row in maps])


def scaled(image, epsilon):
    image = image - image.min()
    return image / (epsilon + image.max())


@pytest.mark.parametrize("low,size", SIZES)
def test_pytorch_grad_cam(low, size):
    def theirs(m):
        once = scaled(np.maximum(m, 0), 1e-7)
        return scaled(cv2.resize(np.float32(once), size[::-1]), 1e-7)

    found = peer_styles.heatmaps("pytorch-grad-cam", signed(*low), size)
    np.testing.assert_allclose(found, each(signed(*low), theirs), atol=2e-6)


@pytest.mark.parametrize("low,size", SIZES)
def test_torch_cam(low, size):
    def theirs(m):
        image = Image.fromarray(scaled(np.maximum(m, 0), 1e-8).astype(np.float32), mode="F")
        return np.asarray(image.resize(size[::-1], resample=Image.Resampling.BICUBIC))

    found = peer_styles.heatmaps("torch-cam", signed(*low), size)
    np.testing.assert_allclose(found, each(signed(*low), theirs), atol=2e-6)


@pytest.mark.parametrize("low,size", SIZES)
def test_captum(low, size):
    expected = torch.nn.functional.interpolate(torch.tensor(signed(*low)), size=size, mode="nearest")
    np.testing.assert_array_equal(peer_styles.heatmaps("captum", signed(*low), size), expected)


@pytest.mark.parametrize("low,size", SIZES)
def test_fastcam(low, size):
    maps = torch.relu(torch.tensor(signed(*low)))
    peaks = maps.amax((2, 3), keepdim=True)
    low_resolution = maps / torch.where(peaks > 0, peaks, 1)
    expected = torch.nn.functional.interpolate(low_resolution, size=size, mode="bilinear", align_corners=False)
    np.testing.assert_allclose(peer_styles.heatmaps("fastcam", signed(*low), size), expected, atol=1e-6)


def test_unknown_style_is_refused():
    with pytest.raises(FastcamError, match="no style 'keras'; use one of: fastcam, pytorch-grad-cam"):
        peer_styles.heatmaps("keras", signed(3, 3), (6, 6))


# --- through the Explainer ---------------------------------------------------------------------------------------


def their_boxes(heatmap, fraction, scale):
    """OpenCV's largest component of what reaches the threshold, in pixels of the picture."""
    mask = ((heatmap >= fraction * heatmap.max()) & (heatmap > 0)).astype(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    x, y, w, h, _ = max(stats[1:], key=lambda row: row[cv2.CC_STAT_AREA])
    return np.array([x, y, x + w, y + h]) * scale


@pytest.mark.parametrize("style", ["pytorch-grad-cam", "torch-cam", "captum"])
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_an_explanation_in_a_style_has_that_tools_heatmaps_and_their_boxes(style, backend):
    model = random_model()
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    explainer = Explainer(model.file(), kernels=backend)
    plain, found = explainer(image, [0, 1, 2], threshold=0.5), explainer(image, [0, 1, 2], threshold=0.5, style=style)
    signed = model.signed(prepare(image, model.preprocessing)[0], np.array([[0, 1, 2]]))
    expected = peer_styles.heatmaps(style, signed.astype(np.float32), (32, 32))
    np.testing.assert_allclose(found.heatmaps, expected, atol=1e-5 * np.abs(expected).max())
    assert not np.allclose(found.heatmaps, plain.heatmaps, atol=1e-2)
    np.testing.assert_array_equal(found.maps, plain.maps)
    assert found.status == plain.status and (found.style, found.to_dict()["style"]) == (style, style)
    for t in range(3):
        if found.status[0][t] == "ok":
            np.testing.assert_allclose(found.boxes[0, t], their_boxes(found.heatmaps[0, t], 0.5, 2), atol=1e-4)


def test_predictions_and_streams_know_styles():
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    explainer = Explainer(random_model().file())
    expected = explainer(image, [1], style="captum").heatmaps
    assert (expected < 0).any()
    later = explainer.explain(explainer.predict(image), [1], style="captum")
    (frame,) = explainer.stream([image], targets=[1], style="captum")
    np.testing.assert_array_equal(later.heatmaps, expected)
    np.testing.assert_array_equal(frame.explanation.heatmaps, expected)


def test_nothing_beside_a_letterbox_is_boxed_in_any_style():
    model = random_model(preprocessing=preset("unit", size=(32, 32), resize="letterbox"))
    wide = np.random.default_rng(1).integers(0, 256, (20, 80, 3), dtype=np.uint8)
    for style in peer_styles.STYLES:
        for x0, y0, x1, y1 in Explainer(model.file())(wide, [0, 1], threshold=0.01, style=style).boxes[0]:
            assert 0 <= x0 <= x1 <= 80 and 0 <= y0 <= y1 <= 20


def test_signed_heatmaps_are_drawn_around_zero():
    model = random_model()
    image = np.full((32, 32, 3), 100, np.uint8)
    image[:16] = np.random.default_rng(0).integers(0, 256, (16, 32, 3))
    found = Explainer(model.file())(image, [0, 1], style="captum")
    for t in range(2):
        heat, shown = found.heatmaps[0, t], found.heatmap_image(0, t).astype(int)
        strong = np.abs(heat) > 0.1 * np.abs(heat).max()
        redder = shown[..., 0] > shown[..., 2]
        np.testing.assert_array_equal(redder[strong], heat[strong] > 0)
        assert (shown.max(axis=2) == 255).all()  # white at zero, never dark
    assert found.legend().low == "-" and Explainer(model.file())(image).legend().low == "0"


def test_a_style_that_the_file_cannot_serve_is_refused_before_anything_runs():
    with pytest.raises(FastcamError, match=r"signed .* after its ReLU; run: fastcam export contract.onnx --emit weig"):
        Explainer(random_model().file(emit="cam"))("absent.png", style="captum")
    with pytest.raises(FastcamError, match="no style 'keras'"):
        Explainer(random_model().file())("absent.png", style="keras")


def test_what_is_not_finite_has_no_heat_in_any_style():
    model = random_model()
    model.conv[0] = np.nan
    for style in peer_styles.STYLES:
        found = Explainer(model.file())(np.full((32, 32, 3), 90, np.uint8), [0], style=style)
        assert found.status == (("non_finite",),) and not found.heatmaps.any() and not found.boxes.any()


def test_what_was_left_on_a_gpu_is_fetched():
    """Arrays that only the backend's own ``asnumpy`` can read, as CuPy's are."""

    class OnDevice:
        def __init__(self, host):
            self.host = host

        def __array__(self, *_, **__):
            raise TypeError("not without an explicit copy")

    rng = np.random.default_rng(0)
    a, w = rng.standard_normal((2, 5, 4, 4)).astype(np.float32), rng.standard_normal((2, 3, 5)).astype(np.float32)
    windows = np.array([[0, 0, 16, 16], [0, 4, 16, 12]], np.int32)
    gpu = SimpleNamespace(cupy=SimpleNamespace(asnumpy=lambda array: getattr(array, "host", array)))
    for weights in (w, OnDevice(w)):
        found = peer_styles.explain_maps(gpu, "torch-cam", OnDevice(a), weights, (16, 16), 0.4, 8, windows)
        expected = peer_styles.explain_maps(kernels.get(), "torch-cam", a, w, (16, 16), 0.4, 8, windows)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)
    assert (found.largest[1, :, 1] >= 4).all() and (found.largest[1, :, 3] <= 12).all()
