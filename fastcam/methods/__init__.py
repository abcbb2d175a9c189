"""The methods by name, a family a file: what each needs of a file, what it costs and what it computes."""

from fastcam.methods import gradient_averaging, graph_modes, perturbation  # noqa: F401 - they register themselves, behind the CAM family
from fastcam.methods.cam import eigen_smoothed, gradcam_pp, gradcam_weights
from fastcam.methods.registry import METHODS, Method, MethodResult, method

__all__ = ["METHODS", "MethodResult", "Method", "eigen_smoothed", "gradcam_pp", "gradcam_weights", "method"]
