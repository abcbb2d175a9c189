"""Each kind of target: its cotangent is the derivative of its own value, and the array that its function gives."""

from types import SimpleNamespace

import numpy as np
import pytest

from fastcam.schema import Cotangent
from fastcam.targets import cotangents as c
from fastcam.targets.spec_kinds import KINDS, bind

RNG = np.random.default_rng(3)
SCORES = RNG.standard_normal((4, 9)) * 3
MAPS = RNG.standard_normal((2, 4, 5, 6))
WORDS = RNG.standard_normal((2, 5, 7)) * 3
BOXES = RNG.uniform(0.1, 0.9, (2, 8, 11))
REFERENCES = RNG.standard_normal((3, 9))
BEST = int((BOXES[0, :, 4] * BOXES[0, :, 6]).argmax())

CASES = {  # spec -> (output, what the function gives)
    "class:2,-1": (SCORES, lambda y: c.class_score(y, [2, -1])),
    "class:1 - 0.5*2": (SCORES, lambda y: c.difference(y, 1, 2, 0.5)),
    "probability:1,-2": (SCORES, lambda y: c.probability(y, [1, -2])),
    "log-probability:-1": (SCORES, lambda y: c.probability(y, -1, log=True)),
    "finer:-1,-2,4,strength=0.7": (SCORES, lambda y: c.finer(y, -1, [-2, 4], 0.7)),
    "labels:1,4": (SCORES, lambda y: c.multi_label(y, [1, 4])),
    "labels:threshold=-1": (SCORES, lambda y: c.multi_label(y, threshold=-1)),
    "element:3": (SCORES, lambda y: c.element(y, 3)),
    "element:1,2,3": (MAPS, lambda y: c.element(y, (1, 2, 3))),
    "region:0,2": (MAPS, lambda y: c.region(y, [0, 2])),
    "point:2,0": (MAPS, lambda y: c.point(y, [2, 0])),
    "similarity:references.npy": (SCORES, lambda y: c.similarity(y, REFERENCES[0])),
    "similarity:references.npy,kind=dot": (SCORES, lambda y: c.similarity(y, REFERENCES[0], "dot")),
    "pair": (SCORES, c.pairs),
    "pair:kind=dot": (SCORES, lambda y: c.pairs(y, "dot")),
    "caption:4,1,0,6,2": (WORDS, lambda y: c.caption(y, [4, 1, 0, 6, 2])),
    "words:4,1,0,6,2,kind=logit": (WORDS, lambda y: c.words(y, [4, 1, 0, 6, 2], "logit")),
    "box:1,layout=v5": (BOXES, lambda y: c.dense(y, 1, objectness=True)),
    "box:1,x0,y1,layout=v5": (BOXES[:1], lambda y: c.dense(y, "x0", "y1", box=BEST, objectness=True)),
    "box:2,layout=v8": (BOXES.swapaxes(1, 2), lambda y: c.dense(y, 2, axis=1)),
    "box:2,layout=detr": (BOXES, lambda y: c.dense(y, 2)),
}


@pytest.fixture
def resolve(tmp_path, monkeypatch):
    """A spec and an output -> the function of outputs that explains it."""
    monkeypatch.chdir(tmp_path)
    np.save("references.npy", REFERENCES[0])

    def of(text, y):
        about = Cotangent("fastcam.cotangent", "y", tuple(y.shape[1:]), True)
        metadata = SimpleNamespace(cotangents=(about,), labels=None, preprocessing=None)
        function = bind(text, metadata, "the file", lambda picture: {})
        return lambda array: function({"y": array})

    return of


def test_every_kind_has_a_case():
    assert {text.partition(":")[0] for text in CASES} == {*KINDS} - {"text"}  # tests/explain/test_prompts.py


@pytest.mark.parametrize("text", CASES)
def test_a_spec_gives_what_its_function_gives(resolve, text):
    y, function = CASES[text]
    np.testing.assert_array_equal(resolve(text, y)(y).arrays["y"], function(y))


@pytest.mark.parametrize("text", CASES)
def test_a_cotangent_is_the_derivative_of_the_value(resolve, text):
    y, _ = CASES[text]
    explain, step = resolve(text, y), 1e-6
    result = explain(y)
    for _ in range(3):
        away = RNG.standard_normal(y.shape)
        if text.startswith("pair"):  # of each image, its partner held still
            away[1::2] = 0
        slope = (explain(y + step * away).values - explain(y - step * away).values) / (2 * step)
        expected = (result.arrays["y"] * away[:, None]).reshape(*slope.shape, -1).sum(2)
        rows = slice(None, None, 2) if text.startswith("pair") else slice(None)
        np.testing.assert_allclose(slope[rows], expected[rows], rtol=1e-4, atol=1e-5)
