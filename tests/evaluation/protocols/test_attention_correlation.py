"""The rank correlation with attention against OpenCV's means over areas and SciPy's coefficient."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy.stats import spearmanr

from fastcam.errors import FastcamError
from fastcam.evaluation.protocols.attention import AttentionCorrelation, attention_correlation, on_grid
from support.evaluation_cases import case, figures, mark, present

SIZE = (45, 62)


def small(heat):
    """A map on the grid: each pixel as 14 x 14 of them, in blocks; what is equal but for rounding is made equal."""
    height, width = heat.shape
    many = np.kron(heat.astype(np.float64), np.ones((14, 14)))
    means = many.reshape(14, height, 14, width).mean((1, 3))
    return np.round(means / means.max(), 7).ravel()


@pytest.mark.parametrize("shape", [(28, 42), (45, 62), (14, 14), (100, 17)])
def test_a_grid_holds_means_over_areas(shape):
    heat = np.random.default_rng(1).random(shape)
    np.testing.assert_allclose(on_grid(heat), cv2.resize(heat, (14, 14), interpolation=cv2.INTER_AREA), atol=1e-6)


def test_fewer_pixels_than_cells_are_repeated():
    np.testing.assert_allclose(on_grid(np.array([[1.0, 3.0]]), 4), [[1, 1, 3, 3]] * 4, atol=1e-6)


def test_the_correlation_is_scipys():
    rng = np.random.default_rng(2)
    a, b = rng.random((28, 28)), np.round(rng.random((56, 42)), 1)
    assert attention_correlation(a, b) == pytest.approx(spearmanr(small(a), small(b)).statistic, abs=1e-9)
    assert np.isnan(attention_correlation(a, np.ones((20, 20))))


def seen(people, target=-1, status=None):
    """A picture whose question is answered by class 3, truly by class 1, and where people looked."""
    maps = np.random.default_rng(4).normal(size=(1, 5, 7)).astype(np.float32)
    made = case(maps, [3], [present("a", 1, mark("a"))], SIZE, columns=[target], status=status)
    sample = replace(made.sample, read_attention=None if people is None else lambda: tuple(people))
    return replace(made, sample=sample)


def test_the_mean_over_people_is_taken_and_constant_attention_left_out():
    rng = np.random.default_rng(5)
    people = [
        rng.random((30, 40)).astype(np.float32),
        rng.random((30, 40)).astype(np.float32),
        np.full((7, 3), 0.3, "f4"),
    ]
    one = seen(people)
    row = AttentionCorrelation().measure(one)

    heat = small(one.heatmap(-1))
    y, x = np.mgrid[:14, :14] - 6.5
    want = [[spearmanr(own, small(each)).statistic for each in people[:2]] for own in (heat, -(x**2 + y**2).ravel())]
    assert row["map"] == pytest.approx(np.mean(want[0]), abs=1e-5)
    assert row["centre"] == pytest.approx(np.mean(want[1]), abs=1e-5) and row["heat"] == 1
    found = figures(AttentionCorrelation(), row, {"map": 0.0, "centre": 0.0, "heat": 0})
    assert found["rank correlation with attention"].value == pytest.approx(row["map"] / 2)
    assert found["maps with heat"].value == 0.5


def test_without_heat_it_is_zero_and_without_attention_nothing():
    people = [np.random.default_rng(6).random((30, 40)).astype(np.float32)]
    assert AttentionCorrelation().measure(seen(people, status=["all_negative"]))["map"] == 0
    assert AttentionCorrelation().measure(seen(None)) is None
    assert AttentionCorrelation().measure(seen([np.ones((4, 4), np.float32)])) is None


def test_the_true_answer_may_be_explained_instead():
    marked = [present("a", 1, mark("a"))]
    assert AttentionCorrelation().targets(marked) == [-1]
    assert AttentionCorrelation(target="true").targets(marked) == [1]
    people = [np.random.default_rng(7).random((30, 40)).astype(np.float32)]
    assert AttentionCorrelation(target="true").measure(seen(people, target=1)) is not None
    with pytest.raises(FastcamError, match="grid"):
        AttentionCorrelation(grid=0)
