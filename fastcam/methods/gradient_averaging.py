"""Methods that average over changed images: noise, a path from a baseline, flips and scalings.

How attributions become maps and boxes: :mod:`fastcam.methods.attribution_maps`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fastcam import kernels
from fastcam.errors import FastcamError
from fastcam.methods.attribution_maps import AUTO, blur_of, strongest, summed
from fastcam.methods.cam import gradcam_weights
from fastcam.methods.context import Probe
from fastcam.methods.registry import METHODS, Array, Float, MethodResult, register
from fastcam.schema import ACTIVATIONS, CAM, GRADIENTS, WEIGHTS


def _noisy(probe: Probe, samples: int, noise: float, seed: int) -> Iterator[Float]:
    """The image with Gaussian noise, of standard deviation ``noise``, ``samples`` times."""
    if noise < 0:
        raise FastcamError(f"noise must not be negative, got {noise}")
    rng = np.random.default_rng(seed)
    return (probe.x + rng.normal(0, noise, probe.x.shape).astype(np.float32) for _ in range(samples))


def _noisy_gradients(probe: Probe, samples: int, noise: float, seed: int) -> Iterator[Array]:
    """Gradients under noise that is a share of the image's range, float64."""
    images = _noisy(probe, samples, noise * float(probe.x.max() - probe.x.min()), seed)
    return (gradient.astype(np.float64) for gradient in probe.input_gradients(images, samples))


@register(
    "smoothgrad",
    "SmoothGrad",
    "M = max_c |mean_i dy/dx at x + noise_i|",
    "Smilkov et al. 2017, 1706.03825",
    runs="gradients",
    mode="gradient",
    at_image=True,
    cost="1 + samples, forward and back",
)
def smoothgrad(
    probe: Probe, *, samples: int = 50, noise: float = 0.15, seed: int = 0, blur: float = AUTO
) -> MethodResult:
    """``noise``: the standard deviation, as a share of the image's range (largest value less smallest)."""
    total: Any = sum(_noisy_gradients(probe, samples, noise, seed))
    mean = total / samples
    return MethodResult(maps=strongest(mean, blur_of(probe, blur)), attributions=mean.astype(np.float32))


@register(
    "vargrad",
    "VarGrad",
    "M = max_c var_i dy/dx at x + noise_i",
    "Adebayo et al. 2018, 1810.03292",
    runs="gradients",
    mode="gradient",
    at_image=True,
    cost="1 + samples, forward and back",
)
def vargrad(probe: Probe, *, samples: int = 50, noise: float = 0.15, seed: int = 0, blur: float = AUTO) -> MethodResult:
    """The variance (over ``samples``, not one less) where SmoothGrad has the mean."""
    mean: Any = 0.0
    square: Any = 0.0
    for i, gradient in enumerate(_noisy_gradients(probe, samples, noise, seed)):
        apart = gradient - mean
        mean = mean + apart / (i + 1)
        square = square + apart * (gradient - mean)
    variance = square / samples
    return MethodResult(maps=strongest(variance, blur_of(probe, blur)), attributions=variance.astype(np.float32))


@register(
    "integrated-gradients",
    "Integrated Gradients",
    "a = (x - x0) mean_i dy/dx at x0 + t_i (x - x0), M = sum_c a",
    "Sundararajan et al. 2017, 1703.01365",
    runs="gradients",
    mode="gradient",
    at_image=True,
    adds_up=True,
    cost="1 + steps, forward and back",
)
def integrated_gradients(probe: Probe, *, steps: int = 50, baseline: float = 0.0, blur: float = AUTO) -> MethodResult:
    """The integral over t from 0 to 1 by the Gauss-Legendre rule. The attributions sum to y(x) - y(x0).

    ``baseline``: every element of x0, in the network's input: 0 is the mean picture of a normalised one.
    """
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    away = probe.x - np.float32(baseline)
    images = (np.float32(baseline) + np.float32((t + 1) / 2) * away for t in nodes)
    total: Any = 0.0
    for weight, gradient in zip(weights, probe.input_gradients(images, steps), strict=True):
        total = total + weight / 2 * gradient
    attributions = total * away
    return MethodResult(maps=summed(attributions, blur_of(probe, blur)), attributions=attributions.astype(np.float32))


@register(
    "smoothgradcam++",
    "Smooth Grad-CAM++",
    "w_k = sum_ij ReLU(D1) D2 / (2 D2 + D3 sum_ab A), Dp = mean_i g^p under noise_i",
    "Omeiza et al. 2019, 1908.01224",
    "gradients",
    runs="gradients",
    cost="1 + samples",
)
def smoothgradcam_pp(probe: Probe, *, samples: int = 4, noise: float = 0.3, seed: int = 0) -> MethodResult:
    """Grad-CAM++ with the powers of the gradient averaged over noise of standard deviation ``noise``.

    As torch-cam does, D2 stands above, as in Grad-CAM++, where the paper has D1; A are the image's own activations. An
    addend without a rising gradient, or with nothing below, is zero.
    """
    powers = [np.zeros(probe.gradients.shape) for _ in range(3)]
    for added in probe.added(_noisy(probe, samples, noise, seed), samples):
        gradient = np.asarray(added[GRADIENTS], np.float64)
        for p, total in enumerate(powers):
            total += gradient ** (p + 1) / samples
    first, second, third = powers
    below = 2 * second + third * probe.activations.sum((-2, -1), dtype=np.float64)[None, :, None, None]
    rising = (first > 0) & (below != 0) | ~np.isfinite(first)
    weights = np.where(rising, first * second / np.where(below == 0, 1, below), 0).sum((-2, -1))
    return MethodResult(weights=weights.astype(np.float32))


@register(
    "augsmooth",
    "Augmentation smoothing",
    "M = mean of the heatmaps of x, its mirror image, and both times 0.9 and 1.1",
    "pytorch-grad-cam's aug_smooth, 2021",
    runs="gradients",
    cost="6",
)
def augsmooth(probe: Probe, *, of: str = "gradcam") -> MethodResult:
    """``of``: the member of the CAM family whose heatmaps, 0..1 at the image's size, are averaged; those of CAM itself
    are Grad-CAM's."""
    member = METHODS.get(of.lower())
    if member is None or member.per_image is not None or member.name == "cam":
        family = ", ".join(name for name, one in METHODS.items() if one.per_image is None and name != "cam")
        raise FastcamError(f"augmentation smoothing is of a member of the CAM family, got {of!r}; one of: {family}")
    changes = [(mirrored, factor) for mirrored in (False, True) for factor in (1.0, 0.9, 1.1)]
    images = [(probe.x[..., ::-1] if mirrored else probe.x) * np.float32(factor) for mirrored, factor in changes]
    own = _own_maps(probe.outputs, member.name)
    total: Any = _heatmaps(probe, own)
    for (mirrored, _), added in zip(changes[1:], probe.added(images[1:], len(images) - 1), strict=True):
        heatmaps = _heatmaps(probe, _own_maps(added, member.name))
        total = total + (heatmaps[..., ::-1] if mirrored else heatmaps)
    maps = np.asarray(total / len(changes), np.float32)
    cold = ~maps.any((1, 2))  # nothing speaks for it, or nothing is said at all: the image's own map tells
    maps[cold] = kernels.get().upsample(np.minimum(own, 0), probe.size)[cold]
    return MethodResult(maps=maps)


def _heatmaps(probe: Probe, signed: Float) -> Array:
    """Heatmaps [T, H, W] in 0..1 of a member's maps."""
    k = kernels.get()
    heatmaps: Array = k.upsample(k.normalize(k.relu(np.ascontiguousarray(signed))), probe.size)
    return heatmaps.astype(np.float64)


def _own_maps(added: Mapping[str, Any], name: str) -> Float:
    """A member's maps [T, h, w], of the added outputs at one image."""
    member = METHODS[name]
    if name == "gradcam" and CAM in added:
        signed = np.asarray(added[CAM], np.float32)
    elif ACTIVATIONS not in added or (member.needs == "gradients" and GRADIENTS not in added):
        wanted = "gradients" if member.needs == "gradients" else "weights"
        raise FastcamError(f"{member.title} needs more than the file emits; export the model with --emit {wanted}")
    else:
        signed = _signed(added, name)
    return np.ascontiguousarray(signed)


def _signed(added: Mapping[str, Any], name: str) -> Float:
    member, a = METHODS[name], np.asarray(added[ACTIVATIONS], np.float32)[None]
    g = np.asarray(added[GRADIENTS], np.float32)[None] if GRADIENTS in added else None
    targets = len(added[GRADIENTS] if g is not None else added[WEIGHTS])
    if member.maps is not None:
        maps = member.maps(a, g)[0]
        return np.asarray(np.broadcast_to(maps, (targets, *maps.shape[1:])), np.float32)
    assert member.weights is not None
    if name != "gradcam":
        assert g is not None
        weights = member.weights(a, g)
    else:
        weights = gradcam_weights(g) if g is not None else np.asarray(added[WEIGHTS], np.float32)[None]
    weighed: Float = kernels.get().weigh(a, np.ascontiguousarray(weights))[0]
    return weighed
