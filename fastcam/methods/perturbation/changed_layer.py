"""Methods that run what lies behind the target layer on changed activations: Ablation-CAM and Recipro-CAM.

Everything here is about the activations A [K, h, w] of one image and T classes; ``score`` gives the scores [M, classes]
of activations [M, K, h, w]. Results are float32 and signed; ReLU and normalisation come later. The registered methods
take as score what the file explains: what goes into a final softmax.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fastcam.errors import FastcamError
from fastcam.methods.context import Probe
from fastcam.methods.perturbation.scores import Score, chunks, score_all, scores_of_batches
from fastcam.methods.registry import Float, MethodResult, register
from fastcam.schema import TOKENS

# ---- Ablation-CAM


def ablationcam_weights(score: Score, activations: Float, classes: Sequence[int], batch_size: int = 16) -> Float:
    """w_k = (y - y_k) / y, where y_k is the score without the k-th map: float32 [T, K].

    Desai and Ramaswamy 2020, "Ablation-CAM", WACV, equation 4. Where the score y is zero the fall y - y_k is taken.
    The cost is a run behind the layer for each map that is not zero already, and one more.
    """
    live = np.flatnonzero(activations.any((1, 2)))

    def ablated() -> Iterator[Float]:
        yield activations[None]
        for some in chunks(live, batch_size):
            batch = np.repeat(activations[None], len(some), axis=0)
            batch[np.arange(len(some)), some] = 0
            yield batch

    scores = scores_of_batches(score, ablated(), classes).astype(np.float64)
    whole = np.where(scores[0] == 0, 1, scores[0])
    weights: Float = np.zeros((len(classes), len(activations)), np.float32)
    weights[:, live] = ((scores[0] - scores[1:]) / whole).T
    return weights


@register(
    "ablationcam",
    "Ablation-CAM",
    "w_k = (y - y without A_k) / y",
    "Desai and Ramaswamy 2020, WACV",
    "activations",
    runs="layer",
    cost="1 + (K + 1) heads",
)
def ablationcam(probe: Probe) -> MethodResult:
    """By how much the score falls without a channel."""
    probe.expect(len(probe.activations) + 1)
    inputs = probe.layer_scores, probe.activations, range(probe.targets), probe.layer_batch
    return MethodResult(weights=ablationcam_weights(*inputs))


# ---- Recipro-CAM


def reciprocam(
    score: Score, activations: Float, classes: Sequence[int], batch_size: int = 16, gaussian: bool = False
) -> Float:
    """The score when only one position of the layer is left, for each position: float32 [T, h, w].

    Byun and Lee 2022, "Recipro-CAM: Fast gradient-free visual explanations for convolutional neural network"
    (arXiv 2209.14074), in openvino_xai's form. ``gaussian``: the position keeps a quarter and its eight neighbours an
    eighth and a sixteenth of themselves. The map's minimum is taken off: a score has no zero of its own.
    """
    _, h, w = activations.shape
    kernel = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], np.float32) / 16 if gaussian else np.ones((1, 1), np.float32)
    reach = len(kernel) // 2

    def alone() -> Iterator[Float]:
        for i, j in np.ndindex(h, w):
            mask = np.zeros((h + 2 * reach, w + 2 * reach), np.float32)
            mask[i : i + len(kernel), j : j + len(kernel)] = kernel
            yield activations * mask[reach : reach + h, reach : reach + w]

    maps = score_all(score, alone(), classes, batch_size).T.reshape(-1, h, w)
    return np.ascontiguousarray(maps - maps.min((1, 2), keepdims=True))


@register(
    "reciprocam",
    "Recipro-CAM",
    "M_ij = y(A at ij alone)",
    "Byun and Lee 2022, 2209.14074",
    "activations",
    runs="layer",
    cost="1 + h w heads",
)
def _reciprocam(probe: Probe, *, gaussian: bool = False) -> MethodResult:
    """The score when one position is left, less its minimum; ``gaussian``: with its eight neighbours, at half weight
    and a quarter. Of a sequence the tokens that are no position are zero."""
    return _alone(probe, gaussian, tokens=False)


@register(
    "vit-reciprocam",
    "ViT-Recipro-CAM",
    "M_ij = y(class token, and the token at ij alone)",
    "Byun and Lee 2023, 2310.02588",
    "activations",
    runs="layer",
    cost="1 + h w heads",
)
def _vit_reciprocam(probe: Probe, *, gaussian: bool = True) -> MethodResult:
    """Recipro-CAM of a transformer: the class token (and its like) stays as the image's own pass made it."""
    if TOKENS not in probe.outputs:
        raise FastcamError("ViT-Recipro-CAM keeps the class token, and this layer has none; use Recipro-CAM")
    return _alone(probe, gaussian, tokens=True)


def _alone(probe: Probe, gaussian: bool, tokens: bool) -> MethodResult:
    probe.expect(probe.activations[0].size)

    def score(changed: Float) -> Float:
        return probe.layer_scores(changed, tokens)

    maps = reciprocam(score, probe.activations, range(probe.targets), probe.layer_batch, gaussian)
    return MethodResult(maps=maps)
