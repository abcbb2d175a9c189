"""Detectors' files, as their exporters write them, in two plain calls: the form is found out, the best boxes explained.

The oracle is the decoder of each form in support/detector_cases.py, on what ONNX Runtime gives of the source.
"""

import json
import warnings
from dataclasses import replace

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from fastcam import Explainer, FastcamError
from fastcam.cli import app
from fastcam_export import export_model
from support import detector_cases as cases
from support.models import detector_files as files
from support.models.heads_model import run

SIDES = np.array([files.W, files.H, files.W, files.H])


def decoded_centres(y):
    return cases.around(y[:, :2], y[:, 2:4])


class YoloV5(cases.Case):
    def decode(self, y):
        return decoded_centres(y["output0"]), y["output0"][:, 4:5] * y["output0"][:, 5:]


class YoloV8(cases.Case):
    def decode(self, y):
        return decoded_centres(y["output0"].T), y["output0"].T[:, 4:7]


class YoloV3(cases.YoloMaps):
    def decode(self, y):
        return super().decode({name: x.reshape(3, 8, *x.shape[1:]).transpose(0, 2, 3, 1) for name, x in y.items()})


class YoloV10(cases.Case):
    def decode(self, y):
        return y["output0"][:, :4], y["output0"][:, 4:5]


class Ssd(cases.Case):
    def decode(self, y):
        return None, y["conf"][:, 1:]


class SsdOfNoNames(Ssd):
    def decode(self, y):
        return None, y["b"][:, 1:]


class YoloV4(cases.Case):
    def decode(self, y):
        return y["boxes"][:, 0] * SIDES, y["confs"]


class TensorFlow(cases.Case):
    def decode(self, y):
        return y["detection_boxes"][:, [1, 0, 3, 2]] * SIDES, y["detection_scores"][:, None]


class Selected(cases.Case):
    batched = False

    def decode(self, y):
        return y["boxes"], y["scores"][:, None]


FORMS = {
    "yolo_v8": (files.yolo_v8, YoloV8), "yolo_obb": (files.yolo_obb, cases.Obb),
    "yolo_pose": (files.yolo_pose, cases.Pose),
    "yolo_segments": (files.yolo_segments, YoloV8), "yolo_v5": (files.yolo_v5, YoloV5),
    "yolox": (files.yolox, cases.Yolox), "yolo_v3": (files.yolo_v3, YoloV3),
    "yolo maps of five axes": (lambda: files.yolo_v3(5), cases.YoloMaps), "yolo_v10": (files.yolo_v10, YoloV10),
    "detr": (files.detr, cases.Detr), "rt_detr": (files.rt_detr, cases.RtDetr), "ssd": (files.ssd, Ssd),
    "ultraface": (files.ultraface, cases.UltraFace), "fcos": (files.fcos, cases.Fcos),
    "retinanet": (files.retinanet, cases.RetinaNet), "picodet": (files.picodet, cases.PicoDet),
    "yunet": (files.yunet, cases.YuNet), "scrfd": (files.scrfd, cases.Scrfd),
    "fastestdet": (files.fastestdet, cases.FastestDet), "channels_last": (files.channels_last, cases.ChannelsLast),
    "ssd of no names": (lambda: files.ssd("ab"), SsdOfNoNames), "yolo_v4": (files.yolo_v4, YoloV4),
    "tensorflow": (files.tensorflow, TensorFlow), "behind NonMaxSuppression": (files.selected, Selected),
}  # fmt: skip


def best(case, source):
    outputs = run(source, {"image": files.picture()})
    one = {name: y[0].astype(float) if case.batched else y.astype(float) for name, y in outputs.items()}
    boxes, chances = case.decode(one)
    k, column = np.unravel_index(chances.argmax(), chances.shape)
    return boxes, chances, int(k), int(column)


@pytest.mark.parametrize("name", ["yolo_v8", "yolo_segments", "yolo_pose", "yolo_v5", "yolox"])
def test_one_output_of_rows_needs_no_class_names(name):
    """Probabilities end where key points or coefficients begin; rows of a pyramid have an objectness."""
    build, kind = FORMS[name]
    source = build()
    e = Explainer(export_model(source, check=False).model.SerializeToString())(files.picture())
    k, column = best(kind.__new__(kind), source)[2:]
    assert e.label(0, 0) == (f"box {k}" if name == "yolo_pose" else f"class {column} (box {k})")


@pytest.mark.parametrize("name", FORMS)
def test_a_detector_in_two_plain_calls(name, tmp_path):
    build, kind = FORMS[name]
    source, case = build(), kind.__new__(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nothing found, where the random scores are low
        made = export_model(source, tmp_path / "d.cam.onnx", labels=case.labels)
        e = Explainer(tmp_path / "d.cam.onnx")(files.picture())
    assert made.taken_for().startswith("a detector") and made.metadata.method == "hirescam"
    boxes, chances, k, column = best(case, source)
    assert f"box {k}" in e.label(0, 0)
    if case.labels is not None and chances.shape[1] == len(case.labels):
        assert e.label(0, 0).startswith(case.labels[column])
    assert e.status[0][0] == ("ok" if e.maps[0, 0].any() else "all_negative")
    if boxes is None:
        assert e.predicted_box() is None
    else:  # what of it lies in the picture
        seen = np.clip(boxes[k], 0, [files.W, files.H, files.W, files.H])
        np.testing.assert_allclose(e.predicted_box(), seen, rtol=1e-4, atol=1e-2)


def test_scores_near_zero_are_no_failed_check():
    """Sigmoids of the runtime are exact to 1e-7, a tenth of such a score and of its gradient."""
    made = export_model(files.faint(), output_name="scores", targets="cotangent")
    assert 3e-4 < made.check["gradient_error"] < 5e-2
    assert export_model(files.faint()).check["gradient_error"] < 3e-4  # beside the boxes it counts as little as it is


def test_a_wrong_gradient_is_found_beside_faint_scores(monkeypatch):
    from fastcam_export.autodiff.core.rule import RULES

    right = RULES["Sigmoid"]
    wrong = replace(right, gradients=lambda op, node, dy: right.gradients(op, node, op.Neg(dy)))
    monkeypatch.setitem(RULES, "Sigmoid", wrong)
    with pytest.raises(FastcamError, match="the check failed"):
        export_model(files.faint(bias=-9.0))


def test_pictures_keep_their_size_to_the_step_that_the_model_takes(tmp_path):
    made = export_model(files.stepped(), tmp_path / "m.cam.onnx")
    assert made.metadata.size_step == 16 and any("multiples of 16" in note for note in made.notes)
    pictures = [np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((70, 90), (24, 100))]
    explainer = Explainer(tmp_path / "m.cam.onnx", preprocess="unit")
    assert export_model(files.stepped(), preprocess="unit", check=True).metadata.preprocessing.size is None
    assert export_model(files.stepped(), preprocess="unit", size=(32, 64)).metadata.preprocessing.size == (32, 64)
    assert [explainer(one).outputs["y"].shape[2:] for one in pictures] == [(8, 12), (4, 12)]


def test_a_picture_in_which_nothing_is_found_says_so(tmp_path, monkeypatch):
    """No box at all is an error of that picture; a low score is explained, with a warning."""
    monkeypatch.chdir(tmp_path)
    export_model(files.selected(bias=-1e5), "none.cam.onnx", preprocess="unit", labels=files.CLASSES)
    export_model(files.faint(bias=-4.0), "faint.cam.onnx", preprocess="unit")
    cv2.imwrite("p.png", np.random.default_rng(1).integers(0, 256, (files.H, files.W, 3), dtype=np.uint8))
    result = CliRunner().invoke(app, ["explain", "none.cam.onnx", "p.png"])
    assert result.exit_code == 2 and "finds nothing in p.png: there is" in result.stderr
    with pytest.warns(
        UserWarning, match=r"nothing is found with a score of 0.25 or more .* its best box, box \d+, has"
    ):
        e = Explainer("faint.cam.onnx")("p.png")
    assert e.asked(0) == 1 and e.status[0][0] == "ok"


def test_the_predicted_box_is_drawn_and_listed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    export_model(files.yolo_v8(), "m.cam.onnx", preprocess="unit", labels=files.CLASSES)
    picture = np.random.default_rng(1).integers(0, 256, (2 * files.H, 2 * files.W, 3), dtype=np.uint8)
    cv2.imwrite("p.png", picture[:, :, ::-1])
    result = CliRunner().invoke(app, ["explain", "m.cam.onnx", "p.png", "-t", "dog"])
    assert result.exit_code == 0 and "predicted box" in result.output
    (target,) = json.loads((tmp_path / "fastcam-out" / "explanation.json").read_text())["images"][0]["targets"]
    e = Explainer("m.cam.onnx")("p.png", targets="dog")
    np.testing.assert_allclose(target["predicted_box"], e.predicted_box(), atol=0.01)
    green = (e.overlay() == (0, 230, 118)).all(2)
    x0, y0, x1, y1 = e.predicted_box()
    rows, columns = np.nonzero(green)
    assert green.sum() > 20 and x0 - 2 <= columns.min() and columns.max() <= x1 + 1
    assert (
        y0 - 2 <= rows.min() and rows.max() <= y1 + 1 and not (e.overlay(annotate=False) == (0, 230, 118)).all(2).any()
    )


def test_levels_of_sides_that_are_no_multiples_of_the_stride():
    """The runtime rounds the cells of a level up or down, as the convolutions and pools of the network do."""
    from fastcam.targets.detectors.tables import points

    for size, cells in (((68, 90), (9, 12)), ((68, 90), (8, 11)), ((68, 90), (8, 12))):
        priors, anchors = points(cells[0] * cells[1], size)
        assert anchors == 1 and priors[:, :2].max(0).tolist() == [8 * (cells[1] - 1), 8 * (cells[0] - 1)]
