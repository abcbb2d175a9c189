"""Methods that run again, and backward modes as methods, through Explainer, against the papers' formulas in torch."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from onnx import numpy_helper
from torch.nn import functional as F
from typer.testing import CliRunner

from fastcam import Explainer, FastcamError
from fastcam.cli import app
from fastcam.methods import METHODS
from fastcam.methods.options import parameters, parsed, with_options
from fastcam_bench.oracles import kinks
from fastcam_export import export_model
from support.models.small_models import classifier, save, weights_of

SIDE = 16
MODEL = classifier(size=SIDE)
W = {name: torch.tensor(array, dtype=torch.float32) for name, array in weights_of(MODEL).items()}
SHARP = {"blur": 0}  # pixels as they are
X = np.random.default_rng(7).standard_normal((2, 3, SIDE, SIDE)).astype(np.float32)


def layer(x):
    """The target layer of :func:`classifier`, [N, 6, h, w]."""
    return F.relu(F.conv2d(F.relu(F.conv2d(x, W["w1"], padding=1)), W["w2"], padding=1))


def head(a):
    return a.mean((2, 3)) @ W["fc"] + W["bias"]


def net(x):
    return head(layer(x))


def gradient(x, c):
    """[C, H, W]: of the score of class ``c`` (or of a dict of coefficients) of one image."""
    given = torch.tensor(x)[None].requires_grad_(True)
    terms = c if isinstance(c, dict) else {c: 1.0}
    with kinks.away(1e-6):  # of some hundred images: two layers lose less than 1e-7
        scores = net(given)
    score = sum(a * scores[0, k] for k, a in terms.items())
    return torch.autograd.grad(score, given)[0][0].numpy().astype(np.float64)


def explainer(model=MODEL, **options):
    batch_size = options.pop("batch_size", 5)
    made = export_model(model, check=False, **options)
    return Explainer(made.model.SerializeToString(), batch_size=batch_size)


@pytest.fixture(scope="module")
def plain():
    return explainer()


@pytest.fixture(scope="module")
def backwards():
    return explainer(input_gradient="gradient")


def positive(signed):
    return np.maximum(signed, 0)


def close(found, expected, rtol=1e-4):
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(found, expected, atol=rtol * np.abs(expected).max())


# ---- changed images


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
    import onnx

    model = classifier(size=SIDE)
    last = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["N", SIDE, SIDE, 3])
    model.graph.input[0].CopyFrom(last)
    model.graph.node.insert(0, onnx.helper.make_node("Transpose", ["image"], ["first"], perm=[0, 3, 1, 2]))
    model.graph.node[1].input[0] = "first"
    found = explainer(model, input_gradient="gradient", preprocess="raw")
    first = explainer(input_gradient="gradient", preprocess="raw")
    for name in ("scorecam", "integrated-gradients", "gradient"):
        a = found(np.ascontiguousarray(np.moveaxis(X, 1, -1)), targets=2, method=name)
        b = first(X, targets=2, method=name)
        close(a.maps, b.maps, 1e-5)
        assert name == "scorecam" or np.allclose(a.attributions, b.attributions, atol=1e-5)


# ---- averages


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


# ---- backward modes


def test_modes_of_the_image_as_methods(backwards):
    g = np.stack([gradient(x, 2) for x in X])
    e = backwards(X, targets=2, method="gradient", options=SHARP)
    close(e.maps[:, 0], np.abs(g).max(1))
    close(e.attributions[:, 0], g)
    e = backwards(X, targets=2, method="input-x-gradient", options=SHARP)
    close(e.maps[:, 0], positive((g * X).sum(1)))
    np.testing.assert_array_equal(backwards(X, targets=2).maps, explainer()(X, targets=2).maps)  # still Grad-CAM

    found = explainer(input_gradient="guided")
    e = found(X, targets=2)
    close(found(X, targets=2, method="guided", options=SHARP).maps, np.abs(e.input_gradients).max(2), 1e-6)
    product = found(X, targets=2, method="guided-gradcam", options=SHARP)
    close(product.attributions, e.guided_gradcam, 1e-6)
    close(product.maps, np.abs(e.guided_gradcam).max(2), 1e-6)
    assert not np.array_equal(product.boxes, e.boxes)


def test_blur_makes_regions_of_pixels(backwards):
    sharp = backwards(X[:1], targets=2, method="gradient", options=SHARP).maps[0, 0]
    e = backwards(X[:1], targets=2, method="gradient", options={"blur": 1.5})
    kernel = np.exp(-0.5 * (np.arange(-4, 5) / 1.5) ** 2)  # three standard deviations are four pixels
    plane = torch.tensor(np.outer(kernel, kernel), dtype=torch.float32)[None, None]
    ones = torch.ones(1, 1, SIDE, SIDE)
    expected = F.conv2d(torch.tensor(sharp)[None, None], plane, padding=4) / F.conv2d(ones, plane, padding=4)
    close(e.maps[0, 0], expected[0, 0].numpy(), 1e-5)
    assert np.abs(e.attributions[0, 0]).max(0) == pytest.approx(sharp)
    usual = backwards(X[:1], targets=2, method="gradient")
    cell = SIDE / backwards(X[:1], targets=2).maps.shape[-1]
    for same in ({"blur": 3 / 8 * cell}, {"blur": "auto"}):
        np.testing.assert_array_equal(backwards(X[:1], targets=2, method="gradient", options=same).maps, usual.maps)
    assert np.abs(usual.maps - sharp).max() > 0.05 * sharp.max()
    for name in ("smoothgrad", "integrated-gradients", "input-x-gradient"):
        with pytest.raises(FastcamError, match="at least 0"):
            backwards(X[:1], method=name, options={"blur": -1.0})


@pytest.mark.parametrize("mode,at", [("lrp-epsilon", "image"), ("lrp-epsilon", "layer"), ("excitation", "layer")])
def test_relevance_as_a_method(mode, at):
    found = explainer(input_gradient=mode, input_gradient_at=at)
    e = found(X, targets=[2, 0])
    shown = e.relevance if at == "layer" else e.input_gradients.sum(2)
    sharp = SHARP if at == "image" else None
    close(found(X, targets=[2, 0], method=mode, options=sharp).maps, positive(shown), 1e-5)


# ---- what is refused, and the command line


@pytest.mark.parametrize(
    "name,made,message",
    [
        ("layercam", {}, "fastcam export net.onnx --emit gradients"),
        ("scorecam", {"emit": "cam"}, "fastcam export net.onnx --emit weights$"),
        ("smoothgrad", {}, "fastcam export net.onnx --input-gradient gradient"),
        ("smoothgrad", {"input_gradient": "guided"}, "brings back guided, SmoothGrad needs gradient"),
        ("guided-gradcam", {"layer": "r1"}, "fastcam export net.onnx --layer r1 --input-gradient guided"),
        ("ablationcam", {"emit": "gradients"}, "fastcam export net.onnx --emit gradients --head"),
        ("lrp-gamma", {"emit": "gradients"}, "fastcam export net.onnx --emit gradients --input-gradient lrp-gamma"),
    ],
)
def test_what_a_file_cannot_serve_names_the_export_that_can(tmp_path, name, made, message):
    save(MODEL, tmp_path / "net.onnx")
    export_model(tmp_path / "net.onnx", tmp_path / "m.cam.onnx", check=False, **made)
    with pytest.raises(FastcamError, match=message):
        Explainer(tmp_path / "m.cam.onnx")(X, method=name)


OF_ATTENTION = ("rollout", "rollout-max", "rollout-min", "legrad")
"""Modes that this network has nothing for."""


def test_the_named_export_serves_every_method(tmp_path):
    """What the message says is run; then the method works."""
    save(MODEL, tmp_path / "net.onnx")
    export_model(tmp_path / "net.onnx", tmp_path / "m.cam.onnx", emit="cam", check=False)
    small = {"samples": 2, "steps": 2, "masks": 3, "window": (8, 8), "stride": (8, 8)}
    for name, one in METHODS.items():
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path)
            file = tmp_path / "m.cam.onnx"
            try:
                Explainer(file)(X[:1], method=name, options=_some(one, small))
                continue
            except FastcamError as error:
                command = str(error).partition("run: ")[2].split()
            file = tmp_path / f"{abs(hash(name))}.onnx"
            done = CliRunner().invoke(app, [*command[1:], "-o", str(file)])
            if one.mode in OF_ATTENTION:
                assert done.exit_code == 2 and "the model has no attention" in done.output
                continue
            assert done.exit_code == 0, (name, command, done.output)
            if name == "vit-reciprocam":
                with pytest.raises(FastcamError, match="this layer has none; use Recipro-CAM"):
                    Explainer(file)(X[:1], method=name)
                continue
            e = Explainer(file)(X[:1], method=name, options=_some(one, small))
            assert e.method == name and np.isfinite(e.maps).all()


def _some(method, values):
    return {key: values[key] for key in parameters(method) if key in values}


def test_options_are_checked(plain):
    cases = [
        ("scorecam", {"steps": 3}, "Score-CAM has no option 'steps'; it has none"),
        ("gradcam", {"steps": 3}, "Grad-CAM has no option 'steps'; it has none"),
        ("iscam", {"step": 3}, "IS-CAM has no option 'step'; it has: steps=10"),
        ("iscam", {"steps": 0}, "steps is 0; it must be at least 1"),
        ("iscam", {"steps": "many"}, "steps is 'many'; give a whole number"),
        ("iscam", {"steps": 2.5}, "give a whole number"),
        ("sscam", {"noise": float("nan")}, "give a finite number"),
        ("sscam", {"noise": -1.0}, "at least 0"),
        ("occlusion", {"window": "8x8x8"}, "like 32x32"),
        ("occlusion", {"window": (40, 40)}, "must fit in the image"),
        ("rise", {"keep": 0.0}, "RISE needs"),
        ("reciprocam", {"gaussian": "perhaps"}, "give true or false"),
    ]
    for name, options, message in cases:
        with pytest.raises(FastcamError, match=message):
            with_options(METHODS[name], options)
            plain(X[:1], method=name, options=options)
    assert with_options(METHODS["occlusion"], {"window": 8, "stride": "4"}).options == {
        "window": (8, 8),
        "stride": (4, 4),
    }
    assert parsed(["a=1", "b = 8x8"]) == {"a": "1", "b": "8x8"}
    with pytest.raises(FastcamError, match="give key=value"):
        parsed(["samples"])


def test_targets_that_cannot_be_asked_again_are_refused():
    constant = explainer(targets="constant", input_gradient="gradient")
    with pytest.raises(FastcamError, match="--targets default"):
        constant(X, method="smoothgrad")
    close(constant(X, method="scorecam").maps, explainer()(X, method="scorecam").maps, 1e-6)
    with pytest.raises(FastcamError, match="without --frames"):
        explainer(frames=True, preprocess="unit")(np.zeros((20, 20, 3), np.uint8), method="scorecam")


def test_cotangents_are_asked_of_changed_images_too():
    c = np.zeros((1, 2, 5), np.float32)
    c[0, 0, [0, 3]] = 1, -2
    c[0, 1, 4] = 1
    found = explainer(targets="cotangent", emit="gradients")
    plain = explainer(emit="gradients")
    for name in ("scorecam", "occlusion", "smoothgradcam++"):
        options = {"window": (8, 8), "stride": (8, 8)} if name == "occlusion" else {}
        a = found(X, cotangent=c, method=name, options=options)
        b = plain(X, targets=[{0: 1.0, 3: -2.0}, 4], method=name, options=options)
        close(a.maps, b.maps, 1e-4)


def test_progress_goes_up_to_the_whole(plain):
    seen = []
    plain(X, method="scorecam", progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (12, 12) and [done for done, _ in seen] == sorted(done for done, _ in seen) and len(seen) > 4


def test_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    export_model(MODEL, tmp_path / "m.cam.onnx", preprocess="unit", check=False)
    cv2.imwrite("p.png", np.random.default_rng(3).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
    asked = ["explain", "m.cam.onnx", "p.png", "--json", "--method", "occlusion", "--option", "window=8x8"]
    done = CliRunner().invoke(app, [*asked, "--option", "stride=8"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["method"] == "occlusion" and report["options"] == {"window": [8, 8], "stride": [8, 8]}
    several = ["explain", "m.cam.onnx", "p.png", "--json", "--method", "rise,occlusion", "--option", "masks=5"]
    done = CliRunner().invoke(app, [*several, "--option", "window=8", "--option", "stride=8"])
    assert done.exit_code == 0, done.output
    assert [one["options"] for one in json.loads(done.stdout)["methods"]] == [
        {"masks": 5},
        {"window": [8, 8], "stride": [8, 8]},
    ]
    refused = CliRunner().invoke(app, [*several, "--option", "samples=3"])
    assert refused.exit_code == 2 and "none of rise, occlusion has an option 'samples'" in refused.stderr
    refused = CliRunner().invoke(app, [*asked, "--option", "stride"])
    assert refused.exit_code == 2 and "give key=value" in refused.stderr and refused.stderr.count("\n") == 1
    streamed = CliRunner().invoke(app, ["stream", "m.cam.onnx", "p.png", "--method", "rise", "--option", "masks=5"])
    assert streamed.exit_code == 0 and '"box"' in streamed.stdout
    listed = CliRunner().invoke(app, ["methods"]).stdout
    assert "masks=4000" in listed and "--input-gradient guided" in listed and "(K + 1) heads" in listed


# ---- probes for whoever measures maps


def test_a_probe_of_each_picture_runs_the_model_and_its_head_on_changed_ones():
    made = export_model(MODEL, check=False, head=True)
    explain = Explainer(made.model.SerializeToString(), head=made.head.SerializeToString(), batch_size=2)
    probes = explain.probes(X, [[1, 0], [2, 2]])
    changed = np.random.default_rng(8).standard_normal((5, 3, SIDE, SIDE)).astype(np.float32)
    scores = net(torch.tensor(changed)).numpy()
    for probe, x, classes in zip(probes, X, ([1, 0], [2, 2]), strict=True):
        assert np.array_equal(probe.x, x)
        np.testing.assert_allclose(probe.class_scores(changed), scores, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(probe.scores(changed), scores[:, classes], rtol=1e-4, atol=1e-5)
        activations = layer(torch.tensor(changed))
        np.testing.assert_allclose(probe.activations, layer(torch.tensor(x)[None])[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(probe.layer_scores(activations.numpy()), scores[:, classes], rtol=1e-4, atol=1e-5)
