"""What was planted into noise: the counts of the table against maps whose answer is known."""

import numpy as np
import pytest

from fastcam_bench.accuracy.planted import KINDS, SIZES, judge


@pytest.mark.parametrize(("at", "maximum", "near"), [(11, 1, 1), (14, 0, 1), (17, 0, 0)])
def test_what_is_counted(at, maximum, near):
    mask = np.zeros((1, 40), bool)
    mask[0, 8:12] = True
    heat = np.zeros((1, 40))
    heat[0, [at, 9]] = 2, 1
    assert judge(heat, mask) == {"maximum": maximum, "near": near, "heat": 1.0 if maximum else 0.333}


def test_another_picture_is_not_near():
    mask, heat = np.zeros((1, 3, 9, 9), bool), np.zeros((1, 3, 9, 9))
    mask[0, 1, 4, 4] = True
    heat[0, 2, 4, 4] = 1
    assert judge(heat, mask)["near"] == 1
    assert judge(heat, mask, one_picture=True)["near"] == 0


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_what_is_planted_is_in_the_samples_that_say_so(kind):
    inputs, masks, classes = kind.samples(8, np.random.default_rng(0))
    assert masks.shape == (8, *SIZES[kind.name]) and inputs["x"].shape == (8, *kind.shape)
    np.testing.assert_array_equal(masks.reshape(8, -1).any(1), classes == 1)
    x = inputs["x"].reshape(masks.shape)
    assert x[masks].mean() - x[~masks].mean() > 1
    if kind.name == "sequence":
        assert (masks.any((2, 3)).sum(1) == classes).all()
