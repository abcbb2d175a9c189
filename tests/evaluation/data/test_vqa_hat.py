"""VQA-HAT's maps: folders as they are published, what their files say, and what damaged ones may not do."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

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
