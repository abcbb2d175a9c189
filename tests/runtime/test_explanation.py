"""An Explanation: indexed, drawn, told as a dictionary, saved."""

from __future__ import annotations

import json
import os

import cv2
import numpy as np
import pytest

from fastcam import Explainer, FastcamError
from fastcam.results.explanation import unique_stems
from fastcam.schema import preset
from support.models.contract_model import LABELS, brightness_model, noise, random_model, same


@pytest.fixture(scope="module")
def model():
    return random_model(end="Softmax", labels=LABELS)


@pytest.fixture(scope="module")
def explainer(model):
    return Explainer(model.file())


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
    assert repr(found) == "Explanation(images=3, targets=2, gradcam of 8 x 8, ok)"


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
