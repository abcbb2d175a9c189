"""fastcam tune: what is tried, what is refused, what is chosen, and that a profile says it."""

from __future__ import annotations

import importlib.util
import json
import threading
import time
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr
from typer.testing import CliRunner

import fastcam
from fastcam import Explainer, FastcamError, cli
from fastcam.runtime.profile import Choice, profile_path, read_profile
from fastcam.runtime.providers import CPU, CUDA, OPENVINO, OPENVINO_RUNTIME, TENSORRT
from fastcam.tuning import candidates, tune
from fastcam.tuning.agreement import Agreement, Reference, Tolerance, overlap, rank_correlation
from fastcam.tuning.measured import Row, best
from fastcam_export import export_model

DATA = Path(fastcam.__file__).parent / "data"
BASE = Choice("cpu", 2, 1)
GOOD = Agreement(0.001, 0.999, 1.0, 0.001, True)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    path = tmp_path_factory.mktemp("tune") / "scenes.cam.onnx"
    export_model(DATA / "scenes.onnx", path, preprocess="imagenet", check=False)
    return path


@pytest.fixture(scope="module")
def reference(scenes):
    picture = np.asarray(tune.decode(DATA / "scene.jpg"))
    return Reference(Explainer(scenes, "cpu", threads=1), [picture])


def row(ratio, low, high, number, **more):
    return Row("latency", replace(BASE, threads=number), 1.0, ratio, (low, high), GOOD, **more)


DEFAULT = row(1.0, 0.9, 1.1, 1)
OTHER = Agreement(0.02, 0.99, 1.0, 0.01, True)


@pytest.mark.parametrize(
    ("rows", "chosen"),
    [
        ([DEFAULT], 1),
        ([DEFAULT, row(0.9, 0.7, 1.05, 2)], 1),  # perhaps slower
        ([DEFAULT, row(0.97, 0.96, 0.99, 2)], 1),  # within the noise
        ([DEFAULT, row(0.8, 0.7, 0.9, 2)], 2),
        ([DEFAULT, row(0.8, 0.7, 0.9, 2), row(0.5, 0.4, 0.6, 3)], 3),
        ([DEFAULT, row(0.505, 0.4, 0.7, 2), row(0.5, 0.4, 0.6, 3)], 2),  # as fast
        ([DEFAULT, replace(row(0.5, 0.4, 0.7, 2), agreement=OTHER), row(0.505, 0.4, 0.6, 3)], 3),  # and changes less
        ([DEFAULT, row(0.55, 0.5, 0.6, 2), replace(row(0.5, 0.45, 0.55, 3), agreement=OTHER)], 3),
        ([DEFAULT, row(0.5, 0.5, 0.5, 2, left_out="other boxes"), row(0.8, 0.7, 0.9, 3)], 3),
        ([DEFAULT, replace(row(0.5, 0.5, 0.5, 2), seconds=None)], 1),
    ],
)
def test_the_fastest_is_chosen_and_the_default_within_the_noise(rows, chosen):
    assert best(rows).choice.threads == chosen


def test_engines_that_are_installed_are_tried_the_most_promising_first():
    assert [one.optimization for one in candidates.engines(BASE, [CPU])] == ["extended"]
    every = candidates.engines(BASE, [CPU, CUDA, TENSORRT, OPENVINO, OPENVINO_RUNTIME], ["f32", "bf16", "f16"])
    assert {one.providers for one in every} == {"cpu", "cuda", "tensorrt", "openvino", "openvino-runtime"}
    assert len({BASE, *every}) == len(every) + 1
    for native, order in ((["f32"], ["f32"]), (["f32", "bf16"], ["bf16", "f32"])):
        found = candidates.engines(BASE, [CPU, OPENVINO_RUNTIME], native)
        assert [one.precision for one in found if one.precision] == order and found[0].precision == order[0]


def test_the_final_corrects_what_a_moment_has_measured(scenes, monkeypatch):
    truth = {"all": 1.0, "extended": 0.9, "basic": 0.6}  # seconds by optimization; the first rounds flatter "extended"
    asked = []

    def times(contestants, seconds, least, pause, uncounted):
        asked.append(list(contestants))
        drift, final = np.linspace(1, 3, 9), "basic" in str(asked[-1]) and "extended" in str(asked[-1])
        each = {name: next((truth[one] for one in truth if one in name), 1.0) for name in contestants}
        lucky = {name: 0.5 if "extended" in name and not final else 1 for name in contestants}
        return {name: list(each[name] * lucky[name] * drift * contestants[name].pictures) for name in contestants}

    others = [replace(BASE, optimization="basic", threads=threads) for threads in (1, 2, 3)]
    others.insert(0, replace(BASE, optimization="extended"))
    monkeypatch.setattr(candidates, "engines", lambda base, *installed: others)
    monkeypatch.setattr(candidates, "layouts", lambda *given: [])
    monkeypatch.setattr(tune, "interleaved", times)
    found = tune.tune(scenes, seconds=1e-6).chosen
    assert {goal: row.ratio for goal, row in found.items()} == {"latency": 0.45, "throughput": 0.45}  # one, in any case
    asked.clear()
    found = tune.tune(scenes, seconds=600).chosen
    assert found["latency"].choice.optimization == "basic" and found["latency"].ratio == pytest.approx(0.6)
    assert max(map(len, asked)) == 1 + tune.FINALISTS


def test_rounds_that_do_not_fit_into_the_time_are_not_made(scenes, monkeypatch):
    """A slow network, on a clock that only its runs move: the last rounds, three of all, were made in any case."""
    clock = [0.0]

    def times(contestants, seconds, least, pause, uncounted):
        rounds = max(least, 1)
        clock[0] += 5.0 * rounds * len(contestants)
        return {name: [5.0 if "all" in name else 4.0] * rounds for name in contestants}

    def asked(seconds):
        clock[0] = 0.0
        tune.tune(scenes, seconds=seconds)
        return clock[0]

    others = [replace(BASE, optimization=one) for one in ("extended", "basic")]
    monkeypatch.setattr(candidates, "engines", lambda base, *installed: others)
    monkeypatch.setattr(candidates, "layouts", lambda *given: [])
    monkeypatch.setattr(candidates, "batches", lambda *given: [])
    monkeypatch.setattr(tune, "interleaved", times)
    monkeypatch.setattr(tune.time, "monotonic", lambda: clock[0])
    goals, pair = 2, 2
    assert asked(1.0) == goals * 5.0 * pair * 2  # the one that is tried in any case, and a round more of it
    assert asked(600.0) >= goals * 5.0 * (2 * pair + tune.ROUNDS * 3)


def test_four_files_are_open_at_most(scenes, monkeypatch):
    opened, most = weakref.WeakSet(), []
    make = tune.Explainer

    def counted(*given, **how):
        made = make(*given, **how)
        opened.add(made)
        most.append(len(opened))
        return made

    others = [replace(BASE, optimization=one, spinning=spin) for one in ("basic", "extended") for spin in (True, False)]
    monkeypatch.setattr(candidates, "engines", lambda base, *installed: [replace(one, batch=8) for one in others])
    monkeypatch.setattr(tune, "Explainer", counted)
    monkeypatch.setattr(tune, "interleaved", lambda runs, *given, **how: {name: [1.0, 2.0] for name in runs})
    tune.tune(scenes, seconds=600)
    assert len(most) >= 8 and max(most) == 4


def test_only_what_is_surely_slow_for_one_picture_is_not_tried_for_many(scenes, monkeypatch):
    def times(contestants, seconds, least, pause, uncounted):
        ratios = {"all": [1] * 8, "extended": [0.9, 4, 0.9, 4] * 2, "basic": [4] * 8}
        each = {name: next((ratios[one] for one in ratios if one in name), ratios["all"]) for name in contestants}
        return {name: [one * contestants[name].pictures for one in each[name]] for name in contestants}

    others = [replace(BASE, optimization=one) for one in ("extended", "basic")]
    monkeypatch.setattr(
        candidates, "engines", lambda base, *installed: [replace(one, batch=base.batch) for one in others]
    )
    monkeypatch.setattr(candidates, "layouts", lambda *given: [])
    monkeypatch.setattr(tune, "interleaved", times)
    rows = [row for row in tune.tune(scenes, seconds=600).rows if row.goal == "throughput"]
    left_out = {row.choice.optimization: row.left_out for row in rows if row.choice.optimization != "all"}
    assert left_out == {"extended": "", "basic": "slow for one picture"}


@pytest.mark.parametrize("cores", [1, 2, 16])
def test_layouts_use_the_cores_that_are_there(cores):
    for goal in ("latency", "throughput"):
        default = candidates.default(goal, cores, None)
        every = [default, *candidates.layouts(default, goal, cores)]
        assert len(set(every)) == len(every)
        assert all(1 <= one.threads * one.sessions <= cores for one in every)
        assert goal == "throughput" or all(one.sessions == 1 for one in every)
    assert candidates.batches(default, 4) == [] and candidates.default("throughput", cores, 4).batch == 4


def test_rank_correlation_is_spearmans():
    rng = np.random.default_rng(0)
    for _ in range(5):
        a, b = rng.integers(0, 9, 60), rng.integers(0, 9, 60)  # with ties
        assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert rank_correlation(np.zeros(4), np.zeros(4)) == 1 and rank_correlation(np.zeros(4), np.arange(4)) == 0


@pytest.mark.parametrize(
    ("a", "b", "wanted"),
    [
        ([0, 0, 4, 4], [0, 0, 4, 4], 1),
        ([0, 0, 4, 4], [2, 0, 4, 4], 0.5),
        ([0, 0, 4, 4], [4, 0, 8, 4], 0),
        ([0, 0, 0, 0], [0, 0, 0, 0], 1),  # neither has a box
        ([0, 0, 0, 0], [0, 0, 4, 4], 0),
    ],
)
def test_boxes_are_compared_by_intersection_over_union(a, b, wanted):
    assert overlap(np.array(a, float), np.array(b, float)) == wanted


def test_scores_and_boxes_that_move_are_measured(scenes, reference):
    class Moved:
        def __init__(self):
            self.explainer = Explainer(scenes, "cpu", threads=1)

        def __call__(self, *asked):
            found = self.explainer(*asked)
            boxes = found.boxes.copy()
            boxes[..., 2] -= (boxes[..., 2] - boxes[..., 0]) / 4
            return replace(found, boxes=boxes, scores=found.scores + 0.1 * np.abs(found.scores).max())

    found = reference.agreement(Moved())
    assert found.overlap == pytest.approx(0.75) and found.scores == pytest.approx(0.1) and found.difference == 0


def test_the_reference_agrees_with_itself(scenes, reference):
    found = reference.agreement(Explainer(scenes, "cpu", threads=1))
    assert found == Agreement(0.0, pytest.approx(1.0), 1.0, 0.0, True) and not found.refusal(Tolerance())


def test_a_file_of_other_weights_is_refused(tmp_path, reference):
    import onnx
    from onnx import numpy_helper

    model = onnx.load(DATA / "scenes.onnx")
    rng = np.random.default_rng(0)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.ndim == 4:
            noise = rng.standard_normal(values.shape).astype(values.dtype) * values.std()
            tensor.CopyFrom(numpy_helper.from_array(values + noise, tensor.name))
    path = tmp_path / "noisy.cam.onnx"
    export_model(model, path, preprocess="imagenet", check=False)
    assert reference.agreement(Explainer(path, "cpu", threads=1)).refusal(Tolerance())


@pytest.mark.parametrize(
    ("agreement", "why"),
    [
        (replace(GOOD, classes=False), "another class"),
        (replace(GOOD, difference=0.2), "maps differ by 0.2"),
        (replace(GOOD, difference=float("nan")), "maps differ"),
        (replace(GOOD, correlation=0.5), "rank correlation 0.500"),
        (replace(GOOD, overlap=0.7), "boxes overlap by 0.70"),
        (GOOD, ""),
    ],
)
def test_what_is_too_far_from_the_reference_is_said(agreement, why):
    said = agreement.refusal(Tolerance())
    assert said.startswith(why) and bool(said) == bool(why)


def test_tuning_ends_in_a_profile_that_holds(scenes):
    began = time.monotonic()
    found = tune.tune(scenes, seconds=4)
    assert time.monotonic() - began < 60
    path = found.write()
    assert path == profile_path(scenes)
    made = read_profile(path)
    said = json.loads(path.read_text())
    assert made.latency.batch == 1 and {one["goal"] for one in said["candidates"]} == {"latency", "throughput"}
    for goal in ("latency", "throughput"):
        explainer = Explainer(scenes, profile="auto", goal=goal)
        assert explainer.profile == getattr(made, goal)
        chosen = found.chosen[goal]
        assert chosen is found.default(goal) or (chosen.interval[1] < 1 and not chosen.left_out)
    if importlib.util.find_spec("openvino") is None:
        assert {one["providers"] for one in said["candidates"]} == {"cpu"}


def test_an_engine_that_explains_otherwise_is_not_chosen(scenes, monkeypatch):
    monkeypatch.setattr(Reference, "agreement", lambda self, explainer: replace(GOOD, difference=0.5))
    found = tune.tune(scenes, seconds=1)
    assert all(found.chosen[goal] is found.default(goal) for goal in found.chosen)
    assert all(one.left_out for one in found.rows)


def call(*arguments):
    return CliRunner().invoke(cli.app, ["tune", *map(str, arguments)])


def test_the_command_prints_a_table_and_the_choices(scenes, tmp_path):
    done = call(scenes, "--seconds", 2, "-o", tmp_path / "p.json")
    assert done.exit_code == 0, done.output
    assert done.stdout.count("chosen") == 2 and "latency: " in done.stdout and "throughput: " in done.stdout
    assert "differences up to 0.1" in done.stdout
    assert f"--profile {tmp_path / 'p.json'} uses it" in " ".join(done.stdout.split())
    Explainer(scenes, profile=tmp_path / "p.json")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--seconds", 0), "seconds is 0"),
        (("--seconds", "nan"), "seconds is nan"),
        (("--seconds", "inf"), "seconds is inf"),
        (("--max-difference", 0), "tolerance"),
        (("--min-overlap", 2), "tolerance"),
        ((DATA / "absent.jpg",), "no such file"),
        (("-o", "absent/p.json"), "cannot be written"),
    ],
)
def test_wrong_calls_are_one_line_and_write_nothing(scenes, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fastcam.tuning.tune._Tuner.tuned", lambda self: pytest.fail("it was measured"))
    more = () if "--seconds" in arguments else ("--seconds", 0.1)
    done = call(scenes, *more, *arguments)
    assert done.exit_code == 2 and said in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert not [*tmp_path.iterdir()]


def test_a_file_of_no_pictures_is_refused(tmp_path):
    from support.models.small_models import classifier

    path = tmp_path / "c.cam.onnx"
    export_model(classifier(), path, preprocess="unit", targets="cotangent", check=False)
    with pytest.raises(FastcamError, match="only files that explain classes of single pictures"):
        tune.tune(path, seconds=1)


def test_no_thread_of_a_trial_stays(scenes):
    before, until = threading.active_count(), time.monotonic() + 20
    tune.tune(scenes, seconds=1)
    while threading.active_count() > before + 1 and time.monotonic() < until:
        time.sleep(0.01)
    assert threading.active_count() <= before + 1
