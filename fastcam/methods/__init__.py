"""The methods by name, a family a file: what each needs of a file, what it costs and what it computes."""

from fastcam.methods import averaged, modes, perturbed  # noqa: F401 - they register themselves, behind the CAM family
from fastcam.methods.base import METHODS, Answer, Method, method
from fastcam.methods.cams import eigen_smoothed, gradcam_pp, gradcam_weights

__all__ = ["METHODS", "Answer", "Method", "eigen_smoothed", "gradcam_pp", "gradcam_weights", "method"]
