"""The exports that are asked: of the bundled model one for each mode, so that every method of one pass has its file."""

from __future__ import annotations

from pathlib import Path

import fastcam
from fastcam import Explainer
from fastcam.methods import METHODS
from fastcam.schema import Mode
from fastcam_bench.speed.soak.mixed import Question, questions

MODES: tuple[Mode | None, ...] = (
    None,
    "gradient",
    "guided",
    "deconvolution",
    "excitation",
    "contrastive-excitation",
    "lrp-epsilon",
    "lrp-composite",
    "lrp-gamma",
    "fullgrad",
    "shapleycam",
)
"""Of convolutional networks; transformers have others."""


def bundled(mode: Mode | None = None) -> bytes:
    """The bundled model, exported with gradients at the layer, and a mode at the image."""
    from fastcam_export import export_model

    data = Path(fastcam.__file__).parent / "data"
    labels = data / "scenes.labels.txt"
    exported = export_model(
        data / "scenes.onnx", preprocess="imagenet", labels=labels, emit="gradients", check=False, input_gradient=mode
    )
    content: bytes = exported.model.SerializeToString()
    return content


def explainers(threads: int | None = 1) -> dict[Mode | None, Explainer]:
    """One for each mode."""
    return {mode: Explainer(bundled(mode), threads=threads) for mode in MODES}


def methods_of(mode: str | None) -> list[str]:
    """The methods of one pass that a file of this mode has."""
    one_pass = [
        one for one in METHODS.values() if one.runs is None and one.cost.startswith("1") and "+" not in one.cost
    ]
    return [one.name for one in one_pass if one.mode == mode and one.name != "augsmooth"]


def all_questions(seed: int = 0) -> list[Question]:
    """The questions of one method, and some of them to each other."""
    asked = questions(seed)
    return [{"mode": None} | question for question in asked] + [
        {"mode": mode, "method": name} | asked[i % 3]
        for mode in MODES
        for i, name in enumerate(methods_of(mode))
        if (mode, name) != (None, "gradcam")
    ]
