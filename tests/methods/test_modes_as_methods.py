"""Backward modes as methods, through Explainer, against autograd with the mode's rules."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fastcam import FastcamError
from support.explained_network import SHARP, SIDE, X, close, explainer, gradient, positive


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
