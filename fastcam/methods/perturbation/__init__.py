"""Methods without gradients: what happens to the score when the image, or the target layer, is changed.

The functions exported here are the formulas, over any function of scores, without a model or a file. Each stands beside
the method that it is registered as: :mod:`.changed_images` and :mod:`.changed_layer`.
"""

from fastcam.methods.perturbation.changed_images import occlusion, rise, scorecam_weights, windows
from fastcam.methods.perturbation.changed_layer import ablationcam_weights, reciprocam
from fastcam.methods.perturbation.scores import Score, score_all

__all__ = [
    "Score",
    "ablationcam_weights",
    "occlusion",
    "reciprocam",
    "rise",
    "score_all",
    "scorecam_weights",
    "windows",
]
