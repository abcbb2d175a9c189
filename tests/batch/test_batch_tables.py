"""Tables of batches: their rows are the explanations, each picture once, however often a run is ended."""

from __future__ import annotations

import itertools
import json
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fastcam import Explainer, FastcamError
from fastcam.batch.job import READERS, Job, explained
from fastcam.batch.run import run
from fastcam.batch.sources.items import Item, Part
from fastcam.batch.sources.opened import open_source
from fastcam.batch.table import ABOUT, files_of
from fastcam.batch.workers import run_in_processes
from fastcam.cli import app
from fastcam.image.preprocess import Geometry
from fastcam.results.concentration import map_entropies, map_entropy, share_inside, shares_inside
from support.batch_cases import LABELS, encoded, model_file, pictures, shard

parquet = pytest.importorskip("pyarrow.parquet", reason="the extra batch is not installed: no table was written")


def rows(folder):
    """All rows, in order."""
    return [row for path in files_of(folder) for row in parquet.read_table(path).to_pylist()]


@pytest.fixture
def job(tmp_path):
    return Job(model_file(tmp_path), (-1, "upper thing"), {"batch_size": 4, "threads": 1}, part=8)


def test_a_row_says_what_the_explanation_says(tmp_path, job):
    folder = pictures(tmp_path / "p", 11, bad=(4,))
    done = run(replace(job, maps=True), open_source(str(folder)), tmp_path / "table")
    assert (done.done, done.failed, done.before, done.share) == (11, 1, 0, 1.0) and "0004.png" in done.first
    assert [path.name for path in files_of(tmp_path / "table")] == ["part-000000.parquet", "part-000001.parquet"]
    found, explainer = rows(tmp_path / "table"), Explainer(job.model)
    assert len(found) == 2 * 10 + 1
    order = [row["name"] for row in found[::2]]
    for row in found:
        if row["name"] == "0004.png":
            assert "not a picture" in row["error"] and row["score"] is row["target"] is row["box"] is None
            continue
        explanation = explainer(folder / row["name"], -1 if row["target"] == "-1" else "upper thing")
        assert row["error"] is None and row["status"] == "ok" and row["class"] == explanation.classes[0, 0]
        assert row["label"] == LABELS[row["class"]] and row["predicted"] == int(explanation.scores[0].argmax())
        assert (row["height"], row["width"]) == explanation.image().shape[:2]
        assert row["score"] == pytest.approx(explanation.score(), abs=1e-6)
        assert row["box"] == explanation.boxes[0, 0].tolist()
        np.testing.assert_array_equal(row["boxes"], explanation.components[0][0])
        kept = np.array(row["map"], np.float64).reshape(row["map_shape"]) * row["map_max"]
        np.testing.assert_allclose(kept, explanation.maps[0, 0], atol=1e-3 * row["map_max"])
        heat = explanation.geometry[0].heatmap_to_original(explanation.heatmaps[0, 0]).astype(np.float64)
        x0, y0, x1, y1 = (round(side) for side in row["box"])
        assert row["heat_inside"] == pytest.approx(heat[y0:y1, x0:x1].sum() / heat.sum(), abs=0.05)
        assert row["entropy"] == pytest.approx(map_entropy(explanation.maps[0, 0]))
    assert [row["picture"] for row in found] == sorted(row["picture"] for row in found) and len(set(order)) == 11


@pytest.mark.parametrize("seed", range(3))
def test_heat_inside_a_box_and_entropy_are_those_of_numpy_by_hand(seed):
    rng = np.random.default_rng(seed)
    heat = rng.normal(size=(20, 30)).astype(np.float32)
    # the picture has 60 x 40 pixels; of these x 10..50, y 0..40 became x 5..25, y 0..20 of the input
    geometry = Geometry((40, 60), (20, 30), (10, 0, 50, 40), (5, 0, 25, 20))
    box = np.array([10 + 2 * 3, 2 * 4, 10 + 2 * 9, 2 * 15], np.float32)  # pixels 3..9 and 4..15 of these 20 x 20
    positive = np.maximum(heat[:, 5:25], 0).astype(np.float64)
    assert share_inside(heat, geometry, box) == pytest.approx(positive[4:15, 3:9].sum() / positive.sum(), rel=1e-6)
    half = share_inside(heat, geometry, np.array([10, 0, 10 + 2 * 0.5, 40], np.float32))
    assert half == pytest.approx(positive[:, 0].sum() / 2 / positive.sum(), rel=1e-5)
    assert share_inside(heat, geometry, np.array([0, 0, 60, 40], np.float32)) == pytest.approx(1)
    assert share_inside(-np.abs(heat), geometry, box) is None
    values = np.maximum(heat[:7, :7], 0).astype(np.float64)
    shares = values[values > 0] / values.sum()
    assert map_entropy(heat[:7, :7]) == pytest.approx(-(shares * np.log2(shares)).sum() / np.log2(49), rel=1e-6)
    assert map_entropy(np.full((3, 4), 0.2)) == pytest.approx(1)
    assert map_entropy(np.eye(1, 12).reshape(3, 4)) == 0 and map_entropy(np.zeros((3, 4))) is None


def test_pictures_that_ran_together_have_the_figures_that_each_has_by_hand():
    rng = np.random.default_rng(0)
    heat = rng.normal(size=(6, 2, 20, 30)).astype(np.float32)
    heat[5, 0], heat[5, 1, 3, 4] = -1, np.nan
    whole, barred = (0, 0, 30, 20), (5, 0, 25, 20)  # pixels are two of the network's, of the letterbox too
    windows = [whole, whole, barred, whole, barred, whole]
    geometry = [Geometry((40, 60), (20, 30), (0, 0, 2 * (x1 - x0), 40), (x0, 0, x1, 20)) for x0, _, x1, _ in windows]
    boxes = np.array([[[2 * n, 4, 2 * n + 12, 30], [0, 0, 2 * n + 2, 40]] for n in range(6)], np.float32)
    found, spread = shares_inside(heat, geometry, boxes), map_entropies(heat)
    for n, t in np.ndindex(5, 2):
        x0, _, x1, _ = windows[n]
        positive = np.maximum(heat[n, t, :, x0:x1].astype(np.float64), 0)
        inside = positive[2:15, n : n + 6] if t == 0 else positive[:, : n + 1]
        assert found[n, t] == pytest.approx(inside.sum() / positive.sum(), rel=1e-9)
        shares = np.maximum(heat[n, t].astype(np.float64), 0) / np.maximum(heat[n, t].astype(np.float64), 0).sum()
        logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
        assert spread[n, t] == pytest.approx(-(shares * logs).sum() / np.log(600), rel=1e-9)
    assert np.isnan(found[5, 0]) and np.isnan(spread[5]).all()


def test_a_run_goes_on_behind_what_is_there_and_the_table_is_the_same(tmp_path, job):
    folder = pictures(tmp_path / "p", 37, bad=(3, 20, 21))
    source = open_source(str(folder))
    run(job, source, tmp_path / "whole")
    wanted = rows(tmp_path / "whole")
    for gone in ([0], [1, 3], [4], [0, 1, 2, 3, 4]):
        for number in gone:
            (tmp_path / "whole" / f"part-{number:06}.parquet").unlink()
        (tmp_path / "whole" / ".fastcam-0123456789ab.parquet").write_bytes(b"half a part")
        done = run(job, source, tmp_path / "whole")
        assert done.done + done.before == 37 and done.before == 37 - sum(5 if n == 4 else 8 for n in gone)
        assert rows(tmp_path / "whole") == wanted
        assert not list((tmp_path / "whole").glob(".fastcam-*"))
    assert run(job, source, tmp_path / "whole").done == 0
    assert run_in_processes(job, source, tmp_path / "by two", 2).done == 37
    assert rows(tmp_path / "by two") == wanted


def test_shards_give_the_table_that_the_folder_gives(tmp_path, job):
    folder = pictures(tmp_path / "p", 10)
    run(job, open_source(str(folder)), tmp_path / "of folder")
    files = sorted(folder.rglob("*.png"), key=lambda path: (len(path.parts), path.name))
    for number, mode in enumerate(("w", "w:gz")):
        contents = {path.name: path.read_bytes() for path in files[5 * number : 5 * number + 5]}
        (tmp_path / f"{number}.tar{'.gz' * number}").write_bytes(shard(contents, mode))
    run(job, open_source(f"{tmp_path}/*.tar*"), tmp_path / "of shards")
    found = [{**row, "name": row["name"].split("/")[-1]} for row in rows(tmp_path / "of shards")]
    assert found == [{**row, "name": row["name"].split("/")[-1]} for row in rows(tmp_path / "of folder")]


def test_pictures_that_have_to_be_fetched_are_fetched_several_at_a_time_and_come_in_order(tmp_path, job):
    together = threading.Barrier(READERS, timeout=20)
    fetched = []

    def far(number):
        together.wait()  # which one thread alone would never pass
        fetched.append(number)
        return encoded(number)

    class Mixed:
        def items(self, most, cursor):
            for number in range(3 + 2 * READERS):
                if number < 2 or number == 6:
                    yield Item(str(number), lambda number=number: encoded(number), True)
                else:
                    yield Item(str(number), lambda number=number: far(number))

    part = Part(0, 0, 3 + 2 * READERS, (Mixed(),), 1.0)
    found = list(explained(job, job.opened(), [part]))
    assert [row["name"] for one in found for row in one.rows[:1]] == [str(n) for n in range(part.count)]
    assert len(fetched) == 2 * READERS and not any(one.failed for one in found)


def test_a_batch_that_is_left_early_leaves_no_thread_that_fetches(tmp_path, job):
    class Far:
        def items(self, most, cursor):
            for number in itertools.count():
                yield Item(str(number), lambda number=number: encoded(number % 20))

    explainer, before = job.opened(), set(threading.enumerate())
    found = explained(job, explainer, [Part(0, 0, 1 << 40, (Far(),), 1.0)])
    assert next(found).rows[0]["name"] == "0"
    begun = set(threading.enumerate()) - before
    assert len(begun) > READERS
    found.close()
    for thread in begun:
        thread.join(20)
    assert not any(thread.is_alive() for thread in begun)


def test_one_target_that_fails_costs_no_other(tmp_path, job):
    model = model_file(tmp_path)
    folder = pictures(tmp_path / "p", 3)
    explainer = Explainer(model)
    with pytest.raises(FastcamError):
        explainer(folder / "0000.png", "nobody")
    with pytest.raises(FastcamError, match="nobody"):
        run(replace(job, targets=("nobody",)), open_source(str(folder)), tmp_path / "table")
    assert not (tmp_path / "table").exists()


def test_a_run_that_fails_as_one_is_explained_picture_by_picture(tmp_path, job, monkeypatch):
    folder = pictures(tmp_path / "p", 9)
    run(job, open_source(str(folder)), tmp_path / "whole")
    from fastcam.explain import streaming

    joined = streaming.join_batches

    def refuses(parts):
        if len(parts) > 1:
            raise FastcamError("not together")
        return joined(parts)

    monkeypatch.setattr(streaming, "join_batches", refuses)
    done = run(job, open_source(str(folder)), tmp_path / "alone")
    assert done.failed == 0
    for alone, together in zip(rows(tmp_path / "alone"), rows(tmp_path / "whole"), strict=True):
        assert alone["class"] == together["class"] and alone["score"] == pytest.approx(together["score"], abs=1e-6)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda job, folder: (replace(job, targets=(-1,)), folder), "begun with targets"),
        (lambda job, folder: (replace(job, how={"threshold": 0.5}), folder), "begun with how"),
        (lambda job, folder: (replace(job, maps=True), folder), "begun with maps"),
        (lambda job, folder: (replace(job, part=4), folder), "begun with pictures of a part"),
        (lambda job, folder: (replace(job, model=model_file(folder.parent, seed=3)), folder), "begun with model"),
        (lambda job, folder: (job, pictures(folder, 6)), "begun with source"),
    ],
)
def test_a_table_of_something_else_is_not_gone_on_with(tmp_path, job, change, said):
    folder = pictures(tmp_path / "p", 5)
    run(job, open_source(str(folder)), tmp_path / "table")
    before = {path.name: path.read_bytes() for path in (tmp_path / "table").iterdir()}
    job, folder = change(job, folder)
    with pytest.raises(FastcamError, match=said):
        run(job, open_source(str(folder)), tmp_path / "table")
    assert {path.name: path.read_bytes() for path in (tmp_path / "table").iterdir()} == before


def test_a_table_without_a_row_is_begun_anew(tmp_path, job):
    (tmp_path / "empty.tar").write_bytes(shard({"a.txt": b"no picture"}))
    with pytest.raises(FastcamError, match="no pictures in it"):
        run(job, open_source(str(tmp_path / "empty.tar")), tmp_path / "table")
    run(job, open_source(str(pictures(tmp_path / "p", 3))), tmp_path / "table")
    assert len({row["picture"] for row in rows(tmp_path / "table")}) == 3


def test_a_folder_with_other_things_or_a_second_writer_is_refused(tmp_path, job):
    source = open_source(str(pictures(tmp_path / "p", 3)))
    with pytest.raises(FastcamError, match="which is no table's"):
        run(job, source, tmp_path / "p")
    run(job, source, tmp_path / "table")
    (tmp_path / "table" / ABOUT).write_text("[]")
    with pytest.raises(FastcamError, match="cannot be understood"):
        run(job, source, tmp_path / "table")
    pytest.importorskip("fcntl")
    from fastcam.batch.table import Table

    with Table(tmp_path / "held", {}), pytest.raises(FastcamError, match="another process writes it"):
        Table(tmp_path / "held", {})


def test_a_table_behind_a_url_is_refused(tmp_path, monkeypatch, job):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FastcamError, match="writes to this machine alone"):
        run(job, open_source(str(pictures(tmp_path / "p", 1))), Path("s3://bucket/table"))
    assert not (tmp_path / "s3:").exists()


def verb(*arguments):
    return [*map(str, arguments), "--threads", "1"]


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_again_and_again_it_ends_with_the_table_of_a_run_that_nobody_disturbed(tmp_path, job, workers):
    folder = pictures(tmp_path / "p", 120, bad=(5, 77))
    options = ["-t", "-1", "-t", "upper thing", "--batch-size", "4", "--part", "8", "--workers", workers]
    run(
        replace(job, how={"threshold": 0.15, "method": None, "options": {}}),
        open_source(str(folder)),
        tmp_path / "whole",
    )
    command = [sys.executable, "-m", "fastcam", "batch", *verb(job.model, folder, "-o", tmp_path / "table", *options)]
    draw, kills = random.Random(workers), 0
    for _ in range(3):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        wanted = len(list((tmp_path / "table").glob("part-*"))) + draw.randint(1, 4)
        until = time.monotonic() + 60
        while process.poll() is None and len(list((tmp_path / "table").glob("part-*"))) < wanted:
            assert time.monotonic() < until
            time.sleep(0.001)
        time.sleep(draw.random() * 0.02)
        process.send_signal(signal.SIGKILL)
        said = process.communicate()[1]
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, said
        kills += 1
    last = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert last.returncode == 0 and kills, last.stderr
    assert rows(tmp_path / "table") == rows(tmp_path / "whole")
    left = {path.name for path in (tmp_path / "table").iterdir()} - {ABOUT, "_lock"}
    assert left == {path.name for path in files_of(tmp_path / "whole")}


def test_the_verb_says_what_it_did_and_what_it_could_not(tmp_path):
    model, folder = model_file(tmp_path), pictures(tmp_path / "p", 4, bad=(1,))

    def called(*arguments):
        found = CliRunner().invoke(app, ["batch", *verb(*arguments)])
        return found.exit_code, (found.stdout + found.stderr).strip().splitlines()

    code, said = called(model, folder, "-o", tmp_path / "t")
    assert code == 0 and said[0].startswith("4 pictures, ") and said[1].startswith("1 picture with an error")
    assert json.loads((tmp_path / "t" / ABOUT).read_text())["source"]["pictures"] == 4
    code, said = called(model, folder, "-o", tmp_path / "t", "--threshold", "0.3")
    assert code == 2 and len(said) == 1 and "begun with how" in said[0]
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.jpg").write_bytes(encoded(0)[:100])
    code, said = called(model, tmp_path / "bad", "-o", tmp_path / "b")
    assert code == 2 and "no picture could be explained" in said[-1]
    code, said = called(model, tmp_path / "nowhere", "-o", tmp_path / "n")
    assert code == 2 and len(said) == 1 and not (tmp_path / "n").exists()
