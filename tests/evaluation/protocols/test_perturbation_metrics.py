"""ROAD, pixel flipping, sensitivity-n, infidelity and max-sensitivity: closed forms, dense algebra, plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from fastcam.evaluation import faithfulness as f
from fastcam.evaluation.faithfulness.imputation import neighbours
from fastcam.evaluation.faithfulness.infidelity import of_falls
from fastcam.evaluation.faithfulness.pixel_flipping import ordered_regions

RNG = np.random.default_rng(5)
SIZE = (14, 19)
X = RNG.standard_normal((3, *SIZE)).astype(np.float32)
HEAT = RNG.permutation(SIZE[0] * SIZE[1]).reshape(SIZE).astype(np.float32)  # no two alike
W = RNG.standard_normal(X.shape)
NET = torch.nn.Sequential(
    torch.nn.Conv2d(3, 4, 3), torch.nn.Tanh(), torch.nn.Flatten(), torch.nn.Linear(4 * 12 * 17, 5)
).requires_grad_(False)


def linear(pictures):
    return np.einsum("chw,nchw->n", W, pictures.astype(np.float64))


def score(pictures):
    return NET(torch.tensor(pictures))[:, 2].numpy()


# ---- imputation and ROAD


def dense_imputation(x, known):
    """The same equations, written pixel by pixel and solved as one dense system."""
    height, width = known.shape
    places = {place: i for i, place in enumerate(map(tuple, np.argwhere(~known)))}
    matrix, right = np.zeros((len(places), len(places))), np.zeros((len(places), len(x)))
    for (i, j), row in places.items():
        for di in (-1, 0, 1):
            for dj in (-1, 0, 1):
                a, b = i + di, j + dj
                if (di, dj) == (0, 0) or not (0 <= a < height and 0 <= b < width):
                    continue
                weight = 1 / 12 if di and dj else 1 / 6
                matrix[row, row] += weight
                if known[a, b]:
                    right[row] += weight * x[:, a, b]
                else:
                    matrix[row, places[a, b]] -= weight
    filled = np.array(x, np.float64)
    filled[:, ~known] = np.linalg.solve(matrix, right).T
    return filled


@pytest.mark.parametrize("share", [0.1, 0.5, 0.97])
@pytest.mark.parametrize("clustered", [False, True])
def test_unknown_pixels_are_their_neighbours_means(share, clustered):
    order = np.argsort(RNG.random(SIZE[0] * SIZE[1]))
    if clustered:
        y, x = np.mgrid[: SIZE[0], : SIZE[1]]
        order = np.argsort(((y - 5) ** 2 + (x - 3) ** 2).ravel(), kind="stable")
    known = np.ones(order.size, bool)
    known[order[: int(share * order.size)]] = False
    known = known.reshape(SIZE)
    found = f.imputed(X, known, tolerance=1e-9)
    np.testing.assert_allclose(found, dense_imputation(X, known), atol=1e-6)
    assert np.array_equal(found[:, known], X[:, known])
    np.testing.assert_allclose(f.imputed(X, known), found, atol=1e-3)  # far below the noise


def test_noise_is_added_to_filled_pixels_alone_and_follows_from_the_seed():
    known = HEAT > 100
    plain, first, again = (f.imputed(X, known, 0.01, rng) for rng in (None, *map(np.random.default_rng, (1, 1))))
    assert np.array_equal(first, again) and np.array_equal(first[:, known], X[:, known])
    assert 0.008 < (first - plain)[:, ~known].std() < 0.012


def test_a_picture_of_which_nothing_or_all_goes():
    assert np.array_equal(f.imputed(X, np.ones(SIZE, bool)), X)
    assert np.isfinite(f.imputed(X, np.zeros(SIZE, bool))).all()


def test_the_weights_of_neighbours_sum_to_one_inside():
    sums = neighbours(np.ones(SIZE))
    assert sums[3, 3] == pytest.approx(1)
    assert sums[0, 0] == pytest.approx(1 / 6 + 1 / 6 + 1 / 12) and sums[0, 5] == pytest.approx(3 / 6 + 2 / 12)


def test_the_hottest_or_the_coldest_pixels_are_removed():
    for least in (False, True):
        for percentage, picture in zip((10, 60), f.removed(X, HEAT, (10, 60), least), strict=True):
            count = int(HEAT.size * percentage / 100)
            gone = (count > HEAT) if least else (HEAT.size - count <= HEAT)
            assert np.array_equal((picture != X).any(0), gone)
            np.testing.assert_allclose(picture, dense_imputation(X, ~gone), atol=1e-3)


# ---- pixel flipping


@pytest.mark.parametrize(("region", "step", "least"), [(1, 10, False), (1, 7, True), (4, 1, False), (5, 3, True)])
def test_regions_go_in_the_order_of_their_sums(region, step, least):
    sums = {}
    for i in range(0, SIZE[0], region):
        for j in range(0, SIZE[1], region):
            sums[i, j] = HEAT[i : i + region, j : j + region].astype(float).sum()
    order = sorted(sums, key=lambda place: sums[place] if least else -sums[place])
    now, values = X.copy(), [score(X[None])[0]]
    for first in range(0, len(order), step):
        for i, j in order[first : first + step]:
            now[:, i : i + region, j : j + region] = 0.25
        values.append(score(now[None])[0])
    found = f.pixel_flipping(score, X, HEAT, np.full_like(X, 0.25), region, step, 0, least)
    np.testing.assert_allclose(found, values, atol=1e-5)
    assert f.aopc(found) == pytest.approx(np.mean(values[0] - np.array(values)), abs=1e-5)
    if step == 1:
        few = f.pixel_flipping(score, X, HEAT, np.full_like(X, 0.25), region, step, 3, least)
        np.testing.assert_allclose(few, values[:4], atol=1e-5)


def test_of_a_linear_model_the_true_contributions_fall_fastest():
    true = (W * X).sum(0)
    best = f.aopc(f.pixel_flipping(linear, X, true, 0 * X))
    others = [f.aopc(f.pixel_flipping(linear, X, RNG.permuted(true), 0 * X)) for _ in range(5)]
    assert best > max(others) > min(others) > f.aopc(f.pixel_flipping(linear, X, true, 0 * X, least=True))
    assert sorted(np.concatenate(ordered_regions(HEAT, 4)).tolist()) == list(range(HEAT.size))


# ---- sensitivity-n


def test_sensitivity_n_is_pearsons_coefficient_over_subsets():
    subsets = [RNG.choice(HEAT.size, 30, replace=False) for _ in range(25)]
    falls, sums = [], []
    for subset in subsets:
        one = X.copy()
        for pixel in subset:
            one[:, pixel // SIZE[1], pixel % SIZE[1]] = 0
        falls.append(float(score(X[None])[0] - score(one[None])[0]))
        sums.append(HEAT.ravel()[subset].sum())
    expected = stats.pearsonr(sums, falls).statistic
    assert f.sensitivity_n(score, X, HEAT, 0 * X, subsets, 4) == pytest.approx(expected, abs=1e-6)
    assert f.sensitivity_n(linear, X, (W * X).sum(0), 0 * X, subsets) == pytest.approx(1, abs=1e-9)


def test_random_subsets_have_their_size_and_cells_go_whole():
    for subset in f.random_subsets(np.random.default_rng(1), SIZE, 20, 5):
        assert len(set(subset.tolist())) == 20
    for subset in f.random_subsets(np.random.default_rng(1), (8, 12), 3, 5, cell=4):
        mask = np.zeros(96, bool)
        mask[subset] = True
        cells = mask.reshape(2, 4, 3, 4).sum((1, 3))
        assert sorted(cells.ravel().tolist()) == [0, 0, 0, 16, 16, 16]


# ---- infidelity


def test_of_a_linear_model_its_weights_have_no_infidelity():
    one_channel = X[:1]
    gradient = W[0]

    def of_one(pictures):
        return np.einsum("hw,nhw->n", gradient, pictures[:, 0].astype(np.float64))

    noise = list(f.noisy(one_channel, 0.3, 40, np.random.default_rng(0)))
    found = f.infidelity(of_one, one_channel, gradient, noise, binary=False)
    assert found.raw == pytest.approx(0, abs=1e-9) and found.scale == pytest.approx(1)
    half = f.infidelity(of_one, one_channel, gradient / 2, noise, binary=False)
    assert half.raw == pytest.approx(half.of_none / 4) and half.scale == pytest.approx(2)
    assert half.unexplained == pytest.approx(0, abs=1e-9)
    # of independent noise the mean square of w . noise is deviation^2 |w|^2
    many = f.noisy(one_channel, 0.3, 4000, np.random.default_rng(0))
    of_none = f.infidelity(of_one, one_channel, 0 * gradient, many, binary=False)
    assert of_none.raw == of_none.of_none == pytest.approx(0.09 * (gradient**2).sum(), rel=0.1)
    assert of_none.unexplained == 1


def test_squares_and_contributions_of_a_linear_model():
    true = (W * X).sum(0)
    squares = list(f.squares(X, 0 * X, 5, 3))
    assert len(squares) == 4 * 6  # the last ones end at the border: 0 3 6 9 and 0 3 6 9 12 14
    assert not squares[-1][:, 9:, 14:].any() and np.array_equal(squares[-1][:, :9], X[:, :9])
    assert f.infidelity(linear, X, true, squares).raw == pytest.approx(0, abs=1e-8)
    adding = list(f.squares(X, 0 * X, 5, 5, add_up=True))
    assert not adding[-1].any()


def test_the_scale_is_that_of_least_squares():
    falls, predicted = RNG.standard_normal((2, 30))
    found = of_falls(falls, predicted)
    (best,), (residual,), *_ = np.linalg.lstsq(predicted[:, None], falls, rcond=None)
    assert found.scale == pytest.approx(best) and found.scaled == pytest.approx(residual / 30)
    assert found.raw == pytest.approx(np.mean((falls - predicted) ** 2))
    assert found.of_none == pytest.approx(np.mean(falls**2))


# ---- max-sensitivity


def test_max_sensitivity_is_the_largest_relative_change():
    others = RNG.standard_normal((6, *SIZE))
    expected = max(np.linalg.norm(one - HEAT) for one in others) / np.linalg.norm(HEAT)
    assert f.max_sensitivity(HEAT, others) == pytest.approx(expected)
    assert np.isnan(f.max_sensitivity(0 * HEAT, others))


def test_neighbours_keep_the_radius():
    near = np.stack(list(f.neighbours(X, 0.1, 7, np.random.default_rng(2))))
    assert near.shape == (7, *X.shape)
    assert 0.099 < np.abs(near - X).max() <= 0.1 + 1e-6
