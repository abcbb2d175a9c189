"""evaluate, report and study with prompts in place of classes: of an embedding and of a file of pairs."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from fastcam import Explainer
from fastcam.cli import app
from fastcam.evaluation.scenes import CLASSES
from support.models.language import dual_encoder as dual

pytest.importorskip("tokenizers", reason="needs the library tokenizers")
DATA = "scenes:12"
TEXTS = ("a red star", "a blue square", "a red", "a blue", "star", "square", "red", "blue", "red square", "blue star")
PROMPTS = "".join(f"{name}\t{text}\n" for name, text in zip(CLASSES, TEXTS, strict=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dual")
    dual.write(folder)
    (folder / "prompts.txt").write_text(PROMPTS)
    return folder


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_evaluate_measures_maps_of_prompts(folder, tmp_path):
    """An embedding beside a file of pairs, in whose graph the prompts' scores are classes as of any classifier."""
    figures = {}
    for model in ("apart", "pairs"):
        given = folder / f"{model}.cam.onnx", "--data", DATA, "-p", "energy,pointing,localization"
        done = run("evaluate", *given, "--prompts", folder / "prompts.txt", "-o", tmp_path / model)
        assert done.exit_code == 0 and "10 of 10 labels are known, by names" in done.output, done.output
        [row] = json.loads((tmp_path / model / "evaluation.json").read_text())["results"]
        figures[model] = row["figures"]
    assert figures["pairs"].keys() == {"energy", "pointing", "localization"}
    for protocol, each in figures["pairs"].items():
        for name, figure in each.items():
            assert figures["apart"][protocol][name] == pytest.approx(figure, rel=1e-3), (protocol, name)
            assert figure["n"] > 5


def test_scores_and_classes_are_those_of_all_prompts(folder):
    """An embedding beside a file of pairs, which computes the same."""
    x = np.random.default_rng(0).random((3, 3, 10, 12), dtype=np.float32)
    apart, pairs = (
        Explainer(folder / f"{name}.cam.onnx", prompts=folder / "prompts.txt") for name in ("apart", "pairs")
    )
    for targets in (-1, [1, 0], CLASSES[3], [[CLASSES[2]], [1], [-1]]):
        a, b = (one(x, targets) for one in (apart, pairs))
        np.testing.assert_allclose(a.scores, b.scores, rtol=1e-4)
        np.testing.assert_array_equal(a.classes, b.classes)
        assert [a.label(i, 0) for i in range(3)] == [b.label(i, 0) for i in range(3)]
        np.testing.assert_allclose(a.maps, b.maps, atol=1e-4 * b.maps.max())
    frames = list((255 * x).astype(np.uint8).transpose(0, 2, 3, 1))
    for a, b in zip(apart.stream(frames, [1, -1]), pairs.stream(frames, [1, -1]), strict=True):
        np.testing.assert_array_equal(a.explanation.classes, b.explanation.classes)
        np.testing.assert_allclose(a.explanation.scores, b.explanation.scores, rtol=1e-4)
    other = apart(x, [f"{CLASSES[0]} - {CLASSES[1]}"])
    assert other.label(0, 0) == f"{CLASSES[0]} - {CLASSES[1]}" and other.scores.shape == (3, 1)
    assert apart(x, [[CLASSES[0]], ["text: a blue star"], [CLASSES[1]]]).label(1, 0) == "a blue star"


def test_other_texts_of_the_same_names_do_not_go_on_where_the_first_stood(folder, tmp_path):
    (tmp_path / "others.txt").write_text(PROMPTS.replace("a red star", "a star, a star"))
    given = "evaluate", folder / "apart.cam.onnx", "--data", DATA, "-p", "energy", "-o", tmp_path / "out"
    assert run(*given, "--prompts", folder / "prompts.txt").exit_code == 0
    done = run(*given, "--prompts", tmp_path / "others.txt")
    assert done.exit_code == 2 and "--restart" in done.stderr, done.output


def test_report_and_study_take_prompts(folder, tmp_path):
    for file in ("apart.cam.onnx", "pairs.cam.onnx"):
        with_prompts = "--data", DATA, "--prompts", folder / "prompts.txt"
        done = run("report", folder / file, *with_prompts, "-o", tmp_path / "report.html")
        assert done.exit_code == 0 and CLASSES[0] in (tmp_path / "report.html").read_text(), done.output
        done = run("study", "make", folder / file, *with_prompts, "-o", tmp_path / file)
        assert done.exit_code == 0, done.output
        done = run("report", folder / file, "--data", DATA, "--prompts", "none.txt", "-o", tmp_path / "none.html")
        assert done.exit_code == 2 and "none.txt: cannot be read" in done.stderr
    assert not (tmp_path / "none.html").exists()
