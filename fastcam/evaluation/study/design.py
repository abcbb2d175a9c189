"""Who sees what: every rater each picture once, conditions balanced by a Latin square, in an order of his own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Plan = NDArray[np.int64]


def conditions(raters: int, pictures: int, count: int, rng: np.random.Generator) -> Plan:
    """The condition of each picture for each rater, int64 [raters, pictures] of 0..count - 1.

    Picture and rater are row and column of a cyclic Latin square, of shuffled pictures and conditions. So a rater has
    each condition equally often, give or take one, and ``count`` raters in a row give each picture each condition once.
    """
    places = rng.permutation(pictures)
    names = rng.permutation(count)
    plan: Plan = names[(places[None] + np.arange(raters)[:, None]) % count]
    return plan


def orders(raters: int, trials: int, rng: np.random.Generator) -> Plan:
    """The order in which each rater has his trials, int64 [raters, trials]."""
    return np.stack([rng.permutation(trials) for _ in range(raters)])


def tokens(count: int, rng: np.random.Generator) -> list[str]:
    """Names that say nothing: ``count`` different ones of twelve letters."""
    found: dict[str, None] = {}
    while len(found) < count:
        found[rng.bytes(6).hex()] = None
    return list(found)
