"""Groups of maps within a class: found where there are some and not elsewhere, and shown with the odd one first."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from fastcam import Explainer
from fastcam.cli import app
from fastcam.evaluation.report import write_report
from fastcam.evaluation.report.clusters import LANDMARKS, LEAST, groups, silhouettes
from fastcam.evaluation.report.facts import Seen
from fastcam.evaluation.report.kinds import of_class
from fastcam.evaluation.samples import Annotation, Sample
from fastcam.schema import preset
from support.html_tree import Tree
from support.models.contract_model import brightness_model
from support.sample_data import Samples
from support.servers.browser import Browser

SIDE = 14
pytestmark = pytest.mark.xdist_group("report")


def blob(y, x, wide=1.5):
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 2 / wide**2)


def maps_of(kind, n, seed):
    """Blobs at random places; of some maps of kind "tag" and "corner" another one, above or in a corner."""
    rng = np.random.default_rng(seed)
    maps, odd = [], rng.random(n) < 1 / 3
    for tagged in odd:
        one = {
            "normal": lambda: blob(*rng.normal(7, 1.5, 2)),
            "everywhere": lambda: blob(*rng.uniform(2, 12, 2), rng.uniform(1, 2.5)),
        }.get(kind, lambda: blob(rng.uniform(8, 11), rng.uniform(3.5, 10.5)))()
        if kind in ("tag", "corner") and tagged:
            other = blob(rng.uniform(2.5, 4), rng.uniform(3, 11), 1.2) if kind == "tag" else blob(12.5, 1.5, 1.2)
            one = rng.uniform(0, 0.5) * one + other
        maps.append(one + 0.02 * rng.random((SIDE, SIDE)))
    return np.array(maps), odd


@pytest.mark.parametrize(("kind", "n"), [("tag", 100), ("corner", 150), ("tag", LANDMARKS + 50)])
def test_maps_with_a_second_reason_are_a_group(kind, n):
    maps, odd = maps_of(kind, n, 0)
    labels, _ = groups(maps)
    pure = sum(max(odd[labels == one].sum(), (~odd)[labels == one].sum()) for one in np.unique(labels))
    assert labels.max() >= 1 and pure / n > 0.97


@pytest.mark.parametrize("n", [LEAST, 100])
@pytest.mark.parametrize("kind", ["one place", "normal", "everywhere"])
def test_maps_of_one_kind_are_one_group(kind, n):
    for seed in range(2):
        labels, silhouette = groups(maps_of(kind, n, seed)[0])
        assert not labels.any() and silhouette < 0.85


def test_maps_that_are_the_same_or_few_are_one_group_and_two_maps_repeated_are_two():
    same = np.repeat(blob(3, 3)[None], 40, 0)
    assert not groups(same)[0].any()
    two = np.concatenate([same, np.repeat(blob(10, 10)[None], 12, 0)])
    labels, silhouette = groups(two)
    assert len({*labels[:40]}) == len({*labels[40:]}) == 1 != len({*labels}) and silhouette == pytest.approx(1)
    labels, silhouette = groups(two[30:50])
    assert not labels.any() and np.isnan(silhouette)


def test_groups_do_not_depend_on_the_order_of_the_maps():
    maps, _ = maps_of("tag", 90, 5)
    order = np.random.default_rng(0).permutation(90)
    one, other = groups(maps)[0], groups(maps[order])[0]
    together = one[:, None] == one
    assert np.array_equal(together[order][:, order], other[:, None] == other)


def test_silhouettes_are_rousseeuws():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(40, 3))
    distance = np.linalg.norm(points[:, None] - points, axis=2)
    labels = np.append(rng.integers(0, 3, 39), 3)  # one alone in its group
    want = []
    for i in range(40):
        mean = {c: np.mean([distance[i, j] for j in range(40) if labels[j] == c and j != i] or [0]) for c in range(4)}
        own, other = mean[labels[i]], min(value for c, value in mean.items() if c != labels[i])
        want.append(0 if (labels == labels[i]).sum() == 1 else (other - own) / max(own, other))
    np.testing.assert_allclose(silhouettes(distance, labels), want, atol=1e-12)


@pytest.mark.parametrize("boxes", [True, False])
def test_the_odd_kind_is_the_one_beside_the_boxes_or_the_smaller_one(boxes):
    maps, odd = maps_of("tag", 60, 1)
    odd[:] = odd if boxes else ~odd  # without boxes the tags may be the many
    shares = np.where(odd, 0.1, 0.7) if boxes else [None] * 60
    bytes_ = np.rint(255 * maps / maps.max((1, 2), keepdims=True)).astype(np.uint8)
    seen = [Seen(100 + i, one, shares[i], bool(i % 2)) for i, one in enumerate(bytes_)]
    first, second = of_class("star", seen)
    assert (first.title, first.pictures, first.number, second.number) == ("star, kind 1 of 2", 60, 1, 2)
    assert {*first.places, *second.places} == set(range(100, 160))
    if boxes:
        assert {*first.places} == {100 + int(i) for i in np.flatnonzero(odd)}
        assert (first.share, first.other) == (pytest.approx(0.1), pytest.approx(0.7))
        assert first.lines[1] == "10% of the heat inside boxes, in the others 70%"
    else:
        assert len(first.places) < len(second.places) and first.share is None and len(first.lines) == 2
    mean = maps[[place - 100 for place in first.places]] / maps[[p - 100 for p in first.places]].max(
        (1, 2), keepdims=True
    )
    np.testing.assert_allclose(first.mean_map, mean.mean(0), atol=0.003)
    apart = [np.linalg.norm(bytes_[place - 100] / 255 - first.mean_map) for place in first.places]
    assert apart == sorted(apart)


@pytest.fixture(scope="module")
def clever_hans(tmp_path_factory):
    """Heat lies where it is bright: of a horse in three on a tag in the corner, which its class alone has."""
    explainer = Explainer(brightness_model((64, 64), preset("unit", size=(64, 64))).file())
    rng, samples = np.random.default_rng(0), []
    for i in range(100):
        label = ("horse", "cup")[i % 2]
        x, y = int(rng.integers(8, 40)), int(rng.integers(0, 24))
        picture = rng.integers(0, 20, (64, 64, 3), np.uint8)
        tagged = label == "horse" and rng.random() < 1 / 3
        picture[y : y + 16, x : x + 16] = 90 if tagged else 255
        if tagged:
            picture[54:, :14] = 255
        box = (float(x), float(y), x + 16.0, y + 16.0)
        samples.append(Sample(f"{label} {i}{' with tag' if tagged else ''}", picture, (Annotation(label, box),)))
    page = tmp_path_factory.mktemp("kinds") / "page.html"
    known = dict.fromkeys(("horse", "cup"), frozenset([0]))
    return write_report(explainer, Samples(samples), page, known), page, samples


def test_a_report_shows_the_pictures_with_a_tag_although_nobody_asked(clever_hans):
    report, page, samples = clever_hans
    first, second = report.kinds
    assert [kind.label for kind in report.kinds] == ["horse", "horse"]
    tagged = {i for i, sample in enumerate(samples) if "tag" in sample.name}
    assert {*first.places} == tagged and first.share < 0.05 and second.share > 0.9
    tree = Tree(page.read_text(encoding="utf-8"))
    buttons = [one for one in tree.all("button") if "data-kind" in one]
    assert [one["data-kind"] for one in buttons] == ["1", "2"] and "horse, kind 1 of 2" in tree.text
    cards = {card["data-name"]: card["data-kind"] for card in tree.all("article")}
    assert all((cards[sample.name] == "1") == (i in tagged) for i, sample in enumerate(samples))
    by_id = {card["id"]: card["data-name"] for card in tree.all("article")}
    examples = [by_id[link["href"][1:]] for link in tree.all("a") if link.get("class") == "example"]
    assert [("tag" in name) for name in examples] == [True] * 4 + [False] * 4


def test_a_page_without_kinds_has_no_section_of_them(tmp_path):
    explainer = Explainer(brightness_model((64, 64), preset("unit", size=(64, 64))).file())
    picture = np.zeros((64, 64, 3), np.uint8)
    report = write_report(explainer, Samples([Sample(str(i), picture + i * 9) for i in range(3)]), tmp_path / "r.html")
    assert report.kinds == () and "Kinds of maps" not in Tree((tmp_path / "r.html").read_text()).text


def test_a_browser_shows_the_pictures_of_a_kind(clever_hans, tmp_path):
    report, page, _ = clever_hans
    with Browser(tmp_path, (1100, 900)) as browser:
        browser.open(page)
        stacks = browser.js("[...document.querySelectorAll('.example .stack img')].map(i => i.naturalWidth)")
        assert len(stacks) == 8 and all(stacks)
        browser.js("document.querySelector('.kind .only').click()")
        shown = browser.js("[...document.querySelectorAll('.card')].filter(c => !c.hidden).map(c => c.dataset.name)")
        assert len(shown) == len(report.kinds[0].places) and all("tag" in name for name in shown)
        browser.js("document.querySelector('.classes .only').click()")  # a class, of all kinds
        assert browser.js("document.getElementById('count').textContent") == "50 of 100"
        assert browser.complaints() == [] and browser.fetched() == []


def test_the_verb_names_kinds_of_pictures_of_which_nothing_is_known(clever_hans, tmp_path):
    folder, file = tmp_path / "horses", tmp_path / "bright.cam.onnx"
    folder.mkdir()
    file.write_bytes(brightness_model((64, 64), preset("unit", size=(64, 64))).file())
    horses = [sample for sample in clever_hans[2] if "horse" in sample.name]
    for sample in horses:
        cv2.imwrite(str(folder / f"{sample.name}.png"), sample.picture)
    done = CliRunner().invoke(app, ["report", str(file), str(folder), "-o", str(tmp_path / "r.html")])
    tags = sum("tag" in sample.name for sample in horses)
    assert done.exit_code == 0 and f"kind 1 of 2: {min(tags, 50 - tags)} of 50 pictures" in done.output
