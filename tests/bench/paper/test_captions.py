"""Captions of scenes: the grammar against the scenes' truth, BLEU by hand, training that goes on, heat in boxes."""

from __future__ import annotations

from math import exp, isclose

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from fastcam_bench.paper.captions import dense, grammar, quality, training  # noqa: E402 - need torch
from fastcam_bench.paper.captions.grammar import Thing  # noqa: E402


@pytest.fixture(scope="module")
def scenes():
    return training.draw(40, 7)


def test_all_captions_of_a_scene_are_true_of_it_and_short_enough(scenes):
    for i in range(len(scenes)):
        for text in grammar.references(scenes.things(i)):
            assert grammar.true_of(text, scenes.things(i)), text
            assert len(text.split()) < grammar.LONGEST
            assert grammar.words([*grammar.tokens(text), grammar.END, 5]) == text


def test_captions_that_say_something_else_are_not_true():
    star, ring = Thing("star", "red", "striped", 0.2, 0.5), Thing("ring", "orange", "plain", 0.8, 0.55)
    for text in (
        "a striped red star", "there is a red star on the left", "a red star left of an orange ring",
        "an orange ring right of a red star", "an orange ring and a red star",
    ):  # fmt: skip
        assert grammar.true_of(text, [star, ring]), text
    for text in (
        "a dotted red star", "a blue star", "a red star on the right", "a red star right of an orange ring",
        "a red star and a red star", "a orange ring", "red star", "a red star a red star", "",
    ):  # fmt: skip
        assert not grammar.true_of(text, [star, ring]), text


def test_mirrored_scenes_are_said_mirrored():
    thing = Thing("star", "red", "plain", 0.2, 0.4)
    assert thing.places() == ["left"]
    assert thing.turned(True, False, False).places() == ["right"]
    assert thing.turned(False, False, True).places() == ["top"]
    assert thing.turned(False, True, True).places() == ["bottom"]


def test_bleu_is_papinenis():
    of = [["the cat is on the mat", "there is a cat on the mat"]]
    assert quality.bleu(["the cat is on the mat"], of) == 1
    # of five words all are in a reference, three of four pairs, two of three triples, one of two fours; one word short
    assert isclose(quality.bleu(["the cat on the mat"], of), exp(1 - 6 / 5) * (5 / 5 * 4 / 4 * 2 / 3 * 1 / 2) ** 0.25)
    assert quality.bleu(["the the the the the the the"], of) == 0


def test_a_training_that_is_stopped_ends_with_the_same_weights(scenes, tmp_path):
    whole, done = training.train(scenes, 3, lambda line: None)
    assert done
    runs = [training.train(scenes, 3, lambda line: None, kept=tmp_path / "kept.pt", seconds=0) for _ in range(3)]
    assert [done for _, done in runs] == [False, False, True]
    for name, value in runs[-1][0].state_dict().items():
        assert torch.equal(value, whole.state_dict()[name]), name


def test_heat_that_is_the_same_everywhere_has_a_ratio_of_one(scenes):
    item = scenes.objects[1][0]
    inside, outside = dense._means(np.ones((96, 96)), item)
    assert inside == outside == 1
    x0, y0, x1, y1 = item.box
    heat = np.zeros((96, 96))
    heat[y0:y1, x0:x1] = 3
    assert dense._means(heat, item) == (3, 0)
