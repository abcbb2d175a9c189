"""Methods that run the network on changed images: the Score-CAM family, Occlusion and RISE.

Everything here is about one image x [C, H, W] (as the network takes it) and T classes; ``score`` gives the scores
[M, classes] of images [M, C, H, W]. Results are float32 and signed; ReLU and normalisation come later. The registered
methods take as score the model's output as it gives it: a probability where the model ends with a softmax, as in the
papers of Score-CAM and RISE.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from fastcam import kernels
from fastcam.errors import FastcamError
from fastcam.methods.context import Probe
from fastcam.methods.perturbation.scores import Score, chunks, score_all, scores_of_batches
from fastcam.methods.registry import Array, Float, MethodResult, register

# ---- Score-CAM, SS-CAM, IS-CAM


def scorecam_weights(
    score: Score,
    x: Float,
    activations: Float,
    classes: Sequence[int],
    batch_size: int = 16,
    steps: int = 1,
    noise: float = 0.0,
    seed: int = 0,
) -> Float:
    """w_k = softmax_k mean_i score(x * M_ki): M_k is A_k, upsampled to the image and scaled to 0..1; float32 [T, K].

    Wang et al. 2020, "Score-CAM" (arXiv 1910.01279), with one step. SS-CAM (Wang et al. 2020, 2006.14255) averages
    ``steps`` runs with Gaussian noise of standard deviation ``noise`` added to M_k; IS-CAM (Naidu et al. 2020,
    2010.03023) integrates over i M_k / steps, i = 1..steps. The score of the paper's baseline image is the same for
    all k and leaves the softmax as it is. The cost is K ``steps`` forward passes; without noise all maps that are the
    same everywhere, whose M_k is zero, are one.

    Args:
        x, activations: float32 [C, H, W] and [K, h, w].
        steps, noise: as above; without noise the steps are IS-CAM's.
    """
    a = np.ascontiguousarray(activations, np.float32)
    size, rng = (x.shape[1], x.shape[2]), np.random.default_rng(seed)
    flat = (a == a[:, :1, :1]).all((1, 2)) & (noise == 0)
    live = np.flatnonzero(~flat)

    def masked() -> Iterator[Float]:
        for step in range(steps):
            for some in chunks(live, batch_size):
                masks = _scaled(kernels.get().upsample(a[some], size))
                if noise:
                    masks = masks + rng.normal(0, noise, masks.shape).astype(np.float32)
                else:
                    masks = masks * np.float32((step + 1) / steps)
                yield x * masks[:, None]
        if flat.any():
            yield np.zeros_like(x)[None]

    scores, means = scores_of_batches(score, masked(), classes), np.zeros((len(a), len(classes)))
    means[live] = scores[: steps * len(live)].reshape(steps, len(live), -1).mean(0, dtype=np.float64)
    means[flat] = scores[-1:]
    powers: Array = np.exp(means - means.max(0))
    weights: Float = (powers / powers.sum(0)).T.astype(np.float32)
    return weights


def _scaled(masks: Float) -> Float:
    """Each mask from its minimum to its maximum as 0..1; zeros where these are the same."""
    low, high = masks.min((1, 2), keepdims=True), masks.max((1, 2), keepdims=True)
    scaled: Float = (masks - low) / np.where(high > low, high - low, 1)
    return scaled


def _scorecam(probe: Probe, steps: int, noise: float, seed: int) -> MethodResult:
    if noise < 0:
        raise FastcamError(f"noise is a standard deviation, at least 0, got {noise}")
    probe.expect(steps * len(probe.activations))
    inputs = probe.scores, probe.x, probe.activations, range(probe.targets), probe.batch_size
    return MethodResult(weights=scorecam_weights(*inputs, steps, noise, seed))


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


# ---- Occlusion


def occlusion(
    score: Score,
    x: Float,
    classes: Sequence[int],
    window: Sequence[int] = (),
    stride: Sequence[int] = (),
    value: float | Float = 0.0,
    batch_size: int = 16,
) -> Float:
    """By how much the score falls when a window is covered: float32 [T, H, W].

    Zeiler and Fergus 2014, "Visualizing and Understanding Convolutional Networks", section 4.3 (arXiv 1311.2901). A
    pixel's value is the mean fall over the windows that cover it; the last row and column of windows end at the border.

    Args:
        window, stride: (rows, columns), at most the image's; empty takes those of :func:`windows`.
        value: what covers, a number or one per channel [C, 1, 1]: 0 is the mean of a normalised input.
    """
    size = (x.shape[1], x.shape[2])
    window, stride = windows(size, window, stride)
    if not all(1 <= w <= s and 1 <= d <= w for w, d, s in zip(window, stride, size, strict=True)):
        raise FastcamError(
            f"occlusion with window {window} and stride {stride}: the window must fit in the image {size}, and a "
            "stride be at least 1 and at most the window, so that every pixel is covered"
        )
    tops, lefts = (_starts(*one) for one in zip(size, window, stride, strict=True))
    corners = [(top, left) for top in tops for left in lefts]

    def covered() -> Iterator[Float]:
        yield x
        for top, left in corners:
            one = x.copy()
            one[:, top : top + window[0], left : left + window[1]] = value
            yield one

    scores = score_all(score, covered(), classes, batch_size)
    fall, count = np.zeros((len(classes), *size)), np.zeros(size)
    for (top, left), row in zip(corners, scores[1:], strict=True):
        place = np.s_[..., top : top + window[0], left : left + window[1]]
        fall[place] += (scores[0] - row)[:, None, None]
        count[place] += 1
    return (fall / count).astype(np.float32)


def windows(
    size: tuple[int, int], window: Sequence[int] = (), stride: Sequence[int] = ()
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Window and stride (rows, columns) for an image of ``size``, where the caller leaves them open.

    A window is a seventh of each side (32 of 224), at least 3, and at most half of it, so that a map has differences;
    the stride is half of it. A stride for a window that the caller says is 16, at most the window. Of a signal, an
    image of one row, windows are as high.
    """
    if window and size[0] == 1:
        window, stride = (1, window[-1]), (1, stride[-1]) if stride else ()
    if window:
        return tuple(window), tuple(stride) or tuple(min(16, side) for side in window)
    sides = tuple(min(max(round(side / 7), 3), max(side // 2, 1)) for side in size)
    return sides, tuple(stride) or tuple(max(side // 2, 1) for side in sides)


def _starts(size: int, window: int, stride: int) -> list[int]:
    return [*range(0, size - window, stride), size - window]


@register(
    "occlusion",
    "Occlusion",
    "M_ij = mean fall of y over the windows that cover ij",
    "Zeiler and Fergus 2014, 1311.2901",
    runs="images",
    cost="1 + windows",
    hides=True,
)
def _occlusion(
    probe: Probe, *, window: tuple[int, ...] = (), stride: tuple[int, ...] = (), value: float = 0.0
) -> MethodResult:
    """The map has the image's size. ``window`` is by default a seventh of each side, of a text one word. ``value`` is
    what covers, in the network's input: 0 is the mean picture of a normalised one; of a text the id of a word, by
    default the one that the tokenizer has for masked or else unknown words."""
    window, stride = windows(probe.size, window, stride)
    rows, columns = (-(-max(s - w, 0) // d) + 1 for s, w, d in zip(probe.size, window, stride, strict=True))
    probe.expect(rows * columns + 1)
    maps = occlusion(probe.scores, probe.x, range(probe.targets), window, stride, value, probe.batch_size)
    return MethodResult(maps=maps)


# ---- RISE


def rise(
    score: Score,
    x: Float,
    classes: Sequence[int],
    masks: int = 4000,
    cells: int = 7,
    keep: float = 0.5,
    batch_size: int = 16,
    seed: int = 0,
) -> Float:
    """The mean of random masks, weighted by the score under each: float32 [T, H, W].

    Petsiuk et al. 2018, "RISE: Randomized Input Sampling for Explanation of Black-box Models" (arXiv 1806.07421),
    equation 6; there the score is a probability. A mask is a grid of ``cells`` x ``cells`` random bits (1 with
    probability ``keep``), bilinearly enlarged to one cell more than the image and cut out at a random shift.
    """
    if masks < 1 or cells < 1 or not 0 < keep <= 1:
        raise FastcamError(f"RISE needs masks >= 1, cells >= 1 and 0 < keep <= 1, got {masks}, {cells} and {keep}")
    size = (x.shape[1], x.shape[2])
    total = np.zeros((len(classes), *size))
    drawn = random_masks(np.random.default_rng(seed), size, cells, keep)
    for start in range(0, masks, batch_size):
        batch = list(islice(drawn, min(batch_size, masks - start)))
        scores = score_all(score, (x * mask for mask in batch), classes, batch_size)
        total += np.einsum("mt,mhw->thw", scores.astype(np.float64), np.stack(batch))
    return (total / (masks * keep)).astype(np.float32)


def random_masks(rng: np.random.Generator, size: tuple[int, int], cells: int, keep: float) -> Iterator[Float]:
    """RISE's masks [H, W] without end."""
    cell = [-(-side // cells) for side in size]
    enlarged = ((cells + 1) * cell[0], (cells + 1) * cell[1])
    while True:
        bits = (rng.random((cells + 1, cells + 1)) < keep).astype(np.float32)
        top, left = (int(rng.integers(0, side)) for side in cell)
        yield kernels.get().upsample(bits, enlarged)[top : top + size[0], left : left + size[1]]


@register(
    "rise",
    "RISE",
    "M = mean_i y(x * m_i) m_i / keep less its minimum, m_i random masks",
    "Petsiuk et al. 2018, 1806.07421",
    runs="images",
    cost="1 + masks",
)
def _rise(probe: Probe, *, masks: int = 4000, cells: int = 7, keep: float = 0.5, seed: int = 0) -> MethodResult:
    """The map has the image's size. Its minimum is taken off, so that it can be seen: each pixel's value has the mean
    score of all masks in it."""
    probe.expect(masks)
    maps = rise(probe.scores, probe.x, range(probe.targets), masks, cells, keep, probe.batch_size, seed)
    return MethodResult(maps=maps - maps.min((1, 2), keepdims=True))
