"""Sheets of several methods: which picture stands where, against the pictures that the explanations draw."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from fastcam import Explainer
from fastcam.cli import app
from fastcam.render import drawing
from fastcam.results import method_sheet
from fastcam.schema import FastcamError, preset
from fastcam_export import export_model
from support.models.contract_model import random_model
from support.models.small_models import classifier, save

METHODS = ("gradcam", "layercam", "eigencam")
SIDE = 160


@pytest.fixture(scope="module")
def picture():
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)


def explained(picture, methods=METHODS, targets=(0, 3), **how):
    explainer = Explainer(random_model(preprocessing=preset("unit", size=(32, 32))).file(emit="gradients"))
    return [explainer(picture, list(targets), method=method, **how) for method in methods]


def cell(drawn, column, row, size=SIDE):
    """The pixels of a cell, by the sheet's measures."""
    x = method_sheet.MARGIN + column * (size + method_sheet.MARGIN)
    y = 2 * method_sheet.STRIP + row * (method_sheet.STRIP + size) + method_sheet.STRIP
    return drawn[y : y + size, x : x + size]


def test_methods_stand_across_and_targets_down_with_the_picture_first(picture):
    found = explained(picture)
    drawn = method_sheet.methods_sheet(found, tile=SIDE)
    for row in range(2):
        np.testing.assert_array_equal(cell(drawn, 0, row), picture)
        for column, e in enumerate(found, start=1):
            expected = e.overlay(0, row, annotate=False)
            if e.boxes[0, row].any():
                expected = drawing.draw_box(expected, e.boxes[0, row])
            np.testing.assert_array_equal(cell(drawn, column, row), expected)
    assert drawn.shape[1] == 4 * (SIDE + method_sheet.MARGIN) + method_sheet.MARGIN
    assert not np.array_equal(cell(drawn, 1, 0), cell(drawn, 1, 1))


def strip_ink(drawn, row):
    """Columns with letters in the strip above a row of cells."""
    y = 2 * method_sheet.STRIP + row * (method_sheet.STRIP + SIDE)
    return np.nonzero((drawn[y : y + method_sheet.STRIP] > 200).any(axis=(0, 2)))[0]


def test_titles_and_names_lie_inside_and_are_cut_where_they_are_too_long(picture):
    found = explained(picture)
    drawn = method_sheet.methods_sheet(found, tile=SIDE)
    for row in range(2):
        assert len(strip_ink(drawn, row)) > 20 and strip_ink(drawn, row).max() < drawn.shape[1] // 2
    for strip in (drawn[: method_sheet.STRIP], drawn[method_sheet.STRIP : 2 * method_sheet.STRIP]):
        assert (strip > 200).any() and not (strip[:, -method_sheet.MARGIN :] > 200).any()
    long = [Explainer(random_model().file(), labels=["word " * 80] * 5)(picture, [0])]
    ink = strip_ink(method_sheet.methods_sheet(long, tile=SIDE), 0)
    assert SIDE < ink.max() < 2 * SIDE + 2 * method_sheet.MARGIN


def test_the_legend_shows_the_very_colours(picture):
    for colors in ("jet", "cividis"):
        drawn = method_sheet.methods_sheet(explained(picture, METHODS[:2]), colors=colors, tile=SIDE)
        below = drawn[2 * method_sheet.STRIP + 2 * (method_sheet.STRIP + SIDE) :].reshape(-1, 3)
        seen = {tuple(color) for color in below.tolist()}
        table = drawing.colormap(colors)
        assert all(tuple(table[i].tolist()) in seen for i in (0, 255))
    signed = method_sheet.methods_sheet(explained(picture, ["gradcam"], style="captum"), tile=SIDE)
    below = signed[2 * method_sheet.STRIP + 2 * (method_sheet.STRIP + SIDE) :].reshape(-1, 3)
    assert {(0, 0, 255), (255, 0, 0)} <= {tuple(color) for color in below.tolist()}


def test_a_map_without_heat_says_why(picture):
    model = random_model(preprocessing=preset("unit", size=(32, 32)))
    model.head[2] = -np.abs(model.head[2])
    found = Explainer(model.file())(picture, [2])
    assert found.status == (("all_negative",),)
    drawn = method_sheet.methods_sheet([found], tile=SIDE)
    ink = (cell(drawn, 1, 0) > 240).all(axis=2)
    assert ink[: method_sheet.STRIP].any() and not (found.overlay(annotate=False) > 240).all(axis=2).any()


def test_a_file_with_guided_backpropagation_has_two_more_columns(picture):
    made = export_model(classifier(size=16), input_gradient="guided", check=False, preprocess="imagenet")
    found = Explainer(made.model.SerializeToString())(picture, [1])
    drawn = method_sheet.methods_sheet([found], tile=SIDE)
    np.testing.assert_array_equal(cell(drawn, 2, 0), found.gradient_image(0, 0))
    np.testing.assert_array_equal(cell(drawn, 3, 0), found.gradient_image(0, 0, cam=True))
    assert found.gradient_legend()[0] == "guided backpropagation" and found.gradient_legend(cam=True)[1] is drawing.GREY


def test_methods_of_pixels_are_shown_as_pixels_and_not_twice(picture):
    made = export_model(classifier(size=16), input_gradient="guided", check=False, preprocess="imagenet")
    explainer = Explainer(made.model.SerializeToString())
    found = [explainer(picture, [1], method=method) for method in ("guided", "guided-gradcam", "gradcam")]
    drawn = method_sheet.methods_sheet(found, tile=SIDE)
    assert drawn.shape[1] == 4 * (SIDE + method_sheet.MARGIN) + method_sheet.MARGIN
    for column in (0, 1):
        np.testing.assert_array_equal(cell(drawn, column + 1, 0), found[column].attribution_image(0, 0))
    relevance = export_model(classifier(size=16), input_gradient="lrp-epsilon", check=False, preprocess="imagenet")
    signed = Explainer(relevance.model.SerializeToString())(picture, [1], method="lrp-epsilon")
    drawn = method_sheet.methods_sheet([signed], tile=SIDE)
    np.testing.assert_array_equal(cell(drawn, 1, 0), signed.attribution_image(0, 0))
    assert drawn.shape[1] == 2 * (SIDE + method_sheet.MARGIN) + method_sheet.MARGIN


@pytest.mark.parametrize(
    ("shape", "size"), [((20, 30), (160, 240)), ((300, 40), (600, 80)), ((40, 300), (80, 600)), ((4, 400), (6, 600))]
)
def test_cells_keep_the_shape_of_pictures_of_any_size(shape, size):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    (found,) = explained(image, ["gradcam"], [0])
    drawn = method_sheet.methods_sheet([found], tile=240)
    height, width = size
    assert drawn.shape[1] == 2 * (max(width, method_sheet.NARROWEST) + method_sheet.MARGIN) + method_sheet.MARGIN
    y = 3 * method_sheet.STRIP
    ground = (drawn[y:, method_sheet.MARGIN : method_sheet.MARGIN + width] == method_sheet.GROUND).all(axis=(1, 2))
    assert ground.argmax() == height  # the picture ends there


def test_explanations_of_different_targets_are_refused(picture):
    (one,), (two,) = explained(picture, ["gradcam"], [0]), explained(picture, ["gradcam"], [1])
    with pytest.raises(FastcamError, match="different targets"):
        method_sheet.methods_sheet([one, two])
    with pytest.raises(FastcamError, match="at least one"):
        method_sheet.methods_sheet([])


# --- the command line ----------------------------------------------------------------------------------------------


@pytest.fixture
def desk(tmp_path, monkeypatch, picture):
    model = save(classifier(size=16), tmp_path / "m.onnx")
    export_model(model, tmp_path / "m.cam.onnx", emit="gradients", check=False, preprocess="imagenet")
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), picture)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments):
    return CliRunner().invoke(app, ["explain", "m.cam.onnx", *arguments])


def test_several_methods_make_a_sheet_per_picture(desk):
    result = call("a.png", "b.png", "-t", "1", "-t", "2", "-m", "gradcam,layercam", "--style", "torch-cam", "-o", "out")
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in (desk / "out").iterdir()) == ["a-methods.png", "b-methods.png", "explanation.json"]
    assert "2 sheets and explanation.json are in out" in result.output
    report = json.loads((desk / "out" / "explanation.json").read_text(encoding="utf-8"))
    explainer = Explainer("m.cam.onnx")
    for entry, method in zip(report["methods"], ("gradcam", "layercam"), strict=True):
        expected = explainer(["a.png", "b.png"], [1, 2], method=method, style="torch-cam").to_dict()
        assert entry == json.loads(json.dumps(expected)) and entry["style"] == "torch-cam"
    found = [explainer("a.png", [1, 2], method=m, style="torch-cam") for m in ("gradcam", "layercam")]
    seen = cv2.imread("out/a-methods.png")[..., ::-1]
    np.testing.assert_array_equal(seen, method_sheet.methods_sheet(found))
    rows = [line.split()[:2] for line in result.stdout.splitlines()]
    assert ["a.png", "layercam"] in rows and ["b.png", "gradcam"] in rows


def test_style_and_colours_reach_single_overlays(desk):
    assert call("a.png", "--style", "captum", "-o", "out").exit_code == 0
    assert call("a.png", "--colors", "inferno", "-o", "warm").exit_code == 0
    explainer = Explainer("m.cam.onnx")
    for folder, how, colors in (("out", {"style": "captum"}, "jet"), ("warm", {}, "inferno")):
        (path,) = (desk / folder).glob("a-1-*.png")
        expected = explainer("a.png", **how).overlay(0, 0, colors=colors, min_side=192)
        np.testing.assert_array_equal(cv2.imread(str(path))[..., ::-1], expected)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["-m", "gradcam,gradcam"], "give each method once"),
        (["-m", "gradcam,"], "give each method once"),
        (["-m", "gradcam,grad-cam"], "no method 'grad-cam'"),
        (["--style", "keras"], "--style"),
        (["--colors", "rainbow"], "--colors"),
    ],
)
def test_bad_names_are_one_line_and_nothing_is_written(desk, options, said):
    result = call("a.png", *options, "-o", "out")
    assert result.exit_code == 2 and said in result.stderr and len(result.stderr.splitlines()) == 1
    assert not (desk / "out").exists()
