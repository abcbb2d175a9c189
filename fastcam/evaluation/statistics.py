"""Figures with their 95 % intervals, from one pass over the rows of any number of pictures.

The interval is a bootstrap over pictures: in each of :data:`REPLICATES` replicates a picture counts as often as a
Poisson variable of mean 1 says. Its weights follow from the picture's name alone. So a figure and its interval do not
depend on the order, on threads, or on where a run was resumed, and no picture has to be kept.

Where every picture is a hit, or none is, all replicates are alike, and the bootstrap has no width. Of a share the
interval is Wilson's there, of as many trials as there are pictures: objects in one picture are not independent.

Sources: Hanley and MacGibbon, "Creating non-parametric bootstrap samples using Poisson frequencies", 2006; Wilson,
"Probable inference, the law of succession, and statistical inference", 1927.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

REPLICATES = 1000
LEVEL = 0.95
ENOUGH = 0.75
"""Of the replicates that must count something: between those of one picture and of two."""

Weights: TypeAlias = "NDArray[np.float64]"
"""float64 [1 + REPLICATES], whole numbers: how often a picture counts; the first is 1, the figure itself."""
Floats: TypeAlias = "NDArray[np.float64]"


@dataclass(frozen=True)
class Figure:
    """A number that was measured.

    Attributes:
        value: NaN where nothing was measured.
        low, high: the 95 % interval; NaN of a single picture, which says nothing of others.
        n: of how many pictures, or objects.
    """

    value: float
    low: float
    high: float
    n: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON; what is not finite becomes None."""
        ends = {"value": self.value, "low": self.low, "high": self.high}
        return {key: float(end) if np.isfinite(end) else None for key, end in ends.items()} | {"n": self.n}

    def __str__(self) -> str:
        if not np.isfinite(self.value):
            return "-"
        interval = f"{self.low:.3f} to {self.high:.3f}" if np.isfinite(self.low) else "no interval: too few pictures"
        return f"{self.value:.3f} ({interval})"


def _poisson() -> NDArray[np.uint8]:
    """uint8 [65536]: a Poisson variable of mean 1 by a uniform number of 16 bits."""
    below = np.cumsum([math.exp(-1) / math.factorial(k) for k in range(12)])
    return np.searchsorted(below, (np.arange(1 << 16) + 0.5) / (1 << 16)).astype(np.uint8)


_POISSON = _poisson()


def weights_of(name: str) -> Weights:
    """How often the picture of this name counts in each replicate: drawn by its SHAKE-128 digest."""
    drawn = hashlib.shake_128(name.encode("utf-8", "surrogatepass")).digest(2 * REPLICATES)
    weights = np.ones(1 + REPLICATES)
    weights[1:] = _POISSON[np.frombuffer(drawn, "<u2")]
    return weights


def wilson(share: float, trials: float) -> tuple[float, float]:
    """The 95 % interval of a share by Wilson's score; 0 to 1 of nothing.

    Args:
        trials: how many independent ones the share is of; of weighted ones Kish's effective number.
    """
    if trials <= 0:
        return 0.0, 1.0
    z = 1.959964
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return max(0.0, middle - half), min(1.0, middle + half)


def figure(replicates: Floats, n: int, trials: float = 0) -> Figure:
    """The figure of [1 + REPLICATES] values: the first with the interval of the others.

    Replicates in which nothing counts (NaN) are left out. Of a single picture they are 37 %, of two 14 %; of one there
    is no interval.

    Args:
        n: of how many pictures or objects.
        trials: of a share of hits, how many pictures it is of, for :func:`wilson` at 0 and 1; 0 of what is no share.
    """
    value, others = float(replicates[0]), replicates[1:]
    others = others[np.isfinite(others)]
    if len(others) < ENOUGH * REPLICATES:
        return Figure(value, float("nan"), float("nan"), n)
    if trials and value in (0.0, 1.0):
        return Figure(value, *wilson(value, trials), n)
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(others, [tail, 100 - tail])
    return Figure(value, float(low), float(high), n)


class Ratio:
    """A sum over another, such as hits over pictures; each [1 + REPLICATES].

    Args:
        share: whether it is a share of hits: what is added lies between 0, a miss, and 1, a hit, each ``of`` 1.
    """

    def __init__(self, share: bool = False) -> None:
        self.above: Floats = np.zeros(1 + REPLICATES)
        self.below: Floats = np.zeros(1 + REPLICATES)
        self.share = share
        self.n = self.pictures = 0
        self._last: Weights | None = None

    def add(self, value: float, weights: Weights, of: float = 1) -> None:
        """One more picture or object: ``value`` to the sum above, ``of`` to the one below.

        Objects of a picture come one after the other, with the same array of weights.
        """
        if value:
            self.above += weights if value == 1 else value * weights
        self.below += weights if of == 1 else of * weights
        self.n += 1
        if weights is not self._last:
            self.pictures, self._last = self.pictures + 1, weights

    def values(self) -> Floats:
        """[1 + REPLICATES]; NaN where nothing counts."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.above / self.below

    def figure(self) -> Figure:
        """With its interval."""
        return figure(self.values(), self.n, self.pictures if self.share else 0)


class Ratios:
    """Ratios by name."""

    def __init__(self) -> None:
        self.by_name: dict[str, Ratio] = {}

    def add(self, name: str, value: float, weights: Weights, of: float = 1, *, share: bool = False) -> None:
        """One more for the ratio of this name, which is a share of hits or not, see :class:`Ratio`."""
        if name not in self.by_name:
            self.by_name[name] = Ratio(share)
        self.by_name[name].add(value, weights, of)

    def figures(self) -> dict[str, Figure]:
        """All of them, in the order in which they came."""
        return {name: ratio.figure() for name, ratio in self.by_name.items()}

    def mean(self) -> Figure:
        """The mean of all ratios that something counts in, such as a mean over classes.

        Of shares a class of few pictures weighs each of them more; trials are then Kish's effective number.
        """
        if not self.by_name:
            return Figure(float("nan"), float("nan"), float("nan"), 0)
        rows = np.stack([ratio.values() for ratio in self.by_name.values()])
        known = np.isfinite(rows)
        with np.errstate(invalid="ignore", divide="ignore"):
            means = np.where(known, rows, 0).sum(0) / known.sum(0)
        ratios = self.by_name.values()
        trials = len(ratios) ** 2 / sum(1 / ratio.pictures for ratio in ratios)
        return figure(means, sum(each.n for each in ratios), trials if all(each.share for each in ratios) else 0)


class Tally(Protocol):
    """What a protocol makes of its rows, one after the other."""

    def add(self, row: Mapping[str, Any], weights: Weights) -> None:
        """One more picture; its row as :class:`fastcam.evaluation.protocols.base.Protocol` measured it."""

    def figures(self) -> dict[str, Figure]:
        """The protocol's figures so far, by name."""
