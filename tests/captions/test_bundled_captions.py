"""The bundled captioner on scenes that it has not seen: what it says is there, and words light up what they name."""

from __future__ import annotations

from importlib.resources import files

import pytest

from fastcam.captions import Captioner
from fastcam.evaluation.scenes import scene, scene_seeds
from fastcam_bench.paper.captions import grammar
from fastcam_export import export_captioner

DATA = files("fastcam") / "data"
COUNT, SIZE = 60, 96


@pytest.fixture(scope="module")
def captioner():
    words = (DATA / "captions.words.txt").read_text().split("\n")[:-1]
    assert tuple(words) == grammar.VOCABULARY
    how = {"start": grammar.START, "end": grammar.END, "pad": grammar.PAD, "on_demand": False, "check": False}
    made = export_captioner((DATA / "captions.onnx").read_bytes(), vocabulary=words, preprocess="imagenet", **how)
    return Captioner(made.model.SerializeToString(), threads=1)


def test_it_is_small(captioner):
    assert len((DATA / "captions.onnx").read_bytes()) <= 1_500_000


def test_captions_are_sentences_of_what_is_there_and_words_light_it_up(captioner):
    there, named, right, compared = 0, 0, 0, 0
    for seed in scene_seeds(COUNT, 20_001):
        shown = scene(seed, SIZE, 2)
        [caption] = captioner(shown.image)
        parsed = grammar.parse(caption.text)
        assert parsed is not None, caption.text
        by_name = {(one.class_name, one.color): one for one in shown.objects}
        words = caption.text.split()
        for phrase in parsed[0]:
            named += 1
            own = by_name.get((phrase.class_name, phrase.color))
            there += own is not None
            target = 1 + words.index(phrase.class_name)  # target 0 is the whole caption
            heat = caption.explanation.heatmaps[0, target]
            if own is None or len(by_name) != 2 or words.count(phrase.class_name) > 1 or not heat.max() > 0:
                continue
            [other] = [one for one in shown.objects if one is not own]
            compared += 1
            right += heat[own.mask].mean() > heat[other.mask].mean()
    assert there >= 0.85 * named
    assert compared >= 30 and right >= 0.75 * compared
