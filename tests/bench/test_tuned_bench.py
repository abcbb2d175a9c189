"""The benchmark of tuned profiles: which plain pass is the yardstick, and what counts as reached."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import fastcam
from fastcam import Explainer
from fastcam_bench.speed.networks import tuned as command
from fastcam_bench.speed.networks.tuned import NAMES, PREPARED, RUN, TUNED, bound, cell, reached, table, verdict
from fastcam_export import export_model


def samples(**median):
    spread = np.array([0.9, 1.0, 1.0, 1.1])
    return {name.replace("_", " "): list(seconds * spread) for name, seconds in median.items()}


def found(tuned, ort=0.010, torch=0.020, alone=0.010, **peers):
    own = {TUNED: samples(x=tuned)["x"], RUN: samples(x=alone)["x"], PREPARED: samples(x=0.0001)["x"]}
    peers = {name.replace("_", "-"): samples(x=seconds)["x"] for name, seconds in peers.items()}
    return cell({**samples(ONNX_Runtime=ort, PyTorch=torch), **own, **peers})


def test_the_yardstick_is_the_fastest_plain_pass_even_if_ours_is_faster():
    assert found(0.005)["fastest"] == "ONNX Runtime"
    assert found(0.005, ort=0.030)["fastest"] == "PyTorch"
    assert found(0.012)["contestants"][TUNED]["ratio"] == pytest.approx(1.2)
    assert found(0.008)["contestants"][TUNED]["ms_per_picture"] == pytest.approx(8.0)


def test_parts_of_ours_and_peers_are_no_plain_passes():
    assert found(0.012, alone=0.001, captum=0.002)["fastest"] == "ONNX Runtime"


@pytest.mark.parametrize(
    ("tuned", "torch", "said"),
    [(0.0105, 0.020, "reached"), (0.012, 0.020, "above 1.10"), (0.0105, 0.0104, "slower than PyTorch")],
)
def test_the_verdict_is_of_both_targets(tuned, torch, said):
    assert verdict(found(tuned, torch=torch)) == said


def test_peers_are_to_take_some_times_as_long():
    one = found(0.010, pytorch_grad_cam=0.041, torch_cam=0.0195, captum=0.015)
    assert one["times_faster"] == pytest.approx({"pytorch-grad-cam": 4.1, "torch-cam": 1.95, "captum": 1.5})
    assert verdict(one) == "below 2 x torch-cam"
    report = {"networks": {"a": {"batches": {"1": one, "8": found(0.012, torch_cam=0.030)}}, "b": {"failed": "no"}}}
    assert [line.partition(": ")[2] for line in reached(report)] == [
        "1 of 2",
        "2 of 2",
        "1 of 1, the least 4.10",
        "1 of 2, the least 1.95",
        "1 of 1, the least 1.50",
    ]


@pytest.mark.parametrize(
    ("tuned", "alone", "weights", "said"),
    [
        (0.0105, 0.010, 1.3, ""),
        (0.0130, 0.010, 1.3, "3.00 ms around the run, 1.00 may be"),
        (0.0130, 0.012, 1.0, "its run alone takes 1.20"),
        (0.0130, 0.012, 1.3, "its run alone takes 1.20, 1.30 times the weights"),
    ],
)
def test_what_keeps_a_cell_above_the_target_is_around_the_run_or_the_run(tuned, alone, weights, said):
    assert bound(found(tuned, alone=alone), weights) == said


def test_twelve_networks_are_measured_and_every_cell_is_a_line():
    assert len(NAMES) == 12
    row = {
        "title": "Net",
        "weights_read": 1.25,
        "chosen": {"latency": "cpu", "throughput": "cpu"},
        "batches": {"1": found(0.01), "8": found(0.02)},
        "left_out": {"captum": "channels first only"},
        "failed": {},
    }
    report = {
        "command": "x",
        "threads": 2,
        "machine": {"cpu": "y"},
        "networks": {"a": row, "b": {"title": "B", "failed": "no"}},
    }
    lines = table(report).splitlines()
    assert (
        sum(line.startswith("| Net") and "| 1.25 |" in line for line in lines) == 2
        and "| B |" in lines[-3]
        and "failed: no" in lines[-3]
    )
    head = next(line for line in lines if line.startswith("| network"))
    assert {line.count("|") for line in lines if line.startswith("|")} == {head.count("|")}
    assert lines[-1] == "Net, captum: channels first only."


def test_going_on_keeps_what_was_measured_in_the_same_way(tmp_path, monkeypatch):
    measured = []
    monkeypatch.setattr(command, "NAMES", ("alexnet", "vgg16", "resnet50"))
    monkeypatch.setattr(
        command, "in_process", lambda name, options: measured.append(name) or {"title": name, "failed": "x"}
    )
    row = {"title": "Net", "chosen": {"latency": "cpu", "throughput": "cpu"}, "batches": {"1": found(0.01)}}
    old = {"alexnet": row | {"weights_read": 1.29, "left_out": {}, "failed": {}}, "vgg16": row | {"weights_read": 1.1}}
    path = tmp_path / "tuned.json"
    path.write_text(json.dumps({"networks": old}))
    command.main(["--resume", "--out", str(path)])
    assert measured == ["vgg16", "resnet50"]
    said = json.loads(path.read_text())["networks"]
    assert said["alexnet"] == old["alexnet"] and "batches" not in said["vgg16"]


def test_what_is_quick_runs_twice_in_its_turn(monkeypatch):
    monkeypatch.setattr(command, "SLOW", 10.0)
    counted = []
    run, times = command.repeated(lambda: counted.append(1))
    counted.clear()
    run()
    assert len(counted) == times == 2
    monkeypatch.setattr(command, "SLOW", -1.0)
    run, times = command.repeated(lambda: counted.append(1))
    counted.clear()
    run()
    assert len(counted) == times == 1


def test_the_run_alone_sees_the_pictures_that_the_explainer_prepares(tmp_path):
    """A batch of all pictures, in runs of the Explainer's size: the scores are those of its predictions."""
    path = tmp_path / "scenes.cam.onnx"
    export_model(Path(fastcam.__file__).parent / "data" / "scenes.onnx", path, preprocess="imagenet", check=False)
    pictures = [np.random.default_rng(n).integers(0, 256, (48, 64, 3), np.uint8) for n in range(5)]
    explainer = Explainer(path, "cpu", threads=1, batch_size=2)
    runs = command.parts(explainer, pictures)
    name = explainer.metadata.score.output
    scores = np.concatenate([one[name] for one in runs[RUN]()])
    np.testing.assert_allclose(scores, explainer.predict(pictures).scores, rtol=1e-5, atol=1e-6)
    assert runs[TUNED]().shape == (5, 1, 4) and len(runs[PREPARED]()) == 5
    (alone,) = command.parts(explainer, pictures[:1])[RUN]()[name]
    np.testing.assert_allclose(alone, scores[0], rtol=1e-5, atol=1e-6)
