"""Captions of single objects (Grad-CAM paper, section 8.1, dense captioning): is the heat where the object is?

Each scene has two objects. The caption of one of them is explained, and its heat inside the object's box divided by
that outside. The paper explains DenseCap's captions of regions and reports 3.27 for Grad-CAM, 2.32 for guided
backpropagation and 6.38 for Guided Grad-CAM; a uniform map has 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastcam.captions import Captioner
from fastcam.evaluation.scenes import Object
from fastcam.evaluation.statistics import Ratios, weights_of
from fastcam.results.explanation import Explanation
from fastcam_bench.paper.captions.training import Scenes

PAPER = {"Grad-CAM": 3.27, "guided backpropagation": 2.32, "Guided Grad-CAM": 6.38}
Floats = npt.NDArray[np.float64]


def heats(e: Explanation) -> dict[str, Floats]:
    """The heat of the first target at each pixel, [H, W]; of gradients their size, summed over the channels."""
    assert e.input_gradients is not None
    made = {
        "Grad-CAM": e.heatmaps[0, 0],
        "guided backpropagation": np.abs(e.input_gradients[0, 0]).sum(0),
        "Guided Grad-CAM": np.abs(e.guided_gradcam[0, 0]).sum(0),
    }
    return {name: np.asarray(heat, np.float64) for name, heat in made.items()}


def compare(captioner: Captioner, data: Scenes) -> dict[str, Any]:
    """Figures with intervals over scenes, by method.

    Heat is divided by its mean over the picture, so each caption counts alike. "inside over outside" is the mean heat
    in the box of the object that the caption names over that outside, both summed over captions. "of the two objects
    the right one" is the share of captions with more heat in that object's box than in the other's; chance is 0.5.
    """
    ratios, empty = Ratios(), dict.fromkeys(PAPER, 0)
    for i in range(len(data)):
        things, objects = data.things(i), data.objects[i]
        if len(things) != 2 or (things[0].class_name, things[0].color) == (things[1].class_name, things[1].color):
            continue
        named = i % 2
        [caption] = captioner(data.images[i], captions=things[named].long(), words=False)
        weights = weights_of(f"{i}")
        for name, heat in heats(caption.explanation).items():
            if not heat.sum() > 0:
                empty[name] += 1
                continue
            heat = heat / heat.mean()
            inside, outside = _means(heat, objects[named])
            ratios.add(f"{name}: inside over outside", inside, weights, outside)
            right = inside > _means(heat, objects[1 - named])[0]
            ratios.add(f"{name}: of the two objects the right one", right, weights)
    return {"empty": empty} | {name: figure.to_dict() for name, figure in ratios.figures().items()}


def _means(heat: Floats, item: Object) -> tuple[float, float]:
    """The mean heat in an object's box, and outside."""
    box = np.zeros(heat.shape, np.bool_)
    x0, y0, x1, y1 = item.box
    box[y0:y1, x0:x1] = True
    return float(heat[box].mean()), float(heat[~box].mean())
