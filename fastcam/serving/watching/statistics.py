"""Counts and times of a model as Triton's clients read them, perf_analyzer among them.

Source: https://github.com/triton-inference-server/server, docs/protocol/extension_statistics.md.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastcam.serving.errors import Left

STEPS = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss")
"""Of a request as a whole, and of its parts. There is no cache."""


class Statistics:
    """Of one version of a model, since it was loaded. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._ns: Counter[str] = Counter()
        self._runs: Counter[int] = Counter()
        self._run_ns: Counter[int] = Counter()
        self._last = 0

    def add(self, step: str, ns: int) -> None:
        """A step of :data:`STEPS` has taken so many nanoseconds."""
        with self._lock:
            self._counts[step] += 1
            self._ns[step] += ns

    def ran(self, rows: int, seconds: float) -> None:
        """A run has ended."""
        with self._lock:
            self._runs[rows] += 1
            self._run_ns[rows] += int(1e9 * seconds)
            self._last = time.time_ns() // 1_000_000

    def waited(self, asked: int, begun: int, ended: int) -> None:
        """A request waited for its run, and for its end."""
        self.add("queue", begun - asked)
        self.add("compute_infer", ended - begun)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """A step that lasts as long as the context, where that ends without an error."""
        begun = time.perf_counter_ns()
        yield
        self.add(name, time.perf_counter_ns() - begun)

    @contextmanager
    def request(self) -> Iterator[None]:
        """A request, which succeeds or fails; one whose client left did neither."""
        begun = time.perf_counter_ns()
        try:
            with self.step("success"):
                yield
        except Left:
            raise
        except Exception:
            self.add("fail", time.perf_counter_ns() - begun)
            raise

    def report(self) -> dict[str, Any]:
        """The fields of Triton's ModelStatistics, without name and version."""
        with self._lock:
            return {
                "last_inference": self._last,
                "inference_count": sum(rows * count for rows, count in self._runs.items()),
                "execution_count": sum(self._runs.values()),
                "inference_stats": {step: {"count": self._counts[step], "ns": self._ns[step]} for step in STEPS},
                "batch_stats": [
                    {"batch_size": rows, "compute_infer": {"count": count, "ns": self._run_ns[rows]}}
                    for rows, count in sorted(self._runs.items())
                ],
            }
