"""How far the last maps of a model are from those of a reference, a table of ``fastcam batch``."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from fastcam.drift import stability
from fastcam.drift.figures import VALUES, read
from fastcam.results.concentration import entropy, heat_inside
from fastcam.results.explanation import Explanation

LAST = 1000
"""Maps that are compared with the reference."""
LEAST = 100
"""Maps from which on they are."""
EVERY = 50
"""Maps between two comparisons."""


class Reference:
    """Of one model. Safe to share between threads.

    Args:
        table: of ``fastcam batch``.

    Raises:
        FastcamError: it is no table.
    """

    def __init__(self, table: Path) -> None:
        figures = read(table)
        self._edges = {name: stability.edges(values) for name, values in figures.values.items() if len(values)}
        self._counts = {name: stability.counted(figures.values[name], edges) for name, edges in self._edges.items()}
        self._status = figures.status
        self._last: deque[Mapping[str, float | str]] = deque(maxlen=LAST)
        self._lock = threading.Lock()
        self._count = 0

    def add(self, seen: Mapping[str, float | str]) -> int:
        """One more map: its figures, as :func:`figures_of` has them. How many there have been."""
        with self._lock:
            self._last.append(seen)
            self._count += 1
            return self._count

    def indices(self) -> dict[str, float]:
        """The population stability index of each figure; nothing before there are :data:`LEAST` maps."""
        with self._lock:
            last = list(self._last)
        if len(last) < LEAST:
            return {}
        found = {}
        for name, edges in self._edges.items():
            values = np.array([one[name] for one in last if name in one], np.float32)
            if len(values):
                found[name] = stability.index(self._counts[name], stability.counted(values, edges))
        now = Counter(str(one["status"]) for one in last)
        kinds = sorted({*self._status, *now})
        counts = [np.array([each[kind] for kind in kinds], np.int64) for each in (self._status, now)]
        return found | {"status": stability.index(*counts)}


def figures_of(explanation: Explanation, i: int, target: int) -> dict[str, float | str]:
    """What is kept of a map: its status, and of the columns of :data:`fastcam.drift.figures.VALUES` those it has."""
    measures: dict[str, Callable[[Explanation, int, int], float | None]] = {
        "score": Explanation.score, "heat_inside": heat_inside, "entropy": entropy,
    }  # fmt: skip
    found: dict[str, float | str] = {"status": explanation.status[i][target]}
    for name in VALUES:
        value = measures[name](explanation, i, target)
        if value is not None and np.isfinite(value):
            found[name] = float(value)
    return found
