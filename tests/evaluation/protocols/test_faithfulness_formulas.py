"""Faithfulness by closed forms of linear models, by brute force, and by the papers' code written with torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from torch.nn import functional as F

from fastcam import FastcamError
from fastcam.evaluation import faithfulness as f
from fastcam.evaluation.faithfulness.masking import blurred, exchanged
from fastcam.preprocessing import preset

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 13, 17)).astype(np.float32)
HEAT = RNG.permutation(13 * 17).reshape(13, 17).astype(np.float32)  # no two alike
W = RNG.standard_normal(X.shape)
NET = torch.nn.Sequential(
    torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(4 * 11 * 15, 5)
).requires_grad_(False)


def linear(pictures):
    """w . x, one number a picture."""
    return np.einsum("chw,nchw->n", W, pictures.astype(np.float64))


def probability(pictures):
    return torch.softmax(NET(torch.tensor(pictures)), 1)[:, 2].numpy()


# ---- correlation


def test_ranks_and_coefficients_are_those_of_scipy():
    a, b = RNG.integers(0, 9, (2, 6, 7))
    assert np.array_equal(f.ranks(a), stats.rankdata(a))
    assert f.spearman(a, b) == pytest.approx(stats.spearmanr(a.ravel(), b.ravel()).statistic, abs=1e-12)
    assert f.pearson(a, b) == pytest.approx(stats.pearsonr(a.ravel(), b.ravel()).statistic, abs=1e-12)
    assert np.isnan(f.spearman(a, np.zeros((6, 7))))


# ---- baselines


def test_the_blur_is_that_of_rise():
    delta = np.zeros((11, 11))
    delta[5, 5] = 1
    kernel = np.zeros((3, 3, 11, 11))
    for channel in range(3):
        kernel[channel, channel] = ndimage.gaussian_filter(delta, 5)
    expected = F.conv2d(torch.tensor(X, dtype=torch.float64)[None], torch.tensor(kernel), padding=5)[0]
    np.testing.assert_allclose(blurred(X), expected, atol=1e-6)
    assert np.array_equal(f.baseline(X, "blur"), blurred(X))


def test_baselines_are_colours_of_the_networks_input():
    how = preset("imagenet")
    assert f.baseline(X, "black", how)[:, 3, 4] == pytest.approx([-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225])
    assert f.baseline(X, "grey", how)[0, 0, 0] == pytest.approx((0.5 - 0.485) / 0.229)
    assert f.baseline(X, "grey", preset("tf")).shape == X.shape  # one mean for all channels
    assert not f.baseline(X, "zero").any()
    np.testing.assert_allclose(f.baseline(X, "mean")[:, 2, 2], X.mean((1, 2)), rtol=1e-5)
    with pytest.raises(FastcamError, match="one of: black, grey, zero, mean, blur"):
        f.baseline(X, "white")
    with pytest.raises(FastcamError, match="preprocessing"):
        f.baseline(X, "black")


def test_pixels_go_hottest_first_and_of_equals_row_by_row():
    heat = np.array([[1, 0, 2], [2, 1, 0]])
    assert f.descending(heat).tolist() == [2, 3, 0, 4, 1, 5]
    pictures = list(exchanged(np.zeros((2, 2, 3), np.float32), np.ones((2, 2, 3), np.float32), f.descending(heat), 4))
    assert [one.sum() for one in pictures] == [0, 8, 12]
    assert pictures[1][0].tolist() == [[1, 0, 1], [1, 1, 0]]


# ---- insertion and deletion


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_of_a_linear_model_the_curves_are_sums_of_the_pixels_contributions(batch_size):
    end = f.baseline(X, "blur")
    gone = (W * (X - end.astype(np.float64))).sum(0).ravel()[np.argsort(-HEAT.ravel())]
    steps = np.cumsum(gone)[16::17]  # 17 pixels a step, 13 steps
    curve = f.deletion(linear, X, HEAT, end, batch_size=batch_size)
    np.testing.assert_allclose(curve, linear(X[None]) - np.concatenate([[0], steps]), rtol=1e-5, atol=1e-5)
    curve = f.insertion(linear, X, HEAT, end, batch_size=batch_size)
    np.testing.assert_allclose(curve, linear(end[None]) + np.concatenate([[0], steps]), rtol=1e-5, atol=1e-5)


def test_the_curves_of_a_network_are_those_of_the_papers_loop():
    def causal_metric(start, finish, step):
        order = np.flip(np.argsort(HEAT.reshape(-1)))
        values, now = [], start.copy()
        for i in range(-(-order.size // step) + 1):
            values.append(float(probability(now[None])[0]))
            if i < -(-order.size // step):
                now.reshape(3, -1)[:, order[step * i : step * (i + 1)]] = finish.reshape(3, -1)[
                    :, order[step * i : step * (i + 1)]
                ]
        values = np.array(values)
        return values, (values.sum() - values[0] / 2 - values[-1] / 2) / (len(values) - 1)

    for ours, start, finish in ((f.deletion, X, 0 * X), (f.insertion, f.baseline(X, "blur"), X)):
        values, area = causal_metric(start, finish, 10)
        curve = ours(probability, X, HEAT, start if ours is f.insertion else finish, 10)
        np.testing.assert_allclose(curve, values, atol=1e-6)
        assert f.area(curve) == pytest.approx(area, abs=1e-6)


# ---- occlusion


def test_the_falls_under_patches_are_compared_by_rank():
    cover = f.baseline(X, "mean")
    falls, heats = [], []
    for top in (0, 3, 6, 8):  # the last one ends at the border
        for left in (0, 3, 6, 9, 12):
            one = X.copy()
            one[:, top : top + 5, left : left + 5] = cover[:, top : top + 5, left : left + 5]
            falls.append(float(probability(X[None])[0] - probability(one[None])[0]))
            heats.append(HEAT[top : top + 5, left : left + 5].mean())
    expected = stats.spearmanr(falls, heats).statistic
    assert f.occlusion_correlation(probability, X, HEAT, cover, 5, 3, 4) == pytest.approx(expected, abs=1e-9)
    with pytest.raises(FastcamError, match="a patch must fit"):
        f.occlusion_correlation(probability, X, HEAT, cover, 14)


def test_of_a_linear_model_the_true_contributions_correlate_wholly():
    true = (W * X).sum(0)
    assert f.occlusion_correlation(linear, X, true, 0 * X, 3, 3) == pytest.approx(1)
    assert f.occlusion_correlation(linear, X, -true, 0 * X, 3, 3) == pytest.approx(-1)
    assert np.isnan(f.occlusion_correlation(linear, X, 0 * true, 0 * X, 3, 3))


# ---- average drop


def test_drop_increase_and_gain():
    heat = HEAT / HEAT.max()
    end = f.baseline(X, "black", preset("imagenet"))
    found = f.average_drop(probability, X, heat, end)
    whole = probability(X[None])[0]
    shown = probability((heat * X + (1 - heat) * end)[None].astype(np.float32))[0]
    assert (found.whole, found.shown) == pytest.approx((whole, shown))
    assert f.average_drop(lambda p: np.array([0.8, 0.2]), X, heat, end).drop == pytest.approx(0.75)
    better = f.average_drop(lambda p: np.array([0.2, 0.6]), X, heat, end)
    assert (better.drop, better.increase, better.gain) == (0, True, pytest.approx(0.5))
    certain = f.average_drop(lambda p: np.array([1.0, 1.0]), X, heat, end)
    assert (certain.drop, certain.increase, certain.gain) == (0, False, 0)
