"""Network dissection against its definition, written down anew; tables of names, ours and the published ones."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fastcam import Explainer, FastcamError
from fastcam.cli import app
from fastcam.evaluation.data import open_data
from fastcam.evaluation.dissection import largest
from fastcam.evaluation.dissection.dissect import dissect
from fastcam.evaluation.dissection.largest import Largest
from fastcam.evaluation.dissection.neuron_names import Name, names_of, read_names, table
from fastcam.evaluation.samples import Annotation, Sample
from support.given_samples import Given

DATA = Path(__file__).resolve().parents[2] / "fastcam" / "data"
pytestmark = pytest.mark.xdist_group("evaluation")


@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize("share", [0.001, 0.05, 0.5])
def test_thresholds_are_those_of_a_sort_of_all_values(monkeypatch, step, share):
    rng = np.random.default_rng(0)
    parts = [np.maximum(rng.normal(size=(7, int(n))), 0).astype(np.float32) for n in rng.integers(1, 90, 40)]
    expected = sum(part.shape[1] for part in parts)
    if step > 1:
        monkeypatch.setattr(largest, "BYTES", 8 * 7 * -(-(int(share * expected) + 1) // step))
    kept = Largest(7, expected, share)
    step = kept.step
    for part in parts:
        kept.add(part)
    values = np.sort(np.concatenate(parts[::step], 1), 1)[:, ::-1]
    assert kept.count == values.shape[1]
    above = int(share * values.shape[1])
    if step == 1 or above < kept.keep:
        assert np.array_equal(kept.thresholds(), values[:, above])


def test_channels_and_concepts_overlap_as_brute_force_says(file):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    data, explainer, share, grid = open_data("scenes:9,marks=all,size=100"), Explainer(file, exif=False), 0.02, 30
    found = dissect(explainer, data, share, grid)
    maps, concepts = [], []
    for sample in data.samples():
        maps.append(explainer.probes([sample.picture])[0].activations)
        cells = (np.arange(grid) * 100 + 50) // grid
        masks = {a.label: np.zeros((grid, grid), bool) for a in sample.annotations}
        for a in sample.annotations:
            masks[a.label] |= a.read_mask()[cells][:, cells]
        concepts.append(masks)
    each = np.stack(maps).transpose(1, 0, 2, 3).reshape(len(maps[0]), -1)
    ordered = np.sort(each, 1)[:, ::-1]
    thresholds = ordered[:, int(share * each.shape[1])]
    assert np.allclose(found.thresholds, thresholds, atol=1e-5)
    sizes = (grid, grid)
    enlarged = torch.nn.functional.interpolate(torch.tensor(np.stack(maps)), sizes, mode="bilinear").numpy()
    active = enlarged > thresholds[:, None, None]
    iou = np.zeros(found.both.shape)
    for c, label in enumerate(data.labels):
        masks = np.stack([one.get(label, np.zeros(sizes, bool)) for one in concepts])
        assert found.truth[c] == masks.sum()
        for k in range(len(thresholds)):
            both, any_of_them = (active[:, k] & masks).sum(), (active[:, k] | masks).sum()
            iou[k, c] = both / any_of_them if any_of_them else 0
    assert np.abs(found.iou - iou).max() < 2e-3  # a cell at the threshold may fall to either side
    assert (found.iou.argmax(1) == iou.argmax(1)).mean() > 0.97
    assert found.pictures == 9 and set(found.categories) == {"object", "color", "texture"}
    assert found.detectors == (iou.max(1) > 0.04).sum()


def test_a_crop_compares_what_the_network_sees_and_void_counts_for_nothing(file):
    """Twice the same content, once with void and other pixels around it that no cell may touch."""
    whole = next(open_data("scenes:1,seed=4").samples())
    explainer = Explainer(file, preprocess={**PLAIN, "resize": "stretch"}, exif=False)
    plain = dissect(explainer, Given([whole], whole.labels), 0.1, 32)
    image = np.zeros((128, 256, 3), np.uint8)
    image[:, 64:192] = whole.picture
    marks = tuple(Annotation(a.label, read_mask=lambda a=a: wide(a.read_mask())) for a in whole.annotations)
    crop = Explainer(file, preprocess={**PLAIN, "resize": "crop", "crop_fraction": 1.0}, exif=False)
    seen = dissect(crop, Given([Sample("a", image, marks)], whole.labels), 0.1, 32)
    assert np.array_equal(seen.truth, plain.truth) and np.array_equal(seen.both, plain.both)
    void = dissect(explainer, Given([Sample("a", whole.picture, whole.annotations, upper)], whole.labels), 0.1, 32)
    lower = [Annotation(a.label, read_mask=lambda a=a: a.read_mask() & ~upper()) for a in whole.annotations]
    half = dissect(explainer, Given([Sample("a", whole.picture, tuple(lower))], whole.labels), 0.1, 32)
    assert np.array_equal(void.truth, half.truth) and np.array_equal(void.both, half.both)
    assert (void.active < half.active).any()


PLAIN = {"scale": 1 / 255, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def wide(mask):
    full = np.zeros((128, 256), bool)
    full[:, 64:192] = mask
    return full


def upper():
    return np.arange(128)[:, None].repeat(128, 1) < 64


def test_what_cannot_be_used_is_counted(file, tmp_path):
    good = list(open_data("scenes:3").samples())
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    boxed = Sample("boxed", good[0].picture, (Annotation("star", (0, 0, 5, 5)),))
    samples = [good[0], Sample("broken", tmp_path / "broken.jpg", good[0].annotations), boxed, *good[1:]]
    told = []
    labels = open_data("scenes:1").labels
    found = dissect(Explainer(file, exif=False), Given(samples, labels), told=lambda *how_far: told.append(how_far))
    assert found.pictures == 3 and told[-1] == (10, 10)
    assert found.left_out.counts == {"could not be run": 1, "nothing is marked by a mask": 1}
    same = dissect(Explainer(file, exif=False, batch_size=1), Given(good, labels))
    assert np.abs(found.both - same.both).max() <= 2
    with pytest.raises(FastcamError, match="no picture with masks"):
        dissect(Explainer(file, exif=False), Given([boxed], labels))


def test_tables_are_read_as_they_are_written(file, tmp_path):
    found = dissect(Explainer(file, exif=False), open_data("scenes:6,marks=all"))
    (tmp_path / "neurons.csv").write_text(table(found))
    read = read_names(tmp_path / "neurons.csv")
    assert read == dict(names_of(found))
    scores = [name.score for _, name in names_of(found)]
    assert scores == sorted(scores, reverse=True) and len(read) == len(found.thresholds)
    rows = list(csv.DictReader((tmp_path / "neurons.csv").read_text().splitlines()))
    for row in rows[:20]:
        parts = {kind: int(row[f"color-{kind}"]) for kind in ("truth", "activation", "intersect")}
        union = parts["truth"] + parts["activation"] - parts["intersect"]
        assert float(row["color-iou"]) == pytest.approx(parts["intersect"] / union)
        assert float(row["score"]) == max(float(row[f"{kind}-iou"]) for kind in ("object", "color", "texture"))


@pytest.mark.skipif("FASTCAM_ASSETS" not in os.environ, reason="FASTCAM_ASSETS is not set")
def test_published_tables_are_read():
    folder = Path(os.environ["FASTCAM_ASSETS"]) / "neuron_names"
    alexnet = read_names(folder / "netdissect_caffe_reference_imagenet.csv")
    assert set(alexnet) == set(range(256))
    assert alexnet[197] == Name("wheel", "part", pytest.approx(0.21899864690447707))
    assert len(read_names(folder / "netdissect_ResNet-152-model_imagenet.csv")) == 2048


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no column unit, category"),
        ("unit,category,label\n1,a,b\n", "no column score"),
        ("unit,category,label,score\n", "no unit"),
        ("unit,category,label,score\n1,a,b\n", "line 2 has 3 columns"),
        ("unit,category,label,score\n0,a,b,0.1\n", "unit '0'"),
        ("unit,category,label,score\n1,a,b,nan\n", "score 'nan'"),
        ("unit,category,label,score\n1,a,b,0.1\n1,a,c,0.1\n", "names unit 1 again"),
        ("unit,category,label,score\n9999999999,a,b,0.1\n", "unit '9999999999'"),
        ("unit,category,label,score\n²,a,b,0.1\n", "unit"),
    ],
)
def test_a_bad_table_is_refused_in_one_line(tmp_path, content, message):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(FastcamError, match=message):
        read_names(tmp_path / "a.csv")


def test_the_verb_writes_both_tables(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["dissect", str(file), "--data", "scenes:5,marks=all", "-o", "out"])
    assert done.exit_code == 0, done.output
    read = read_names(tmp_path / "out" / "neurons.csv")
    report = json.loads((tmp_path / "out" / "neurons.json").read_text())
    assert {unit["unit"] - 1: unit["concepts"][0]["label"] for unit in report["units"]} == {
        unit: name.label for unit, name in read.items()
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--share", "0"], "between 0 and 1"),
        (["--grid", "3"], "8 to 1024"),
        (["--layer", "nowhere"], "nowhere"),
        (["--data", "folder:."], "no pictures in it"),
        (["-o", "taken/x"], "cannot be written"),
    ],
)
def test_a_wrong_call_is_one_line_and_writes_nothing(file, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("taken").write_text("a file")
    done = CliRunner().invoke(app, ["dissect", str(file), "--data", "scenes:3", *arguments])
    assert done.exit_code == 2
    assert message in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["taken"]
