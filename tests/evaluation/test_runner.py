"""Evaluation as a whole: the same figures however it runs, stopped or not; what fails or says nothing is counted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnx.numpy_helper
import pytest
from typer.testing import CliRunner

from fastcam import Explainer, FastcamError
from fastcam.cli import app
from fastcam.evaluation import tables
from fastcam.evaluation.class_map import class_map
from fastcam.evaluation.data import open_data
from fastcam.evaluation.journal import Journal
from fastcam.evaluation.protocols import PROTOCOLS
from fastcam.evaluation.runner import Contestant, evaluate
from fastcam.evaluation.samples import Annotation, Sample
from fastcam.evaluation.statistics import REPLICATES, Ratio, weights_of
from fastcam_export import export_model
from support.given_samples import Given

DATA = Path(__file__).resolve().parents[2] / "fastcam" / "data"
ASKED = ("localization", "gt-known", "energy")
pytestmark = pytest.mark.xdist_group("evaluation")


def contestant(file, data, **settings):
    explainer = Explainer(file, exif=data.exif, **settings)
    return Contestant("scenes", explainer, class_map(data.labels, explainer.metadata))


def measured(file, spec="scenes:24", out=None, protocols=ASKED, limit=None, restart=False, told=None, **settings):
    data = open_data(spec)
    asked = [PROTOCOLS[name]() for name in protocols]
    return evaluate(contestant(file, data, **settings), data, asked, out, limit=limit, restart=restart, told=told)


def test_figures_depend_on_neither_threads_nor_batches(file):
    """The sums of a convolution do, in the last bits, and they decide no figure here."""
    one, other = measured(file, threads=1, batch_size=1), measured(file, threads=2, batch_size=7)
    assert one.pictures == other.pictures == 24 and not one.left_out.counts
    for protocol in ASKED:
        for name, figure in one.figures[protocol].items():
            again = other.figures[protocol][name]
            assert (figure.n, again.n) == (again.n, figure.n)
            for a, b in ((figure.value, again.value), (figure.low, again.low), (figure.high, again.high)):
                assert a == pytest.approx(b, abs=1e-6)


def test_a_row_is_what_the_explainer_says_of_the_picture(file):
    """Top-1 localization re-derived from explanations one by one."""
    data = open_data("scenes:24")
    explainer = Explainer(file, exif=data.exif)
    wrong = []
    for sample in data.samples():
        explanation = explainer(sample.picture, targets=-1)
        said = explainer.metadata.labels[explanation.classes[0, 0]]
        marks = [each.box for each in sample.of(said)]
        fits = any(overlap(explanation.boxes[0, 0], box) >= 0.5 for box in marks)
        wrong.append(1 - fits / len(sample.labels))
    figure = measured(file).figures["localization"]["top-1 localization error"]
    assert figure.value == pytest.approx(np.mean(wrong)) and figure.n == 24


def overlap(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def test_stopped_and_resumed_no_picture_is_lost_or_counted_twice(file, tmp_path):
    whole = measured(file, out=tmp_path / "whole")
    journal = tmp_path / "whole" / "rows" / "scenes-gradcam.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) == 25
    for kept, rest in ((1, b""), (9, lines[9][:40]), (17, b'{"name":'), (25, b"\n")):
        folder = tmp_path / f"cut-{kept}" / "rows"
        folder.mkdir(parents=True)
        (folder / "scenes-gradcam.jsonl").write_bytes(b"".join(lines[:kept]) + rest)
        told = []
        again = measured(file, out=folder.parent, told=lambda _, done, told=told: told.append(done))
        assert told == list(range(kept, 25))  # only the others were measured
        assert again.to_dict() == whole.to_dict()
        assert (folder / "scenes-gradcam.jsonl").read_bytes() == b"".join(lines)


def test_a_killed_process_is_resumed(file, tmp_path):
    command = [
        sys.executable,
        "-m",
        "fastcam",
        "evaluate",
        str(file),
        "--data",
        "scenes:60",
        "-o",
        "out",
        "-p",
        "gt-known",
    ]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = tmp_path / "out" / "rows" / "scenes-gradcam.jsonl"
    begun = time.monotonic()
    while not (journal.exists() and journal.read_bytes().count(b"\n") > 12) and time.monotonic() - begun < 60:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert 12 < journal.read_bytes().count(b"\n") < 61
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    whole = measured(file, "scenes:60", protocols=["gt-known"])
    report = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert report["results"][0]["figures"] == whole.to_dict()["figures"]


def test_methods_whose_names_make_one_file_name_have_two(file):
    data = open_data("scenes:1")
    one = contestant(file, data)
    stems = {replace(one, method=name).stem for name in ("gradcam", "gradcam++", "gradcam+eigen", None)}
    assert len(stems) == 3 and "scenes-gradcam" in stems
    assert len({replace(one, name=name).stem for name in ("a b", "a-b", "a/b")}) == 3


def test_another_setting_is_refused_and_restart_begins_anew(file, tmp_path):
    measured(file, "scenes:6", tmp_path)
    with pytest.raises(FastcamError, match=r"earlier run had another data .*--restart"):
        measured(file, "scenes:7", tmp_path)
    assert measured(file, "scenes:7", tmp_path, restart=True).pictures == 7


def test_a_limit_measures_the_first_and_may_grow(file, tmp_path):
    assert measured(file, "scenes:12", tmp_path, limit=5).pictures == 5
    assert measured(file, "scenes:12", tmp_path, limit=9).to_dict() == measured(file, "scenes:9").to_dict()
    assert measured(file, "scenes:12", tmp_path, limit=5).to_dict() == measured(file, "scenes:5").to_dict()


def test_what_fails_or_says_nothing_is_counted_and_named(file, tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    star = Annotation("star", (3, 4, 40, 50))
    data = Given(
        [
            Sample("good", picture, (star,)),
            Sample("broken", tmp_path / "broken.jpg", (star,)),
            Sample("strange", picture, (Annotation("dragon", (0, 0, 9, 9)),)),
            Sample("empty", picture),
        ],
        ("star", "dragon"),
    )
    found = evaluate(contestant(file, data), data, [PROTOCOLS["gt-known"]()])
    assert found.pictures == 1 and found.figures["gt-known"]["mean IoU of boxes"].n == 1
    assert found.left_out.counts == {"could not be explained": 1, "nothing that the model knows is marked": 2}
    assert found.left_out.names["nothing that the model knows is marked"] == ["strange", "empty"]
    assert found.left_out.names["could not be explained"][0].startswith("broken: ")


def test_the_bootstrap_is_the_one_of_its_source():
    """Intervals of a mean of known spread: 1.96 standard errors, as Poisson weights give them."""
    values = np.random.default_rng(1).normal(3, 2, 800)
    ratio = Ratio()
    for n, value in enumerate(values):
        ratio.add(value, weights_of(f"picture {n}"))
    figure = ratio.figure()
    error = values.std() / np.sqrt(800)
    assert figure.value == pytest.approx(values.mean()) and figure.n == 800
    assert figure.value - figure.low == pytest.approx(1.96 * error, rel=0.12)
    assert figure.high - figure.value == pytest.approx(1.96 * error, rel=0.12)
    drawn = np.stack([weights_of(str(n))[1:] for n in range(300)])
    assert drawn.shape[1] == REPLICATES and drawn.mean() == pytest.approx(1, abs=0.01)
    assert drawn.var() == pytest.approx(1, abs=0.02)


def test_one_picture_has_no_interval():
    ratio = Ratio()
    ratio.add(0.25, weights_of("one"))
    ratio.add(0.75, weights_of("one"))  # another object of it
    assert ratio.figure().value == 0.5 and np.isnan(ratio.figure().low) and "no interval" in str(ratio.figure())
    ratio.add(0.5, weights_of("two"))
    assert ratio.figure().low == 0.5


def test_data_without_masks_has_no_pxap(file):
    """It would be 0, which means that every map is wrong."""
    picture = np.zeros((64, 64, 3), np.uint8)
    data = Given([Sample("one", picture, (Annotation("ring", (0, 0, 9, 9)),))], ("ring",))
    found = evaluate(contestant(file, data), data, [PROTOCOLS["pxap"](), PROTOCOLS["gt-known"]()])
    assert not found.figures["pxap"] and found.figures["gt-known"]
    assert any(line.startswith("pxap: no figure") for line in tables.left_out([found]))


def test_names_are_escaped_where_they_are_printed(file):
    """A line end would break a table, an escape sequence commands the terminal."""
    picture = np.zeros((64, 64, 3), np.uint8)
    samples = [Sample("one", picture, (Annotation("ring", (0, 0, 9, 9)),)), Sample("a\x1b[31m\nb", picture)]
    data = Given(samples, ("ring",))
    (_, line) = tables.left_out([evaluate(contestant(file, data), data, [PROTOCOLS["gt-known"]()])])
    assert line.endswith(r": 1 (a\x1b[31m\nb)")


def test_a_resumed_run_tells_what_of_the_measured_pictures_was_left_out(file, tmp_path):
    """Their annotations are not read again; what lies behind the limit is not counted."""
    picture, lines = np.zeros((64, 64, 3), np.uint8), ["file,class,x0,y0,x1,y1"]
    for n in range(6):
        cv2.imwrite(str(tmp_path / f"{n}.png"), picture)
        lines.append(f"{n}.png,ring,3,4,40,50")
    (tmp_path / "boxes.csv").write_text("\n".join(lines))
    for n in (0, 2, 3, 5):
        (tmp_path / "masks").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "masks" / f"{n}.png"), picture[..., 0] + 1)

    def counts(out, limit=None):
        data = open_data(f"folder:{tmp_path}")
        found = evaluate(contestant(file, data), data, [PROTOCOLS["energy"]()], out, limit=limit)
        return found.left_out.counts, found.left_out.names, found.pictures

    reason = "mask that is not there"
    assert counts(None, 4) == ({reason: 1}, {reason: ["1.png"]}, 4) == counts(tmp_path / "out", 4)
    assert (
        counts(None)
        == counts(tmp_path / "out")
        == counts(tmp_path / "out")
        == ({reason: 2}, {reason: ["1.png", "4.png"]}, 6)
    )
    assert counts(tmp_path / "out", 4)[0] == {reason: 1}


def test_other_annotations_are_another_setting(file, tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text("file,class,x0,y0,x1,y1\n0.png,ring,3,4,40,50\n")
    cv2.imwrite(str(tmp_path / "0.png"), np.zeros((64, 64, 3), np.uint8))
    data = [open_data(f"folder:{tmp_path}", annotations=tmp_path / f"{name}.csv") for name in ("a", "b")]
    one, other = (
        lambda at=at: evaluate(contestant(file, at), at, [PROTOCOLS["energy"]()], tmp_path / "out") for at in data
    )
    one()
    with pytest.raises(FastcamError, match="another data"):
        other()


def test_a_journal_without_a_picture_refuses_no_other_settings(tmp_path):
    """As a run leaves it whose threshold was wrong."""
    for threshold in (1.5, 0.15):
        with Journal(tmp_path / "rows.jsonl", {"threshold": threshold}) as journal:
            assert not list(journal.lines())
    assert json.loads((tmp_path / "rows.jsonl").read_text()) == {"threshold": 0.15}


def test_threads_end_with_a_run_that_fails(file, monkeypatch):
    """One that is left over ends the process by SIGABRT, whatever the message was."""

    def full(*_):
        raise FastcamError("the disk is full")

    monkeypatch.setattr(Journal, "add", full)
    before = set(threading.enumerate())
    with pytest.raises(FastcamError, match="full") as caught:  # its traceback holds the frames
        measured(file, "scenes:200", protocols=["gt-known"], batch_size=2)
    until = time.monotonic() + 20
    while not set(threading.enumerate()) <= before and time.monotonic() < until:
        time.sleep(0.01)
    assert caught.value.__traceback__ and set(threading.enumerate()) <= before


def test_restart_empties_no_journal_that_another_process_writes(tmp_path):
    path = tmp_path / "rows.jsonl"
    with Journal(path, {"data": "any"}) as journal:
        journal.add({"name": "one"})
        before = path.read_bytes()
        with pytest.raises(FastcamError, match="another process writes it"):
            Journal(path, {"data": "any"}, again=True)
        assert path.read_bytes() == before
    with Journal(path, {"data": "other"}, again=True) as journal:
        assert not list(journal.lines())


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--data", "scenes:4", "-p", "nonsense"], "no protocol 'nonsense'"),
        (["--data", "nowhere:4"], "data 'nowhere:4'"),
        (["--data", "scenes:4", "-m", "nomethod"], "nomethod"),
        (["--data", "scenes:4", "-m", "guided"], "--input-gradient"),
        (["--data", "scenes:4", "--map", "missing.json"], "missing.json"),
        (["--data", "scenes:4", "--threshold", "7"], "threshold"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(file, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["evaluate", str(file), *arguments])
    assert result.exit_code == 2 and said in result.stderr and result.stderr.count("\n") == 1, result.output
    assert not list(tmp_path.rglob("evaluation.*"))


def test_scores_that_are_nan_are_counted_and_rank_no_class(tmp_path):
    model = onnx.load(DATA / "scenes.onnx")
    weights = {each.name: each for each in model.graph.initializer}
    last = weights[next(node for node in model.graph.node if node.op_type == "Gemm").input[1]]
    last.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(last) * np.float32("nan"), last.name))
    onnx.save(model, tmp_path / "nan.onnx")
    file = tmp_path / "nan.cam.onnx"
    labels = DATA / "scenes.labels.txt"
    export_model(tmp_path / "nan.onnx", file, labels=labels, preprocess="imagenet", check=False)
    found = measured(file, "scenes:3", protocols=["localization"])
    assert found.pictures == 0 and found.left_out.counts == {"the model's scores are NaN": 3}


def test_where_no_picture_was_measured_nothing_is_written(file, tmp_path, monkeypatch):
    (tmp_path / "ring").mkdir()
    (tmp_path / "ring" / "a.jpg").write_bytes(b"no picture")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["evaluate", str(file), "--data", "folder:."])
    assert result.exit_code == 2 and result.stderr.count("\n") == 1, result.output
    assert "no picture was measured; 1 could not be explained (ring/a.jpg: " in result.stderr
    assert not list(tmp_path.rglob("evaluation.*"))


def test_the_verb_writes_three_files_that_agree(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with_gradients = file.with_name("gradients.cam.onnx")
    how = {"labels": DATA / "scenes.labels.txt", "preprocess": "imagenet", "check": False}
    export_model(DATA / "scenes.onnx", with_gradients, emit="gradients", **how)
    arguments = ["--data", "scenes:5", "-m", "gradcam,layercam", "-o", "out", "-p", "gt-known"]
    result = CliRunner().invoke(app, ["evaluate", str(with_gradients), *arguments])
    assert result.exit_code == 0, result.output
    report = json.loads(Path("out/evaluation.json").read_text())
    assert [each["method"] for each in report["results"]] == ["gradcam", "layercam"]
    for each in report["results"]:
        shown = tables.cell(tables.Figure(**each["figures"]["gt-known"]["mean IoU of boxes"]))
        for name in ("md", "html"):
            text = Path(f"out/evaluation.{name}").read_text().replace("<small>", " ")
            assert shown in text and each["method"] in text
        assert shown.split()[0] in result.output
