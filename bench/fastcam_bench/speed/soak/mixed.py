"""Many threads that share Explainers: the same answers as one thread alone.

Every question (pictures of several sizes, alone and in batches, several targets, thresholds and connectivities; the
methods of one pass) is first answered by one thread. Then all threads ask each of them at the same time, which is the
warm-up, and from there on at random until the time is up; every array of every answer must have the bits of the first
one. The process is read twenty times after the warm-up while all threads rest.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from fastcam import Explanation
from fastcam_bench.speed.soak.process import Readings

ROUNDS = 20
"""How often all threads come to rest and memory is read."""

Question = dict[str, Any]


def questions(seed: int = 0) -> list[Question]:
    """Arguments of an Explainer's call: noise pictures of several sizes, singly and together."""
    random = np.random.default_rng(seed)

    def picture(height: int, width: int) -> Any:
        return np.kron(
            random.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8)
        )

    sizes = [(64, 64), (96, 128), (240, 320), (480, 360), (600, 800)]
    singles: list[Question] = [{"images": picture(*size)} for size in sizes]
    targets: list[Question] = [
        {"targets": [-1, -2, 0]},
        {"targets": [[0, 1]], "threshold": 0.5},
        {"targets": [{0: 1.0, 1: -1.0}], "connectivity": 4},
    ]
    asked = [single | target for single in singles[:3] for target in targets]
    return [*singles, *asked, {"images": [picture(*size) for size in sizes]}, {"images": [picture(88, 120)] * 20}]


def arrays_of(explanation: Explanation) -> list[Any]:
    """Everything in it that is an array, parts of tuples and outputs included."""

    def flat(value: Any) -> list[Any]:
        if isinstance(value, np.ndarray):
            return [value]
        if isinstance(value, dict):
            return [array for key in sorted(value) for array in flat(value[key])]
        return [array for part in value for array in flat(part)] if isinstance(value, tuple | list) else []

    return [array for field in fields(explanation) for array in flat(getattr(explanation, field.name))]


def same(a: Sequence[Any], b: Sequence[Any]) -> bool:
    """Whether two lists of arrays have the same shapes, dtypes and bits."""
    return len(a) == len(b) and all(
        x.shape == y.shape and x.dtype == y.dtype and x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True)
    )


class Soak:
    """Questions, their answers by one thread, and what many threads have found."""

    def __init__(self, explain: Callable[..., Explanation], asked: Sequence[Question]) -> None:
        self.explain, self.asked = explain, asked
        self.wanted = [arrays_of(explain(**question)) for question in asked]
        self.calls = self.differences = 0
        self.failures: list[str] = []
        self._lock = threading.Lock()

    def ask(self, i: int) -> None:
        """Question ``i`` once more."""
        failure, equal = "", True
        try:
            equal = same(arrays_of(self.explain(**self.asked[i])), self.wanted[i])
        except Exception as error:  # whatever goes wrong under load is what is looked for
            failure = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        with self._lock:
            self.calls += 1
            self.differences += not equal
            self.failures += [failure] if failure else []

    def run(self, threads: int, seconds: float) -> dict[str, Any]:
        """Ask from ``threads`` threads, for ``seconds`` after the warm-up."""
        over, met = threading.Event(), threading.Barrier(threads + 1)
        until = [0.0]

        def work(number: int) -> None:
            random = np.random.default_rng(number)
            for i in range(len(self.asked)):  # all the same at once: the most memory that this takes
                met.wait()
                self.ask(i)
            while True:
                met.wait()  # all have come to rest
                met.wait()  # and go on
                if over.is_set():
                    return
                while time.monotonic() < until[0]:
                    self.ask(int(random.integers(len(self.asked))))

        workers = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(threads)]
        for worker in workers:
            worker.start()
        for _ in range(len(self.asked) + 1):
            met.wait()
        readings = Readings()
        readings.take()
        for _ in range(ROUNDS):
            until[0] = time.monotonic() + seconds / ROUNDS
            met.wait()
            met.wait()
            readings.take()
        over.set()
        met.wait()
        for worker in workers:
            worker.join()
        return {
            "threads": threads,
            "seconds": seconds,
            "questions": len(self.asked),
            "calls": self.calls,
            "differences": self.differences,
            "failures": self.failures,
        } | readings.report()
