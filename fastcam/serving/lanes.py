"""Lanes: ways of answering, whose pictures of many clients run together."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from fastcam.explain.prediction_steps import PredictionSteps
from fastcam.explain.request import Request
from fastcam.explain.streaming import Steps
from fastcam.results.explanation import Explanation
from fastcam.results.prediction import Prediction
from fastcam.runtime.inputs.batch import Batch, join_batches
from fastcam.serving.batching import Batcher
from fastcam.serving.watching.tracing import Spans

A = TypeVar("A")

Observe = Callable[[str, float], None]
"""Called with the name of a step, or "images" for a run's number of images, and seconds, or the number."""
Waited = Callable[[int, int, int], None]
"""Called with when something was asked, when its run began and when that ended, by ``time.time_ns()``."""


@dataclass(frozen=True, eq=False)
class _Item:
    """A picture that is ready for the network, and what is asked of it."""

    part: Batch
    targets: list[Any]


@dataclass(frozen=True)
class Work(Generic[A]):
    """What a lane does to a picture.

    Attributes:
        check: raises targets that cannot be asked, before anything is decoded.
        prepare: a picture to its part of a batch.
        weight: about how many bytes a picture and its part of a batch take.
        run: pictures that run together to the answer of each.
    """

    check: Callable[[list[Any]], object]
    prepare: Callable[[Any], Batch]
    weight: Callable[[Any], int]
    run: Callable[[Sequence[_Item]], list[A]]


def explaining(steps: Steps) -> Work[Explanation]:
    """Pictures are explained, each by its own targets."""

    def run(items: Sequence[_Item]) -> list[Explanation]:
        request: Request = steps.request([item.targets for item in items])
        explanation = steps.finish(steps.run(join_batches([item.part for item in items]), request), request)
        return [steps.one(explanation, i, len(items)) for i in range(len(items))]

    return Work(steps.check, steps.prepare, steps.weight, run)


def predicting(steps: PredictionSteps) -> Work[Prediction]:
    """Pictures are predicted; they have no targets."""

    def run(items: Sequence[_Item]) -> list[Prediction]:
        return steps.run(join_batches([item.part for item in items]))

    return Work(lambda targets: None, steps.prepare, steps.weight, run)


class Lane(Generic[A]):
    """One way of answering, whose pictures run together.

    Args:
        work: on them.
        runs: that go on at the same time; a picture goes to the one that has least to do.
        size: pictures of a run at most.
        delay, ran: see :class:`fastcam.serving.batching.Batcher`.
        crowd: the same work by runs of one thread, and how many of them go on at the same time. Once there are as many
            pictures, they go there, in runs of a part of ``size``: threads of one run wait for each other in a circle,
            which takes up to a third of the processor time where others decode and answer on the same cores.
    """

    def __init__(
        self,
        work: Work[A],
        runs: int,
        size: int,
        delay: float,
        ran: Callable[[int, float], None],
        crowd: tuple[Work[A], int] | None = None,
    ) -> None:
        self.work = work
        self._usual: list[Batcher[_Item, A]] = [Batcher(work.run, size, delay, ran) for _ in range(runs)]
        narrow, runs = crowd or (work, 0)
        self._crowd: list[Batcher[_Item, A]] = [
            Batcher(narrow.run, max(1, size // runs), delay, ran) for _ in range(runs)
        ]
        self.batchers = [*self._usual, *self._crowd]

    def answer(
        self, source: Any, targets: Sequence[Any], until: float, observe: Observe, spans: Spans, waited: Waited
    ) -> A:
        """The answer to one picture."""
        batcher = self._least_busy()
        batcher.coming(1)
        try:
            begun, begun_at = time.perf_counter(), time.time_ns()
            targets = [*targets]
            self.work.check(targets)
            part = self.work.prepare(source)
            observe("prepare", time.perf_counter() - begun)
            spans.record("decode", begun_at, time.time_ns())
        finally:
            batcher.coming(-1)
        key = part.tensor.shape, repr(part.further.shapes())
        return batcher.ask(_Item(part, targets), key, until, waited)

    def _least_busy(self) -> Batcher[_Item, A]:
        """The crowd's runs stay in use until half as many pictures are there as began that."""
        enough = len(self._crowd) / (2 if any(one.load for one in self._crowd) else 1)
        crowded = self._crowd and sum(one.load for one in self.batchers) >= enough
        return min(self._crowd if crowded else self._usual, key=lambda one: one.load)

    def close(self) -> None:
        """Answer what waits, then end the threads."""
        for batcher in self.batchers:
            batcher.close()
