"""The fuzzers' frame sees each kind of fault, keeps its input, says how to repeat it, and goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastcam_bench.fuzz import findings
from fastcam_bench.fuzz.__main__ import classes, main
from fastcam_bench.fuzz.watch import Limits, run_class

PLANTED = "support.planted_faults"


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(findings, "FOLDER", tmp_path / "fuzz")
    return tmp_path / "fuzz" / "planted_faults"


def test_each_planted_fault_is_found_and_the_rest_is_tried(kept: Path) -> None:
    limits = Limits(inputs=9, per_input=1.5, memory=1 << 28, guided=False)
    result = run_class(PLANTED, "planted_faults", limits)
    assert (result["inputs"], result["accepted"], result["refused"]) == (9, 2, 1)
    assert {kind: len(some) for kind, some in result["found"].items()} == {
        "crashes": 2,
        "hangs": 1,
        "memory": 1,
        "tracebacks": 1,
        "wrong": 1,
    }
    assert sorted(path.read_bytes() for path in kept.glob("*.bin")) == sorted(
        [b"traceback", b"hang", b"crash", b"bomb", b"wrong", b"exit"]
    )
    (about,) = kept.glob("tracebacks-*.txt")
    assert "KeyError: 'planted'" in about.read_text() and f"--repeat {about.with_suffix('.bin')}" in about.read_text()
    (hang,) = kept.glob("hangs-*.txt")
    assert "planted_faults.py" in hang.read_text()  # where it hung


def test_a_fuzzer_that_stands_still_between_two_inputs_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STALLED", str(tmp_path / "stalled"))
    result = run_class("support.stalling_mutator", "stalling", Limits(inputs=40, per_input=1.5, guided=False))
    assert (tmp_path / "stalled").exists()
    assert (result["inputs"], result["accepted"]) == (40, 40) and not any(result["found"].values())
    assert "stalling_mutator: stood still between two inputs" in capsys.readouterr().err


def test_a_kept_input_is_tried_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "input.bin"
    kept.write_bytes(b"traceback")
    assert main(["--only", PLANTED, "--repeat", str(kept)]) == 1
    assert "KeyError: 'planted'" in capsys.readouterr().out
    kept.write_bytes(b"good")
    assert main(["--only", PLANTED, "--repeat", str(kept)]) == 0


def test_counts_are_written(tmp_path: Path) -> None:
    out = tmp_path / "fuzz.json"
    assert main(["--only", "labels", "--inputs", "60", "--blind", "--json", str(out)]) == 0
    result = json.loads(out.read_text())["classes"]["labels"]
    assert result["inputs"] == 60 == result["accepted"] + result["refused"]
    assert result["accepted"] >= 17  # the seeds are good
    assert main(["--only", "labels", "--inputs", "20", "--blind", "--add", "--json", str(out)]) == 0
    assert json.loads(out.read_text())["classes"]["labels"]["inputs"] == 80


def test_an_unknown_class_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--only", "nothing"])
    assert "labels" in capsys.readouterr().err and "labels" in classes()
