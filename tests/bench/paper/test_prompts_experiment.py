"""The experiment on prompts: what a prompt names, and which scenes it is true of."""

from __future__ import annotations

import numpy as np

from fastcam.evaluation.scenes import CLASSES, COLORS, TEXTURES, scene
from fastcam_bench.paper.prompts.grammar import ANY, LENGTH, VOCABULARY, attributes, prompt_of, true_of


def test_a_prompt_is_true_of_the_scenes_that_hold_what_its_words_say():
    """The words, read again: each is a class, colour, texture or side, and one object has them all."""
    rng = np.random.default_rng(0)
    scenes = [scene(seed, size=64) for seed in range(30)]
    rows = np.full((len(scenes), 12, 4), -2)
    for i, one in enumerate(scenes):
        for j, thing in enumerate(one.objects):
            rows[i, j] = attributes(thing, 64)
    prompts = [prompt_of(rows[i, 0], rng) for i in range(len(scenes))]
    found = true_of(np.array([prompt.row for prompt in prompts]), rows)
    for i, one in enumerate(scenes):
        for j, prompt in enumerate(prompts):
            words = prompt.text.split()
            assert all(word in VOCABULARY for word in words) and len(words) <= LENGTH

            def fits(thing, words=words):
                side = "left" if thing.center[0] < 32 else "right"
                known = {thing.class_name, thing.color, thing.texture, side, "a", "an", "on", "the"}
                return set(words) <= known

            assert found[i, j] == any(map(fits, one.objects)), (i, prompt.text)
    assert found.diagonal().all() and not found.all()


def test_prompts_name_some_attributes_and_leave_others_open():
    rng = np.random.default_rng(1)
    said = np.array([prompt_of((3, 1, 2, 0), rng).row for _ in range(400)])
    assert (said[:, 0] == 3).all()
    for column, share in ((1, 0.6), (2, 0.4), (3, 0.2)):
        assert abs((said[:, column] != ANY).mean() - share) < 0.1
    assert max(len(CLASSES), len(COLORS), len(TEXTURES)) > 3
