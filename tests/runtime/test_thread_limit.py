"""``threads=1`` holds for BLAS and OpenCV while a call lasts, and the host program's numbers are its own afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

import cv2
import numpy as np
import pytest

from fastcam import Explainer
from fastcam.runtime import thread_limit
from fastcam.runtime.thread_limit import Limits, Pool, at_most, limited
from fastcam_bench.speed import processor_share
from fastcam_export import export_model
from support.command_line import call
from support.models.pyramid_model import pyramid


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """A process with two pools, of eight threads and of two."""
    numbers = {"blas": 8, "cv": 2}
    pools = tuple(Pool(lambda n=n: numbers[n], lambda value, n=n: numbers.update({n: value})) for n in numbers)
    monkeypatch.setattr(thread_limit, "pools", lambda: pools)
    monkeypatch.setattr(thread_limit, "_LIMITS", Limits())
    return numbers


def test_the_smallest_limit_of_the_calls_that_run_holds_and_nothing_stays(host: dict[str, int]) -> None:
    with at_most(4):
        assert host == {"blas": 4, "cv": 2}
        with at_most(1):
            assert host == {"blas": 1, "cv": 1}
        assert host == {"blas": 4, "cv": 2}
        with at_most(None):
            assert host == {"blas": 4, "cv": 2}
    assert host == {"blas": 8, "cv": 2}


def test_calls_that_end_in_another_order_leave_what_the_host_had(host: dict[str, int]) -> None:
    first, second = at_most(1), at_most(3)
    first.__enter__(), second.__enter__()
    first.__exit__(None, None, None)
    assert host == {"blas": 3, "cv": 2}
    second.__exit__(None, None, None)
    assert host == {"blas": 8, "cv": 2}


def test_what_the_host_sets_meanwhile_stays(host: dict[str, int]) -> None:
    with at_most(1):
        host["blas"] = 6
    assert host == {"blas": 6, "cv": 2}
    with at_most(1):
        assert host == {"blas": 1, "cv": 1}
    assert host == {"blas": 6, "cv": 2}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_ends_a_limit(host: dict[str, int], error: type[BaseException]) -> None:
    with pytest.raises(error), at_most(1):
        raise error
    assert host == {"blas": 8, "cv": 2}


def test_what_is_drawn_keeps_to_the_threads_of_its_explainer(host: dict[str, int]) -> None:
    class Result:
        threads = 1

    seen = limited(lambda drawn: dict(host))
    assert seen(Result()) == seen([Result()]) == {"blas": 1, "cv": 1}
    assert seen(object()) == {"blas": 8, "cv": 2}


def test_a_command_that_is_refused_leaves_no_limit(host: dict[str, int]) -> None:
    """A later option is wrong when --threads has been read."""
    result = call("explain", "m.cam.onnx", "photo.png", "--threads", "1", "--threshold", "half")
    assert result.exit_code == 2 and "threshold" in result.stderr
    assert host == {"blas": 8, "cv": 2}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_has_its_own_numbers_though_another_thread_held_the_lock(host: dict[str, int]) -> None:
    limits = thread_limit._LIMITS
    with at_most(1):
        held, let_go = threading.Event(), threading.Event()

        def hold() -> None:
            with limits._lock:
                held.set()
                let_go.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        process = os.fork()
        if process == 0:  # pragma: no cover - another process
            limits.in_child()
            good = host == {"blas": 8, "cv": 2}
            with at_most(1):
                good = good and host == {"blas": 1, "cv": 1}
            os._exit(0 if good else 1)
        let_go.set()
        thread.join()
        assert os.waitpid(process, 0)[1] == 0


def test_a_call_leaves_opencv_as_it_was_and_has_it_limited() -> None:
    made = export_model(pyramid()[0], layer=["r3", "r2"], preprocess="unit", check=False)
    explainer, inside, before = Explainer(made.model.SerializeToString(), threads=1), [], cv2.getNumThreads()
    cv2.setNumThreads(3)
    try:
        picture = np.zeros((20, 24, 3), np.uint8)
        e = explainer(picture, method="occlusion", progress=lambda done, total: inside.append(cv2.getNumThreads()))
        assert set(inside) == {1} and e.threads == 1 and cv2.getNumThreads() == 3
        list(explainer.stream([picture]))
        assert cv2.getNumThreads() == 3
    finally:
        cv2.setNumThreads(before)


CASES = ("method eigencam", "method kpcacam", "method hirescam")


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="with one processor nothing is divided")
def test_no_other_thread_works_for_a_call_of_one_thread() -> None:
    free = {name: value for name, value in os.environ.items() if name not in processor_share.POOLS}
    command = [
        sys.executable,
        "-m",
        "fastcam_bench.speed.processor_share",
        "--group",
        "methods",
        "--seconds",
        "0.1",
    ]
    command += [part for name in CASES for part in ("--only", name)]
    path = os.pathsep.join([*sys.path, os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, capture_output=True, text=True, env={**free, "PYTHONPATH": path})
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found) == set(CASES)
    assert {name: one["share"] for name, one in found.items() if one["share"] > processor_share.MOST} == {}
