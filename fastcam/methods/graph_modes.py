"""Backward modes as methods: what the file brought back to the image or the layer, as a map.

At the layer the map is the relevance as it is, of the layer's size. At the image it is made of the attributions, with a
``blur``, as :mod:`fastcam.methods.attribution_maps` says. Maps that are nowhere near zero count from their
minimum on.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from fastcam.methods.attribution_maps import AUTO, FROM_MINIMUM, above_minimum, blur_of, blurred, strongest, summed
from fastcam.methods.context import Probe
from fastcam.methods.registry import METHODS, Method, MethodResult, register
from fastcam.schema import MODES, Mode

_ABNAR = "Abnar and Zuidema 2020, 2005.00928"
_ABOUT = {
    "gradient": ("Gradient", "M = max_c |dy/dx|", "Simonyan et al. 2014, 1312.6034"),
    "guided": ("Guided backpropagation", "M = max_c |guided dy/dx|", "Springenberg et al. 2015, 1412.6806"),
    "deconvolution": ("Deconvolution", "M = max_c |deconvolved y|", "Zeiler and Fergus 2014, 1311.2901"),
    "excitation": ("Excitation backpropagation", "M = sum_k p, winning probabilities", "Zhang et al. 2016, 1608.00507"),
    "contrastive-excitation": (
        "Contrastive excitation",
        "M = sum_k p of y less p of not y",
        "Zhang et al. 2016, 1608.00507",
    ),
    "lrp-epsilon": ("LRP-epsilon", "M = sum_c relevance", "Bach et al. 2015, PLoS ONE 10(7)"),
    "lrp-composite": ("LRP composite", "M = sum_c relevance", "Kohlbrenner et al. 2020, 1910.09840"),
    "rollout": ("Attention rollout", "M = class token's row of prod (A + I) / 2", _ABNAR),
    "rollout-max": ("Rollout, largest head", "the same, of the largest of the heads", _ABNAR),
    "rollout-min": ("Rollout, smallest head", "the same, of the smallest of the heads", _ABNAR),
    "legrad": (
        "LeGrad",
        "M = mean over layers, heads, rows of ReLU(ds^l/dA^l)",
        "Bousselham et al. 2024, 2404.03214",
    ),
    "fullgrad": (
        "FullGrad",
        "M = |x dy/dx| and |b dy/db| of all biases",
        "Srinivas and Fleuret 2019, 1905.00780",
    ),
    "shapleycam": ("ShapleyCAM", "w_k = mean_ij (g - H A / 2)", "Cai 2025, 2501.06261"),
    "lrp-gamma": ("LRP-gamma", "M = sum_c relevance", "Montavon et al. 2019, LNCS 11700"),
}
"""Title, formula and source of a mode; others have their name and the sum."""
_COSTS = {"rollout": "1", "rollout-max": "1", "rollout-min": "1", "shapleycam": "1, and two backward passes"}
_GRADIENTS = ("gradient", "guided", "deconvolution")


def _gradients(probe: Probe, *, blur: float = AUTO) -> MethodResult:
    attributions = probe.attributions
    return MethodResult(maps=strongest(attributions, blur_of(probe, blur)), attributions=attributions)


def _shares(probe: Probe, *, blur: float = AUTO) -> MethodResult:
    attributions = probe.attributions
    if attributions.ndim == 3:  # of the layer, whose positions are no single pixels
        return MethodResult(maps=blurred(attributions, 0 if math.isnan(blur) else blur))
    return MethodResult(maps=summed(attributions, blur_of(probe, blur)), attributions=attributions)


def _above_minimum(probe: Probe, *, blur: float = 0.0) -> MethodResult:
    return MethodResult(maps=above_minimum(blurred(probe.attributions, blur)))


def _ask(mode: Mode) -> Callable[..., MethodResult]:
    if mode in FROM_MINIMUM:
        return _above_minimum
    return _gradients if mode in _GRADIENTS else _shares


for _mode in MODES:
    _title, _formula, _source = _ABOUT.get(_mode, (_mode, "M = sum_c relevance", "fastcam export --help"))
    METHODS[_mode] = Method(
        _mode,
        _title,
        "nothing",
        _formula,
        _source,
        per_image=_ask(_mode),
        mode=_mode,
        at_image=_mode in _GRADIENTS,
        adds_up=_mode not in _GRADIENTS,
        cost=_COSTS.get(_mode, "1, and its backward pass"),
    )


@register(
    "input-x-gradient",
    "Input x gradient",
    "M = sum_c x dy/dx",
    "Shrikumar et al. 2016, 1605.01713",
    mode="gradient",
    at_image=True,
    adds_up=True,
    cost="1, and its backward pass",
)
def input_x_gradient(probe: Probe, *, blur: float = AUTO) -> MethodResult:
    """The first term of the score's expansion about zero."""
    attributions = probe.attributions * probe.x
    return MethodResult(maps=summed(attributions, blur_of(probe, blur)), attributions=attributions)


@register(
    "guided-gradcam",
    "Guided Grad-CAM",
    "M = max_c |guided dy/dx| times Grad-CAM's heatmap",
    "Selvaraju et al. 2017, 1610.02391",
    "weights",
    mode="guided",
    at_image=True,
    cost="1, and its backward pass",
)
def guided_gradcam(probe: Probe, *, blur: float = AUTO) -> MethodResult:
    """Section 3.2 of the paper: the product, pixel by pixel, with the map upsampled to the input."""
    attributions = probe.attributions * probe.gradcam()[:, None]
    return MethodResult(maps=strongest(attributions, blur_of(probe, blur)), attributions=attributions)
