"""Calls that fail at a chosen place, what must hold afterwards, and verbs of which it holds."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fastcam_bench.faults import injection, verdict
from fastcam_bench.faults.cases import CASES
from fastcam_bench.faults.children import Run
from fastcam_bench.faults.injection import CLOSES, RENAMES, WRITES, Counter, Fault

OLD, NEW, HALF = (0o644, b"old"), (0o644, b"new!"), (0o644, b"ne")
CASE = CASES[0]


@pytest.fixture(scope="module")
def library() -> Path:
    try:
        return injection.library()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"calls cannot be made to fail here: {error}")


def in_child(work) -> list:
    """What a function returns in a process of its own."""
    source, sink = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.write(sink, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(sink)
    with open(source, "rb") as file:
        said = file.read()
    os.waitpid(pid, 0)
    assert said, "the process died"
    return json.loads(said)


def test_the_chosen_call_fails_and_no_other(library, tmp_path):
    (tmp_path / "here").mkdir()
    counter = Counter()

    def work() -> list:
        injection.fail_calls(library, tmp_path / "here", Fault("", WRITES, errno.ENOSPC), 3, counter)
        ended = []
        for i in range(4):
            for folder in (tmp_path, tmp_path / "here"):
                try:
                    (folder / f"{i}").write_bytes(b"content")
                    ended.append(0)
                except OSError as error:
                    ended.append(error.errno)
        return ended

    assert in_child(work) == [0, 0, 0, 0, 0, errno.ENOSPC, 0, 0]
    assert counter.of(WRITES) == 4 and counter.of(CLOSES) == 4 and counter.of(RENAMES) == 0


def test_calls_of_compiled_code_fail_too(library, tmp_path):
    """NumPy writes through the C library."""
    counter = Counter()

    def work() -> list:
        injection.fail_calls(library, tmp_path, Fault("", WRITES, errno.EIO, lasting=True), 1, counter)
        try:
            np.zeros(100_000).tofile(tmp_path / "x")
        except OSError:
            return ["OSError"]
        return ["written"]

    assert in_child(work) == ["OSError"] and counter.of(WRITES) >= 1


def test_half_of_a_write_is_no_error(library, tmp_path):
    counter = Counter()

    def work() -> list:
        injection.fail_calls(library, tmp_path, Fault("", WRITES, 0), 1, counter)
        with (tmp_path / "x").open("wb", buffering=0) as file:
            return [file.write(b"12345678"), file.write(b"12345678")]

    assert in_child(work) == [4, 8]


ONE_LINE = "fastcam: no\n"


@pytest.mark.parametrize(
    ("run", "complaint"),
    [
        (Run(0, "", {"a": NEW}, ()), None),
        (Run(0, "", {"a": HALF}, ()), "exit 0, but a is not what it should be"),
        (Run(0, "", {}, ()), "exit 0, but a is missing"),
        (Run(0, "", {"a": NEW, ".fastcam-1": HALF}, ()), "exit 0, but .fastcam-1 is left"),
        (Run(2, ONE_LINE, {"a": OLD}, ()), None),
        (Run(2, ONE_LINE, {"a": NEW}, ()), "exit 2, but a has changed"),
        (Run(2, ONE_LINE, {"a": (0o600, b"old")}, ()), "exit 2, but a has changed"),
        (Run(2, ONE_LINE, {}, ()), "exit 2, and a is gone"),
        (Run(2, ONE_LINE, {"a": OLD, "b": HALF}, ()), "exit 2, but b is there"),
        (Run(2, ONE_LINE, {"a": OLD}, ("fastcam-x",)), "left in the temporary folder: fastcam-x"),
        (Run(2, "", {"a": OLD}, ()), "exit 2, 0 lines: "),
        (Run(1, "Traceback", {"a": OLD}, ()), "exit 1: Traceback"),
    ],
)
def test_what_a_disturbed_run_may_leave(run, complaint):
    assert verdict.of_writing(CASE, run, {"a": OLD}, {"a": NEW}) == complaint


def test_a_model_that_cannot_be_read_is_refused_whatever_is_in_the_cache():
    (case,) = [case for case in CASES if case.cache]
    assert verdict.of_reading(case, Run(2, ONE_LINE, {"a": OLD}, ()), {"a": OLD}, {"a": NEW}) is None
    assert verdict.of_writing(case, Run(2, ONE_LINE, {"a": OLD}, ()), {"a": OLD}, {"a": NEW})


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({"a": OLD}, None),
        ({"a": NEW, ".fastcam-1.onnx": HALF}, None),
        ({"a": HALF}, "a is neither as it was nor as it should be (2 bytes)"),
        ({}, "a is gone"),
    ],
)
def test_what_a_killed_run_may_leave(files, complaint):
    assert verdict.of_kill(Run(-9, "", files, ()), {"a": OLD}, {"a": NEW}) == complaint


def study(tmp_path: Path, *arguments: str) -> dict:
    out = tmp_path / "faults.json"
    done = subprocess.run(
        [sys.executable, "-m", "fastcam_bench.faults", *arguments, "--json", str(out)],
        capture_output=True,
        text=True,
        check=False,
        env={name: value for name, value in os.environ.items() if not name.startswith("COV")},
    )
    assert out.exists(), done.stdout + done.stderr
    cases = json.loads(out.read_text())["cases"]
    assert [f"{name}: {one}" for name, case in cases.items() for one in case["complaints"]] == []
    return cases


@pytest.mark.usefixtures("library")
def test_failing_disks_and_kills_leave_no_half_file(tmp_path):
    cases = study(tmp_path, "--only", "save", "--only", "export, head", "--every", "24", "--kills", "4")
    assert cases["save"]["runs"]["killed"] >= 8


@pytest.mark.slow
@pytest.mark.usefixtures("library")
def test_every_verb_stands_failing_disks_and_kills(tmp_path):
    cases = study(tmp_path, "--every", "5", "--kills", "4")
    assert set(cases) == {case.name for case in CASES}
