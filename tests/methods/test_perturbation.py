"""Methods without gradients against the papers' formulas, written with torch, one run at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fastcam import FastcamError
from fastcam.methods import perturbation as p

CLASSES = [2, 0]


class Net(torch.nn.Module):
    """Convolution, ReLU, pooling, two layers: 5 maps of 4 x 3 for images of 3 x 16 x 12."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.features = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(4))
        self.head = torch.nn.Sequential(
            torch.nn.Conv2d(5, 6, 2), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(36, 4)
        )

    def forward(self, x):
        return self.head(self.features(x))


NET = Net().eval().requires_grad_(False)
X = np.random.default_rng(1).standard_normal((3, 16, 12)).astype(np.float32)
A = NET.features(torch.tensor(X)[None])[0].numpy()


def of_images(x):
    return NET(torch.tensor(x)).numpy()


def of_activations(a):
    return NET.head(torch.tensor(a)).numpy()


def one(x, net=NET):
    """The scores of the classes for one input."""
    return net(torch.tensor(np.asarray(x, np.float32))[None])[0, CLASSES].numpy().astype(np.float64)


def masks():
    up = F.interpolate(torch.tensor(A)[None], size=(16, 12), mode="bilinear", align_corners=False)[0].double()
    low, high = up.amin((1, 2), keepdim=True), up.amax((1, 2), keepdim=True)
    return ((up - low) / (high - low)).numpy()


def softmax(rows):
    powers = np.exp(rows - rows.max(0))
    return powers / powers.sum(0)


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_scorecam(batch_size):
    expected = softmax(np.array([one(X * mask) for mask in masks()])).T
    found = p.scorecam_weights(of_images, X, A, CLASSES, batch_size)
    assert found.dtype == np.float32 and found.std() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_iscam_integrates_the_mask():
    rows = np.array([np.mean([one(X * mask * i / 4) for i in (1, 2, 3, 4)], axis=0) for mask in masks()])
    found = p.scorecam_weights(of_images, X, A, CLASSES, steps=4)
    np.testing.assert_allclose(found, softmax(rows).T, rtol=1e-4)


def test_sscam_averages_over_noise():
    rng = np.random.default_rng(5)
    rows = np.mean([[one(X * (m + rng.normal(0, 0.3, m.shape))) for m in masks()] for _ in range(3)], axis=0)
    found = p.scorecam_weights(of_images, X, A, CLASSES, steps=3, noise=0.3, seed=5)
    np.testing.assert_allclose(found, softmax(rows).T, rtol=1e-4)
    assert np.abs(found - p.scorecam_weights(of_images, X, A, CLASSES, steps=3, noise=0.3, seed=6)).max() > 1e-3


def test_a_flat_map_masks_everything():
    flat = A.copy()
    flat[3] = 1.5
    expected = one(X * 0)
    weights = p.scorecam_weights(of_images, X, flat, CLASSES)
    others = np.array([one(X * mask) for mask in masks()])
    others[3] = expected
    np.testing.assert_allclose(weights, softmax(others).T, rtol=1e-4)


def test_ablationcam():
    whole = one(A, NET.head)
    expected = []
    for k in range(5):
        without = A.copy()
        without[k] = 0
        expected.append((whole - one(without, NET.head)) / whole)
    found = p.ablationcam_weights(of_activations, A, CLASSES, batch_size=4)
    np.testing.assert_allclose(found, np.array(expected).T, rtol=1e-3, atol=1e-5)
    zero = p.ablationcam_weights(lambda a: of_activations(a) * 0, A, CLASSES)
    assert (zero == 0).all()


@pytest.mark.parametrize("gaussian", [False, True])
def test_reciprocam(gaussian):
    expected = np.zeros((2, 4, 3))
    for i, j in np.ndindex(4, 3):
        left = np.zeros_like(A)
        for u, v in np.ndindex(4, 3):
            far = abs(u - i) + abs(v - j) if max(abs(u - i), abs(v - j)) <= 1 else 9
            share = {0: 1 / 4, 1: 1 / 8, 2: 1 / 16}.get(far, 0) if gaussian else float(far == 0)
            left[:, u, v] = share * A[:, u, v]
        expected[:, i, j] = one(left, NET.head)
    expected -= expected.min((1, 2), keepdims=True)
    found = p.reciprocam(of_activations, A, CLASSES, batch_size=5, gaussian=gaussian)
    assert expected.max() > 0.01
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    "window,stride,value", [((5, 4), (3, 2), 0.0), ((16, 12), (16, 12), 0.5), ((3, 3), (3, 3), 0.0)]
)
def test_occlusion(window, stride, value):
    total, count = np.zeros((2, 16, 12)), np.zeros((16, 12))
    tops = sorted({min(t, 16 - window[0]) for t in range(0, 16, stride[0])})
    lefts = sorted({min(left, 12 - window[1]) for left in range(0, 12, stride[1])})
    for top in tops:
        for left in lefts:
            covered = X.copy()
            covered[:, top : top + window[0], left : left + window[1]] = value
            fall = one(X) - one(covered)
            total[:, top : top + window[0], left : left + window[1]] += fall[:, None, None]
            count[top : top + window[0], left : left + window[1]] += 1
    assert count.min() >= 1
    found = p.occlusion(of_images, X, CLASSES, window, stride, value, batch_size=3)
    np.testing.assert_allclose(found, total / count, atol=1e-6)


@pytest.mark.parametrize("window,stride", [((17, 4), (1, 1)), ((4, 4), (5, 1)), ((4, 4), (0, 1)), ((0, 1), (1, 1))])
def test_occlusion_that_leaves_pixels_out_is_refused(window, stride):
    with pytest.raises(FastcamError, match="every pixel is covered"):
        p.occlusion(of_images, X, CLASSES, window, stride)


def test_rise_finds_the_patch_that_matters():
    """For a score that is one patch's mean, the expected map is highest there; its mean is the mean score."""

    def score(x):
        return np.stack([x[:, :, 2:6, 8:11].mean((1, 2, 3)), x.mean((1, 2, 3))], 1)

    ones = np.ones_like(X)
    found = p.rise(score, ones, [0], masks=600, cells=4, seed=2)[0]
    inside = found[2:6, 8:11].mean()
    assert inside > found.mean() * 1.2 and np.unravel_index(found.argmax(), found.shape)[0] < 8
    # E[M] = keep everywhere, so of a constant score the map is that constant
    constant = p.rise(lambda x: np.full((len(x), 1), 3.0), ones, [0], masks=600, cells=4, seed=3)[0]
    np.testing.assert_allclose(constant, 3.0, rtol=0.2)
    np.testing.assert_array_equal(p.rise(score, ones, [0], masks=9, seed=4), p.rise(score, ones, [0], masks=9, seed=4))
    for wrong in ({"masks": 0}, {"cells": 0}, {"keep": 0.0}):
        with pytest.raises(FastcamError, match="RISE needs"):
            p.rise(score, ones, [0], **wrong)


@pytest.mark.parametrize(
    ("size", "window", "stride"),
    [
        ((224, 224), (32, 32), (16, 16)),
        ((28, 48), (4, 7), (2, 3)),
        ((5, 320), (2, 46), (1, 23)),
        ((1, 40), (1, 6), (1, 3)),
    ],
)
def test_the_window_goes_with_the_size_of_the_image(size, window, stride):
    assert p.windows(size) == (window, stride)
    assert p.windows(size, (1, 9)) == ((1, 9), (1, 9))  # what is said stays
