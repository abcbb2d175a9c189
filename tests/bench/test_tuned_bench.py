"""The benchmark of tuned profiles: which plain pass is the yardstick, and what counts as reached."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fastcam_bench.speed.networks import tuned as command
from fastcam_bench.speed.networks.tuned import NAMES, TUNED, cell, table, verdict


def samples(**median):
    spread = np.array([0.9, 1.0, 1.0, 1.1])
    return {name.replace("_", " "): list(seconds * spread) for name, seconds in median.items()}


def found(tuned, ort=0.010, torch=0.020):
    return cell({**samples(ONNX_Runtime=ort, PyTorch=torch), TUNED: samples(x=tuned)["x"]})


def test_the_yardstick_is_the_fastest_plain_pass_even_if_ours_is_faster():
    assert found(0.005)["fastest"] == "ONNX Runtime"
    assert found(0.005, ort=0.030)["fastest"] == "PyTorch"
    assert found(0.012)["contestants"][TUNED]["ratio"] == pytest.approx(1.2)
    assert found(0.008)["contestants"][TUNED]["ms_per_picture"] == pytest.approx(8.0)


@pytest.mark.parametrize(
    ("tuned", "torch", "said"),
    [(0.0105, 0.020, "reached"), (0.012, 0.020, "above 1.10"), (0.0105, 0.0104, "slower than PyTorch")],
)
def test_the_verdict_is_of_both_targets(tuned, torch, said):
    assert verdict(found(tuned, torch=torch)) == said


def test_twelve_networks_are_measured_and_every_cell_is_a_line():
    assert len(NAMES) == 12
    row = {
        "title": "Net",
        "weights_read": 1.25,
        "chosen": {"latency": "cpu", "throughput": "cpu"},
        "batches": {"1": found(0.01), "8": found(0.02)},
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
        and "| B |" in lines[-1]
        and "failed: no" in lines[-1]
    )


def test_going_on_keeps_what_was_measured_in_the_same_way(tmp_path, monkeypatch):
    measured = []
    monkeypatch.setattr(command, "NAMES", ("alexnet", "vgg16", "resnet50"))
    monkeypatch.setattr(
        command, "in_process", lambda name, options: measured.append(name) or {"title": name, "failed": "x"}
    )
    row = {"title": "Net", "chosen": {"latency": "cpu", "throughput": "cpu"}, "batches": {"1": found(0.01)}}
    old = {"alexnet": row | {"weights_read": 1.29}, "vgg16": row}
    path = tmp_path / "tuned.json"
    path.write_text(json.dumps({"networks": old}))
    command.main(["--resume", "--out", str(path)])
    assert measured == ["vgg16", "resnet50"]
    said = json.loads(path.read_text())["networks"]
    assert said["alexnet"] == old["alexnet"] and "batches" not in said["vgg16"]
