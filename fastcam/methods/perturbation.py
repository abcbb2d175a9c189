"""Methods without gradients: what happens to the score when the image, or the target layer, is changed.

Everything here is about one image x [C, H, W] (as the network takes it), its activations A [K, h, w] and T classes.
``score`` runs a batch and returns the explained scores [M, classes]: of images [M, C, H, W] for the methods that mask
the image, of activations [M, K, h, w] (what lies behind the target layer) for those that change the layer. Batches are
made on the way, so that memory holds one of them. Results are float32 and signed; ReLU and normalisation come later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam import kernels
from fastcam.errors import FastcamError

Array = NDArray[Any]
Float = NDArray[np.float32]
Score = Callable[[Float], Array]


def score_all(score: Score, inputs: Iterable[Float], classes: Sequence[int], batch_size: int = 16) -> Float:
    """The scores of ``classes`` for every input: float32 [M, T], in runs of ``batch_size``."""

    def batches() -> Iterator[Float]:
        rest = iter(inputs)
        while batch := list(islice(rest, batch_size)):
            yield np.stack(batch)

    found = _scores(score, batches(), classes)
    if not len(found):
        raise FastcamError("there is nothing to run: the target layer has no channels or positions")
    return found


def _scores(score: Score, batches: Iterable[Float], classes: Sequence[int]) -> Float:
    """The scores of ``classes`` for every input of all batches: float32 [M, T]."""
    rows = [np.asarray(score(batch), np.float32)[:, list(classes)] for batch in batches]
    return np.concatenate(rows) if rows else np.zeros((0, len(classes)), np.float32)


def _some(indices: Array, count: int) -> Iterator[Array]:
    """``indices``, ``count`` at a time."""
    return (indices[start : start + count] for start in range(0, len(indices), count))


# ---- masked images


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
            for some in _some(live, batch_size):
                masks = _scaled(kernels.get().upsample(a[some], size))
                if noise:
                    masks = masks + rng.normal(0, noise, masks.shape).astype(np.float32)
                else:
                    masks = masks * np.float32((step + 1) / steps)
                yield x * masks[:, None]
        if flat.any():
            yield np.zeros_like(x)[None]

    found, means = _scores(score, masked(), classes), np.zeros((len(a), len(classes)))
    means[live] = found[: steps * len(live)].reshape(steps, len(live), -1).mean(0, dtype=np.float64)
    means[flat] = found[-1:]
    powers: Array = np.exp(means - means.max(0))
    weights: Float = (powers / powers.sum(0)).T.astype(np.float32)
    return weights


def occlusion(
    score: Score,
    x: Float,
    classes: Sequence[int],
    window: tuple[int, int] = (32, 32),
    stride: tuple[int, int] = (16, 16),
    value: float | Float = 0.0,
    batch_size: int = 16,
) -> Float:
    """By how much the score falls when a window is covered: float32 [T, H, W].

    Zeiler and Fergus 2014, "Visualizing and Understanding Convolutional Networks", section 4.3 (arXiv 1311.2901). A
    pixel's value is the mean fall over the windows that cover it; the last row and column of windows end at the border.

    Args:
        window, stride: (rows, columns), at most the image's.
        value: what covers, a number or one per channel [C, 1, 1]: 0 is the mean of a normalised input.
    """
    size = (x.shape[1], x.shape[2])
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
    made = _random_masks(np.random.default_rng(seed), size, cells, keep)
    for start in range(0, masks, batch_size):
        batch = list(islice(made, min(batch_size, masks - start)))
        scores = score_all(score, (x * mask for mask in batch), classes, batch_size)
        total += np.einsum("mt,mhw->thw", scores.astype(np.float64), np.stack(batch))
    return (total / (masks * keep)).astype(np.float32)


def _random_masks(rng: np.random.Generator, size: tuple[int, int], cells: int, keep: float) -> Iterator[Float]:
    cell = [-(-side // cells) for side in size]
    enlarged = ((cells + 1) * cell[0], (cells + 1) * cell[1])
    while True:
        bits = (rng.random((cells + 1, cells + 1)) < keep).astype(np.float32)
        top, left = (int(rng.integers(0, side)) for side in cell)
        yield kernels.get().upsample(bits, enlarged)[top : top + size[0], left : left + size[1]]


# ---- a changed layer


def ablationcam_weights(score: Score, activations: Float, classes: Sequence[int], batch_size: int = 16) -> Float:
    """w_k = (y - y_k) / y, where y_k is the score without the k-th map: float32 [T, K].

    Desai and Ramaswamy 2020, "Ablation-CAM", WACV, equation 4. Where the score y is zero the fall y - y_k is taken.
    The cost is a run behind the layer for each map that is not zero already, and one more.
    """
    live = np.flatnonzero(activations.any((1, 2)))

    def ablated() -> Iterator[Float]:
        yield activations[None]
        for some in _some(live, batch_size):
            batch = np.repeat(activations[None], len(some), axis=0)
            batch[np.arange(len(some)), some] = 0
            yield batch

    scores = _scores(score, ablated(), classes).astype(np.float64)
    whole = np.where(scores[0] == 0, 1, scores[0])
    weights: Float = np.zeros((len(classes), len(activations)), np.float32)
    weights[:, live] = ((scores[0] - scores[1:]) / whole).T
    return weights


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


def _scaled(masks: Float) -> Float:
    """Each mask from its minimum to its maximum as 0..1; zeros where these are the same."""
    low, high = masks.min((1, 2), keepdims=True), masks.max((1, 2), keepdims=True)
    scaled: Float = (masks - low) / np.where(high > low, high - low, 1)
    return scaled


def _starts(size: int, window: int, stride: int) -> list[int]:
    return [*range(0, size - window, stride), size - window]
