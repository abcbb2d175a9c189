"""Methods without gradients: the score of changed images, or of a changed layer. Formulas:
:mod:`fastcam.methods.perturbation`.

Scores of changed images are the model's output as it gives it: a probability where it ends with a softmax, as in
Score-CAM and RISE. Those of a changed layer are what the file explains: what goes into that softmax.
"""

from __future__ import annotations

from fastcam.errors import FastcamError
from fastcam.methods import perturbation
from fastcam.methods.context import Probe
from fastcam.methods.registry import Float, MethodResult, register
from fastcam.schema import TOKENS


def _classes(probe: Probe) -> range:
    """The columns of :meth:`Probe.scores`."""
    return range(probe.targets)


def _scorecam(probe: Probe, steps: int, noise: float, seed: int) -> MethodResult:
    if noise < 0:
        raise FastcamError(f"noise is a standard deviation, at least 0, got {noise}")
    probe.expect(steps * len(probe.activations))
    given = probe.scores, probe.x, probe.activations, _classes(probe), probe.batch_size
    return MethodResult(weights=perturbation.scorecam_weights(*given, steps, noise, seed))


@register(
    "scorecam",
    "Score-CAM",
    "w = softmax_k y(x * M_k), M_k = A_k upsampled, 0..1",
    "Wang et al. 2020, 1910.01279",
    "activations",
    runs="images",
    cost="1 + K",
)
def scorecam(probe: Probe) -> MethodResult:
    """A channel's weight is the score of what its map leaves of the image."""
    return _scorecam(probe, 1, 0.0, 0)


@register(
    "sscam",
    "SS-CAM",
    "w = softmax_k mean_i y(x * (M_k + noise_i))",
    "Wang et al. 2020, 2006.14255",
    "activations",
    runs="images",
    cost="1 + K samples",
)
def sscam(probe: Probe, *, samples: int = 35, noise: float = 2.0, seed: int = 0) -> MethodResult:
    """Score-CAM, averaged over ``samples`` masks with Gaussian noise of standard deviation ``noise``."""
    return _scorecam(probe, samples, noise, seed)


@register(
    "iscam",
    "IS-CAM",
    "w = softmax_k mean_i y(x * i M_k / steps)",
    "Naidu et al. 2020, 2010.03023",
    "activations",
    runs="images",
    cost="1 + K steps",
)
def iscam(probe: Probe, *, steps: int = 10) -> MethodResult:
    """Score-CAM, averaged over masks that fade in."""
    return _scorecam(probe, steps, 0.0, 0)


@register(
    "occlusion",
    "Occlusion",
    "M_ij = mean fall of y over the windows that cover ij",
    "Zeiler and Fergus 2014, 1311.2901",
    runs="images",
    cost="1 + windows",
)
def occlusion(
    probe: Probe, *, window: tuple[int, int] = (32, 32), stride: tuple[int, int] = (16, 16), value: float = 0.0
) -> MethodResult:
    """The map has the image's size. ``value`` is what covers, in the network's input: 0 is the mean picture of a
    normalised one."""
    rows, columns = (-(-max(s - w, 0) // d) + 1 for s, w, d in zip(probe.size, window, stride, strict=True))
    probe.expect(rows * columns + 1)
    given = probe.scores, probe.x, _classes(probe), window, stride, value, probe.batch_size
    return MethodResult(maps=perturbation.occlusion(*given))


@register(
    "rise",
    "RISE",
    "M = mean_i y(x * m_i) m_i / keep less its minimum, m_i random masks",
    "Petsiuk et al. 2018, 1806.07421",
    runs="images",
    cost="1 + masks",
)
def rise(probe: Probe, *, masks: int = 4000, cells: int = 7, keep: float = 0.5, seed: int = 0) -> MethodResult:
    """The map has the image's size. Its minimum is taken off, so that it can be seen: each pixel's value has the mean
    score of all masks in it."""
    probe.expect(masks)
    given = probe.scores, probe.x, _classes(probe), masks, cells, keep, probe.batch_size, seed
    maps = perturbation.rise(*given)
    return MethodResult(maps=maps - maps.min((1, 2), keepdims=True))


# ---- a changed layer


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
    given = probe.layer_scores, probe.activations, _classes(probe), probe.layer_batch
    return MethodResult(weights=perturbation.ablationcam_weights(*given))


@register(
    "reciprocam",
    "Recipro-CAM",
    "M_ij = y(A at ij alone)",
    "Byun and Lee 2022, 2209.14074",
    "activations",
    runs="layer",
    cost="1 + h w heads",
)
def reciprocam(probe: Probe, *, gaussian: bool = False) -> MethodResult:
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
def vit_reciprocam(probe: Probe, *, gaussian: bool = True) -> MethodResult:
    """Recipro-CAM of a transformer: the class token (and its like) stays as the image's own pass made it."""
    if TOKENS not in probe.found:
        raise FastcamError("ViT-Recipro-CAM keeps the class token, and this layer has none; use Recipro-CAM")
    return _alone(probe, gaussian, tokens=True)


def _alone(probe: Probe, gaussian: bool, tokens: bool) -> MethodResult:
    probe.expect(probe.activations[0].size)

    def score(changed: Float) -> Float:
        return probe.layer_scores(changed, tokens)

    given = score, probe.activations, _classes(probe), probe.layer_batch
    return MethodResult(maps=perturbation.reciprocam(*given, gaussian=gaussian))
