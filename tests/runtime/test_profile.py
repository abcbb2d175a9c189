"""Profiles: when one holds, what wins over it, and that all that it says is done."""

from __future__ import annotations

import copy
import json
import pickle
import threading

import numpy as np
import pytest

from fastcam import Explainer, FastcamError, Settings
from fastcam.cache import sha256_of
from fastcam.runtime import profile, session
from fastcam.runtime.profile import Choice, profile_path
from fastcam_export import export_model
from support.models.small_models import classifier

LATENCY = {"providers": "cpu", "threads": 2, "batch": 1, "spinning": False, "optimization": "extended"}
THROUGHPUT = {"providers": "cpu", "threads": 1, "batch": 3, "sessions": 2}


@pytest.fixture
def tuned(tmp_path, monkeypatch):
    """A file with a profile beside it."""
    monkeypatch.setenv("FASTCAM_CACHE", str(tmp_path / "cache"))
    session.warn_once.cache_clear()
    path = tmp_path / "small.cam.onnx"
    export_model(classifier(), path, preprocess="unit", check=False)
    here = profile.this_machine()
    said = {"fastcam_profile": 1, "model": sha256_of(path), "packages": profile.packages()}
    said |= {"machine": {"cpu": here.cpu, "cores": here.cores, "digest": here.digest}}
    said |= {"latency": LATENCY, "throughput": THROUGHPUT}
    profile_path(path).write_text(json.dumps(said))
    return path, said


def rewrite(path, said, **changes):
    profile_path(path).write_text(json.dumps({**copy.deepcopy(said), **changes}))


def pictures(count):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (16, 16, 3), dtype=np.uint8) for _ in range(count)]


def session_options(explainer):
    return explainer._network._session.get_session_options()


def test_the_profile_beside_a_file_is_obeyed(tuned):
    path, _ = tuned
    assert profile_path(path).name == "small.cam.profile.json"
    fast, many = (Explainer(path, profile="auto", goal=goal) for goal in ("latency", "throughput"))
    options = session_options(fast)
    assert (options.intra_op_num_threads, fast.batch_size, fast.sessions) == (2, 1, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert "EXTENDED" in str(options.graph_optimization_level)
    assert (session_options(many).intra_op_num_threads, many.batch_size, many.sessions) == (1, 3, 2)
    assert many.profile == Choice(**THROUGHPUT)
    named = Explainer(path, profile=profile_path(path))
    assert named.profile == Choice(**LATENCY)


def test_nothing_is_obeyed_that_was_not_asked_for(tuned):
    for explainer in (
        Explainer(tuned[0]),
        Explainer(tuned[0], profile="none"),
        Explainer(tuned[0].read_bytes(), profile="auto"),
    ):
        assert (explainer.profile, explainer.batch_size, explainer.sessions) == (None, 16, 1)


def test_explicit_arguments_win(tuned):
    made = Explainer(tuned[0], threads=1, batch_size=5, settings=Settings(optimization="basic"), profile="auto")
    assert (session_options(made).intra_op_num_threads, made.batch_size) == (1, 5)
    assert "BASIC" in str(session_options(made).graph_optimization_level)
    assert session_options(made).get_session_config_entry("session.intra_op.allow_spinning") == "0"
    alone = Explainer(tuned[0], threads=1, profile="auto", goal="throughput")  # threads of all runs together
    assert (alone.sessions, alone.batch_size) == (1, 3)
    several = Explainer(tuned[0], threads=1, profile="auto", goal="throughput", settings=Settings(sessions=3))
    assert several.sessions == 3
    other = Explainer(tuned[0], "CPUExecutionProvider", profile="auto")
    assert other.profile is None


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"model": "0" * 64}, "the model has changed since"),
        ({"machine": {"cpu": "Other CPU", "cores": 64, "digest": "x"}}, "made on Other CPU with 64 cores"),
        ({"packages": {"onnxruntime": "1.0.0"}}, "made with onnxruntime 1.0.0, not"),
        ({"packages": {"gone": "1.0"}}, "gone 1.0, not there now"),
        ({"fastcam_profile": 2}, "of another version"),
        ({"latency": {**LATENCY, "threads": 0}}, "latency.threads"),
        ({"throughput": None}, "throughput"),
    ],
)
def test_one_that_does_not_hold_is_passed_over_with_a_warning_and_refused_where_it_was_named(tuned, changes, why):
    path, said = tuned
    rewrite(path, said, **changes)
    with pytest.warns(UserWarning, match=why) as told:
        explainer = Explainer(path, profile="auto")
    assert len(told) == 1 and "\n" not in str(told[0].message) and explainer.profile is None
    with pytest.raises(FastcamError, match=why):
        Explainer(path, profile=profile_path(path))


def test_a_profile_of_an_engine_that_is_gone_is_passed_over(tuned, monkeypatch):
    path, said = tuned
    monkeypatch.setattr(profile, "available_providers", lambda: ["CPUExecutionProvider"])
    rewrite(path, said, latency=LATENCY | {"providers": "cuda"})
    with pytest.warns(UserWarning, match="it is for cuda, which is not in this ONNX Runtime.*going on without it"):
        assert Explainer(path, profile="auto").profile is None
    with pytest.raises(FastcamError, match="it is for cuda"):
        Explainer(path, profile=profile_path(path))


def test_threads_without_end_are_refused(tuned):
    path, said = tuned
    with pytest.raises(FastcamError, match="at most 1024, got 1000000000"):
        Explainer(path, threads=10**9)
    rewrite(path, said, latency=LATENCY | {"threads": 10**9})
    with pytest.warns(UserWarning, match="latency.threads is 1000000000; give numbers of 1024 or less"):
        assert Explainer(path, profile="auto").profile is None


def test_a_file_that_is_no_profile_is_refused(tuned):
    path, _ = tuned
    for text in ("", "{", "[]", "{}", '{"fastcam_profile": 1}'):
        profile_path(path).write_text(text)
        with pytest.raises(FastcamError, match="no profile"):
            Explainer(path, profile=profile_path(path))
    with pytest.raises(FastcamError, match="No such file"):
        Explainer(path, profile=path.with_name("absent.json"))


def test_another_process_opens_the_same(tuned):
    made = pickle.loads(pickle.dumps(Explainer(tuned[0], profile="auto", goal="throughput")))
    assert (made.batch_size, made.sessions) == (3, 2)
    assert session_options(made).intra_op_num_threads == 1


@pytest.mark.parametrize("wrong", [{"goal": "speed"}, {"goal": 1}, {"profile": 5}])
def test_arguments_of_other_kinds_are_refused(tuned, wrong):
    with pytest.raises(FastcamError, match=next(iter(wrong))):
        Explainer(tuned[0], **wrong)


@pytest.mark.parametrize(("cores", "sessions"), [(1, 1), (2, 2), (8, 8), (64, 1)])
def test_throughput_without_a_profile_is_runs_of_one_thread(tuned, monkeypatch, cores, sessions):
    monkeypatch.setattr(profile, "cores", lambda: cores)
    assert Explainer(tuned[0], "cpu", goal="throughput").sessions == sessions
    assert Explainer(tuned[0], "cpu", goal="throughput", threads=2).sessions == 1
    assert Explainer(tuned[0], "cpu").sessions == 1


def test_runs_go_on_at_the_same_time_in_streams_and_in_calls(tuned):
    """Each run waits until another one goes on: alone it would wait in vain."""
    one = Explainer(tuned[0], "cpu", threads=1, batch_size=2)
    two = Explainer(tuned[0], "cpu", threads=1, batch_size=2, settings=Settings(sessions=2))
    network, barrier = two._file.whole.network, threading.Barrier(2)
    forward = network.forward

    def together(*given):
        barrier.wait(20)
        return forward(*given)

    network.forward = together
    given = pictures(8)  # four runs
    called, wanted = two(given), one(given)
    np.testing.assert_array_equal(called.heatmaps, wanted.heatmaps)
    streamed = [*two.stream(given)]
    assert [frame.index for frame in streamed] == [*range(8)]
    for frame, maps in zip(streamed, wanted.heatmaps):
        np.testing.assert_array_equal(frame.explanation.heatmaps[0], maps)
