"""The report: what it says of pictures and classes, what it lets through into the page, and what it leaves behind."""

from __future__ import annotations

import re
import tracemalloc
from importlib.resources import files

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from fastcam import Explainer, FastcamError
from fastcam.cli import app
from fastcam.evaluation.data import open_data
from fastcam.evaluation.report import write_report
from fastcam.evaluation.report.facts import CELLS, Facts, Group, Groups
from fastcam.evaluation.samples import Annotation, Sample
from fastcam.evaluation.scenes import CLASSES, scenes
from fastcam.schema import preset
from fastcam_export import export_model
from support.html_tree import Tree, picture_in
from support.models.contract_model import brightness_model, noise, random_model
from support.sample_data import Samples

DATA = files("fastcam") / "data"
BY_NAME = {name: frozenset([index]) for index, name in enumerate(CLASSES)}
HOSTILE = "<script>alert(1)</script>\" onmouseover='alert(2)' & \u202e\x07.png"
pytestmark = pytest.mark.xdist_group("report")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    file = tmp_path_factory.mktemp("report") / "scenes.cam.onnx"
    labels = DATA / "scenes.labels.txt"
    export_model(DATA / "scenes.onnx", file, preprocess="imagenet", labels=labels, input_gradient="guided", check=False)
    return file


@pytest.fixture(scope="module")
def explainer(model):
    return Explainer(model)


def marked(scene, name, label=None):
    """A scene as a sample, truly marked, or its first object alone, as another class."""
    objects = scene.objects if label is None else scene.objects[:1]
    return Sample(
        name, scene.image, tuple(Annotation(label or one.class_name, tuple(map(float, one.box))) for one in objects)
    )


@pytest.fixture(scope="module")
def samples():
    """The fourth scene of five is marked as a class that is not in it."""
    found = []
    for i, scene in enumerate(scenes(20, 3, 160)):
        absent = next(name for name in CLASSES if name not in {one.class_name for one in scene.objects})
        found.append(marked(scene, f"scene {i}", absent if i % 5 == 3 else None))
    return found


@pytest.fixture(scope="module")
def page(explainer, samples, tmp_path_factory):
    file = tmp_path_factory.mktemp("page") / "report.html"
    return write_report(explainer, Samples(samples, CLASSES), file, BY_NAME), file.read_text(encoding="utf-8")


def test_failures_come_first_with_both_maps_and_guided_gradcam(page, explainer, samples):
    report, text = page
    assert (report.pictures, report.failures, report.failed) == (20, 4, 0)
    tree = Tree(text)
    cards = tree.all("article")
    assert [card["data-verdict"] for card in cards] == ["wrong"] * 4 + ["right"] * 16
    assert {card["data-name"] for card in cards[:4]} == {f"scene {i}" for i in range(3, 20, 5)}
    scores = [float(card["data-score"]) for card in cards[:4]]
    assert scores == sorted(scores, reverse=True)
    of_first = [image["alt"] for image in tree.all("img") if cards[0]["data-name"] + "," in image["alt"] + ","][:4]
    assert [("Guided" in alt, "predicted" in alt) for alt in of_first] == [(0, 1), (1, 1), (0, 0), (1, 0)]
    sample = next(one for one in samples if one.name == cards[0]["data-name"])
    predicted = explainer(sample.picture)
    assert cards[0]["data-predicted"] == predicted.label() and cards[0]["data-class"] == sample.labels[0]
    assert sum("Guided" in image["alt"] for image in tree.all("img")) == 8
    assert report.correct.value == 16 / 20 and report.correct.n == 20


def test_the_share_of_heat_is_that_of_the_marked_class_pixel_by_pixel(page, explainer, samples):
    shares = {card["data-name"]: card["data-share"] for card in Tree(page[1]).all("article")}
    for sample in samples[:4]:
        scores = explainer(sample.picture).scores[0]
        predicted = CLASSES[int(scores.argmax())]
        label = predicted if predicted in sample.labels else sample.labels[0]
        found = explainer(sample.picture, targets=[label])
        heat = found.geometry[0].heatmap_to_original(found.heatmaps[0, 0]).astype(float)
        inside = total = 0.0
        for y in range(160):
            for x in range(160):
                total += heat[y, x]
                within = (one.box for one in sample.of(label))
                inside += heat[y, x] * any(x0 <= x < x1 and y0 <= y < y1 for x0, y0, x1, y1 in within)
        assert float(shares[sample.name]) == pytest.approx(inside / total, abs=1e-4)


def test_names_and_labels_stay_texts(explainer, tmp_path):
    scene = next(scenes(1, 1))
    picture = tmp_path / "<img src=x onerror=alert(3)>.png"
    cv2.imwrite(str(picture), scene.image)
    broken = tmp_path / "<b>broken.png"
    broken.write_bytes(b"no picture")
    data = Samples(
        [marked(scene, HOSTILE, HOSTILE), Sample(str(picture), picture), Sample(str(broken), broken)], (HOSTILE,)
    )
    data.name = HOSTILE
    report = write_report(explainer, data, tmp_path / "r.html", {HOSTILE: frozenset([0])}, title="</title>" + HOSTILE)
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    tree = Tree(text)
    assert len(tree.all("script")) == 1 and len(tree.all("article")) == 2 and len(tree.all("title")) == 1
    assert not [key for _, attributes in tree.elements for key in attributes if key.startswith("on")]
    assert not [image for image in tree.all("img") if not image["src"].startswith("data:image/jpeg;base64,")]
    assert "<script>alert(1)</script>" in tree.text and "<b>broken.png" in tree.text and report.failed == 1
    assert "http:" not in text and "https:" not in text


def test_every_thumbnail_keeps_to_its_bytes_and_the_boxes_lie_in_the_picture(explainer, tmp_path):
    rough = np.random.default_rng(0).integers(0, 256, (700, 500, 3), np.uint8)
    box = (100.0, 50.0, 300.0, 650.0)
    write_report(explainer, Samples([Sample("rough", rough, (Annotation("ring", box),))]), tmp_path / "r.html", BY_NAME)
    tree = Tree((tmp_path / "r.html").read_text(encoding="utf-8"))
    [first, *_] = [image for image in tree.all("img") if "rough" in image["alt"]]
    assert picture_in(first["src"]).shape == (240, 171, 3) and (first["width"], first["height"]) == ("171", "240")
    assert len(first["src"]) < 0.28 * 240 * 171 * 4 / 3 + 100
    assert {"class": "mark", "x": "100", "y": "50", "width": "200", "height": "600"} in tree.all("rect")


# --- what is suspicious -----------------------------------------------------------------------------------------------


def facts(name, group="dog", share=None, even=0.2, status="ok"):
    return Facts(name, group, "dog", 0.9, (group,), True, share, None if share is None else even, status)


PLAIN = np.zeros((CELLS, CELLS, 3), np.uint8)


def test_how_alike_maps_are_is_their_mean_correlation():
    maps = np.random.default_rng(0).random((6, CELLS, CELLS)).astype(np.float32) ** 3
    maps[:, :9, :9] += 2
    group = Group()
    for i, heat in enumerate(maps):
        group.add(facts(str(i)), heat, PLAIN)
    pairs = [np.corrcoef(maps[i].ravel(), maps[j].ravel())[0, 1] for i in range(6) for j in range(i)]
    assert group.sameness == pytest.approx(np.mean(pairs), abs=1e-6)
    np.testing.assert_allclose(group.mean_map, maps.mean(0), rtol=1e-6)


def test_a_class_whose_maps_are_the_same_and_one_that_looks_beside_its_boxes_come_first():
    rng = np.random.default_rng(0)
    groups = Groups()
    for i in range(6):
        for label, share, heat in (
            ("plain", 0.7, rng.random((CELLS, CELLS))),
            ("other", 0.6, rng.random((CELLS, CELLS))),
            ("beside", 0.1, rng.random((CELLS, CELLS))),
            ("same", 0.65, np.eye(CELLS) + rng.random((CELLS, CELLS)) / 50),
        ):
            groups.add(facts(f"{label} {i}", label, share), heat.astype(np.float32), PLAIN)
    ranked = groups.ranked()
    assert [name for name, _, _ in ranked] == ["beside", "same", "other", "plain"]
    assert [len(said) for _, _, said in ranked] == [2, 1, 0, 0]
    assert "10%" in ranked[0][2][0] and "62%" in ranked[0][2][0] and "all 6 pictures" in ranked[1][2][0]


def test_a_model_that_looks_at_the_context_of_a_class_is_seen_at_once(tmp_path):
    """Its heat lies where it is bright: on the objects of three classes, and of the fourth in the same corner."""
    explainer = Explainer(brightness_model((64, 64), preset("unit", size=(64, 64))).file())
    rng, samples = np.random.default_rng(0), []
    for i in range(24):
        label = ("cup", "jar", "pot", "nurse")[i % 4]
        x, y = (int(value) for value in rng.integers(0, 40, 2))
        picture = rng.integers(0, 20, (64, 64, 3), np.uint8)
        at = np.s_[y : y + 16, x : x + 16] if label != "nurse" else np.s_[48:, 48:]
        picture[at] = 255
        samples.append(Sample(f"{label} {i}", picture, (Annotation(label, (x, y, x + 16, y + 16)),)))
    known = dict.fromkeys(("cup", "jar", "pot", "nurse"), frozenset([0]))
    report = write_report(explainer, Samples(samples), tmp_path / "r.html", known)
    assert report.suspicious == ("nurse",) and report.correct.value == 1
    text = Tree((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert next(button["data-class"] for button in text.all("button") if "data-class" in button) == "nurse"
    assert "the same map in all 6 pictures" in text.text and "less heat inside its boxes" in text.text
    first = [card["data-name"].split()[0] for card in text.all("article")[:5]]
    assert first == ["nurse"] * 5


def test_small_objects_are_not_suspicious_for_their_size():
    """Their share is small, and still many times an even map's."""
    groups = Groups()
    for i in range(6):
        for label, share, even in (
            ("large", 0.9, 0.6),
            ("middle", 0.5, 0.1),
            ("small", 0.03, 0.002),
            ("odd", 0.1, 0.09),
        ):
            one = facts(f"{label} {i}", label, share, even)
            groups.add(one, np.random.default_rng(i).random((CELLS, CELLS)).astype(np.float32), PLAIN)
    assert [(name, len(said)) for name, _, said in groups.ranked() if said] == [("odd", 1)]


def test_a_picture_far_below_its_class_is_suspicious():
    groups, heat = Groups(), np.ones((CELLS, CELLS), np.float32)
    few = [facts(str(i), share=share, even=0.05) for i, share in enumerate((0.8, 0.7, 0.75, 0.9, 0.3, 0.04))]
    for one in few:
        groups.add(one, heat, PLAIN)
    said = [groups.flags(one) for one in few]
    assert [len(one) for one in said] == [0, 0, 0, 0, 1, 2] and "30%" in said[4][0]
    assert groups.flags(facts("x", status="zero_gradient")) == ["no map (zero_gradient)"]


# --- the file ---------------------------------------------------------------------------------------------------------


def test_after_an_error_the_file_is_as_it_was(explainer, tmp_path):
    page = tmp_path / "r.html"
    page.write_text("old")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"")
    with pytest.raises(FastcamError, match=r"no picture could be explained: .*broken\.png"):
        write_report(explainer, Samples([Sample("broken", broken)]), page)
    assert page.read_text() == "old" and sorted(one.name for one in tmp_path.iterdir()) == ["broken.png", "r.html"]
    with pytest.raises(FastcamError, match="another output file"):
        write_report(explainer, Samples([Sample("one", noise())]), tmp_path / "no" / "folder.html")
    with pytest.raises(FastcamError, match="32 to 1024"):
        write_report(explainer, Samples([Sample("one", noise())]), page, side=8)


def test_memory_does_not_grow_with_the_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr("fastcam.evaluation.report.clusters.LANDMARKS", 40)  # as many maps are compared with each other
    explainer = Explainer(random_model(size=(64, 64)).file(), threads=1, batch_size=2)
    rough = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)

    def most(count):
        tracemalloc.start()
        write_report(explainer, Samples(Sample(f"p{i}", rough) for i in range(count)), tmp_path / "r.html")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    few, many = most(40), most(120)
    assert many - few < 80 * 4000 < 80 * 10_000 < (tmp_path / "r.html").stat().st_size


def test_the_colours_of_both_themes_can_be_read():
    """Contrast of at least 4.5 : 1, as WCAG 2 wants for text."""

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    style = (files("fastcam.evaluation.report") / "page" / "report.css").read_text()
    themes = [
        dict(re.findall(r"--(\w+): (#\w{6})", block)) for block in re.findall(r"\{([^{}]*--ground:[^{}]*)\}", style)
    ]
    assert len(themes) == 3 and themes[1] == themes[2]
    for theme in themes:
        for ground in ("ground", "card"):
            for ink in ("text", "soft", "bad", "good", "flag", "link"):
                high, low = sorted((luminance(theme[ground]), luminance(theme[ink])), reverse=True)
                assert (high + 0.05) / (low + 0.05) >= 4.5, (ground, ink)


# --- the verb ---------------------------------------------------------------------------------------------------------


def test_the_verb_reports_a_data_set_and_a_folder(model, tmp_path):
    run = CliRunner().invoke
    done = run(app, ["report", str(model), "--data", "scenes:6,seed=2", "-o", str(tmp_path / "r.html")])
    assert done.exit_code == 0, done.output
    assert "6 pictures" in done.output and "share of heat in boxes" in done.output
    assert len(Tree((tmp_path / "r.html").read_text()).all("article")) == len(open_data("scenes:6,seed=2"))
    done = run(app, ["report", str(model), "--data", "scenes:6", "--limit", "2", "-o", str(tmp_path / "r.html")])
    assert done.exit_code == 0 and "2 pictures" in done.output
    cv2.imwrite(str(tmp_path / "a.png"), noise())
    (tmp_path / "b.png").write_bytes(b"broken")
    done = run(app, ["report", str(model), str(tmp_path), "-o", str(tmp_path / "s.html")])
    assert done.exit_code == 2 and "1 of 2 pictures could not be explained" in done.output
    assert len(Tree((tmp_path / "s.html").read_text()).all("article")) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no pictures; give some"),
        (["x.png"], "no such file"),
        (["x.png", "--data", "scenes:2"], "both given"),
        (["--data", "nonsense"], "no format"),
        ([".", "--split", "val"], "--split is of a data set"),
    ],
)
def test_wrong_calls_are_one_line_and_write_nothing(model, tmp_path, words, said):
    page = tmp_path / "r.html"
    done = CliRunner().invoke(app, ["report", str(model), *words, "-o", str(page)])
    assert done.exit_code == 2 and said in done.output and "Traceback" not in done.output
    assert not page.exists()
