"""Signals: maps, heatmaps and segments along one axis. PyTorch autograd and its linear interpolation are the oracle."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from fastcam import Explainer, FastcamError
from fastcam.cli import app
from fastcam.render.drawing import caption
from fastcam.render.samples import curves
from fastcam.results.layer_sheet import strip
from fastcam.results.method_sheet import methods_sheet
from fastcam_export import export_model
from support.models.torch_file import grad_cam, onnx_bytes

RNG = np.random.default_rng(0)
SIGNALS = RNG.standard_normal((3, 2, 64)).astype(np.float32)


class Signals(nn.Module):
    """[N, 2, 64] -> a map [N, 6, 16] -> [N, 4]; ``way`` is how the input lies."""

    def __init__(self, way="NCL"):
        super().__init__()
        torch.manual_seed(0)
        self.way, channels = way, 1 if way == "NL" else 2
        self.body = nn.Sequential(
            nn.Conv1d(channels, 5, 5, 2, 2), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(5, 6, 3, 1, 1), nn.ReLU()
        )
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        x = {"NCL": x, "NLC": x.transpose(1, 2) if x.ndim == 3 else x, "NL": x[:, None]}[self.way]
        self.map = self.body(x)
        return self.head(torch.tanh(self.map.mean(-1)))


def lying(way):
    return {"NCL": SIGNALS, "NLC": np.ascontiguousarray(SIGNALS.swapaxes(1, 2)), "NL": SIGNALS[:, 0]}[way]


@pytest.mark.parametrize(("way", "free"), [("NCL", (0, 2)), ("NLC", (0,)), ("NL", (0, 1))])
def test_maps_are_those_of_autograd_however_the_signal_lies(way, free):
    net, signals = Signals(way), lying(way)[:2]
    made = export_model(onnx_bytes(net, signals[:1], free))
    found = Explainer(made.model.SerializeToString())(signals, targets=2)
    expected = grad_cam(net, signals, 2)
    assert (made.metadata.order, made.metadata.kind) == (way, "signal")
    np.testing.assert_allclose(found.maps[:, 0], expected, rtol=1e-4, atol=1e-6)
    assert (expected.max(1) > 0).any()
    peak = torch.as_tensor(expected / np.maximum(expected.max(1, keepdims=True), 1e-9))[:, None]
    large = nn.functional.interpolate(peak, 64, mode="linear", align_corners=False)[:, 0].numpy()
    np.testing.assert_allclose(found.heatmaps[:, 0], large, rtol=1e-4, atol=1e-5)
    assert found._repr_html_().count("<img") == 2  # curves over their heat


@pytest.mark.parametrize("emit", ["weights", "gradients", "cam"])
def test_segments_are_the_runs_above_the_threshold(emit):
    made = export_model(onnx_bytes(Signals(), SIGNALS[:1]), emit=emit).model.SerializeToString()
    found = Explainer(made)(SIGNALS, targets=[1, 2], threshold=0.5)
    assert found.boxes.shape == (3, 2, 2)
    for i, t in np.ndindex(3, 2):
        above = np.concatenate([[0], found.heatmaps[i, t] >= 0.5, [0]]).astype(int)
        starts, ends = np.nonzero(np.diff(above) == 1)[0], np.nonzero(np.diff(above) == -1)[0]
        runs = np.stack([starts, ends, ends - starts], 1) if found.status[i][t] == "ok" else np.zeros((0, 3))
        np.testing.assert_array_equal(found.components[i][t], runs)
        if len(runs):
            assert tuple(found.boxes[i, t]) in {tuple(row[:2]) for row in runs if row[2] == runs[:, 2].max()}


def test_methods_that_run_again_and_gradients_of_the_signal():
    net = Signals("NLC")
    signals = lying("NLC")[:1]
    source = onnx_bytes(net, signals)
    explainer = Explainer(export_model(source, input_gradient="gradient").model.SerializeToString())
    found = explainer(signals, targets=2)
    x = torch.as_tensor(signals).requires_grad_()
    (gradient,) = torch.autograd.grad(net(x)[:, 2].sum(), x)
    np.testing.assert_allclose(found.input_gradients[:, 0].reshape(1, 2, 64), gradient.mT, rtol=1e-4, atol=1e-7)
    occluded = explainer(signals, targets=[0, 1, 2, 3], method="occlusion", options={"window": 16})
    covered = signals.repeat(4, 0)
    for k in range(4):
        covered[k, 16 * k : 16 * k + 16] = 0
    fall = (net(torch.as_tensor(signals)) - net(torch.as_tensor(covered))).detach().numpy()  # [windows, classes]
    np.testing.assert_allclose(occluded.maps[0], np.maximum(fall, 0).T.repeat(16, 1), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("last", [False, True])
def test_a_region_of_a_segmenter_is_the_sum_of_its_scores(last):
    torch.manual_seed(0)
    body, head = nn.Conv1d(2, 4, 5, 1, 2), nn.Conv1d(4, 4, 5, 1, 2)

    class Segmenter(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = body, head

        def forward(self, x):
            y = head(torch.relu(body(x)))
            return y.transpose(1, 2) if last else y

    made = export_model(onnx_bytes(Segmenter(), SIGNALS[:1]))
    assert made.metadata.cotangents[0].answer == "region"
    found = Explainer(made.model.SerializeToString())(SIGNALS, targets="region:1")
    a = torch.relu(body(torch.as_tensor(SIGNALS))).detach().requires_grad_()
    scores = head(a)
    value = (scores[:, 1] * (scores.argmax(1) == 1)).sum(1)
    (gradient,) = torch.autograd.grad(value.sum(), a)
    np.testing.assert_allclose(found.maps[:, 0], torch.relu((gradient * a).sum(1)).detach(), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(found.scores[:, 0], value.detach(), rtol=1e-4)


def test_what_lies_behind_the_layer_runs_again(tmp_path):
    net = Signals()
    made = export_model(onnx_bytes(net, SIGNALS[:1]), tmp_path / "net.cam.onnx", emit="gradients", head=True)
    found = Explainer(made.output)(SIGNALS, targets=1, method="ablationcam")
    score = net(torch.as_tensor(SIGNALS))[:, 1]
    fall = []
    for k in range(6):
        without = net.map.clone()
        without[:, k] = 0
        fall.append(1 - net.head(torch.tanh(without.mean(-1)))[:, 1] / score)
    expected = torch.relu((torch.stack(fall, 1)[..., None] * net.map).sum(1)).detach().numpy()
    np.testing.assert_allclose(found.maps[:, 0], expected, rtol=1e-3, atol=1e-6)


def test_the_curve_lies_over_its_heat():
    table = np.zeros((256, 3), np.uint8)
    table[128:] = 255, 0, 0
    heat = np.where(np.arange(64) < 32, 1, 0).astype(np.float32)
    for channels in (1, 2, 20):
        drawn = curves(np.zeros((channels, 64), np.float32), heat, None, table, 1.0)
        assert drawn.shape[1] == 960 and drawn.shape[0] >= 240
        assert tuple(drawn[85, 100]) == (255, 0, 0) and tuple(drawn[85, 900]) == (0, 0, 0)
    assert caption(drawn, "class").std() != drawn.std()


def test_strips_and_sheets():
    source = onnx_bytes(Signals(), SIGNALS[:1])
    explainer = Explainer(export_model(source, layer="all", emit="gradients").model.SerializeToString())
    assert strip(explainer(SIGNALS[:1], targets=[1, 2], layers="all")).std() > 10
    assert (
        methods_sheet([explainer(SIGNALS[:1], targets=[1, 2], method=name) for name in ("gradcam", "hirescam")]).std()
        > 10
    )


def test_the_command_line_draws_the_curve_and_writes_the_heatmap(tmp_path):
    (tmp_path / "ecg.onnx").write_bytes(onnx_bytes(Signals(), SIGNALS[:1]))
    np.savetxt(tmp_path / "beat.csv", SIGNALS[0].T, delimiter=",")
    np.save(tmp_path / "beat2.npy", SIGNALS[1])
    run = CliRunner().invoke(app, ["export", str(tmp_path / "ecg.onnx")])
    assert run.exit_code == 0, run.output
    given = [str(tmp_path / name) for name in ("ecg.cam.onnx", "beat.csv", "beat2.npy")]
    run = CliRunner().invoke(app, ["explain", *given, "-o", str(tmp_path / "out"), "-t", "1"])
    assert run.exit_code == 0 and "segment x0 x1" in run.output, run.output
    report = json.loads((tmp_path / "out/explanation.json").read_text())["images"]
    assert [one["samples"] for one in report] == [64, 64]
    direct = Explainer(tmp_path / "ecg.cam.onnx")(SIGNALS[:2], targets=1)
    np.testing.assert_allclose(np.load(next((tmp_path / "out").glob("beat-1-*.npy"))), direct.heatmaps[0, 0], atol=1e-5)
    picture = cv2.imread(str(next((tmp_path / "out").glob("beat2-1-*.png"))))
    assert picture is not None and picture.std() > 10


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((2, 60), np.float32), r"a signal of .* is \[2, 64\] \(NCL\), got \[2, 60\]; cut or resample it"),
        ([np.zeros((2, 64)), np.zeros((2, 32))], "one size"),
        ("photo.jpg", r"not a file of numbers; give \.npy"),
        (np.array([["a", "b"]]), "array of numbers"),
    ],
)
def test_what_is_no_such_signal_is_refused(given, message):
    explainer = Explainer(export_model(onnx_bytes(Signals(), SIGNALS[:1])).model.SerializeToString())
    with pytest.raises(FastcamError, match=message):
        explainer(given)


def test_a_preprocessing_of_three_channels_does_not_fit_two():
    file = export_model(onnx_bytes(Signals(), SIGNALS[:1]), check=False).model.SerializeToString()
    with pytest.raises(FastcamError, match="do not fit the 2 channels of a signal; give one number or 2"):
        Explainer(file, preprocess="imagenet")(SIGNALS)
    np.testing.assert_allclose(
        Explainer(file, preprocess={"color": "BANDS", "mean": (0, 0)})(SIGNALS).scores, Explainer(file)(SIGNALS).scores
    )


def test_relevance_at_the_layer_is_a_curve():
    """Excitation backpropagation of one linear layer: a position has its share of what is positive."""
    torch.manual_seed(0)
    body, head = nn.Conv1d(2, 3, 3, 1, 1), nn.Linear(3 * 64, 2, bias=False)
    net = nn.Sequential(body, nn.ReLU(), nn.Flatten(), head)
    source = onnx_bytes(net, SIGNALS[:1])
    explainer = Explainer(export_model(source, input_gradient="excitation", check=False).model.SerializeToString())
    found = explainer(SIGNALS, targets=1)
    a = torch.relu(body(torch.as_tensor(SIGNALS)))
    share = (a.flatten(1) * head.weight[1].clamp(min=0)).detach()
    expected = (share / share.sum(1, keepdim=True)).reshape(3, 3, 64).sum(1)
    np.testing.assert_allclose(found.relevance[:, 0], expected, rtol=1e-4, atol=1e-7)


def test_averaged_gradients_of_the_signal_are_a_row():
    net = Signals()
    explainer = Explainer(
        export_model(onnx_bytes(net, SIGNALS[:1]), input_gradient="gradient").model.SerializeToString()
    )
    found = explainer(SIGNALS[:1], targets=2, method="smoothgrad", options={"samples": 1, "noise": 0})
    x = torch.as_tensor(SIGNALS[:1]).requires_grad_()
    (gradient,) = torch.autograd.grad(net(x)[:, 2].sum(), x)
    np.testing.assert_allclose(found.attributions[:, 0], gradient, rtol=1e-4, atol=1e-7)


def test_maps_of_several_layers_are_fused_along_the_signal():
    explainer = Explainer(export_model(onnx_bytes(Signals(), SIGNALS[:1]), layer="all").model.SerializeToString())
    found = explainer(SIGNALS, targets=[1, 2], layers="all", fuse="mean")
    assert len(found.layers) > 1 and len({one.maps.shape for one in found.layers}) > 1

    def large(maps, size):
        peak = torch.as_tensor(maps).amax(-1, keepdim=True)
        return nn.functional.interpolate(torch.as_tensor(maps) / peak.clamp(min=1e-9), size, mode="linear")

    size = max(one.maps.shape[-1] for one in found.layers)
    expected = torch.stack([large(one.maps, size) for one in found.layers]).mean(0)
    np.testing.assert_allclose(found.maps, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.heatmaps, large(expected, 64), rtol=1e-4, atol=1e-5)
    assert found.boxes.shape == (3, 2, 2) and found.fuse == "mean"


def test_the_heat_under_the_curve_is_in_the_report():
    found = Explainer(export_model(onnx_bytes(Signals(), SIGNALS[:1])).model.SerializeToString())(SIGNALS, targets=[2])
    for image, heat in zip(json.loads(json.dumps(found.to_dict()))["images"], found.heatmaps[:, 0], strict=True):
        np.testing.assert_allclose(image["targets"][0]["heat"], heat, atol=1e-4)
