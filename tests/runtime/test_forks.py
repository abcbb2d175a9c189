"""A fork in the middle of anything: the child works or is told what does not; it waits for no thread that it lacks."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count

import numpy as np
import pytest

from fastcam import Explainer, FastcamError
from fastcam.render import text
from fastcam.runtime import run_gate
from fastcam.runtime.run_gate import RUNS
from fastcam.runtime.thread_limit import limited
from fastcam.runtime.thread_pipeline import OwnLock, Workers
from support.models.contract_model import random_model

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
SOON = 60
PICTURE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)


def child(work: Callable[[], bool]) -> int:
    """How a forked process ended: 0 where ``work`` is true there; it is killed where it hangs."""
    process = os.fork()
    if process == 0:  # pragma: no cover - another process
        try:
            good = work()
        except BaseException:
            good = False
        os._exit(0 if good else 1)
    until = time.monotonic() + SOON / 3
    while time.monotonic() < until:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(process, 9)
    os.waitpid(process, 0)
    return -9


def explained(explainer: Explainer, wanted: list[int]) -> bool:
    """One call, a call of several pictures, and one with the head."""
    return bool(
        explainer(PICTURE).classes.ravel().tolist() == wanted
        and explainer([PICTURE] * 3).classes.ravel().tolist() == wanted * 3
        and explainer(PICTURE, method="occlusion", options={"window": 8, "stride": 8}).classes.ravel().tolist()
        == wanted
    )


def in_threads() -> list[int]:
    """How forked processes end while four threads explain, and with a drawing and a stream under way."""
    explainer = Explainer(random_model(end="Softmax").file(), threads=2)
    wanted, stop = explainer(PICTURE).classes.ravel().tolist(), threading.Event()

    def calls() -> None:
        while not stop.is_set():
            explainer([PICTURE] * 2).overlay(0)

    threads = [threading.Thread(target=calls) for _ in range(4)]
    for thread in threads:
        thread.start()
    ends = [child(lambda: explained(explainer, wanted)) for _ in range(6)]
    ends += [child(lambda: explainer(PICTURE).overlay(0).ndim == 3) for _ in range(4)]
    stream = explainer.stream(PICTURE for _ in count())
    next(stream)
    ends += [child(lambda: refused(stream)), child(lambda: stream.close() is None)]
    ends += [child(lambda: next(explainer.stream([PICTURE])).error is None)]
    next(stream)
    stream.close()
    stop.set()
    for thread in threads:
        thread.join()
    return ends


def refused(stream: Iterator[object]) -> bool:
    """Whether a stream says that it is the parent's, behind what was ready."""
    try:
        for _ in range(1000):
            next(stream)
    except FastcamError as error:
        return "forked process" in str(error)
    return False


def test_an_explainer_works_in_a_child_whatever_the_parents_threads_do() -> None:
    path = os.pathsep.join([*sys.path, os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, __file__], timeout=2 * SOON, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["0"] * 13


OWN, WORKERS = OwnLock(), Workers(2)


@pytest.mark.parametrize(
    "lock", [lambda: OWN, lambda: text._LOCK, lambda: WORKERS._lock], ids=["own", "fonts", "workers"]
)
def test_a_lock_that_another_thread_holds_is_open_in_the_child(lock: Callable[[], OwnLock]) -> None:
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with lock():
            held.set()
            let_go.wait(SOON)

    def free() -> bool:
        with lock():
            return True

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    assert child(free) == 0
    let_go.set()
    thread.join()


def test_a_fork_waits_for_the_runs_of_other_threads() -> None:
    """What a run has locked inside ONNX Runtime would stay locked in the child."""
    begun, ended = threading.Event(), []

    def run() -> None:
        with RUNS:
            begun.set()
            time.sleep(0.3)
            ended.append(time.monotonic())

    def free() -> bool:
        with RUNS:
            return len(ended) == 1

    thread = threading.Thread(target=run)
    thread.start()
    begun.wait()
    assert child(free) == 0
    thread.join()
    with RUNS:
        pass


def test_calls_that_follow_each_other_without_a_pause_keep_no_fork_waiting() -> None:
    """Two threads whose calls overlap are never both outside one, unless new calls wait for the fork."""
    stop = threading.Event()

    def calls(offset: float) -> None:
        time.sleep(offset)
        while not stop.is_set():
            with RUNS:
                time.sleep(0.1)

    threads = [threading.Thread(target=calls, args=(offset,)) for offset in (0.0, 0.05)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    begun = time.monotonic()
    assert child(lambda: True) == 0
    assert time.monotonic() - begun < run_gate.LONGEST / 3
    stop.set()
    for thread in threads:
        thread.join()


def test_a_thread_forks_within_its_own_call_and_begins_calls_within_it() -> None:
    def free() -> bool:
        with RUNS:
            return True

    begun = time.monotonic()
    with RUNS:
        assert child(free) == 0
        with RUNS:
            assert child(free) == 0
    assert child(free) == 0
    assert time.monotonic() - begun < run_gate.LONGEST / 3


def test_a_drawing_is_waited_for() -> None:
    drawing, ended = threading.Event(), []

    @limited
    def draw() -> None:
        drawing.set()
        time.sleep(0.3)
        ended.append(True)

    thread = threading.Thread(target=draw)
    thread.start()
    drawing.wait()
    assert child(lambda: ended == [True]) == 0
    thread.join()


if __name__ == "__main__":
    print(*in_threads())
    sys.stdout.flush()
    os._exit(0)
