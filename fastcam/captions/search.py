"""Which caption a model says: the likeliest word at each step, or the likeliest of several captions (beam search)."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastcam.targets.arrays import Double

Advance = Callable[[NDArray[np.int64], NDArray[np.int64]], Double]
"""(words [B], the row that each follows [B]) -> log-probabilities of the next word [B, V]."""


@dataclass(frozen=True)
class Said:
    """A caption: its words as numbers, the end among them where it was said, and its log-probability."""

    tokens: tuple[int, ...]
    score: float


def search(advance: Advance, start: int, end: int, never: Collection[int], beam: int, most: int) -> Said:
    """The likeliest caption that a beam of this width finds; of width 1 the likeliest word is taken at each step.

    A caption's log-probability is the sum of those of its words and of its end. It is not divided by the length, so
    short captions have an advantage where the beam is wide, as in the paper by Vinyals et al. (2015).

    Args:
        advance: gives the next words' log-probabilities; the first call has one row.
        start: the word that the first call gets.
        end: the word behind which a caption ends.
        never: words that are not said.
        beam: captions that are followed at a time.
        most: words at most, the end not counted. A caption that is longer is cut.
    """
    live, finished = [Said((), 0.0)], []
    words, parents = np.array([start], np.int64), np.zeros(1, np.int64)
    for length in range(most + 1):
        logs = advance(words, parents).copy()
        logs[:, [one for one in never if one != end]] = -np.inf
        totals = np.array([one.score for one in live])[:, None] + logs
        order = np.argsort(-totals, axis=None, kind="stable")[: 2 * beam]  # half of them may end
        followed: list[tuple[int, Said]] = []
        for rank, (row, word) in enumerate(zip(*(axis.tolist() for axis in np.unravel_index(order, totals.shape)))):
            one = Said((*live[row].tokens, word), float(totals[row, word]))
            if word == end and rank < beam:
                finished.append(one)
            elif word != end and len(followed) < beam:
                followed.append((row, one))
        best = max((one.score for one in finished), default=-np.inf)
        if length == most or not followed or followed[0][1].score <= best:  # more words make it less likely
            break
        live = [one for _, one in followed]
        words, parents = np.array([one.tokens[-1] for one in live]), np.array([row for row, _ in followed])
    return max(finished or live, key=lambda one: one.score)
