"""The CAM family against the papers' formulas, autograd and independent decompositions."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from fastcam import Explainer, FastcamError, methods
from fastcam.cli import app
from fastcam.methods import METHODS
from support.models.contract_model import random_model

FAMILY = [name for name, one in METHODS.items() if one.per_image is None]


def features(seed=0, n=2, t=3, k=5, h=4, w=6):
    """Activations that a ReLU left (one map is all zeros), and gradients of both signs with zeros."""
    rng = np.random.default_rng(seed)
    a = np.maximum(rng.standard_normal((n, k, h, w)), 0).astype(np.float32)
    a[0, 1] = 0
    g = rng.standard_normal((n, t, k, h, w)).astype(np.float32)
    g[:, :, 2, 1] = 0
    return a, g


def found(name, a, g):
    made = METHODS[name]
    if made.maps is not None:
        return made.maps(a, g)
    return np.einsum("ntk,nkhw->nthw", made.weights(a, g), a)


def by_hand(name, a, g):
    """Equations of the papers, one position at a time, in Python's floats."""
    n, t, k, h, w = g.shape
    out = np.zeros((n, t, h, w))
    for i, j, c in np.ndindex(n, t, k):
        act, grad = a[i, c].astype(float), g[i, j, c].astype(float)
        cells = list(np.ndindex(h, w))
        if name == "gradcam":
            weight = sum(grad[p] for p in cells) / (h * w)
        elif name == "xgradcam":
            total = sum(act[p] for p in cells)
            weight = sum(grad[p] * act[p] for p in cells) / total if total else 0
        elif name == "hirescam":
            weight = grad
        elif name == "layercam":
            weight = np.where(grad > 0, grad, 0)
        elif name == "elementwise":
            weight = np.where(grad * act > 0, grad, 0)
        elif name == "fem":
            mean = sum(act[p] for p in cells) / (h * w)
            std = (sum((act[p] - mean) ** 2 for p in cells) / (h * w)) ** 0.5
            weight = sum(act[p] > mean + 2 * std for p in cells) / (h * w)
        out[i, j] += weight * act
    return out


@pytest.mark.parametrize("name", ["gradcam", "xgradcam", "hirescam", "layercam", "elementwise", "fem"])
def test_formula(name):
    a, g = features()
    expected = by_hand(name, a, g)
    assert np.abs(expected).max() > 0.05
    actual = found(name, a, g)
    assert actual.dtype == np.float32
    np.testing.assert_allclose(np.broadcast_to(actual, expected.shape), expected, atol=2e-6)


def test_gradcam_pp_is_the_papers_quotient_of_derivatives_of_the_exponential_score():
    """Equation 19 of the paper with second and third derivatives by autograd, for a score linear in the maps."""
    rng = np.random.default_rng(3)
    a = torch.tensor(np.abs(rng.standard_normal((3, 2, 4))), requires_grad=True)
    head = torch.tensor(rng.standard_normal((3, 2, 4)) * 0.3)

    def derivatives():
        """First, second and third derivative of exp(score) by each activation alone."""
        for position in np.ndindex(3, 2, 4):
            order = torch.exp((a * head).sum())
            each = []
            for _ in range(3):
                order = torch.autograd.grad(order, a, create_graph=True)[0][position]
                each.append(order.item())
            yield position, each

    expected = np.zeros(3)
    sums = a.detach().sum((1, 2))
    for (k, *_), (first, second, third) in derivatives():
        alpha = second / (2 * second + sums[k].item() * third)
        expected[k] += alpha * max(first, 0)
    actual = methods.gradcam_pp(a.detach().numpy()[None], head.numpy()[None, None])[0, 0]
    np.testing.assert_allclose(actual / actual.max(), expected / expected.max(), rtol=1e-5)


def align(actual, expected):
    """Up to the sign, which a component has none of."""
    return actual * np.sign((actual * expected).sum())


def components(features, count=1):
    """Scores on the first principal component, by the singular value decomposition of [positions, channels]."""
    samples = features.reshape(len(features), -1).T.astype(np.float64)
    u, s, _ = np.linalg.svd(samples - samples.mean(0), full_matrices=False)
    return (u[:, 0] * s[0]).reshape(features.shape[1:])


@pytest.mark.parametrize("k", [3, 40])
def test_eigencam_is_the_first_principal_component(k):
    a, g = features(1, k=k)
    actual = found("eigencam", a, g)
    assert actual.shape == (2, 1, 4, 6)
    for i in range(2):
        expected = components(a[i])
        np.testing.assert_allclose(align(actual[i, 0], expected), expected, atol=1e-5)
    assert (actual.max((2, 3)) >= -actual.min((2, 3))).all()
    products = found("eigengradcam", a, g)
    for i, j in np.ndindex(2, 3):
        expected = components(a[i] * g[i, j])
        np.testing.assert_allclose(align(products[i, j], expected), expected, atol=1e-5)


def test_kpcacam_is_the_first_component_of_the_centred_kernel():
    a, _ = features(2)
    for image, actual in zip(a.astype(np.float64), found("kpcacam", a, None)[:, 0]):
        x = image.reshape(5, -1).T
        x = x - x.mean(0)
        kernel = np.array([[np.tanh((p @ q) / 5 + 1) for q in x] for p in x])
        centre = np.eye(24) - 1 / 24
        values, vectors = np.linalg.eig(centre @ kernel @ centre)
        best = np.argmax(values.real)
        expected = (vectors[:, best].real * np.sqrt(values[best].real)).reshape(4, 6)
        expected *= np.sign(expected.ravel()[np.abs(expected).argmax()])
        np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_not_repaired(name, bad):
    a, g = features()
    a[1, 3, 2, 2] = bad
    with np.errstate(invalid="ignore"):
        actual = found(name, a, g)
    assert np.isfinite(actual[0]).all()
    assert not np.isfinite(actual[1]).reshape(actual.shape[1], -1).all(1).any()


@pytest.mark.parametrize("name", FAMILY)
def test_maps_of_zeros_stay_zeros(name):
    a, g = features()
    assert (found(name, a * 0, g) == 0).all()


def test_unknown_method_is_refused_with_the_known_ones():
    with pytest.raises(FastcamError, match=r"no method 'gradcamm'; use one of: gradcam, gradcam\+\+"):
        methods.method("gradcamm")
    assert methods.method("Grad-CAM++".replace("-", "")).name == "gradcam++"


# ---- through Explainer and the command line


def of_model(model, x, classes):
    """Activations and gradients by the contract model's formulas: dy/dA = head place / (h w)."""
    a = model.activations(x)
    plane = np.broadcast_to(model.place, a.shape[2:]) / a[0, 0].size
    return a.astype(np.float32), (model.head[classes][..., None, None] * plane).astype(np.float32)


def model_for(name):
    """One with the head that the method asks for."""
    model = random_model(seed=4)
    return replace(model, place=np.ones((1, 1), np.float32)) if name == "cam" else model


@pytest.mark.parametrize("name", FAMILY)
def test_explainer_gives_the_methods_maps(name):
    model = model_for(name)
    x = np.random.default_rng(2).random((3, 3, 32, 32)).astype(np.float32)
    e = Explainer(model.file("gradients"))(x, targets=[-1, 2], method=name)
    a, g = of_model(model, x, e.classes)
    signed = np.broadcast_to(found(name, a, g), e.maps.shape)
    assert (signed > 0).any()
    np.testing.assert_allclose(e.maps, np.maximum(signed, 0), atol=2e-5 * np.abs(signed).max())
    assert e.method == name and e.to_dict()["method"] == name
    np.testing.assert_array_equal(np.array(e.status) == "ok", (signed > 0).any((2, 3)))


@pytest.mark.parametrize("name", FAMILY)
def test_a_file_that_emits_weights_serves_what_needs_no_gradient(name):
    model = model_for(name)
    x = np.random.default_rng(2).random((2, 3, 32, 32)).astype(np.float32)
    explainer = Explainer(model.file("weights"))
    if METHODS[name].needs == "gradients":
        with pytest.raises(FastcamError, match=r"fastcam export .* --emit gradients"):
            explainer(x, method=name)
    else:
        both = (
            explainer(x, targets=[0, 1], method=name),
            Explainer(model.file("gradients"))(x, targets=[0, 1], method=name),
        )
        np.testing.assert_allclose(both[0].maps, both[1].maps, rtol=1e-4, atol=1e-6)
    if name not in ("gradcam", "cam"):
        with pytest.raises(FastcamError, match="--emit"):
            Explainer(model.file("cam"))(x, method=name)


def test_predict_explain_and_stream_take_a_method():
    model = random_model(seed=4)
    explainer = Explainer(model.file("gradients"))
    picture = np.random.default_rng(3).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    expected = explainer(picture, method="layercam").maps
    assert np.abs(expected - explainer(picture).maps).max() > 1e-3
    np.testing.assert_array_equal(explainer.explain(explainer.predict(picture), method="layercam").maps, expected)
    (frame,) = explainer.stream([picture], method="layercam")
    np.testing.assert_array_equal(frame.explanation.maps, expected)
    for call in (explainer, explainer.stream):
        with pytest.raises(FastcamError, match="no method 'x'"):
            call([picture], method="x")


def test_the_command_line_takes_and_lists_methods(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.cam.onnx").write_bytes(random_model().file("weights"))
    cv2.imwrite("p.png", np.random.default_rng(3).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    listed = CliRunner().invoke(app, ["methods"]).stdout
    assert all(one.name in listed and one.formula in listed for one in METHODS.values())
    done = CliRunner().invoke(app, ["explain", "m.cam.onnx", "p.png", "--method", "eigencam", "--json"])
    assert done.exit_code == 0 and '"method": "eigencam"' in done.stdout
    refused = CliRunner().invoke(app, ["explain", "m.cam.onnx", "p.png", "--method", "layercam"])
    assert refused.exit_code == 2 and "--emit gradients" in refused.stderr and refused.stderr.count("\n") == 1
