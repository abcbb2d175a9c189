"""Seeds for segmentation: SEC's cues pixel by pixel, files that trainers read, runs that go on, and the figures."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fastcam import Explainer, FastcamError
from fastcam.cli import app
from fastcam.evaluation.class_map import class_map
from fastcam.evaluation.data import open_data
from fastcam.evaluation.protocols.seeds import SeedQuality
from fastcam.evaluation.runner import Contestant
from fastcam.evaluation.seed_files import write_seeds
from fastcam.evaluation.seeds import gradient_saliency, seed_mask
from fastcam.evaluation.statistics import weights_of
from fastcam_export import export_model
from support.evaluation_cases import case, enlarged, mark, present

DATA = Path(__file__).resolve().parents[2] / "fastcam" / "data"
pytestmark = pytest.mark.xdist_group("evaluation")


def brute_force(heatmaps, numbers, saliency, seen, threshold, share):
    """One pixel after the other, as the paper says it."""
    cues = {number: set() for number in numbers} | {0: set()}
    pixels = [(y, x) for y in range(seen.shape[0]) for x in range(seen.shape[1]) if seen[y, x]]
    for heat, number in zip(heatmaps, numbers, strict=True):
        cues[number] = {p for p in pixels if heat[p] > np.float32(threshold * float(heat.max()))}
    ordered = sorted(saliency[p] for p in pixels)
    count = int(np.ceil(share * len(pixels)))
    cues[0] = {p for p in pixels if count and saliency[p] <= ordered[count - 1]}
    mask = np.full(seen.shape, 255, np.uint8)
    for p in pixels:
        claims = [(len(cue), -number, number) for number, cue in cues.items() if p in cue]
        if claims:
            mask[p] = min(claims)[2]
    return mask


@pytest.mark.parametrize("seed", range(8))
def test_cues_are_those_of_a_pixel_by_pixel_account(seed):
    rng = np.random.default_rng(seed)
    count, size = int(rng.integers(0, 5)), (9, 13)
    heatmaps = np.maximum(rng.normal(size=(count, *size)), 0).astype(np.float32).round(1)
    numbers = [int(n) for n in rng.choice(np.arange(1, 255), count, replace=False)]
    saliency = rng.random(size).astype(np.float32).round(1)  # with many that are equal
    seen = np.ones(size, bool)
    seen[:, : int(rng.integers(0, 3))] = False
    threshold, share = rng.choice([0.0, 0.2, 0.5]), rng.choice([0.0, 0.1, 0.4])
    expected = brute_force(heatmaps, numbers, saliency, seen, threshold, share)
    assert np.array_equal(seed_mask(heatmaps, numbers, saliency, seen, threshold, share), expected)


def test_the_smaller_cue_wins_and_a_map_without_heat_has_none():
    large, small = np.zeros((2, 4, 4), np.float32)
    large[:, :3], small[1:3, 1:3] = 1, 1
    seen, saliency = np.ones((4, 4), bool), np.arange(16, dtype=np.float32).reshape(4, 4)
    mask = seed_mask(np.stack([large, small, np.zeros((4, 4), np.float32)]), [7, 3, 9], saliency, seen, 0.2, 0.1)
    assert mask.tolist() == [[0, 0, 7, 255], [7, 3, 3, 255], [7, 3, 3, 255], [7, 7, 7, 255]]


def test_saliency_is_the_largest_gradient_behind_a_median():
    gradients = np.random.default_rng(0).normal(size=(2, 3, 12, 11)).astype(np.float32)
    gradients[1] *= 100
    maps = np.abs(gradients).max(1)
    maps /= maps.max((1, 2), keepdims=True)
    padded = np.pad(maps.max(0), 2, mode="edge")
    expected = [[np.median(padded[y : y + 5, x : x + 5]) for x in range(11)] for y in range(12)]
    assert np.allclose(gradient_saliency(gradients), expected, atol=1e-6)
    assert not gradient_saliency(np.zeros((1, 3, 8, 8), np.float32)).any()


# ---- the figures


def test_figures_are_those_of_confusion_counts_over_all_pictures():
    rng, size = np.random.default_rng(3), (24, 30)
    protocol, counts = SeedQuality(0.3, 0.2), {}
    tally, covered = protocol.tally(), 0
    for picture in range(6):
        maps = rng.normal(size=(2, 6, 6))
        masks = rng.random((4, *size)) < 0.3
        void = rng.random(size) < 0.1
        marked = [
            present("a", 0, mark("a", mask=masks[0]), mark("a", mask=masks[2], crowd=True)),
            present("b", 1, mark("b", mask=masks[1])),
        ]
        one = case(maps, [0, 1], marked, size, network=size, ignored=void)
        object.__setattr__(one.sample, "annotations", (*one.sample.annotations, mark("unknown", mask=masks[3])))
        one.explanation.input_gradients = None
        tally.add(json.loads(json.dumps(protocol.measure(one))), weights_of(str(picture)))
        heat = np.stack([one.heatmap(0), one.heatmap(1)])
        scaled = heat / heat.max((1, 2), keepdims=True)
        assert np.allclose(scaled, [enlarged(each, size) for each in maps], atol=1e-5)
        seeds = brute_force(heat, [1, 2], heat.max(0), np.ones(size, bool), 0.3, 0.2)
        covered += (seeds != 255).sum()
        counted = ~void & ~(masks[2] & ~(masks[0] | masks[1] | masks[3]))
        for label, number, truth in (("a", 1, masks[0]), ("b", 2, masks[1]), ("", 0, ~masks.any(0))):
            seed = (seeds == number) & counted
            add = np.array([(seed & truth).sum(), seed.sum(), (truth & counted).sum()])
            counts[label] = counts.get(label, 0) + add
    figures = tally.figures()
    for name, value in {
        "mean IoU": np.mean([b / (s + t - b) for b, s, t in counts.values()]),
        "mean precision": np.mean([b / s for b, s, _ in counts.values()]),
        "mean recall": np.mean([b / t for b, _, t in counts.values()]),
        "IoU of the background": (lambda b, s, t: b / (s + t - b))(*counts[""]),
        "share of pixels with a cue": covered / (6 * 24 * 30),
    }.items():
        assert figures[name].value == pytest.approx(value), name
        assert figures[name].low <= figures[name].value <= figures[name].high


def test_pictures_without_masks_say_nothing_of_seeds():
    one = case(np.ones((1, 4, 4)), [0], [present("a", 0, mark("a", (0, 0, 4, 4)))], (16, 16))
    one.explanation.input_gradients = None
    assert SeedQuality().measure(one) is None


@pytest.mark.parametrize(
    "settings", [{"threshold": 1.0}, {"background": -0.1}, {"saliency": "contrast"}, {"threshold": float("nan")}]
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(FastcamError, match="of seeds is"):
        SeedQuality(**settings)


# ---- the files


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("seeds") / "scenes.cam.onnx"
    source, labels = DATA / "scenes.onnx", DATA / "scenes.labels.txt"
    export_model(source, path, labels=labels, preprocess="imagenet", input_gradient="gradient", check=False)
    return path


def contestant(file, data):
    explainer = Explainer(file, exif=data.exif)
    return Contestant("scenes", explainer, class_map(data.labels, explainer.metadata))


def masks_in(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


@pytest.mark.parametrize("saliency", [None, "heatmap"])
def test_masks_are_palette_pngs_of_what_the_explainer_says(file, tmp_path, saliency):
    data = open_data("scenes:5,size=96")
    made = write_seeds(contestant(file, data), data, tmp_path, saliency=saliency)
    explainer = Explainer(file)
    for sample in data.samples():
        image = Image.open(tmp_path / "SegmentationClass" / f"{sample.name}.png")
        numbers = [data.labels.index(label) + 1 for label in sample.labels]
        e = explainer(sample.picture, targets=[number - 1 for number in numbers])
        size = (96, 96)
        heat = np.stack([e.geometry[0].heatmap_to_original(one) for one in e.heatmaps[0]])
        low = heat.max(0)
        if saliency is None:
            smooth = gradient_saliency(e.input_gradients[0])
            assert smooth.shape == (128, 128)
            low = cv2.resize(smooth, size, interpolation=cv2.INTER_AREA)
        assert (image.mode, image.size) == ("P", size)
        assert np.array_equal(np.array(image), brute_force(heat, numbers, low, np.ones(size, bool), 0.2, 0.1))
    assert (tmp_path / "class_names.txt").read_text().splitlines() == ["_background_", *data.labels]
    report = json.loads((tmp_path / "seeds.json").read_text())
    assert report["numbers"]["triangle"] == 1
    assert report["figures"]["seeds"]["mean IoU"]["value"] == made.figures["seeds"]["mean IoU"].value


def test_a_run_that_was_stopped_goes_on_to_the_same_files_and_figures(file, tmp_path):
    data = open_data("scenes:7")
    how = contestant(file, data)
    whole = write_seeds(how, data, tmp_path / "whole")
    write_seeds(how, data, tmp_path / "part", limit=3)
    assert len(masks_in(tmp_path / "part")) == 3
    moved = (tmp_path / "part").rename(tmp_path / "moved")
    before = {path: path.stat().st_mtime_ns for path in moved.rglob("*.png")}
    again = write_seeds(how, data, moved)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert masks_in(moved) == masks_in(tmp_path / "whole")
    assert again.to_dict() == whole.to_dict()
    with pytest.raises(FastcamError, match="--restart"):
        write_seeds(how, data, moved, foreground=0.3)
    assert write_seeds(how, data, moved, foreground=0.3, restart=True).pictures == 7


def test_pictures_that_differ_in_their_ending_alone_have_two_masks(file, tmp_path):
    folder = tmp_path / "data" / "star"
    folder.mkdir(parents=True)
    for name in ("a.png", "a.bmp", "b.v2.png"):
        cv2.imwrite(str(folder / name), np.zeros((50, 60, 3), np.uint8))
    data = open_data(f"folder:{folder.parent}")
    write_seeds(contestant(file, data), data, tmp_path / "out")
    names = ["star/a.bmp.png", "star/a.png.png", "star/b.v2.png"]
    assert list(masks_in(tmp_path / "out" / "SegmentationClass")) == names


def test_what_a_crop_leaves_out_has_no_cue(file, tmp_path):
    cropping = {"scale": 1 / 255, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "resize": "crop"}
    folder = tmp_path / "data" / "star"
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / "a.png"), np.random.default_rng(0).integers(0, 256, (80, 160, 3), dtype=np.uint8))
    data = open_data(f"folder:{folder.parent}", exif=False)
    explainer = Explainer(file, preprocess={**cropping, "crop_fraction": 0.5}, exif=False)
    how = Contestant("scenes", explainer, class_map(data.labels, explainer.metadata))
    write_seeds(how, data, tmp_path / "out", saliency="heatmap", background=0.3)
    mask = np.array(Image.open(tmp_path / "out" / "SegmentationClass" / "star" / "a.png"))
    seen = np.zeros((80, 160), bool)
    seen[20:60, 60:100] = True
    assert (mask[~seen] == 255).all() and (mask[seen] != 255).mean() > 0.25


def test_the_verb_writes_what_the_function_writes_and_says_how_good_it_is(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["seeds", str(file), "--data", "scenes:3", "-o", "out"])
    assert done.exit_code == 0, done.output
    assert "mean IoU" in done.output
    data = open_data("scenes:3")
    write_seeds(contestant(file, data), data, "same")
    assert masks_in(Path("out")) == masks_in(Path("same"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "scenes:3", "--foreground", "1.5"], "threshold of seeds"),
        (["--data", "scenes:3", "--background", "-1"], "background of seeds"),
        (["--data", "nothing:3"], "no format and place"),
        (["--data", "scenes:3,marks=color"], "no label of the data set"),
        (["--data", "scenes:3", "-o", "taken/seeds"], "cannot be written"),
        (["--data", "scenes:3", "-m", "scorecam+"], "no method"),
    ],
)
def test_a_wrong_call_is_one_line_and_writes_nothing(file, tmp_path, monkeypatch, capfd, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("taken").write_text("a file")
    done = CliRunner().invoke(app, ["seeds", str(file), *arguments])
    assert done.exit_code == 2
    said = done.stderr if done.stderr_bytes else capfd.readouterr().err
    assert message in said and len(said.strip().splitlines()) == 1
    assert not list(tmp_path.rglob("*.png")) and not list(tmp_path.rglob("seeds.json"))


def test_saliency_by_a_gradient_that_the_file_does_not_have_is_refused(tmp_path):
    path = tmp_path / "plain.cam.onnx"
    export_model(DATA / "scenes.onnx", path, labels=DATA / "scenes.labels.txt", preprocess="imagenet", check=False)
    data = open_data("scenes:2")
    with pytest.raises(FastcamError, match="--input-gradient gradient"):
        write_seeds(contestant(path, data), data, tmp_path / "out", saliency="gradient")
    assert not os.path.exists(tmp_path / "out")


def test_data_of_too_many_classes_is_refused(file, tmp_path):
    data = open_data("scenes:2")
    how = contestant(file, data)
    data.labels = tuple(map(str, range(255)))
    with pytest.raises(FastcamError, match="255 classes"):
        write_seeds(how, data, tmp_path)
