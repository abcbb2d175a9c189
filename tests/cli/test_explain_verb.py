"""``fastcam explain``: what it prints and writes."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import cv2
import numpy as np
import pytest

from fastcam import Explainer
from fastcam.cli.shared.options import class_targets
from fastcam.schema import preset
from support.command_line import call, files
from support.models.contract_model import brightness_model, noise, random_model


@pytest.mark.parametrize("method", ["gradcam", "gradcam,eigencam"])
def test_one_bad_picture_is_a_row_with_its_error_and_not_the_end(desk, method):
    """Exit code 2 says that something is missing; what macOS hides beside pictures is no picture."""
    (desk / "album" / "p1.jpg").write_bytes(b"\0\5\x16\7 no picture")
    (desk / "album" / "._p2.jpg").write_bytes(b"\0\5\x16\7 no picture")
    result = call("explain", "model.cam.onnx", "album", "-m", method, "-o", "out")
    assert result.exit_code == 2
    assert result.stderr.startswith("fastcam: 1 of 3 pictures could not be explained: album/p1.jpg: not a picture")
    assert [row.split()[0] for row in result.stdout.splitlines()[1:4]] == ["p0.jpg", "p1.jpg", "p2.jpg"]
    assert "not explained: not a picture that OpenCV can decode" in result.stdout.splitlines()[2]
    names = [name for name in files(desk / "out") if name.endswith(".png")]
    assert [name[:2] for name in names] == ["p0", "p2"]
    report = json.loads((desk / "out" / "explanation.json").read_text(encoding="utf-8"))
    for part in report.get("methods", [report]):
        p0, p1, p2 = part["images"]
        assert (p0["file"], p1["file"], p2["file"]) == ("album/p0.jpg", "album/p1.jpg", "album/p2.jpg")
        assert "not a picture" in p1["error"] and p1["targets"] == []
        assert len(p0["targets"]) == len(p2["targets"]) == 1
    alone = call("explain", "model.cam.onnx", "album/p2.jpg", "--json")
    assert p2["targets"][0]["score"] == json.loads(alone.stdout)["images"][0]["targets"][0]["score"]


def test_bad_pictures_without_a_good_one_write_nothing(desk):
    for name in ("p0.jpg", "p1.jpg", "p2.jpg"):
        (desk / "album" / name).write_bytes(b"no picture")
    result = call("explain", "model.cam.onnx", "album", "-o", "out")
    assert result.exit_code == 2 and result.stdout == "" and "album/p0.jpg: not a picture" in result.stderr
    assert "out" not in files(desk)


def test_explain_writes_overlays_and_a_report_and_prints_a_table(desk):
    result = call(
        "explain", "model.cam.onnx", "photo.png", "-t", "bright thing", "-t", "1", "-o", "out", "--threshold", 0.5
    )
    assert result.exit_code == 0, result.output
    assert files(desk / "out") == ["explanation.json", "photo-1-bright-thing.png", "photo-2-dark-thing.png"]
    report = json.loads((desk / "out" / "explanation.json").read_text(encoding="utf-8"))
    first, second = report["images"][0]["targets"]
    np.testing.assert_allclose(first["box"], [64, 32, 192, 96], atol=17)  # a cell is 16 x 8 original pixels
    assert second["status"] == "all_negative" and second["box"] is None
    overlay = cv2.imread(str(desk / "out" / "photo-1-bright-thing.png"))
    assert overlay.shape == (256, 512, 3)  # magnified twice: small pictures become legible
    rows = result.stdout.splitlines()
    assert rows[0].split()[:3] == ["image", "class", "score"]
    assert rows[1].startswith("photo.png") and "0 bright thing" in rows[1] and rows[1].rstrip().endswith("ok")
    assert "1 dark thing" in rows[2] and "all_negative" in rows[2]
    assert "2 overlays and explanation.json are in out" in result.stdout


def test_json_prints_json_only_and_writes_nothing(desk):
    before = files(desk)
    result = call("explain", "model.cam.onnx", "photo.png", "album", "--json", "--batch-size", "3")
    assert result.exit_code == 0 and result.stderr == "" and files(desk) == before
    report = json.loads(result.stdout)
    pictures = [desk / "photo.png", *(desk / "album" / f"p{i}.jpg" for i in range(3))]
    expected = Explainer(desk / "model.cam.onnx")(pictures).to_dict()
    for image, other in zip(report["images"], expected["images"], strict=True):
        assert image["file"] == str(os.path.relpath(other["file"], desk))
        assert image["targets"] == other["targets"]
    assert {key: report[key] for key in report if key != "images"} == {
        key: expected[key] for key in expected if key != "images"
    }


def test_json_with_a_folder_does_both(desk):
    result = call("explain", "model.cam.onnx", "photo.png", "--json", "-o", "a/b")
    assert json.loads(result.stdout) == json.loads((desk / "a" / "b" / "explanation.json").read_text(encoding="utf-8"))
    assert len(files(desk / "a" / "b")) == 2


def test_a_folder_means_its_pictures(desk):
    assert call("explain", "model.cam.onnx", "album").exit_code == 0
    assert len(files(desk / "fastcam-out")) == 4


def test_pictures_of_one_name_do_not_overwrite_each_other(desk):
    cv2.imwrite(str(desk / "album" / "photo.png"), noise())
    assert call("explain", "model.cam.onnx", "photo.png", "album/photo.png", "--batch-size", "1").exit_code == 0
    names = files(desk / "fastcam-out")
    assert len(names) == 3 and names[1].startswith("photo-1-") and names[2].startswith("photo_2-1-")


def test_models_of_free_size_explain_pictures_of_different_sizes(desk):
    free = random_model(size=("H", "W"), preprocessing=preset("unit", size=None))
    (desk / "free.onnx").write_bytes(free.file())
    cv2.imwrite(str(desk / "a.png"), noise(40, 80))
    cv2.imwrite(str(desk / "b.png"), noise(60, 44))
    result = call("explain", "free.onnx", "a.png", "b.png", "--json")
    assert [image["width"] for image in json.loads(result.stdout)["images"]] == [80, 44]


def test_preprocess_and_labels_can_be_given(desk):
    bare = replace(brightness_model((64, 64), preset("unit")), preprocessing=None)
    (desk / "bare.onnx").write_bytes(bare.file())
    (desk / "names.txt").write_text("sun\nmoon\n")
    refused = call("explain", "bare.onnx", "photo.png")
    assert refused.exit_code == 2 and "--preprocess, one of: imagenet" in refused.stderr
    accepted = call(
        "explain", "bare.onnx", "photo.png", "--preprocess", "unit", "--labels", "names.txt", "-t", "SUN", "--json"
    )
    assert json.loads(accepted.stdout)["images"][0]["targets"][0]["label"] == "sun"


@pytest.mark.parametrize(
    ("given", "targets"),
    [(None, [-1]), (["-2"], [-2]), (["7", "golden retriever"], [7, "golden retriever"]), (["n02123045 tabby"], None)],
)
def test_numbers_are_indices_and_the_rest_are_names(given, targets):
    assert class_targets(given, None) == (targets or given)
