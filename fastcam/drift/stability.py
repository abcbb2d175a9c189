"""The population stability index of two samples, and what chance alone makes of it.

PSI = sum over bins of (q - p) log(q / p), with p and q the shares of a bin among the reference and now. Each bin has
half a count more than was counted, so that an empty one has a share.

Sources: Siddiqi, "Credit Risk Scorecards", 2006 (the index, and 0.1 and 0.25 as its marks); Yurdakul and Naranjo,
"Statistical properties of the population stability index", 2020: of two samples of one population, of n and m, it is
(1/n + 1/m) times a chi-square of one degree of freedom less than there are bins.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Level = Literal["none", "some", "large"]
SOME, LARGE = 0.1, 0.25
"""From which index on there is some drift, and a large one."""
BINS = 10
"""Of a figure's values: each has as many of the reference's."""
_Z = 1.6448536269514722  # of the normal distribution, 95 %


def edges(values: NDArray[np.floating[Any]], bins: int = BINS) -> NDArray[np.float64]:
    """Between which values the bins lie: quantiles of the reference, each once; at most ``bins`` - 1 of them."""
    shares = np.arange(1, bins) / bins
    return np.unique(np.quantile(np.asarray(values, np.float64), shares)) if len(values) else np.zeros(0)


def counted(values: NDArray[np.floating[Any]], between: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many values lie in each bin; one that is an edge belongs to the bin below it."""
    places = np.searchsorted(between, np.asarray(values, np.float64), side="left")
    return np.bincount(places, minlength=len(between) + 1).astype(np.int64)


def index(reference: NDArray[np.int64], now: NDArray[np.int64]) -> float:
    """The index of two samples, counted in the same bins; 0 of a single bin."""
    p, q = _shares(reference), _shares(now)
    return float(((q - p) * np.log(q / p)).sum())


def _shares(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = (counts + 0.5) / (counts.sum() + 0.5 * len(counts))
    return shares


def by_chance(bins: int, n: int, m: int) -> float:
    """What the index of two samples of one population stays below 95 times in 100.

    The quantile of the chi-square is that of Wilson and Hilferty.
    """
    freedom = bins - 1
    if freedom < 1 or not n or not m:
        return 0.0
    spread = 2 / (9 * freedom)
    return float(freedom * (1 - spread + _Z * math.sqrt(spread)) ** 3 * (1 / n + 1 / m))


def level(psi: float, chance: float) -> Level:
    """How large a drift is; none where chance explains it."""
    if psi < SOME or psi <= chance:
        return "none"
    return "large" if psi >= LARGE else "some"
