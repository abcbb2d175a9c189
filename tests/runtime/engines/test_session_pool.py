"""Several sessions as one: how many runs go on at once, and what settings make of it."""

from __future__ import annotations

import threading

import numpy as np
import onnxruntime
import pytest

from fastcam import FastcamError, Settings
from fastcam.runtime.engines.session_pool import SessionPool
from fastcam.runtime.session import create_session
from support.models.contract_model import random_model

FILE = random_model().file()


class Session:
    """One whose runs wait until as many go on as there are sessions."""

    def __init__(self, barrier):
        self.barrier, self.running = barrier, False

    def run(self, names, feed, options=None):
        assert not self.running, "two runs in one session"
        self.running = True
        self.barrier.wait(10)
        self.running = False
        return names, feed


def test_as_many_runs_go_on_as_there_are_sessions():
    barrier = threading.Barrier(2)
    pool = SessionPool(lambda: Session(barrier), 2)
    found = []
    threads = [threading.Thread(target=lambda i=i: found.append(pool.run([i], {})[0][0])) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(found) == [*range(6)]


def test_a_session_comes_back_after_a_run_that_fails():
    class Failing:
        def run(self, names, feed, options=None):
            raise RuntimeError("no")

    pool = SessionPool(Failing, 1)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no"):
            pool.run(None, {})


def test_sessions_of_several_threads_are_several_and_of_one_thread_one(monkeypatch):
    made = []
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *a, **k: made.append(1) or real(*a, **k))
    several = create_session(FILE, "cpu", threads=2, settings=Settings(sessions=2))
    assert len(made) == 2
    one = create_session(FILE, "cpu", threads=1, settings=Settings(sessions=2))
    assert len(made) == 3
    (image,) = one.get_inputs()
    feed = {image.name: np.zeros([side if isinstance(side, int) else 1 for side in image.shape], np.float32)}
    for a, b in zip(several.run(None, feed), one.run(None, feed)):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_the_graph_is_optimised_as_asked():
    levels = onnxruntime.GraphOptimizationLevel
    for asked, level in (("all", levels.ORT_ENABLE_ALL), ("extended", levels.ORT_ENABLE_EXTENDED)):
        options = create_session(FILE, "cpu", settings=Settings(optimization=asked)).get_session_options()
        assert options.graph_optimization_level == level


@pytest.mark.parametrize(
    "wrong", [{"sessions": 0}, {"optimization": "most"}, {"precision": "int4"}, {"sessions": True}]
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(FastcamError, match=next(iter(wrong))):
        Settings(**wrong)
