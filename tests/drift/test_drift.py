"""Drift of two tables: indices as NumPy has them by hand, what chance makes of them, and what people read."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
from typer.testing import CliRunner

from fastcam import FastcamError
from fastcam.batch.job import Job
from fastcam.batch.rows import failed_row
from fastcam.batch.run import run
from fastcam.batch.sources.opened import open_source
from fastcam.batch.table import write_part
from fastcam.cli import app
from fastcam.drift import stability
from fastcam.drift.compare import FLOOR, LEAST, MOST, OTHERS, _categories, compare
from fastcam.drift.figures import GRID, NO_MAP, in_cells
from support.batch_cases import model_file, pictures

pytest.importorskip("pyarrow", reason="the extra batch is not installed: no table was compared")
LABELS = ("cat", "dog", "<b>owl</b>")


def made(folder, seed, count=400, shift=0.0, classes=(0.5, 0.3, 0.2), corner=0, failed=0.0, maps=True, labels=LABELS):
    """A table of random rows."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        if rng.random() < failed:
            rows.append([failed_row(number, str(number), "no picture")])
            continue
        index = int(rng.choice(len(classes), p=classes))
        heat = rng.random((6, 8)).astype(np.float16)
        heat[corner:, corner:] *= 0.5
        row = {
            "picture": number, "name": str(number), "width": 8, "height": 8, "target": "-1", "class": index,
            "label": labels[index], "predicted": index, "score": rng.normal(0.5 + shift, 0.1), "status": "ok",
            "heat_inside": rng.random(), "entropy": rng.random() ** 2,
        }  # fmt: skip
        if maps:
            row |= {"map": (heat / heat.max()).ravel(), "map_shape": [6, 8], "map_max": 1.0}
        rows.append([row])
    folder.mkdir()
    for part in range(0, count, 150):
        write_part(folder, part // 150, rows[part : part + 150], maps)
    return folder, [row for one in rows for row in one]


def index_by_hand(reference, now, edges):
    """The definition, bin by bin."""
    ends, total = [-np.inf, *edges, np.inf], 0.0
    for low, high in pairwise(ends):
        p = (sum(low < one <= high for one in reference) + 0.5) / (len(reference) + 0.5 * (len(ends) - 1))
        q = (sum(low < one <= high for one in now) + 0.5) / (len(now) + 0.5 * (len(ends) - 1))
        total += (q - p) * np.log(q / p)
    return total


def test_the_index_of_each_figure_is_that_of_its_definition(tmp_path):
    before, rows = made(tmp_path / "a", 0)
    after, now = made(tmp_path / "b", 1, shift=0.05, failed=0.1, classes=(0.2, 0.3, 0.5))
    found = compare(before, after)
    figures = {one.name: one for one in found.figures}
    for column, name in (("score", "score"), ("heat_inside", "heat inside the box"), ("entropy", "entropy of the map")):
        one, other = ([np.float32(row[column]) for row in each if column in row] for each in (rows, now))
        edges = np.quantile(np.array(one, np.float64), np.arange(1, 10) / 10)
        assert figures[name].psi == pytest.approx(index_by_hand(one, other, edges), rel=1e-9)
        assert (figures[name].reference, figures[name].now) == (len(one), len(other))
        assert sum(p for _, p, _ in figures[name].bins) == pytest.approx(1)
    for name, column, bins in (("status of the map", "status", 2), ("predicted class", "predicted", 3)):
        counts = [Counter(row.get(column) for row in each) for each in (rows, now)]
        if column == "predicted":
            del counts[1][None]
        keys = [key for key, _ in counts[0].most_common()] + ([None] if column == "status" else [])
        shares = [[(each[key] + 0.5) / (each.total() + 0.5 * bins) for key in keys] for each in counts]
        wanted = sum((q - p) * np.log(q / p) for p, q in zip(*shares, strict=True))
        assert figures[name].psi == pytest.approx(wanted, rel=1e-9)
    assert figures["score"].level == "large" and figures["predicted class"].level != "none"
    assert figures["heat inside the box"].level == "none"
    assert [name for name, _, _ in figures["status of the map"].bins] == ["ok", NO_MAP] and found.pictures == (400, 400)


def test_the_index_of_mean_maps_is_that_of_the_shares_of_heat(tmp_path):
    before, rows = made(tmp_path / "a", 0)
    after, now = made(tmp_path / "b", 1, corner=3)
    found = {one.label: one for one in compare(before, after).maps}
    assert set(found) == set(LABELS) and list(found) == sorted(found, key=lambda label: -found[label].psi)

    def mean(each, label):
        """As pixels of a multiple of both sizes, so that no cell is cut."""
        maps = []
        for row in each:
            if row["label"] == label:
                heat = np.array(row["map"], np.float64).reshape(6, 8)
                fine = np.kron(heat / heat.sum(), np.ones((GRID, GRID))) / GRID**2
                maps.append(fine.reshape(GRID, 6, GRID, 8).sum((1, 3)))
        return np.mean(maps, 0)

    for label, one in found.items():
        p, q = ((mean(each, label) + FLOOR) / (1 + FLOOR * GRID**2) for each in (rows, now))
        assert one.psi == pytest.approx(((q - p) * np.log(q / p)).sum(), rel=1e-6)
        np.testing.assert_allclose(one.maps[0], mean(rows, label), atol=1e-9)
    same = compare(before, made(tmp_path / "c", 2)[0])
    assert all(one.psi < found[one.label].psi and one.level == "none" for one in same.maps)


def test_two_classes_of_one_label_stay_two(tmp_path):
    """ImageNet has two cranes. Of models that number their classes otherwise, labels say which belong together."""
    two, turned = ("crane", "dog", "crane"), ("owl", "cat", "dog")
    before, after = (made(tmp_path / name, seed, labels=two)[0] for name, seed in (("a", 0), ("b", 1)))
    found = compare(before, after)
    assert {one.label for one in found.maps} == {"crane (class 0)", "dog", "crane (class 2)"}
    (predicted,) = (one for one in found.figures if one.name == "predicted class")
    assert [name for name, _, _ in predicted.bins] == ["crane (class 0)", "dog", "crane (class 2)"]
    other = made(tmp_path / "c", 2, labels=turned)[0]
    assert {one.label for one in compare(made(tmp_path / "d", 3, labels=("cat", "dog", "owl"))[0], other).maps} == {
        "cat",
        "dog",
        "owl",
    }


def test_in_cells_keeps_all_heat_and_where_it_lies():
    heat = np.zeros((14, 21))
    heat[2, 3] = heat[13, 20] = 1
    cells = in_cells(heat)
    assert (cells[1, 1], cells[6, 6], cells.sum()) == pytest.approx((1, 1, 2))
    small = in_cells(np.array([[0.25, 0.75]]))
    np.testing.assert_allclose(small.sum(0)[:3], 0.25 / 3.5)
    assert small.sum() == pytest.approx(1)


@pytest.mark.parametrize(("n", "m"), [(200, 200), (1000, 150)])
def test_chance_alone_stays_below_its_bound_in_nineteen_of_twenty(n, m):
    rng = np.random.default_rng(0)
    above = 0
    for _ in range(400):
        reference, now = rng.normal(size=n), rng.normal(size=m)
        edges = stability.edges(reference)
        psi = stability.index(stability.counted(reference, edges), stability.counted(now, edges))
        above += psi > stability.by_chance(10, n, m)
    assert 0.01 < above / 400 < 0.09


def test_of_many_classes_the_rare_ones_are_one_bin():
    reference = Counter({f"c{number:03}": 100 - number for number in range(40)})
    now = Counter({"c000": 50, "new": 50})
    found = _categories("class", reference, now)
    assert [name for name, _, _ in found.bins] == [f"c{number:03}" for number in range(MOST)] + [OTHERS]
    assert found.bins[-1][2] == 0.5 and sum(p for _, p, _ in found.bins) == pytest.approx(1)


def test_bins_and_levels_at_their_borders():
    assert stability.counted(np.array([1.0, 2.0, 2.5]), np.array([1.0, 2.0])).tolist() == [1, 1, 1]
    assert stability.edges(np.full(9, 3.0)).tolist() == [3.0]
    assert stability.by_chance(1, 5, 5) == 0 and stability.index(np.array([5]), np.array([3])) == 0
    assert [stability.level(psi, 0.0) for psi in (0.09, 0.1, 0.24, 0.25)] == ["none", "some", "some", "large"]
    assert stability.level(0.9, 1.0) == "none"


class Page(HTMLParser):
    """What a page holds, and whether it asks for anything from elsewhere."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses = Counter(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags[tag] += 1
        self.addresses += [value for name, value in attributes if name in ("src", "href", "style")]


def test_the_verb_tells_people_and_programs_and_its_page_asks_for_nothing(tmp_path):
    before, _ = made(tmp_path / "a", 0)
    after, _ = made(tmp_path / "b", 1, shift=0.3)
    page, figures = tmp_path / "drift.html", tmp_path / "drift.json"
    arguments = ["drift", str(before), str(after), "--html", str(page), "--json", str(figures)]
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 0 and re.search(r"score +\d\.\d+ +\d\.\d+ +large drift", found.stdout), found.output
    said = json.loads(figures.read_text())
    assert said["figures"]["score"]["psi"] == pytest.approx(compare(before, after).figures[0].psi)
    assert said["figures"]["score"]["drift"] == "large" and len(said["maps"]["cat"]["map now"]) == GRID
    text = page.read_text()
    read = Page(text)
    assert read.addresses == [] and read.tags["script"] == read.tags["b"] == 0 and "&lt;b&gt;owl" in text
    assert "default-src 'none'" in text and read.tags["svg"] == 5 + 2 * 3
    failing = CliRunner().invoke(app, [*arguments[:3], "--fail-above", "0.25"])
    assert failing.exit_code == 2 and "score has drifted" in failing.stderr
    assert CliRunner().invoke(app, ["drift", str(before), str(before), "--fail-above", "0"]).exit_code == 0


def test_one_file_for_page_and_numbers_is_refused(tmp_path):
    place = str(made(tmp_path / "a", 0, 10)[0])
    both = str(tmp_path / "both")
    found = CliRunner().invoke(app, ["drift", place, place, "--html", both, "--json", both])
    assert found.exit_code == 2 and "each a file of its own" in found.output
    assert not (tmp_path / "both").exists()


def test_tables_of_batches_are_compared(tmp_path):
    job = Job(model_file(tmp_path), (-1, "upper thing"), {"batch_size": 8, "threads": 1}, maps=True)
    source = open_source(str(pictures(tmp_path / "p", 70, bad=(3,))))
    run(job, source, tmp_path / "a")
    run(replace(job, part=8), source, tmp_path / "b")
    found = compare(tmp_path / "a", tmp_path / "b")
    assert found.pictures == (70, 70) and all(one.psi == 0 for one in (*found.figures, *found.maps)) and not found.notes
    assert {one.name: one.reference for one in found.figures}["predicted class"] == 69
    assert any(one.reference >= LEAST for one in found.maps)
    one = compare(tmp_path / "a", tmp_path / "b", "upper thing")
    assert [each.label for each in one.maps] == ["upper thing"] and one.figures[0].reference == 69
    run(replace(job, model=model_file(tmp_path, seed=4), maps=False), source, tmp_path / "c")
    notes = compare(tmp_path / "a", tmp_path / "c").notes
    assert "two models" in notes[0] and "not both tables have maps" in notes[-1]


def test_tables_that_were_asked_otherwise_say_so(tmp_path):
    job = Job(model_file(tmp_path), (-1, "upper thing"), {"batch_size": 4, "threads": 1}, part=4)
    source = open_source(str(pictures(tmp_path / "p", 6)))
    run(job, source, tmp_path / "a")
    run(replace(job, targets=("upper thing",)), source, tmp_path / "b")
    run(replace(job, how={"threshold": 0.5}), source, tmp_path / "c")
    run(job, source, tmp_path / "d")
    (tmp_path / "d" / "part-000001.parquet").unlink()

    def notes(now, **how):
        return [note for note in compare(tmp_path / "a", tmp_path / now, **how).notes if "mean maps" not in note]

    assert notes("a") == []
    assert ["different targets" in note for note in notes("b")] == [True]
    assert notes("b", target="upper thing") == []
    assert ["two methods, thresholds or options" in note for note in notes("c")] == [True]
    assert ["4 of 6 pictures: its run has not ended" in note for note in notes("d")] == [True]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: folder / "none", "no table"),
        (lambda folder: folder, "no table"),
        (lambda folder: (folder / "a" / "part-000000.parquet").write_bytes(b"PAR1") and folder / "a", "cannot be read"),
    ],
)
def test_what_is_no_table_is_refused_in_a_line(tmp_path, change, said):
    before, _ = made(tmp_path / "a", 0, 10)
    with pytest.raises(FastcamError, match=said):
        compare(change(tmp_path), before)
    with pytest.raises(FastcamError, match="no row of the target 'dog'"):
        compare(made(tmp_path / "b", 0, 10)[0], made(tmp_path / "c", 0, 10)[0], "dog")
