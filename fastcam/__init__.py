"""FastCAM explains any vision model in ONNX: Grad-CAM heatmaps, masks and boxes at the price of inference.

Everything heavy is imported on first use, so ``import fastcam`` loads neither onnx, torch, cv2 nor cupy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastcam import _moved
from fastcam.errors import FastcamError
from fastcam.schema import __version__

if TYPE_CHECKING:
    from fastcam.explainer import Explainer
    from fastcam.results.explanation import Explanation
    from fastcam.results.prediction import Prediction
    from fastcam.runtime.providers import Settings
    from fastcam.schema import Preprocessing

__all__ = ["Explainer", "Explanation", "FastcamError", "Prediction", "Preprocessing", "Settings", "__version__"]

_moved.install()

_LAZY = {
    "Explainer": "fastcam.explainer",
    "Explanation": "fastcam.results.explanation",
    "Prediction": "fastcam.results.prediction",
    "Preprocessing": "fastcam.schema",
    "Settings": "fastcam.runtime.providers",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'fastcam' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)
