"""Text that is read step by step (CTC, Graves et al. 2006): which steps are a character, and its scalar.

A recogniser says at each step, from left to right, one of its characters or the blank, which is none. The text is what
is left when repeats are taken once and blanks are left out, so that a character is a run of steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastcam.errors import FastcamError
from fastcam.image.preprocess import Float
from fastcam.targets.arrays import Double, numbers
from fastcam.targets.run_pictures import name_of
from fastcam.targets.sequences import step_scores

BLANKS = frozenset({"", "<blank>", "<blk>", "[blank]", "blank", "ctc_blank"})
"""What class names call the blank."""


@dataclass(frozen=True)
class Character:
    """A character as it was read: its class, and the steps [start, stop) that are one."""

    token: int
    start: int
    stop: int


def read(best: NDArray[np.int64], blank: int) -> list[Character]:
    """The characters of one picture, of its likeliest class at each step [L]."""
    borders = [0, *(np.flatnonzero(np.diff(best)) + 1).tolist(), len(best)]
    runs = [Character(int(best[a]), a, b) for a, b in pairwise(borders) if b > a]
    return [run for run in runs if run.token != blank]


def find_blank(best: NDArray[np.int64], count: int, labels: Sequence[str] | None) -> int | None:
    """The class of the blank: by its name, else the first or the last class if it stands between others.

    Args:
        best: [N, L], the likeliest class at each step.
        count: the number of classes.
        labels: their names, or of all but the blank, or None.

    Returns:
        The class; None where nothing speaks for a blank, so that every step is a word of its own.

    Raises:
        FastcamError: the first class and the last stand between others about as often.
    """
    if labels is not None and len(labels) == count:
        named = [i for i, name in enumerate(labels) if name.strip().casefold() in BLANKS and name != " "]
        if len(named) == 1:
            return named[0]
    ends = [0, count - 1]
    between = [sum(_between(row, end) for row in best) for end in ends]
    spare = labels is not None and len(labels) == count - 1
    if not max(between):
        return ends[int(np.argmax([(best == end).sum() for end in ends]))] if spare else None
    if max(between) < 2 * min(between):
        raise FastcamError("which class is the blank, the first or the last? say blank=first, blank=last or blank=none")
    return ends[int(np.argmax(between))]


def _between(best: NDArray[np.int64], token: int) -> int:
    """How many steps are ``token`` in front of the last that is not: padding stands behind it."""
    others = np.flatnonzero(best != token)
    return int((best[: others[-1]] == token).sum()) if len(others) else 0


def characters(
    output: ArrayLike,
    blank: int,
    tokens: Sequence[int] | None = None,
    kind: str = "log_probability",
    probabilities: bool | None = None,
) -> tuple[Float, Double, list[list[int]]]:
    """s = the sum of log p(character) over the steps at which it was read, one target for each character.

    Args:
        output: [N, L, V], at each step the scores of all characters, before or behind the softmax.
        blank: the class of the blank.
        tokens: ask about these characters in place of those that were read, at their steps.
        kind: "logit" sums the scores as they are.
        probabilities: whether the output has passed a softmax; None sees it in the values.

    Returns:
        The cotangents [N, T, L, V] and scalars [N, T], zeros where a picture has fewer characters than another; and of
        each picture the characters.

    Raises:
        FastcamError: nothing is read in a picture, or another number of characters than ``tokens``.
    """
    y = numbers(output)
    runs = [read(row, blank) for row in y.argmax(2)]
    for n, found in enumerate(runs):
        if not found:
            raise FastcamError(f"no character is read in {name_of(n)}; every step is the blank")
        if tokens is not None and len(tokens) != len(found):
            raise FastcamError(
                f"{len(tokens)} characters were given, {len(found)} are read in {name_of(n)}; give as "
                "many, or none for those that are read"
            )
    most = max(map(len, runs))
    cotangent = np.zeros((len(y), most, *y.shape[1:]), np.float32)
    values = np.zeros((len(y), most))
    asked = [[run.token for run in found] if tokens is None else list(tokens) for found in runs]
    for n, found in enumerate(runs):
        for t, run in enumerate(found):
            steps = slice(run.start, run.stop)
            token = np.full(run.stop - run.start, asked[n][t])
            cotangent[n, t, steps], scores = step_scores(y[n, steps], token, kind, probabilities)
            values[n, t] = scores.sum()
    return cotangent, values, asked
