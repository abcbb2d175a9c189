"""A small network as a file and in torch: its layer, head and gradients, and Explainers of it."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from fastcam import Explainer
from fastcam_bench.oracles import kinks
from fastcam_export import export_model
from support.models.small_models import classifier, weights_of

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


def positive(signed):
    return np.maximum(signed, 0)


def close(found, expected, rtol=1e-4):
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(found, expected, atol=rtol * np.abs(expected).max())
