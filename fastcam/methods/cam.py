"""The CAM family: activations and gradients of a target layer -> weights or maps, one short function each.

Shapes: activations A [N, K, h, w]; gradients g = dy/dA [N, T, K, h, w], T explained targets per image; weights
[N, T, K]; maps [N, T, h, w], signed: what follows (ReLU, normalisation, boxes) is the same for all of them.
Sums run in float64: the addends of one map may cancel. What is not finite stays so and is reported, never repaired.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastcam.methods.registry import METHODS, Array, Float, Method, Needs


def _weights(name: str, title: str, formula: str, source: str, needs: Needs = "gradients") -> Callable[..., Any]:
    def register(function: Callable[[Array, Array], Float]) -> Callable[[Array, Array], Float]:
        METHODS[name] = Method(name, title, needs, formula, source, weights=function)
        return function

    return register


def _maps(name: str, title: str, formula: str, source: str, needs: Needs = "gradients") -> Callable[..., Any]:
    def register(function: Callable[[Array, Array | None], Float]) -> Callable[[Array, Array | None], Float]:
        METHODS[name] = Method(name, title, needs, formula, source, maps=function)
        return function

    return register


# ---- weights

NO_MEAN = 1e-5
"""A mean that is this share of the mean absolute value is one of rounding."""


def gradcam_weights(gradients: Array) -> Float:
    """The spatial mean of the gradient, [N, T, K, h, w] -> float32 [N, T, K].

    Source: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization",
    ICCV 2017, equation 1.

    Zeros where all that is left of it is rounding: behind a mean over positions that the model subtracts, as covariance
    pooling does, a gradient has none.
    """
    mean: Array = np.asarray(gradients).mean(axis=(-2, -1), dtype=np.float64)
    size = np.abs(gradients).mean(axis=(-2, -1), dtype=np.float64)
    nothing = np.abs(mean).max(-1, keepdims=True) <= NO_MEAN * size.max(-1, keepdims=True)
    return np.where(nothing, 0, mean).astype(np.float32)


@_weights("gradcam", "Grad-CAM", "w_k = mean_ij g", "Selvaraju et al. 2017, arXiv 1610.02391", needs="weights")
def gradcam(activations: Array, gradients: Array) -> Float:
    """:func:`gradcam_weights`; files that emit pooled gradients hold these already."""
    return gradcam_weights(gradients)


@_weights("gradcam++", "Grad-CAM++", "w_k = sum_ij ReLU(g) / (2 + g sum_ab A)", "Chattopadhay et al. 2018, 1710.11063")
def gradcam_pp(activations: Array, gradients: Array) -> Float:
    """alpha = g^2 / (2 g^2 + g^3 sum_ab A), which is 1 / (2 + g sum_ab A); w_k = sum_ij alpha ReLU(g).

    Of y = exp(score), as in the paper, whose derivatives are powers of g; its factor exp(score) > 0 scales all
    weights of a class and goes away in the normalisation. Where g is not positive the addend is zero.
    """
    g = np.asarray(gradients, np.float64)
    below = 2 + g * np.asarray(activations, np.float64).sum((-2, -1))[:, None, :, None, None]
    rising = (g > 0) & (below != 0) | ~np.isfinite(g)
    weights: Array = np.where(rising, g / np.where(below == 0, 1, below), 0).sum((-2, -1))
    return weights.astype(np.float32)


@_weights("xgradcam", "XGrad-CAM", "w_k = sum_ij g A / sum_ij A", "Fu et al. 2020, 2008.02312")
def xgradcam(activations: Array, gradients: Array) -> Float:
    """The gradient's mean weighted by the activation; zero for a map that sums to zero."""
    a = np.asarray(activations, np.float64)
    total = a.sum((-2, -1))[:, None]
    product: Array = np.einsum("nkhw,ntkhw->ntk", a, np.asarray(gradients, np.float64))
    weights: Array = np.where(total == 0, 0, product / np.where(total == 0, 1, total))
    return weights.astype(np.float32)


@_weights("cam", "CAM", "w_k = the class's row of the head's matrix", "Zhou et al. 2016, 1512.04150", needs="weights")
def cam(activations: Array, gradients: Array) -> Float:
    """For heads that are a mean over the positions and one matrix W alone: row W_c, which the gradient's sum is there.

    With y_c = sum_k W_ck mean_ij A_kij the gradient is W_ck / (h w) at every position: Grad-CAM's weights times h w.
    """
    total: Array = np.asarray(gradients).sum(axis=(-2, -1), dtype=np.float64)
    return total.astype(np.float32)


# ---- maps


@_maps("hirescam", "HiResCAM", "M = sum_k g A", "Draelos and Carin 2020, 2011.08891")
def hirescam(activations: Array, gradients: Array | None) -> Float:
    """The product without the spatial mean: for a head that is linear behind the layer, exactly its evidence."""
    assert gradients is not None
    return _summed("nkhw,ntkhw->nthw", activations, gradients)


@_maps("elementwise", "Grad-CAM element-wise", "M = sum_k ReLU(g A)", "pytorch-grad-cam, 2021")
def elementwise(activations: Array, gradients: Array | None) -> Float:
    """HiResCAM of the positive products alone."""
    assert gradients is not None
    product = np.asarray(activations, np.float64)[:, None] * gradients
    maps: Array = ((product + np.abs(product)) / 2).sum(2)  # the ReLU that keeps a negative infinity from vanishing
    return maps.astype(np.float32)


@_maps("layercam", "LayerCAM", "M = sum_k ReLU(g) A", "Jiang et al. 2021, TIP 30")
def layercam(activations: Array, gradients: Array | None) -> Float:
    """Each position is weighted by its own positive gradient: sharp at shallow layers too."""
    assert gradients is not None
    return _summed("nkhw,ntkhw->nthw", activations, np.maximum(gradients, 0))


@_maps(
    "eigencam", "Eigen-CAM", "M = first principal component of A", "Muhammad and Yeasin 2020, 2008.00299", "activations"
)
def eigencam(activations: Array, gradients: Array | None) -> Float:
    """Positions as samples, channels as features; the same for all targets. The sign is that of the larger extreme
    (Chung and Ying 2025, equation 13): a principal component has none of its own."""
    return np.stack([_component(a) for a in np.asarray(activations, np.float64)])[:, None]


@_maps("eigengradcam", "Eigen-Grad-CAM", "M = first principal component of g A", "pytorch-grad-cam, 2021")
def eigengradcam(activations: Array, gradients: Array | None) -> Float:
    """Eigen-CAM of the products, and so of a class."""
    assert gradients is not None
    products = np.asarray(activations, np.float64)[:, None] * gradients
    return np.stack([[_component(each) for each in image] for image in products])


@_maps("kpcacam", "KPCA-CAM", "M = first kernel component of A", "Karmani et al. 2024, 2410.00267", "activations")
def kpcacam(activations: Array, gradients: Array | None) -> Float:
    """Eigen-CAM with the kernel tanh(<a, b> / K + 1) of centred activations in place of their product."""
    return np.stack([_component(a, _sigmoid_kernel) for a in np.asarray(activations, np.float64)])[:, None]


@_maps("fem", "FEM", "M = sum_k mean_ij [A > mean + 2 std] A", "Fuad et al. 2020, IPTA", "activations")
def fem(activations: Array, gradients: Array | None) -> Float:
    """Each map is weighted by the share of its positions that are strong: two standard deviations above its mean."""
    a = np.asarray(activations, np.float64)
    threshold = a.mean((-2, -1), keepdims=True) + 2 * a.std((-2, -1), keepdims=True)
    return _summed("nkhw,nk->nhw", a, (a > threshold).mean((-2, -1)))[:, None]


def eigen_smoothed(activations: Array, weights: Array) -> Float:
    """The first principal component of w_k A_k over the positions, [N, T, h, w], in place of sum_k w_k A_k.

    It keeps the pattern that most of the weighted activations share and drops the rest as noise. Source:
    pytorch-grad-cam (eigen_smooth); there its sign is left to chance, here it is that of the larger extreme.
    """
    products = (np.asarray(a, np.float64) * w[..., None, None] for a, w in zip(activations, weights, strict=True))
    return np.stack([[_component(each) for each in image] for image in products])


def _summed(indices: str, activations: Array, factors: Array) -> Float:
    maps: Array = np.einsum(indices, np.asarray(activations, np.float64), np.asarray(factors, np.float64))
    return maps.astype(np.float32)


def _component(features: Array, kernel: Callable[[Array], Array] | None = None) -> Float:
    """Scores of the positions on the first (kernel) principal component of ``features`` [K, h, w], as [h, w].

    By way of the positions' Gram matrix [h w, h w], which is small, in place of the channels'.
    """
    samples = features.reshape(len(features), -1).T
    if not np.isfinite(samples).all():
        return np.full(features.shape[1:], np.nan, np.float32)
    samples = samples - samples.mean(0)
    if not samples.any():
        return np.zeros(features.shape[1:], np.float32)
    gram = samples @ samples.T
    if kernel is not None:
        gram = kernel(gram / len(features))
        gram = gram - gram.mean(0) - gram.mean(1)[:, None] + gram.mean()
    values, vectors = np.linalg.eigh(gram)
    scores = vectors[:, -1] * np.sqrt(max(values[-1], 0))
    signed: Array = scores * (-1 if abs(scores.min()) > abs(scores.max()) else 1)
    return signed.reshape(features.shape[1:]).astype(np.float32)


def _sigmoid_kernel(gram: Array) -> Array:
    kernel: Array = np.tanh(gram + 1)
    return kernel
