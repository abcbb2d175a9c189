"""Backward modes as methods: what the file brought back to the image or the layer, as a map.

At the layer the map is the relevance as it is. At the image it has the image's size: of gradients (plain, guided
backpropagation, deconvolution, Guided Grad-CAM) the largest absolute value over the channels, as Simonyan et al. 2014
show it; of what shares a score out (relevance, input times gradient) the sum over them. The box is around the largest
connected part above the threshold, which of a map of single pixels may be small: for a region ask for Grad-CAM's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastcam.methods.averaged import strongest, summed
from fastcam.methods.base import METHODS, Answer, Method, asking
from fastcam.schema import MODES

if TYPE_CHECKING:
    from fastcam.probe import Probe

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
    "lrp-gamma": ("LRP-gamma", "M = sum_c relevance", "Montavon et al. 2019, LNCS 11700"),
}
"""Title, formula and source of a mode; others have their name and the sum."""
_GRADIENTS = ("gradient", "guided", "deconvolution")


def _gradients(probe: Probe) -> Answer:
    found = probe.brought_back
    return Answer(maps=strongest(found), attributions=found)


def _shares(probe: Probe) -> Answer:
    found = probe.brought_back
    return Answer(maps=found) if found.ndim == 3 else Answer(maps=summed(found), attributions=found)


for _mode in MODES:
    _title, _formula, _source = _ABOUT.get(_mode, (_mode, "M = sum_c relevance", "fastcam export --help"))
    METHODS[_mode] = Method(
        _mode,
        _title,
        "nothing",
        _formula,
        _source,
        ask=_gradients if _mode in _GRADIENTS else _shares,
        mode=_mode,
        at_image=_mode in _GRADIENTS,
        adds_up=_mode not in _GRADIENTS,
        cost="1, and its backward pass",
    )


@asking(
    "input-x-gradient",
    "Input x gradient",
    "M = sum_c x dy/dx",
    "Shrikumar et al. 2016, 1605.01713",
    mode="gradient",
    at_image=True,
    adds_up=True,
    cost="1, and its backward pass",
)
def input_x_gradient(probe: Probe) -> Answer:
    """The first term of the score's expansion about zero."""
    found = probe.brought_back * probe.x
    return Answer(maps=summed(found), attributions=found)


@asking(
    "guided-gradcam",
    "Guided Grad-CAM",
    "M = max_c |guided dy/dx| times Grad-CAM's heatmap",
    "Selvaraju et al. 2017, 1610.02391",
    "weights",
    mode="guided",
    at_image=True,
    cost="1, and its backward pass",
)
def guided_gradcam(probe: Probe) -> Answer:
    """Section 3.2 of the paper: the product, pixel by pixel, with the map upsampled to the input."""
    found = probe.brought_back * probe.gradcam()[:, None]
    return Answer(maps=strongest(found), attributions=found)
