"""Human studies: who sees what, what the page keeps to itself, and scores of raters whose accuracy is known."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from importlib.resources import files

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from fastcam import Explainer, FastcamError
from fastcam.cli import app
from fastcam.evaluation.data import open_data
from fastcam.evaluation.scenes import CLASSES
from fastcam.evaluation.statistics import wilson
from fastcam.evaluation.study import Model, design, make_study, score_study
from fastcam.evaluation.study.agreement import alpha
from fastcam_export import export_model
from support.html_tree import Tree
from support.servers.browser import Browser

DATA = files("fastcam") / "data"
BY_NAME = {name: frozenset([index]) for index, name in enumerate(CLASSES)}
METHODS = ("gradcam", "layercam")
pytestmark = pytest.mark.xdist_group("study")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study of two models with secret names, its page's content and its key."""
    folder = tmp_path_factory.mktemp("study")
    file = folder / "scenes.cam.onnx"
    labels = DATA / "scenes.labels.txt"
    export_model(DATA / "scenes.onnx", file, preprocess="imagenet", labels=labels, emit="gradients", check=False)
    models = [Model(name, Explainer(file), BY_NAME) for name in ("secret-one", "secret-two")]
    made = make_study(models, open_data("scenes:60,seed=4"), METHODS, folder / "made", raters=16, pictures=16)
    assert made.pictures == {"class": 16, "trust": 16} and made.trials == 32
    text = made.page.read_text(encoding="utf-8")
    content = re.search(r'<script type="application/json" id="content">(.*?)</script>', text)[1]
    return made, text, json.loads(content), json.loads(made.key.read_text())


def test_every_rater_sees_each_picture_once_in_an_order_of_his_own(study):
    _, _, content, key = study
    assert content["plan"] == key["plan"] and len(content["plan"]) == 16
    for trials in content["plan"]:
        pictures = [key["trials"][trial]["picture"] for trial in trials]
        assert len(pictures) == len({*pictures}) == 32
    orders = {tuple(key["trials"][trial]["picture"] for trial in trials[:16]) for trials in content["plan"]}
    assert len(orders) == 16


def test_methods_classes_and_sides_are_balanced(study):
    key = study[3]
    shown = Counter()
    for rater, trials in enumerate(key["plan"]):
        mine = Counter()
        for trial in map(key["trials"].get, trials):
            if trial["kind"] == "class":
                condition = (trial["method"], trial["depicted"] < trial["other"], trial["answer"])
            else:
                condition = (trial["method"], trial["left"])
            mine[(trial["kind"], trial["method"])] += 1
            shown[(trial["kind"], trial["picture"], *condition)] += 1
        assert set(mine.values()) == {8}, rater
    # 16 raters: each of 8 conditions of two classes twice, each of 4 of two models four times
    assert {count for (kind, *_), count in shown.items() if kind == "class"} == {2}
    assert {count for (kind, *_), count in shown.items() if kind == "trust"} == {4}


@pytest.mark.parametrize(("raters", "pictures", "count"), [(1, 1, 8), (5, 7, 4), (9, 30, 12), (12, 3, 6)])
def test_a_square_of_any_size_is_as_even_as_can_be(raters, pictures, count):
    plan = design.conditions(raters, pictures, count, np.random.default_rng(0))
    assert plan.shape == (raters, pictures)
    for lines, length in ((plan, pictures), (plan.T, raters)):
        for line in lines:
            assert {*np.bincount(line, minlength=count).tolist()} <= {length // count, -(-length // count)}


def test_the_page_gives_nothing_away(study):
    made, text, content, key = study
    assert {*content} == {"study", "plan", "trials", "images"}
    assert {*itertools.chain(*content["trials"].values())} == {"kind", "images", "choices"}
    without_images = re.sub(r"base64,[A-Za-z0-9+/=]*", "", text)
    for secret in ("secret", "scene-", "scenes", "gradcam", "layercam", "Grad-CAM", "depicted", 'answer":'):
        assert secret not in without_images.split('id="content">')[1].split("</script>")[0], secret
    # of the two orders of a question, and of its two classes, each is as likely as the other
    for trial in content["trials"].values():
        assert len(trial["choices"]) == (2 if trial["kind"] == "class" else 1)
    names = [*content["trials"], *content["images"]]
    assert all(re.fullmatch(r"[0-9a-f]{12}", name) for name in names) and list(content["images"]) == sorted(
        content["images"]
    )
    answers = [key["trials"][name]["answer"] for name in content["trials"] if key["trials"][name]["kind"] == "class"]
    assert stats.binomtest(sum(answers), len(answers)).pvalue > 0.01
    assert len(Tree(text).all("script")) == 2 and "http" not in without_images.replace("http-equiv", "")
    assert made.key.parent == made.page.parent


# --- scores -----------------------------------------------------------------------------------------------------------


def answered(key, rater, accuracy, opinion, rng):
    """What a rater says who is right with a known probability, and has an opinion of the first model of known mean."""
    rows = []
    for trial in key["plan"][rater - 1]:
        about = key["trials"][trial]
        if about["kind"] == "class":
            right = rng.random() < accuracy[about["method"]]
            choice = about["answer"] if right else 1 - about["answer"]
        else:
            # -2..2 for the first model; on the page right is positive, and the first model is left where left is 0
            said = int(rng.choice([-2, -1, 0, 1, 2], p=opinion[about["method"]]))
            choice = -said if about["left"] == 0 else said
        rows.append({"trial": trial, "choice": choice, "ms": 100})
    return {"study": key["study"], "rater": rater, "answers": rows}


ACCURACY = {"gradcam": 0.8, "layercam": 0.55}
OPINION = {"gradcam": [0.05, 0.1, 0.2, 0.35, 0.3], "layercam": [0.2, 0.2, 0.2, 0.2, 0.2]}


def scored(study, folder, seed, raters=16):
    key, rng = study[3], np.random.default_rng(seed)
    paths = []
    for rater in range(1, raters + 1):
        paths.append(folder / f"{rater}.json")
        paths[-1].write_text(json.dumps(answered(key, rater, ACCURACY, OPINION, rng)))
    return score_study(study[0].key, paths)


def test_simulated_raters_get_back_what_they_were_made_of(study, tmp_path):
    """Of 20 studies the 95 % intervals miss about one for each figure."""
    within = Counter()
    for seed in range(20):
        scores = scored(study, tmp_path, seed)
        for row in scores.rows:
            if row.method == "all":
                continue
            true = ACCURACY[row.method] if row.kind == "class" else np.dot(OPINION[row.method], [-2, -1, 0, 1, 2])
            assert (
                row.value.n == 128
                and abs(row.value.value - true) < 4 * (0.5 if row.kind == "class" else 1.5) / 128**0.5
            )
            within[row.kind, row.method, "pictures"] += row.value.low <= true <= row.value.high
            if row.wilson:
                within[row.kind, row.method, "answers"] += row.wilson[0] <= true <= row.wilson[1]
    assert len(within) == 6 and min(within.values()) >= 16, within


def test_raters_who_are_always_right_agree_and_who_guess_do_not(study, tmp_path):
    key = study[3]
    # of two raters who are right with p each, alpha is 1 - 2 p (1 - p) / (1 / 2)
    for name, accuracy, wanted in (("right", 1.0, 1.0), ("often", 0.8, 0.36), ("guess", 0.5, 0.0)):
        folder = tmp_path / name
        folder.mkdir()
        rng = np.random.default_rng(0)
        for rater in range(1, 17):
            given = answered(key, rater, dict.fromkeys(METHODS, accuracy), OPINION, rng)
            (folder / f"{rater}.json").write_text(json.dumps(given))
        rows = {(row.kind, row.method): row for row in score_study(study[0].key, sorted(folder.iterdir())).rows}
        assert rows["class", "all"].alpha == pytest.approx(wanted, abs=0.12 * (accuracy < 1))
    assert rows["class", "all"].value.n == 256 and rows["class", "all"].wilson == pytest.approx(
        stats.binomtest(round(rows["class", "all"].value.value * 256), 256).proportion_ci(method="wilson"), abs=1e-6
    )


def test_wilson_is_scipys():
    for hits, n in ((0, 5), (5, 5), (3, 7), (61, 90)):
        assert wilson(hits / n, n) == pytest.approx(stats.binomtest(hits, n).proportion_ci(method="wilson"), abs=1e-6)


@pytest.mark.parametrize(("metric", "published"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_is_that_of_krippendorffs_own_example(metric, published):
    """Four observers, twelve units: "Computing Krippendorff's Alpha-Reliability", 2011."""
    table = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
        [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
    ]
    units = [Counter(float(value) for value in unit if value is not None) for unit in zip(*table)]
    assert alpha(units, metric) == pytest.approx(published, abs=5e-4)


def test_alpha_is_one_minus_the_disagreement_of_all_pairs():
    """By brute force: every pair of ratings of a unit, against every pair of all ratings."""
    rng = np.random.default_rng(0)
    units = [list(rng.integers(-2, 3, int(rng.integers(0, 6)))) for _ in range(30)]
    paired = [unit for unit in units if len(unit) > 1]
    flat = [value for unit in paired for value in unit]
    observed = sum((a - b) ** 2 / (len(unit) - 1) for unit in paired for a, b in itertools.permutations(unit, 2)) / len(
        flat
    )
    expected = sum((a - b) ** 2 for a, b in itertools.permutations(flat, 2)) / (len(flat) * (len(flat) - 1))
    assert alpha([Counter(map(float, unit)) for unit in units], "interval") == pytest.approx(1 - observed / expected)
    assert np.isnan(alpha([], "nominal")) and np.isnan(alpha([Counter({1.0: 3})], "nominal"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a, key: a.update(study="other"), "another study"),
        (lambda a, key: a.update(rater=99), "raters 1 to 16"),
        (lambda a, key: a.update(rater=2), "not asked"),
        (lambda a, key: a["answers"].append(a["answers"][0]), "a second one"),
        (lambda a, key: a["answers"][0].update(choice=7), "a choice 7"),
        (lambda a, key: a.update(answers=3), "no list"),
        (lambda a, key: a.pop("answers"), "lacks"),
    ],
)
def test_answers_that_do_not_fit_are_refused(study, tmp_path, change, said):
    key = study[3]
    given = answered(key, 1, ACCURACY, OPINION, np.random.default_rng(0))
    change(given, key)
    (tmp_path / "a.json").write_text(json.dumps(given))
    with pytest.raises(FastcamError, match=said):
        score_study(study[0].key, [tmp_path / "a.json"])


@pytest.mark.parametrize(
    "change",
    [
        lambda key: key.update(plan=3),
        lambda key: key.update(plan=[[["x"]]]),
        lambda key: key.update(trials=[]),
        lambda key: key.update(methods="gradcam"),
        lambda key: key["trials"].popitem(),
        lambda key: key["trials"].update({next(iter(key["trials"])): {"kind": "other"}}),
        lambda key: next(iter(key["trials"].values())).update(picture=None),
        lambda key: next(iter(key["trials"].values())).update(method="unknown"),
    ],
)
def test_a_damaged_key_is_refused(study, tmp_path, change):
    key = json.loads(study[0].key.read_text())
    given = answered(key, 1, ACCURACY, OPINION, np.random.default_rng(0))
    change(key)
    for name, content in (("key.json", key), ("a.json", given)):
        (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(FastcamError, match="the key is damaged"):
        score_study(tmp_path / "key.json", [tmp_path / "a.json"])


def test_a_rater_counts_once_and_what_is_missing_is_counted(study, tmp_path):
    given = answered(study[3], 3, ACCURACY, OPINION, np.random.default_rng(0))
    del given["answers"][5:]
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text(json.dumps(given))
    assert score_study(study[0].key, [tmp_path / "a.json"]).missing == 27
    with pytest.raises(FastcamError, match="rater 3 has answered in"):
        score_study(study[0].key, [tmp_path / "a.json", tmp_path / "b.json"])


def test_an_answer_sheet_without_an_answer_scores_nothing(study, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"study": study[3]["study"], "rater": 1, "answers": []}))
    with pytest.raises(FastcamError, match="none of 32 questions is answered"):
        score_study(study[0].key, [tmp_path / "a.json"])


def test_what_fastcam_writes_may_lie_among_the_answers_and_is_never_overwritten(study, tmp_path):
    run, key = CliRunner().invoke, tmp_path / "key.json"
    scored(study, tmp_path, 0, 2)
    key.write_bytes(study[0].key.read_bytes())
    outputs = [
        run(app, ["study", "score", str(key), str(tmp_path), "-o", str(tmp_path / "scores.json")]).stdout for _ in "ab"
    ]
    assert outputs[0] == outputs[1] and "2 raters" in outputs[0]
    for path, said in ((key, "it is read"), (tmp_path / "1.json", "write the scores elsewhere")):
        done = run(app, ["study", "score", str(key), str(tmp_path), "-o", str(path)])
        assert done.exit_code == 2 and said in done.stderr
    assert key.read_bytes() == study[0].key.read_bytes()


def test_a_study_leaves_out_what_cannot_be_read_and_asks_about_no_picture_twice(study, tmp_path):
    model, run = str(study[0].key.parent.parent / "scenes.cam.onnx"), CliRunner().invoke
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    scene, broken, out = str(DATA / "scene.jpg"), str(tmp_path / "broken.jpg"), ["-o", str(tmp_path / "made")]
    done = run(app, ["study", "make", model, broken, scene, scene, *out])
    assert done.exit_code == 0 and "depicted: 1 picture\n" in done.stdout
    assert (
        "left out, could not be explained: 1" in done.stdout and "left out, name that is listed twice: 1" in done.stdout
    )
    done = run(app, ["study", "make", model, broken, *out])
    assert done.exit_code == 2 and "1 could not be explained" in done.stderr
    done = run(app, ["study", "make", model, scene, "--other", model, *out])
    assert done.exit_code == 2 and "the same model was given twice" in done.stderr


def test_the_verbs_make_and_score(study, tmp_path):
    run = CliRunner().invoke
    model = study[0].key.parent.parent / "scenes.cam.onnx"
    done = run(app, ["study", "make", str(model), str(DATA / "scene.jpg"), "-n", "2", "-o", str(tmp_path / "made")])
    assert done.exit_code == 0 and "1 picture" in done.output and "raters 1 to 8" in done.output
    scored(study, tmp_path, 0, 4)
    files = [str(tmp_path / f"{rater}.json") for rater in range(1, 5)]
    done = run(app, ["study", "score", str(study[0].key), *files, "-o", str(tmp_path / "scores.json")])
    assert done.exit_code == 0 and "secret-one" in done.output and "4 raters" in done.output
    rows = json.loads((tmp_path / "scores.json").read_text())["rows"]
    (tmp_path / "scores.json").unlink()
    again = run(app, ["study", "score", str(study[0].key), str(tmp_path)])
    assert again.output == done.output
    assert [row["question"] for row in rows] == ["class"] * 3 + ["trust"] * 3
    for words, said in (
        (["make", str(model)], "no pictures"),
        (["make", str(model), str(DATA / "scene.jpg"), "-m", "nonsense"], "no method"),
        (["make", str(model), str(DATA / "scene.jpg"), "--raters", "0"], "number of raters is 0"),
        (["make", str(model), str(DATA / "scene.jpg"), "--seed", "-5"], "seed is -5"),
        (["score", str(model), files[0]], "give the key.json"),
    ):
        out = ["-o", str(tmp_path / "no")]
        done = run(app, ["study", *words, *out])
        assert done.exit_code == 2 and said in done.output and "Traceback" not in done.output, done.output
    assert not (tmp_path / "no").exists()


def test_a_rater_answers_in_a_browser_and_the_answers_are_scored(study, tmp_path):
    made, _, content, key = study
    with Browser(tmp_path, (500, 900)) as browser:
        browser.open(made.page)
        browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
        browser.js("document.getElementById('number').focus()")
        browser.type("5")
        browser.key("Enter")
        for i, trial in enumerate(content["plan"][4]):
            assert browser.js("document.getElementById('place').textContent") == f"Picture {i + 1} of 32"
            shown = browser.js("[...document.querySelectorAll('#images img')].map(i => i.src)")
            assert shown == [content["images"][name] for name in content["trials"][trial]["images"]]
            if i == 3:  # a second thought
                browser.key("1")
                browser.js("document.getElementById('back').click()")
            about = key["trials"][trial]
            browser.key(str(about["answer"] + 1) if about["kind"] == "class" else "45"[i % 2])
        browser.js("document.getElementById('save').click()")
        file = tmp_path / f"answers-{key['study']}-5.json"
        browser.until("true")
        for _ in range(200):
            if file.exists() and file.stat().st_size:
                break
            browser.js("new Promise(done => setTimeout(done, 50))")
        assert browser.fetched() == [] and browser.complaints() == []
    rows = {(row.kind, row.method): row for row in score_study(made.key, [file]).rows}
    assert rows["class", "all"].value.value == 1 and rows["class", "all"].value.n == 16
    said = json.loads(file.read_text())["answers"]
    assert [one["choice"] for one in said if key["trials"][one["trial"]]["kind"] == "trust"] == [
        [1, 2][i % 2] for i, trial in enumerate(content["plan"][4]) if key["trials"][trial]["kind"] == "trust"
    ]
