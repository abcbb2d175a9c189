"""The networks as files: ONNX of PyTorch, exported by FastCAM, and the same maps by PyTorch's autograd."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

import fastcam
from fastcam_bench.paper.questions.grammar import ANSWERS, LENGTH, ids
from fastcam_bench.paper.questions.pictures import SIZE
from fastcam_bench.paper.trunk import normalised
from fastcam_export import export_model

Floats = npt.NDArray[np.float32]
PICTURE, QUESTION = "picture", "question"


def onnx_of(net: nn.Module, length: int = LENGTH) -> bytes:
    """An ONNX file: ``picture`` [N, 3, 64, 64] and ``question`` int64 [N, L] -> ``answers`` [N, answers]."""
    file = io.BytesIO()
    named: dict[str, Any] = {"input_names": [PICTURE, QUESTION], "output_names": ["answers"]}
    named["dynamic_axes"] = {name: {0: "N"} for name in (PICTURE, QUESTION, "answers")}
    some = torch.zeros(2, 3, SIZE, SIZE), torch.ones(2, length, dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an LSTM's initial state, which is zeros here for every batch
        torch.onnx.export(net.eval(), some, file, dynamo=False, opset_version=17, **named)  # type: ignore[arg-type]
    return file.getvalue()


def explainer_of(
    net: nn.Module, layers: Sequence[str] = (), answers: Sequence[str] = ANSWERS, length: int = LENGTH
) -> fastcam.Explainer:
    """An Explainer of a network at its last map, or at several layers by their names in PyTorch."""
    how: dict[str, Any] = {"preprocess": "imagenet", "labels": list(answers), "check": False, "emit": "gradients"}
    if layers:
        how["layer"] = list(layers)
    made = export_model(onnx_of(net, length), **how)
    return fastcam.Explainer(made.model.SerializeToString(), threads=1)


def words_of(texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """Texts as int64 [n, L]."""
    return np.array([ids(text) for text in texts], np.int64)


def by_autograd(
    net: Any,
    images: npt.NDArray[np.uint8],
    words: npt.NDArray[np.int64],
    weights: npt.NDArray[np.float32],
    dtype: torch.dtype = torch.float32,
) -> npt.NDArray[Any]:
    """Grad-CAM before its ReLU [n, h, w] of combinations [n, answers] of the logits, by PyTorch's autograd.

    Args:
        net: of the same ``dtype``.
    """
    with torch.no_grad():
        features = net.features(normalised(images).to(dtype))
    features.requires_grad_()
    score = (net.answer(features, torch.from_numpy(words)) * torch.from_numpy(weights)).sum()
    (gradient,) = torch.autograd.grad(score, features)
    return (gradient.mean((2, 3), keepdim=True) * features).sum(1).detach().numpy()  # type: ignore[no-any-return]
