"""Scalars of class scores [N, classes]: a score, a combination, a probability, Finer-CAM, several labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real

import numpy as np
from numpy.typing import ArrayLike

from fastcam.errors import FastcamError, typed
from fastcam.image.preprocess import Float
from fastcam.schema import Cotangent
from fastcam.targets.arrays import (
    Classes,
    Double,
    Scalars,
    are_probabilities,
    class_indices,
    class_rows,
    linear,
    log_softmax,
    one_hot,
    softmax,
)
from fastcam.targets.classes import Terms, combined_name
from fastcam.targets.run_pictures import name_of
from fastcam.targets.spec_parser import Explained, File, Kind, Names, Spec, SpecFunction, of_output, terms

# ---- one class, or a combination


def class_score(scores: ArrayLike, classes: Classes) -> Float:
    """s = y_c.

    Args:
        scores: [N, classes].
        classes: one class or T of them: an index, or -r for the r-th highest score of each image.
    """
    y = class_rows(scores)
    return one_hot(class_indices(y, classes), y.shape[1]).astype(np.float32)


def combination(scores: ArrayLike, *targets: Mapping[int, float]) -> Float:
    """s = sum_c a_c y_c, one target for each mapping {class: coefficient}; classes as in :func:`class_score`."""
    y = class_rows(scores)
    for one in targets:
        typed("a combination", one, Mapping, "{class: coefficient}")
        for coefficient in one.values():
            typed("a coefficient", coefficient, Real, "a number")
    if not targets or not all(targets):
        raise FastcamError("a combination needs at least one class; give {class: coefficient}")
    each = [
        np.einsum("k,nkc->nc", np.array(list(one.values()), float), one_hot(class_indices(y, list(one)), y.shape[1]))
        for one in targets
    ]
    return np.stack(each, axis=1).astype(np.float32)


def difference(scores: ArrayLike, one: int, other: int, strength: float = 1.0) -> Float:
    """s = y_one - strength y_other (Finer-CAM for one reference class, Zhang et al., arXiv 2501.11309)."""
    return combination(scores, {one: 1.0, other: -strength})


def _class_spec(spec: Spec, file: File) -> SpecFunction:
    """One target for each word."""
    about, combinations = _combinations(spec, file)

    def explain(y: Double) -> Explained:
        return *linear(combination(y, *map(_summed, combinations)), y), _names(y, combinations, file)

    return of_output(about, explain)


# ---- probabilities


def probability(logits: ArrayLike, classes: Classes, log: bool = False) -> Float:
    """s = p_c, or log p_c, with p = softmax(y): ds/dy = p_c (e_c - p), or e_c - p.

    Args:
        logits: [N, classes], before the softmax. Of an output behind it, :func:`class_score` explains the probability.
        classes: as in :func:`class_score`.
        log: the logarithm, whose gradient does not vanish where the model is sure.
    """
    return _probability(_logits(logits), classes, log)[0]


def _probability(y: Double, classes: Classes, log: bool) -> Scalars:
    """The same; of an output that is a probability already, p = y."""
    chosen = class_indices(y, classes)
    slope = one_hot(chosen, y.shape[1])
    if are_probabilities(y):
        values = np.take_along_axis(np.log(np.maximum(y, 1e-30)), chosen, axis=1)
        factor = np.exp(-values)[:, :, None] if log else 1.0
    else:
        p = softmax(y)
        values = np.take_along_axis(log_softmax(y), chosen, axis=1)
        slope = slope - p[:, None]
        factor = 1.0 if log else np.take_along_axis(p, chosen, axis=1)[:, :, None]
    return (factor * slope).astype(np.float32), values if log else np.exp(values)


def _probability_spec(spec: Spec, file: File) -> SpecFunction:
    about, combinations = _combinations(spec, file)
    classes = [_single(spec, each) for each in combinations]
    kind = spec.kind.replace("-", " ")

    def explain(y: Double) -> Explained:
        names = tuple(tuple(f"{kind} of {name}" for name in row) for row in _names(y, combinations, file))
        return *_probability(y, classes, spec.kind.startswith("log")), names

    return of_output(about, explain)


# ---- one class against others


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
    return _finer(_logits(scores), one, others, strength, fixed_weights)[0]


def _finer(y: Double, one: int, others: Sequence[int], strength: float, fixed_weights: bool = False) -> Scalars:
    references = class_indices(y, others)
    picked = np.take_along_axis(y, references, axis=1)
    q = softmax(picked)
    mean = (q * picked).sum(1, keepdims=True)
    slope = q if fixed_weights else q * (1 + picked - mean)
    against = np.einsum("nk,nkc->nc", slope, one_hot(references, y.shape[1]))
    first = class_indices(y, one)
    cotangent = np.asarray(one_hot(first, y.shape[1])[:, 0] - strength * against, np.float32)[:, None]
    return cotangent, np.take_along_axis(y, first, axis=1) - strength * mean


def _finer_spec(spec: Spec, file: File) -> SpecFunction:
    """The first class against the others."""
    about, combinations = _combinations(spec, file, default=("-1", "-2", "-3", "-4"))
    one, *others = [_single(spec, each) for each in combinations]
    if not others:
        raise spec.wrong("against which classes? give them behind it, as in finer:-1,-2,-3")
    strength = spec.number("strength", 1.0)

    def explain(y: Double) -> Explained:
        names = _names(y, [((each, 1.0),) for each in (one, *others)], file)
        against = tuple((f"{row[0]} against {', '.join(row[1:])}",) for row in names)
        return *_finer(_logits(y), one, others, strength), against

    return of_output(about, explain)


# ---- several labels


def multi_label(scores: ArrayLike, classes: Sequence[int] | None = None, threshold: float = 0.0) -> Float:
    """s = the sum of the scores of several labels.

    Args:
        scores: [N, labels].
        classes: the labels; None takes those of each image above ``threshold`` (0 for logits, 0.5 for probabilities).

    Raises:
        FastcamError: no label is above the threshold.
    """
    y = class_rows(scores)
    if classes is not None:
        return np.asarray(one_hot(class_indices(y, classes), y.shape[1]).sum(1, keepdims=True), np.float32)
    chosen = y > threshold
    there = chosen.any(axis=1)
    if not there.all():
        raise FastcamError(f"{name_of(int(there.argmin()))} has no label above {threshold}; name labels, or lower it")
    return np.asarray(chosen[:, None], np.float32)


def _labels_spec(spec: Spec, file: File) -> SpecFunction:
    """Those that are named, or those above a threshold."""
    about, combinations = _combinations(spec, file, default=())
    classes = [_single(spec, each) for each in combinations]
    threshold = spec.number("threshold", 0.0)

    def explain(y: Double) -> Explained:
        cotangent = multi_label(y, classes or None, threshold)
        rows = [[file.label(int(k), y.shape[1]) for k in np.flatnonzero(row)] for row in cotangent[:, 0]]
        names = (" + ".join(row[:4]) + (f" + {len(row) - 4} more" if len(row) > 4 else "") for row in rows)
        return *linear(cotangent, y), tuple((name,) for name in names)

    return of_output(about, explain)


# ---- shared


def _logits(scores: ArrayLike) -> Double:
    """Scores before the softmax.

    Raises:
        FastcamError: they are probabilities.
    """
    y = class_rows(scores)
    if are_probabilities(y):
        raise FastcamError("these scores sum to one: they are probabilities already; class_score explains them")
    return y


def _combinations(spec: Spec, file: File, default: tuple[str, ...] = ("-1",)) -> tuple[Cotangent, list[Terms]]:
    """The output with class scores, and each word as a combination of its classes."""
    about = file.output(spec, (1,))
    count = about.shape[0] if isinstance(about.shape[0], int) else None
    classes = file.classes(spec, count)
    return about, [terms(spec, word, classes) for word in spec.words or default[:count]]


def _single(spec: Spec, combination: Terms) -> int:
    if len(combination) > 1 or combination[0][1] != 1:
        raise spec.wrong(f"{spec.kind} is of single classes; combinations are class:'a - b'")
    return combination[0][0]


def _summed(combination: Terms) -> dict[int, float]:
    total: dict[int, float] = {}
    for c, a in combination:
        total[c] = total.get(c, 0.0) + a
    return total


def _names(y: Double, combinations: Sequence[Terms], file: File) -> Names:
    """Per image the names of combinations, whose ranks are looked up."""
    labels = file.labels if file.labels is not None and len(file.labels) == y.shape[1] else None
    rows = []
    for row in y:
        looked_up = (
            tuple((int(class_indices(row[None], c)[0, 0]), a) for c, a in combination) for combination in combinations
        )
        rows.append(tuple(combined_name(each, labels) for each in looked_up))
    return tuple(rows)


KINDS = {
    "class": Kind("class:NAME", "a class score, or a combination: class:'a - b'", (1,), ("output",), _class_spec),
    "probability": Kind("probability:NAME", "its probability", (1,), ("output",), _probability_spec),
    "log-probability": Kind("log-probability:NAME", "and its logarithm", (1,), ("output",), _probability_spec),
    "finer": Kind(
        "finer:-1,-2,-3,-4", "weighted Finer-CAM: the first class against the others", (1,), ("output", "strength"),
        _finer_spec,
    ),
    "labels": Kind(
        "labels:NAME,NAME", "the sum of several labels; without names of those above threshold=0", (1,),
        ("output", "threshold"), _labels_spec,
    ),
}  # fmt: skip
