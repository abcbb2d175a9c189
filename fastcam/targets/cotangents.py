"""Cotangents: what is asked of a file that was exported with ``targets="cotangent"``.

A cotangent c of an output y says that the scalar s with ds/dy = c is explained. Every function here takes an output as
a first run gave it (:meth:`fastcam.Explainer.predict`, or any runtime), says its scalar as a formula, and returns c as
float32 [N, T, *output without N]; of an output without an axis of images, N is 1. :func:`stack` puts several together.
Where s is not linear in y, c is its derivative at y, so it belongs to that picture alone.

>>> from functools import partial
>>> explainer("cat.jpg", cotangent=lambda outputs: probability(outputs["logits"], [-1, 281]))  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastcam.errors import FastcamError
from fastcam.image.preprocess import Float
from fastcam.targets.detection_cotangents import SIDES, best_box, check_index, coordinate, dense

__all__ = [
    "SIDES",
    "best_box",
    "caption",
    "class_score",
    "combination",
    "coordinate",
    "dense",
    "difference",
    "element",
    "finer",
    "multi_label",
    "pairs",
    "probability",
    "region",
    "similarity",
    "stack",
    "words",
]

Double = NDArray[np.float64]
Classes = int | Sequence[int]
Kind = Literal["log_probability", "logit"]


def stack(*cotangents: ArrayLike) -> Float:
    """Several arrays [N, T_i, ...] of one output as one, [N, sum T_i, ...]."""
    arrays = [np.asarray(one, np.float32) for one in cotangents]
    if not arrays or len({(one.shape[0], *one.shape[2:]) for one in arrays}) > 1:
        raise FastcamError("cotangents of one output and of the same images can be stacked; give at least one")
    return np.concatenate(arrays, axis=1)


def class_score(scores: ArrayLike, classes: Classes) -> Float:
    """s = y_c.

    Args:
        scores: [N, classes].
        classes: one class or T of them: an index, or -r for the r-th highest score of each image.
    """
    y = _rows(scores)
    return _one_hot(resolved(y, classes), y.shape[1]).astype(np.float32)


def combination(scores: ArrayLike, *targets: Mapping[int, float]) -> Float:
    """s = sum_c a_c y_c, one target for each mapping {class: coefficient}; classes as in :func:`class_score`."""
    y = _rows(scores)
    if not targets or not all(targets):
        raise FastcamError("a combination needs at least one class; give {class: coefficient}")
    made = [
        np.einsum("k,nkc->nc", np.array(list(one.values()), float), _one_hot(resolved(y, list(one)), y.shape[1]))
        for one in targets
    ]
    return np.stack(made, axis=1).astype(np.float32)


def difference(scores: ArrayLike, one: int, other: int, strength: float = 1.0) -> Float:
    """s = y_one - strength y_other (Finer-CAM for one reference class, Zhang et al., arXiv 2501.11309)."""
    return combination(scores, {one: 1.0, other: -strength})


def finer(
    scores: ArrayLike, one: int, others: Sequence[int], strength: float = 1.0, fixed_weights: bool = False
) -> Float:
    """s = sum_d p_d (y_one - strength y_d) / sum_d p_d with p = softmax(y), d in ``others``: Finer-CAM, weighted.

    Args:
        scores: [N, classes], before the softmax.
        one: the class that is explained, and
        others: those it is set against, as in :func:`class_score`: [-2, -3, -4] for the runners-up.
        strength: how much of what it shares with them is taken away.
        fixed_weights: take p as numbers. By default it is differentiated too, as pytorch-grad-cam does: with
            q = p / sum_d p_d and m = sum_d q_d y_d, ds/dy_d = -strength q_d (1 + y_d - m).
    """
    y = _logits(scores)
    references = resolved(y, others)
    picked = np.take_along_axis(y, references, axis=1)
    q = softmax(picked)
    slope = q if fixed_weights else q * (1 + picked - (q * picked).sum(1, keepdims=True))
    against = np.einsum("nk,nkc->nc", slope, _one_hot(references, y.shape[1]))
    return np.asarray(_one_hot(resolved(y, one), y.shape[1])[:, 0] - strength * against, np.float32)[:, None]


def probability(logits: ArrayLike, classes: Classes, log: bool = False) -> Float:
    """s = p_c, or log p_c, with p = softmax(y): ds/dy = p_c (e_c - p), or e_c - p.

    Args:
        logits: [N, classes], before the softmax. Of an output behind it, :func:`class_score` explains the probability.
        classes: as in :func:`class_score`.
        log: the logarithm, whose gradient does not vanish where the model is sure.
    """
    y = _logits(logits)
    p = softmax(y)
    chosen = resolved(y, classes)
    slope = _one_hot(chosen, y.shape[1]) - p[:, None]
    factor = 1.0 if log else np.take_along_axis(p, chosen, axis=1)[:, :, None]
    return (factor * slope).astype(np.float32)


def multi_label(scores: ArrayLike, classes: Sequence[int] | None = None, threshold: float = 0.0) -> Float:
    """s = the sum of the scores of several labels.

    Args:
        scores: [N, labels].
        classes: the labels; None takes those of each image above ``threshold`` (0 for logits, 0.5 for probabilities).

    Raises:
        FastcamError: no label is above the threshold.
    """
    y = _rows(scores)
    if classes is not None:
        return np.asarray(_one_hot(resolved(y, classes), y.shape[1]).sum(1, keepdims=True), np.float32)
    chosen = y > threshold
    there = chosen.any(axis=1)
    if not there.all():
        raise FastcamError(f"image {int(there.argmin())} has no label above {threshold}; name labels, or lower it")
    return np.asarray(chosen[:, None], np.float32)


def element(output: ArrayLike, *where: Any, batched: bool = True) -> Float:
    """s = y[n, i, j, ...], one target for each index: a regression output, a score, a coordinate.

    Args:
        output: [N, ...], or [...] where not ``batched``.
        where: indices into one image's part of it, a number or a tuple each.
    """
    y = np.asarray(output) if batched else np.asarray(output)[None]
    if not where:
        raise FastcamError("no index given; give at least one")
    made = np.zeros((len(y), len(where), *y.shape[1:]), np.float32)
    for t, index in enumerate(where):
        at = tuple(int(i) for i in np.atleast_1d(index))
        check_index(at, y.shape[1:])
        place: tuple[Any, ...] = (slice(None), t, *at)
        made[place] = 1
    return made


def region(scores: ArrayLike, classes: Classes, mask: ArrayLike | None = None) -> Float:
    """s = sum_ij M_ij y_cij: the scores of a class within a region (Seg-Grad-CAM, Vinogradova et al. 2020, equation 3).

    Args:
        scores: [N, classes, h, w].
        classes: one class or T of them, indices.
        mask: [h, w] or [N, h, w], the scores' own size: true (or a weight) where positions count; None: where the class
            has the highest score.

    Raises:
        FastcamError: a mask of another size, or an empty region.
    """
    y = np.asarray(scores, np.float64)
    if y.ndim != 4:
        raise FastcamError(f"scores of a segmenter are [N, classes, h, w], got {list(y.shape)}")
    if mask is None and y.shape[1] == 1:
        raise FastcamError("the scores of one class prefer it everywhere; give a mask, such as scores[:, 0] > 0")
    wanted = [classes] if isinstance(classes, int | np.integer) else list(classes)
    made = np.zeros((len(y), len(wanted), *y.shape[1:]), np.float32)
    for t, c in enumerate(wanted):
        check_index((c,), y.shape[1:2])
        within = y.argmax(1) == c if mask is None else np.asarray(mask, np.float32)
        if within.shape not in (y.shape[2:], (len(y), *y.shape[2:])):
            raise FastcamError(f"the mask is {list(within.shape)}, the scores are {list(y.shape)}; resize the mask")
        made[:, t, c] = within
        there = made[:, t].any(axis=(1, 2, 3))
        if not there.all():
            what = f"class {c} is predicted nowhere" if mask is None else "the mask is empty"
            raise FastcamError(f"{what} in image {int(there.argmin())}; give a mask of where it is")
    return made


def similarity(embedding: ArrayLike, references: ArrayLike, kind: Literal["cosine", "dot"] = "cosine") -> Float:
    """s = <y, r>, or their cosine, whose gradient is (r / |r| - s y / |y|) / |y|.

    Args:
        embedding: [N, D] (or [N, D, 1, 1]).
        references: [D], or [T, D]: embeddings of other pictures or of texts.

    Raises:
        FastcamError: they are of another length, or all zeros, which has no direction.
    """
    y = np.asarray(embedding, np.float64)
    flat, others = y.reshape(len(y), -1), np.atleast_2d(np.asarray(references, np.float64))
    if others.ndim != 2 or others.shape[1] != flat.shape[1]:
        raise FastcamError(f"references are {list(np.shape(references))}, the embedding has {flat.shape[1]} numbers")
    slope = np.stack([_similar(row, others, kind) for row in flat])
    return slope.reshape(len(y), len(others), *y.shape[1:]).astype(np.float32)


def pairs(embedding: ArrayLike, kind: Literal["cosine", "dot"] = "cosine") -> Float:
    """s = the similarity of images 0 and 1, of 2 and 3, ...: of each image with its partner, which is exact for both.

    Args:
        embedding: [N, D] with an even N.
    """
    y = np.asarray(embedding, np.float64)
    if len(y) % 2:
        raise FastcamError(f"{len(y)} images are no pairs; give an even number")
    partners = y.reshape(-1, 2, *y.shape[1:])[:, ::-1].reshape(len(y), -1)
    return np.concatenate([similarity(y[n : n + 1], partners[n], kind) for n in range(len(y))])


def _similar(row: Double, others: Double, kind: str) -> Double:
    if kind == "dot":
        return others
    if kind != "cosine":
        raise FastcamError(f"a similarity is cosine or dot, got {kind!r}")
    length, lengths = np.linalg.norm(row), np.linalg.norm(others, axis=1, keepdims=True)
    if not length or not lengths.all():
        raise FastcamError("an embedding of zeros has no direction; compare by the dot product, kind='dot'")
    units = others / lengths
    return np.asarray((units - (units @ row / length)[:, None] * row / length) / length)


def words(logits: ArrayLike, tokens: ArrayLike, kind: Kind = "log_probability") -> Float:
    """s = log p(token_i) at position i, one target for each word: [N, L, L, V]; see :func:`caption`."""
    y = np.asarray(logits, np.float64)
    if y.ndim != 3:
        raise FastcamError(f"scores of a sequence are [N, positions, words], got {list(y.shape)}")
    wanted = np.broadcast_to(np.asarray(tokens), y.shape[:2]) if np.ndim(tokens) < 2 else np.asarray(tokens)
    if wanted.shape != y.shape[:2] or wanted.max(initial=0) >= y.shape[2]:
        raise FastcamError(f"tokens must be [{y.shape[1]}] or [N, {y.shape[1]}] below {y.shape[2]}, -1 for no word")
    if kind not in ("log_probability", "logit"):
        raise FastcamError(f"a word is explained by its log_probability or its logit, got {kind!r}")
    there = wanted >= 0
    slope = _one_hot(np.maximum(wanted, 0), y.shape[2]) - (softmax(y) if kind == "log_probability" else 0)
    made = np.zeros((*y.shape[:2], *y.shape[1:]), np.float32)
    position = np.arange(y.shape[1])
    made[:, position, position] = slope * there[:, :, None]
    return made


def caption(logits: ArrayLike, tokens: ArrayLike, kind: Kind = "log_probability") -> Float:
    """s = sum_i log p(token_i): a caption's log probability, as Selvaraju et al. explain captions (section 8.1).

    Args:
        logits: [N, L, V], each position's scores of all words before the softmax, for the caption's words as input.
        tokens: [L] or [N, L], the caption; -1 where there is no word.
        kind: "logit" sums the words' scores instead.

    Returns:
        [N, 1, L, V].
    """
    return np.asarray(words(logits, tokens, kind).sum(axis=1, keepdims=True))


# ---- shared


def _rows(scores: ArrayLike) -> Double:
    y = np.asarray(scores, np.float64)
    if y.ndim != 2:
        raise FastcamError(f"class scores are [N, classes], got {list(y.shape)}; maps take region, sequences caption")
    return y


def are_probabilities(y: Double) -> bool:
    """Whether scores [N, classes] are visibly behind a softmax."""
    return bool(y.shape[1] > 1 and (y >= 0).all() and np.allclose(y.sum(1), 1, atol=1e-3))


def _logits(scores: ArrayLike) -> Double:
    """Scores before the softmax; refuses what is behind it."""
    y = _rows(scores)
    if are_probabilities(y):
        raise FastcamError("these scores sum to one: they are probabilities already; class_score explains them")
    return y


def softmax(y: Double) -> Double:
    """Over the last axis."""
    e = np.exp(y - y.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def log_softmax(y: Double) -> Double:
    """Over the last axis, finite where a probability rounds to zero."""
    shifted = y - y.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def resolved(y: Double, classes: Classes) -> NDArray[np.int64]:
    """Class indices [N, T]; -r is the r-th highest score of each image, the first of equals."""
    wanted = np.array([classes] if isinstance(classes, int | np.integer) else list(classes))
    count = y.shape[1]
    if wanted.ndim != 1 or not len(wanted) or wanted.dtype.kind not in "iu":
        raise FastcamError(f"classes are indices 0 to {count - 1} or ranks -1 to -{count}, got {classes!r}")
    if wanted.min() < -count or wanted.max() >= count:
        raise FastcamError(f"class {classes!r} is not one of {count}, 0 to {count - 1}, or -1 to -{count} by rank")
    order = np.argsort(-y, axis=1, kind="stable")
    return np.where(wanted < 0, order[:, np.maximum(-wanted - 1, 0)], wanted)


def _one_hot(classes: NDArray[np.int64], count: int) -> Double:
    made = np.zeros((*classes.shape, count))
    np.put_along_axis(made, classes[..., None], 1, axis=-1)
    return made
