"""--profile of the verbs that run a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fastcam import cli
from fastcam.cache import sha256_of
from fastcam.runtime import profile
from fastcam.serving.limits import Limits
from fastcam.serving.processes.process import Process
from fastcam.serving.repository import Place
from fastcam.serving.watching.metrics import Metrics
from fastcam.serving.watching.tracing import Spans
from fastcam_export import export_model
from support.models.small_models import classifier

SCENE = str(Path(cli.__file__).parents[1] / "data" / "scene.jpg")
LATENCY = {"providers": "cpu", "threads": 1, "batch": 1, "spinning": False}
THROUGHPUT = {"providers": "cpu", "threads": 1, "batch": 3, "sessions": 2}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A file with a profile beside it, and one that has none of its own."""
    path = tmp_path_factory.mktemp("tuned") / "small.cam.onnx"
    export_model(classifier(), path, preprocess="unit", check=False)
    said = {"fastcam_profile": 1, "model": sha256_of(path), "packages": profile.packages()}
    said |= {"machine": vars(profile.this_machine()), "latency": LATENCY, "throughput": THROUGHPUT}
    profile.profile_path(path).write_text(json.dumps(said))
    return path


def call(*arguments):
    done = CliRunner().invoke(cli.app, [*map(str, arguments)])
    assert not done.exception or isinstance(done.exception, SystemExit), done.exception
    return done


VERBS = [
    (("explain",), "profile: cpu, 1 thread, no spinning, batch 1"),
    (("stream",), "profile: cpu, 2 runs of 1 thread, batch 3"),
]


@pytest.mark.parametrize(("verb", "said"), VERBS)
def test_the_profile_beside_the_file_is_used_and_said_on_stderr(tuned, verb, said):
    more = ("--json",) if verb == ("explain",) else ()
    done = call(*verb, tuned, SCENE, *more)
    assert (done.exit_code, done.stderr.splitlines()[0]) == (0, said)
    without = call(*verb, tuned, SCENE, *more, "--profile", "none")
    assert "profile" not in without.stderr
    about, same = (json.loads(one.stdout) for one in (done, without))
    boxes = [[target["box"] for target in one.get("images", [one])[0]["targets"]] for one in (about, same)]
    assert boxes[0] == boxes[1]


def test_batch_uses_it_and_goes_on_with_it(tuned, tmp_path):
    for _ in range(2):
        done = call("batch", tuned, Path(SCENE).parent, "--out", tmp_path / "table")
        assert done.exit_code == 0 and "profile: cpu, 2 runs of 1 thread, batch 3" in done.stderr


@pytest.mark.parametrize("verb", ["explain", "stream", "batch"])
def test_one_that_was_named_and_does_not_hold_is_refused(tuned, tmp_path, verb):
    other = tmp_path / "other.json"
    other.write_text(profile.profile_path(tuned).read_text().replace(sha256_of(tuned), "0" * 64))
    out = ("--out", tmp_path / "out") if verb == "batch" else ("-o", tmp_path / "out.jsonl")
    done = call(verb, tuned, SCENE, *out, "--profile", other)
    assert done.exit_code == 2 and "the model has changed since" in done.stderr
    assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "out").exists()


def test_a_server_uses_the_choice_for_its_goal(tuned):
    place = Place("small", "1", tuned)
    for goal, size, sessions in (("throughput", 3, 2), ("latency", 1, 1)):
        limits = Limits(1 << 20, 1 << 20, 8, 8, 8, 30.0, 0)
        process = Process((tuned,), limits, profile="auto", goal=goal)
        model = process._load(Metrics({}), Spans(), place)
        assert (model.explainer.batch_size, model.explainer.sessions) == (size, sessions)
        model.close()
    plain = Process((tuned,), limits)._load(Metrics({}), Spans(), place)
    assert (plain.explainer.batch_size, plain.explainer.profile) == (8, None)
    plain.close()


def test_bench_measures_both_choices_at_their_batches(tuned):
    done = call("bench", tuned, "--seconds", "0.05", "--json")
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert [row["batch"] for row in report["results"]] == [1, 3]
    for row, goal in zip(report["results"], ("latency", "throughput")):
        assert [name for name in row["contestants"] if "tuned" in name] == [f"tuned for {goal}"]
        found = row["contestants"][f"tuned for {goal}"]
        assert found["images_per_second"] == pytest.approx(1e3 * row["batch"] / found["median_ms"], rel=0.01)
    assert report["profile"]["throughput"] == "cpu, 2 runs of 1 thread, batch 3"
    asked = json.loads(call("bench", tuned, "--seconds", "0.05", "--json", "--batch", "2").stdout)["results"]
    assert [row["batch"] for row in asked] == [2] and {"tuned for latency", "tuned for throughput"} <= {
        *asked[0]["contestants"]
    }
    plain = json.loads(call("bench", tuned, "--seconds", "0.05", "--json", "--profile", "none").stdout)
    assert not plain["profile"] and [row["batch"] for row in plain["results"]] == [1]
