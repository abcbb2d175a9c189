"""Explanations in words: the right channels for a class and against it, as sentences, JSON and a picture."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from fastcam import Explainer, FastcamError
from fastcam.cli import app
from fastcam.evaluation.dissection.neuron_names import Name
from fastcam.evaluation.dissection.words import Channel, Words, sheet, words_of
from fastcam_export import export_model

DATA = Path(__file__).resolve().parents[2] / "fastcam" / "data"
PHOTO = DATA / "scene.jpg"
NAMES = {k: Name(f"concept {k % 9}", "object", 0.1) for k in range(0, 112, 2)}
pytestmark = pytest.mark.xdist_group("evaluation")


def exported(folder, **options):
    path = folder / "scenes.cam.onnx"
    labels = DATA / "scenes.labels.txt"
    export_model(DATA / "scenes.onnx", path, labels=labels, preprocess="imagenet", check=False, **options)
    return path


@pytest.fixture(scope="module", params=["weights", "gradients"])
def file(request, tmp_path_factory):
    return exported(tmp_path_factory.mktemp("words"), emit=request.param)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("names") / "neurons.csv"
    lines = [f"{k + 1},{name.category},{name.label},{name.score}\n" for k, name in NAMES.items()]
    path.write_text("unit,category,label,score\n" + "".join(lines))
    return path


def test_channels_are_those_whose_change_changes_the_score_most(file):
    """Alpha beside the matrix of the network's head, divided by the positions over which it takes the mean."""
    explainer = Explainer(file)
    spoken, explanation, activations = words_of(explainer, PHOTO, ["square", -1], NAMES)
    assert [words.target for words in spoken] == ["square", explanation.label(0, 1)]
    alphas = head_alphas(explainer, activations)
    for words, target in zip(spoken, explanation.classes[0], strict=True):
        alpha = alphas[target]
        order = np.argsort(-alpha, kind="stable")
        assert [each.index for each in words.above] == order[:5].tolist()
        assert [each.index for each in words.below] == order[::-1][:5].tolist()
        for each in (*words.above, *words.below):
            assert each.alpha == pytest.approx(alpha[each.index], rel=1e-3)
            assert each.name == NAMES.get(each.index)


def head_alphas(explainer, activations):
    """d score / d activation, of the bundled network's mean and matrix, read from the source file."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(DATA / "scenes.onnx").graph
    constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    last = next(node for node in reversed(graph.node) if node.op_type in ("Gemm", "MatMul"))
    matrix = next(constants[name] for name in last.input if name in constants and constants[name].ndim == 2)
    matrix = matrix if matrix.shape[1] == len(activations) else matrix.T
    return matrix.astype(np.float64) / activations[0].size


def test_sentences_name_each_concept_once():
    star, heart = Name("star", "object", 0.2), Name("heart", "object", 0.1)
    above = (Channel(3, 0.5, star), Channel(9, 0.4, heart), Channel(1, 0.3, star))
    assert str(Words("square", above, ())) == "square: star (2 channels) and heart speak for it"
    below = (Channel(4, -0.1, None),)
    assert str(Words("square", above[1:2], below)) == "square: heart speaks for it; unit 5 speaks against it"
    assert str(Words("square", (), ())) == "square: no channel speaks for it or against it"


def test_the_picture_has_a_row_for_and_one_against(file):
    explainer = Explainer(file)
    spoken, explanation, activations = words_of(explainer, PHOTO, ["square", "star"], NAMES)
    picture = sheet(explanation, spoken, activations, tile=100)
    assert picture.shape == (4 * 104, 6 * 104 + 4, 3)


def test_the_verb_says_it_and_writes_it(file, table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["explain", str(file), str(PHOTO), "-t", "square", "-t", "star - heart", "--words", str(table)]
    done = CliRunner().invoke(app, [*arguments, "-o", "out"])
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "out" / "explanation.json").read_text())
    words = [target["words"] for target in report["images"][0]["targets"]]
    assert len(words) == 2
    for each in words:
        assert each["sentence"] in done.output
        assert len(each["for"]) == len(each["against"]) == 5
        assert all(one["importance"] > 0 for one in each["for"])
        assert all(("concept" in one) == (one["unit"] - 1 in NAMES) for one in each["for"] + each["against"])
    assert cv2.imread("out/scene-words.png").shape[1] > 900
    printed = CliRunner().invoke(app, [*arguments, "--json"])
    assert [target["words"] for target in json.loads(printed.stdout)["images"][0]["targets"]] == words


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "gradcam,layercam"], "one method"),
        (["--layers", "all"], "one layer"),
        (["--words", "nowhere.csv"], "nowhere.csv"),
    ],
)
def test_a_wrong_call_is_one_line_and_writes_nothing(file, table, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["explain", str(file), str(PHOTO), "--words", str(table), *arguments])
    assert done.exit_code == 2
    assert message in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_files_and_tables_that_do_not_fit_are_refused(file, table, tmp_path):
    with pytest.raises(FastcamError, match="has 112 channels"):
        words_of(Explainer(file), PHOTO, [-1], {500: Name("a", "object", 0.1)})
    maps = exported(tmp_path, emit="cam")
    done = CliRunner().invoke(app, ["explain", str(maps), str(PHOTO), "--words", str(table), "-o", str(tmp_path / "o")])
    assert done.exit_code == 2 and "--emit weights" in done.stderr
    assert not (tmp_path / "o").exists()
