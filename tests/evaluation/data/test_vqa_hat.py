"""VQA-HAT's maps: folders as they are published, what their files say, and what damaged ones may not do."""

from __future__ import annotations

import json
import re

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from fastcam import Explainer
from fastcam.cli import app
from fastcam.errors import FastcamError
from fastcam.evaluation.class_map import class_map
from fastcam.evaluation.data import open_data

QUESTIONS = (
    {"question_id": 420, "image_id": 42, "question": "what colour is the café?"},
    {"question_id": 421, "image_id": 42, "question": "how many cats?"},
    {"question_id": 70, "image_id": 7, "question": "is it cold?"},
    {"question_id": 9, "image_id": 9, "question": "what is this?"},
)


@pytest.fixture
def hat(tmp_path):
    """A folder as the data set is published: people's maps of val, VQA's questions and answers, COCO's photos."""
    (tmp_path / "vqahat_val").mkdir()
    (tmp_path / "val2014").mkdir()
    rng = np.random.default_rng(3)
    maps = {name: rng.integers(0, 256, (12, 16), np.uint8) for name in ("420_1", "420_2", "70_1", "9_1", "1234_1")}
    for name, pixels in maps.items():
        cv2.imwrite(str(tmp_path / "vqahat_val" / f"{name}.png"), pixels)
    (tmp_path / "vqahat_val" / "readme.txt").write_text("no map")
    for number in (42, 7):
        cv2.imwrite(str(tmp_path / "val2014" / f"COCO_val2014_{number:012}.jpg"), np.full((12, 16, 3), 90, np.uint8))
    answers = [
        {"question_id": one["question_id"], "multiple_choice_answer": f"a{one['image_id']}"} for one in QUESTIONS
    ]
    write(tmp_path / "OpenEnded_mscoco_val2014_questions.json", {"info": {}, "questions": QUESTIONS})
    write(tmp_path / "mscoco_val2014_annotations.json", {"annotations": answers[:3]})
    return tmp_path, maps


def write(path, content):
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def test_a_sample_is_a_question_with_its_picture_answer_and_maps(hat):
    folder, maps = hat
    data = open_data(f"vqa-hat:{folder}")
    found = {one.name: one for one in data.samples()}
    assert list(found) == ["70", "420"] and len(data) == 3  # the picture of question 9 is missed when its turn comes
    assert found["420"].text == "what colour is the café?" and found["420"].labels == ("a42",)
    assert found["420"].picture.name == "COCO_val2014_000000000042.jpg" and data.labels == ("a42", "a7")
    for read, name in zip(found["420"].read_attention(), ("420_1", "420_2"), strict=True):
        np.testing.assert_allclose(read, maps[name] / np.float32(255), atol=1e-6)
    assert data.left_out.counts == {"map of a question that is not there": 1, "picture that is not there": 1}
    assert data.name.endswith(" val")


def test_without_answers_nothing_is_marked_and_no_class_is_asked_for(hat):
    folder, _ = hat
    (folder / "mscoco_val2014_annotations.json").unlink()
    data = open_data(f"vqa-hat:{folder}")
    assert data.labels == () and all(one.annotations == () for one in data.samples())

    assert class_map(data.labels, None).by_label == {}


def test_maps_and_pictures_may_lie_elsewhere(hat, tmp_path_factory):
    folder, _ = hat
    other = tmp_path_factory.mktemp("other")
    (folder / "vqahat_val").rename(other / "seen")
    (folder / "val2014").rename(other / "photos")
    with pytest.raises(FastcamError, match="pictures"):
        open_data(f"vqa-hat:{folder}", annotations=other / "seen")
    data = open_data(f"vqa-hat:{folder}", annotations=other / "seen", pictures=other / "photos")
    assert [one.name for one in data.samples()] == ["70", "420"]
    with pytest.raises(FastcamError, match="no split"):
        open_data(f"vqa-hat:{folder}", split="test", annotations=other / "seen", pictures=other / "photos")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda at: (at / "OpenEnded_mscoco_val2014_questions.json").unlink(), "no questions JSON"),
        (lambda at: write(at / "more_val2014_questions.json", {}), "several files of questions"),
        (
            lambda at: write(at / "OpenEnded_mscoco_val2014_questions.json", {"questions": []}),
            "no map is of a question",
        ),
        (
            lambda at: write(at / "OpenEnded_mscoco_val2014_questions.json", {"questions": [{"question_id": 420}]}),
            "question 420 has no text",
        ),
        (
            lambda at: write(at / "mscoco_val2014_annotations.json", {"annotations": [{"question_id": 420}]}),
            "no multiple",
        ),
        (lambda at: (at / "mscoco_val2014_annotations.json").write_text("{"), "no JSON that can be read"),
        (lambda at: [one.unlink() for one in (at / "vqahat_val").glob("*.png")], "no maps QUESTION.png"),
    ],
)
def test_a_folder_that_is_none_is_one_line(hat, spoil, message):
    folder, _ = hat
    spoil(folder)
    with pytest.raises(FastcamError, match=message) as error:
        open_data(f"vqa-hat:{folder}")
    assert "\n" not in str(error.value)


# ---- evaluated


def on_grid(heat):
    """Means over the cells of 14 x 14: each pixel as 14 x 14 of them, in blocks; equal but for rounding is equal."""
    height, width = heat.shape
    many = np.kron(heat.astype(np.float64), np.ones((14, 14))).reshape(14, height, 14, width)
    return np.round(many.mean((1, 3)) / heat.max(), 7).ravel()


@pytest.fixture(scope="module")
def asking(tmp_path_factory):
    """A small network that is asked in words."""
    pytest.importorskip("tokenizers", reason="texts need the library tokenizers")
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    from fastcam.language.word_level import write_word_level
    from fastcam_export import export_model
    from support.models.language.questions import WORDS, questions

    folder = tmp_path_factory.mktemp("asking")
    write_word_level(folder / "tokenizer.json", WORDS)
    onnx.save(questions(), folder / "m.onnx")
    answers = ["a42", "a7", "yes", "no"]
    file = folder / "m.cam.onnx"
    export_model(folder / "m.onnx", file, preprocess="unit", labels=answers, tokenizer=folder / "tokenizer.json")
    return file


def test_evaluate_asks_each_question_of_its_picture(hat, asking, monkeypatch):
    stats = pytest.importorskip("scipy.stats")
    folder, maps = hat
    rng = np.random.default_rng(8)
    for number in (42, 7):  # pictures on which maps have several values
        noise = rng.integers(0, 256, (10, 12, 3)).astype(np.uint8)
        cv2.imwrite(str(folder / "val2014" / f"COCO_val2014_{number:012}.jpg"), noise)
    monkeypatch.chdir(folder)
    protocols = "attention,average-drop,localization"
    command = [
        "evaluate",
        str(asking),
        "--data",
        f"vqa-hat:{folder}",
        "--protocol",
        protocols,
        "--set",
        "attention.target=true",
    ]
    ran = CliRunner().invoke(app, command)
    assert ran.exit_code == 0, ran.output
    (file,) = (folder / "fastcam-evaluation" / "rows").glob("*.jsonl")
    rows = {line["name"]: line for line in map(json.loads, file.read_text().splitlines()) if "name" in line}
    explainer, wanted = Explainer(asking, exif=False), {}
    for name, text, number, answer in (("70", "is it cold?", 7, "a7"), ("420", "what colour is the café?", 42, "a42")):
        picture = folder / "val2014" / f"COCO_val2014_{number:012}.jpg"
        found = explainer(picture, [answer], text=text)
        heat = found.geometry[0].heatmap_to_original(found.heatmaps[0, 0])
        people = [pixels for at, pixels in maps.items() if at.startswith(f"{name}_")]
        same = [stats.spearmanr(on_grid(heat), on_grid(one)).statistic for one in people]
        wanted[name] = float(np.mean(same)) if found.status[0][0] == "ok" else 0.0
        assert rows[name]["rows"]["attention"]["map"] == pytest.approx(
            wanted[name], abs=1e-3
        )  # ranks of all but equal cells
        assert rows[name]["rows"]["average-drop"]
    assert any(wanted.values())
    report = json.loads((folder / "fastcam-evaluation" / "evaluation.json").read_text())
    assert "rank correlation with attention" in json.dumps(report) and re.search(
        "picture that is not there", ran.output
    )


def test_a_network_without_texts_is_given_the_picture_alone(hat, tmp_path):
    from fastcam.evaluation.model_input import model_input
    from fastcam.evaluation.samples import Sample

    class Plain:
        text_inputs = ()

    picture = np.zeros((4, 4, 3), np.uint8)
    assert model_input(Sample("a", picture, text="what is this?"), Plain()) is picture
