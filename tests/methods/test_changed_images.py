"""Methods that run the model on changed images, through Explainer, against the papers' formulas in torch."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from fastcam import Explainer
from fastcam_export import export_model
from support.explained_network import MODEL, SIDE, X, close, explainer, layer, net, positive
from support.models.small_models import channels_last, classifier


def masks(x):
    a = layer(torch.tensor(x)[None])
    up = F.interpolate(a, size=(SIDE, SIDE), mode="bilinear", align_corners=False)[0]
    low, high = up.amin((1, 2), keepdim=True), up.amax((1, 2), keepdim=True)
    return (up - low) / (high - low)


def weighed(x, rows):
    """ReLU of the sum of the maps of ``x``, weighted by the softmax over the channels of ``rows`` [K]."""
    weights = torch.softmax(torch.tensor(rows), 0)
    return positive(np.einsum("k,khw->hw", weights.numpy(), layer(torch.tensor(x)[None])[0].numpy()))


def test_scorecam_of_classes_and_of_a_combination(plain):
    e = plain(X, targets=[3, {1: 1.0, 4: -0.5}, -1], method="scorecam")
    for n, x in enumerate(X):
        scores = net(torch.tensor(x) * masks(x)[:, None]).numpy()
        best = int(net(torch.tensor(x)[None]).argmax())
        for t, row in enumerate((scores[:, 3], scores[:, 1] - 0.5 * scores[:, 4], scores[:, best])):
            close(e.maps[n, t], weighed(x, row))
    assert e.method == "scorecam" and (np.array(e.status) == "ok").all()
    assert e.label(0, 1) == "class 1 - 0.5 class 4"


def test_iscam_and_sscam_with_options(plain):
    e = plain(X[:1], targets=2, method="iscam", options={"steps": 3})
    runs = [net(torch.tensor(X[0]) * masks(X[0])[:, None] * (i / 3))[:, 2].numpy() for i in (1, 2, 3)]
    close(e.maps[0, 0], weighed(X[0], np.mean(runs, axis=0)))
    assert e.options == {"steps": 3} and e.to_dict()["options"] == {"steps": 3}
    rng, runs = np.random.default_rng(4), []
    for _ in range(2):
        noisy = [m + rng.normal(0, 0.5, m.shape).astype(np.float32) for m in masks(X[0]).numpy()]
        runs.append(net(torch.tensor(X[0] * np.stack(noisy)[:, None]))[:, 2].numpy())
    e = plain(X[:1], targets=2, method="sscam", options={"samples": 2, "noise": "0.5", "seed": 4})
    close(e.maps[0, 0], weighed(X[0], np.mean(runs, axis=0)))


def test_occlusion_has_the_images_size(plain):
    e = plain(
        X[:1], targets=[{0: -1}, {1: -1}], method="occlusion", options={"window": "8x4", "stride": (8, 4), "value": 0.3}
    )
    whole = net(torch.tensor(X[:1]))[0].numpy()
    expected = np.zeros((2, SIDE, SIDE))
    for top in range(0, SIDE, 8):
        for left in range(0, SIDE, 4):
            covered = X[:1].copy()
            covered[..., top : top + 8, left : left + 4] = 0.3
            fall = (whole - net(torch.tensor(covered))[0].numpy())[:2] * -1
            expected[:, top : top + 8, left : left + 4] = fall[:, None, None]
    close(e.maps[0], positive(expected))
    np.testing.assert_allclose(e.heatmaps[0], e.maps[0] / e.maps[0].max((1, 2), keepdims=True), rtol=1e-5)


def test_rise_is_the_weighted_mean_of_its_masks(plain):
    """For masks drawn again by the same generator; of a probability."""
    from fastcam.methods.perturbation.changed_images import random_masks

    model = explainer(classifier(size=SIDE, end="Softmax"))
    e = model(X[:1], targets=2, method="rise", options={"masks": 30, "cells": 4, "seed": 9})
    made = random_masks(np.random.default_rng(9), (SIDE, SIDE), 4, 0.5)
    drawn = [next(made) for _ in range(30)]
    shares = [torch.softmax(net(torch.tensor(X[:1] * m)), 1)[0, 2].item() for m in drawn]
    expected = np.tensordot(shares, drawn, 1) / (30 * 0.5)
    close(e.maps[0, 0], expected - expected.min())


def test_images_with_fewer_targets_and_fixed_batches(plain):
    rows = [[1, {2: 1.0, 3: -1.0}], [4]]
    e = plain(X, targets=rows, method="scorecam")
    assert e.status == (("ok", "ok"), ("ok", "not_asked")) and not e.maps[1, 1].any() and not e.boxes[1, 1].any()
    np.testing.assert_array_equal(e.maps[1, 0], plain(X[1:], targets=4, method="scorecam").maps[0, 0])
    fixed = explainer(classifier(size=SIDE, batch=2))
    close(fixed(X[:1], targets=4, method="scorecam").maps, plain(X[:1], targets=4, method="scorecam").maps, 1e-5)


def test_two_files_and_predictions_give_the_same(tmp_path):
    export_model(MODEL, tmp_path / "m.cam.onnx", on_demand=True, emit="gradients", check=False)
    pair, one = Explainer(tmp_path / "m.cam.onnx"), explainer(emit="gradients")
    for name in ("scorecam", "smoothgradcam++", "augsmooth"):
        expected = one(X, targets=[1, -1], method=name).maps
        close(pair(X, targets=[1, -1], method=name).maps, expected, 1e-5)
        close(one.explain(one.predict(X), targets=[1, -1], method=name).maps, expected, 1e-5)


def test_channels_last_are_asked_as_the_model_takes_them():
    model = channels_last(SIDE)
    found = explainer(model, input_gradient="gradient", preprocess="raw")
    first = explainer(input_gradient="gradient", preprocess="raw")
    for name in ("scorecam", "integrated-gradients", "gradient"):
        a = found(np.ascontiguousarray(np.moveaxis(X, 1, -1)), targets=2, method=name)
        b = first(X, targets=2, method=name)
        close(a.maps, b.maps, 1e-5)
        assert name == "scorecam" or np.allclose(a.attributions, b.attributions, atol=1e-5)
