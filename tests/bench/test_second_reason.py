"""How pure kinds of maps are, counted by hand; and the pictures that the experiment shows."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from fastcam_bench.paper.second_reason import Stars, purity


def test_purity_is_the_share_of_pictures_that_are_like_most_of_their_kind():
    rng = np.random.default_rng(0)
    labels, has = rng.integers(0, 3, 40), rng.random(40) < 0.4
    alike = sum(max(sum(has[labels == k]), sum(~has[labels == k])) for k in range(3))
    weights = np.stack([np.ones(40), rng.integers(0, 3, 40)], 1).astype(float)
    got = purity(labels, has, weights)
    assert got[0] == pytest.approx(alike / 40)
    repeated = np.repeat(np.arange(40), weights[:, 1].astype(int))  # each picture as often as it weighs
    assert got[1] == pytest.approx(purity(labels[repeated], has[repeated], np.ones((len(repeated), 1)))[0])
    assert purity(labels, has & False, weights)[0] == 1


@pytest.mark.parametrize("place", ["above", "anywhere"])
def test_a_ring_stands_where_it_is_said_to(place):
    data = Stars("any", place, 0.5, 3)
    for sample in islice(data.samples(), 12):
        (star,) = sample.annotations
        assert star.label == "star" and sample.picture.shape == (128, 128, 3)
        if place == "above":
            assert star.box[1] > 45
    assert 0.3 < data.has.mean() < 0.7 and len(data) == len(data.has)
