"""The bundled network that answers questions, on scenes that it has not seen: right answers, heat on what is asked."""

from __future__ import annotations

from importlib.resources import files
from random import Random

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="the library tokenizers is not installed")
pytest.importorskip("torch", reason="the scenes' questions come from a module that needs torch")

from fastcam import Explainer
from fastcam_bench.paper.questions import measure, pictures
from fastcam_bench.paper.questions.grammar import ANSWERS, KINDS, WORDS
from fastcam_bench.paper.questions.training import questions
from fastcam_export import export_model

DATA = files("fastcam") / "data"
COUNT, SEED = 60, 20_002


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "CACHE", tmp_path_factory.mktemp("kept"))
        drawn = pictures.draw(COUNT, SEED)
    return measure.question_set(drawn, questions(drawn, len(KINDS), Random(SEED)))


@pytest.fixture(scope="module")
def explanation(asked):
    how = {"labels": str(DATA / "questions.answers.txt"), "tokenizer": str(DATA / "questions.tokenizer.json")}
    made = export_model((DATA / "questions.onnx").read_bytes(), preprocess="imagenet", check=False, **how)
    explainer = Explainer(made.model.SerializeToString(), threads=1)
    assert explainer.metadata.labels == ANSWERS
    return explainer(list(asked.images), text=[one.text for one in asked.questions])


def test_nine_answers_of_ten_are_right(asked, explanation):
    right = explanation.classes[:, 0] == asked.answers
    usual = measure.majority(asked)
    majority = np.mean([usual[one.kind] == one.answer for one in asked.questions])
    assert right.mean() >= 0.88 > 0.5 > majority
    colours = [k for k, one in enumerate(asked.questions) if one.kind == "colour"]
    assert right[colours].mean() >= 0.95


def test_the_heat_lies_on_what_is_asked_about(asked, explanation):
    heat = explanation.heatmaps[:, 0]
    about = [k for k, one in enumerate(asked.questions) if one.objects and one.kind in ("colour", "shape")]
    on = [measure.share(heat[k], asked.mask(k)) for k in about]
    even = [asked.mask(k).mean() for k in about]
    assert len(about) >= 60 and np.mean(on) >= 2.5 * np.mean(even)


def test_the_words_are_the_tokenizers(asked, explanation):
    tokenizer = (DATA / "questions.tokenizer.json").read_text(encoding="utf-8")
    assert all(f'"{word}"' in tokenizer for word in WORDS)
