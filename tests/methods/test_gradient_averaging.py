"""Averages of gradients and of maps, through Explainer, against the papers' formulas in torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import numpy_helper
from torch.nn import functional as F

from fastcam import FastcamError
from fastcam_bench.oracles import kinks
from support.explained_network import MODEL, SHARP, SIDE, W, X, close, explainer, gradient, head, net, positive
from support.models.small_models import classifier, weights_of


def test_smoothgrad_and_vargrad(backwards):
    options = {"samples": 7, "noise": 0.2, "seed": 3} | SHARP
    rng = np.random.default_rng(3)
    spread = 0.2 * (X[0].max() - X[0].min())
    noisy = [X[0] + rng.normal(0, spread, X[0].shape).astype(np.float32) for _ in range(7)]
    for c in (2, {0: 1.0, 3: -2.0}):
        gradients = np.stack([gradient(x, c) for x in noisy])
        smooth = backwards(X[:1], targets=c, method="smoothgrad", options=options)
        close(smooth.attributions[0, 0], gradients.mean(0))
        close(smooth.maps[0, 0], np.abs(gradients.mean(0)).max(0))
        variance = backwards(X[:1], targets=c, method="vargrad", options=options)
        close(variance.attributions[0, 0], gradients.var(0))


def test_integrated_gradients_sum_to_the_scores_difference(backwards):
    options = {"baseline": 0.5, "steps": 400} | SHARP
    e = backwards(X, targets=[1, {0: 1.0, 2: -1.0}], method="integrated-gradients", options=options)
    scores = (net(torch.tensor(X)) - net(torch.full((1, 3, SIDE, SIDE), 0.5))).numpy()
    expected = np.stack([scores[:, 1], scores[:, 0] - scores[:, 2]], 1)
    np.testing.assert_allclose(e.attributions.sum((2, 3, 4)), expected, rtol=2e-3)
    close(e.maps, positive(e.attributions.sum(2)), 1e-6)


def test_integrated_gradients_follow_the_straight_path(backwards):
    e = backwards(X[:1], targets=1, method="integrated-gradients", options={"steps": 6})
    nodes, weights = np.polynomial.legendre.leggauss(6)
    expected = sum(w / 2 * gradient(np.float32((t + 1) / 2) * X[0], 1) for t, w in zip(nodes, weights)) * X[0]
    close(e.attributions[0, 0], expected)


def test_smoothgradcam_pp():
    found = explainer(emit="gradients", layer="r1")  # in front of a ReLU, so that the gradient hangs on the image
    e = found(X[:1], targets=2, method="smoothgradcam++", options={"samples": 3, "noise": 0.4, "seed": 8})

    def first(x):
        return F.relu(F.conv2d(x, W["w1"], padding=1))

    rng, gradients = np.random.default_rng(8), []
    for _ in range(3):
        x = torch.tensor(X[:1] + rng.normal(0, 0.4, X[0].shape).astype(np.float32))
        a = first(x).requires_grad_(True)
        with kinks.away():
            score = head(F.relu(F.conv2d(a, W["w2"], padding=1)))[0, 2]
        gradients.append(torch.autograd.grad(score, a)[0][0].double().numpy())
    d1, d2, d3 = (np.mean([g**p for g in gradients], axis=0) for p in (1, 2, 3))
    assert np.std(gradients, axis=0).max() > 0
    a = first(torch.tensor(X[:1]))[0].double().numpy()
    below = 2 * d2 + d3 * a.sum((1, 2))[:, None, None]
    alpha = np.where(below == 0, 0, d2 / np.where(below == 0, 1, below))
    weights = (alpha * np.maximum(d1, 0)).sum((1, 2))
    close(e.maps[0, 0], positive(np.einsum("k,khw->hw", weights, a)), 1e-3)


@pytest.mark.parametrize("of", ["gradcam", "layercam"])
def test_augsmooth_averages_heatmaps_of_changed_images(of):
    found = explainer(emit="gradients")
    e = found(X[:1], targets=3, method="augsmooth", options={"of": of})
    total = 0
    for flip in (False, True):
        for factor in (0.9, 1.0, 1.1):
            x = np.ascontiguousarray(X[:1, :, :, ::-1] if flip else X[:1]) * np.float32(factor)
            heat = found(x, targets=3, method=of).heatmaps[0, 0]
            total = total + (heat[:, ::-1] if flip else heat)
    close(e.maps[0, 0], total / 6, 1e-5)
    assert np.abs(e.maps - found(X[:1], targets=3, method=of).heatmaps).max() > 1e-3
    for wrong in ("rise", "cam"):
        with pytest.raises(FastcamError, match=f"a member of the CAM family, got '{wrong}'"):
            found(X[:1], method="augsmooth", options={"of": wrong})
    with pytest.raises(FastcamError, match="--emit gradients"):
        explainer()(X[:1], method="augsmooth", options={"of": "layercam"})


def test_augsmooth_says_that_nothing_speaks_for_a_class_as_its_member_does():
    """A class with a negative weight for every channel, and one that nothing reaches."""
    weights = dict(weights_of(MODEL))
    weights["fc"][:, 0], weights["fc"][:, 1] = -1, 0
    model = classifier(size=SIDE)
    for tensor in model.graph.initializer:
        if tensor.name == "fc":
            tensor.CopyFrom(numpy_helper.from_array(weights["fc"].astype(np.float32), "fc"))
    found = explainer(model, emit="gradients")
    for method in ("gradcam", "augsmooth"):
        e = found(X[:1], targets=[0, 1, 3], method=method)
        assert e.status[0] == ("all_negative", "zero_gradient", "ok"), method
        assert e.heatmaps[0, :2].max() == 0 and not e.boxes[0, :2].any()
