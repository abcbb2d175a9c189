"""Requests that meet in one run of a model."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from fastcam.serving.caller import CALLER
from fastcam.serving.errors import Gone, Left, NotInTime

T = TypeVar("T")
R = TypeVar("R")
LEARNING = 0.2
"""How much the last run counts, of what is known of how busy the thread is."""
SURELY = 4.0
"""Of the time of the last run: who has so much left runs by himself."""


@dataclass(eq=False)
class _Waiting(Generic[T, R]):
    item: T
    key: Hashable
    until: float
    answer: Future[R] = field(default_factory=Future)
    asked: int = field(default_factory=time.time_ns)
    begun: int = 0
    ended: int = 0


class Batcher(Generic[T, R]):
    """Runs what waits in batches, one after the other, in a thread of its own, or in the thread of who asks.

    A batch holds what waits when the one before has ended, so it grows with the load and a single request waits for
    nobody. While others are on their way (:meth:`coming`) a batch that is not full waits for them: hardly where the
    thread has mostly been idle, for ``delay`` seconds where it has been busy, as then whoever comes too late waits for
    a whole run. What nobody waits for any more is not run. A batch that fails is run again one by one, so that
    one item's error is no other's.

    An item that finds nothing waiting, running or on its way runs in the thread that asks for it: threads that wake
    each other take up to a millisecond. Nobody can leave such a run, so it is for those whose time is much longer than
    that of the last run.

    Args:
        run: a batch to the answers of its items, in order.
        size: of a batch at most.
        delay: seconds at most.
        ran: is told of each batch: how many items, and seconds.
    """

    def __init__(
        self,
        run: Callable[[Sequence[T]], Sequence[R]],
        size: int,
        delay: float = 0.0,
        ran: Callable[[int, float], None] = lambda count, seconds: None,
    ) -> None:
        self._run, self._size, self._delay, self._ran = run, size, delay, ran
        self._changed = threading.Condition()
        self._items: deque[_Waiting[T, R]] = deque()
        self._coming = 0
        self._closed = False
        self._busy = 0.0  # the share of runs in the time of the last of them
        self._first = 0.0  # when the batch that runs had its first item
        self._ended = time.perf_counter()  # when the last run did
        self._took = math.inf  # how long that was; nothing is known before the first
        self._running = False  # in any thread
        self._filling = False  # the thread waits for items that are on their way
        self._thread = threading.Thread(target=self._work, name="fastcam batches", daemon=True)
        self._thread.start()

    @property
    def patience(self) -> float:
        """Seconds that a batch waits now: the share of the last runs in their time, of the delay."""
        return self._delay * self._busy

    def __len__(self) -> int:
        return len(self._items)

    @property
    def load(self) -> int:
        """Items that wait or are on their way, and one for a run that goes on."""
        return len(self._items) + self._coming + self._running

    def coming(self, more: int) -> None:
        """``more`` items are on their way; of those that do not come any more a negative number."""
        with self._changed:
            self._coming += more
            if self._filling:
                self._changed.notify_all()

    def ask(
        self, item: T, key: Hashable, until: float, told: Callable[[int, int, int], None] = lambda *times: None
    ) -> R:
        """The answer to an item, which runs with others of the same ``key``.

        Args:
            until: when its time is over, by ``time.monotonic()``.
            told: is told when it was asked, when its run began and when that ended, by ``time.time_ns()``.

        Raises:
            NotInTime: its time was over first.
            Gone: the batcher is closed.
            Left: its client has left first.
            FastcamError: it cannot be answered.
        """
        caller = CALLER.get()
        caller.check()
        waiting: _Waiting[T, R] = _Waiting(item, key, until)
        with self._changed:
            if self._closed:
                raise Gone("this version of the model is no longer served; ask again")
            alone = not (self._running or self._items or self._coming)
            here = alone and until - time.monotonic() > SURELY * self._took
            if here:
                self._running = True
            else:
                self._items.append(waiting)
                self._changed.notify_all()
        if here:
            return self._here(waiting, told)
        try:
            with caller.telling(waiting.answer.cancel):
                answer = waiting.answer.result(max(0.0, until - time.monotonic()))
            told(waiting.asked, waiting.begun, waiting.ended)
            return answer
        except (CancelledError, Left) as error:
            waiting.answer.cancel()
            raise Left("the client has left") from error
        except TimeoutError as error:
            if waiting.answer.done() and not waiting.answer.cancelled():  # what it raised, by chance of that class
                raise
            waiting.answer.cancel()
            raise NotInTime("the answer was not there in time; ask again later, or give it more time") from error

    def close(self) -> None:
        """End the thread when all that waits has been answered."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _here(self, waiting: _Waiting[T, R], told: Callable[[int, int, int], None]) -> R:
        """The answer to an item that is alone, in this thread; what comes meanwhile waits for its end."""
        self._first = begun = time.perf_counter()
        waiting.begun = time.time_ns()
        try:
            (answer,) = self._run([waiting.item])
            waiting.ended = time.time_ns()
        finally:
            self._learn(begun, 1)
            with self._changed:
                self._running = False
                if self._items or self._closed:
                    self._changed.notify_all()
        told(waiting.asked, waiting.begun, waiting.ended)
        return answer

    def _work(self) -> None:
        while batch := self._next():
            begun = time.perf_counter()
            self._answer(batch)
            self._learn(begun, len(batch))

    def _learn(self, begun: float, count: int) -> None:
        """A run has ended."""
        idle, self._ended = self._first - self._ended, time.perf_counter()
        self._took = took = self._ended - begun
        self._busy += LEARNING * (took / (took + max(0.0, idle)) - self._busy)
        self._ran(count, took)

    def _next(self) -> list[_Waiting[T, R]]:
        """The next batch; none when there will be no more."""
        with self._changed:
            self._running = False
            while True:
                self._changed.wait_for(lambda: not self._running and (self._items or self._closed))
                self._first = time.perf_counter()
                if self.patience and not self._closed:
                    self._filling = True
                    self._changed.wait_for(
                        lambda: len(self._items) >= self._size or not self._coming or self._closed, self.patience
                    )
                    self._filling = False
                batch: list[_Waiting[T, R]] = []
                kept: deque[_Waiting[T, R]] = deque()
                now = time.monotonic()
                for waiting in self._items:
                    if waiting.until < now or waiting.answer.cancelled():
                        continue
                    same = not batch or waiting.key == batch[0].key
                    (batch if same and len(batch) < self._size else kept).append(waiting)
                batch = [waiting for waiting in batch if waiting.answer.set_running_or_notify_cancel()]
                self._running = bool(batch)  # before they leave the queue: no look at the load in between finds nothing
                self._items = kept
                if batch or (self._closed and not kept):
                    return batch

    def _answer(self, batch: list[_Waiting[T, R]]) -> None:
        begun = time.time_ns()
        try:
            answers = self._run([waiting.item for waiting in batch])
        except BaseException as error:
            if len(batch) == 1:
                batch[0].answer.set_exception(error)
            else:
                for waiting in batch:
                    self._answer([waiting])
            return
        ended = time.time_ns()
        for waiting, answer in zip(batch, answers, strict=True):
            waiting.begun, waiting.ended = begun, ended
            waiting.answer.set_result(answer)
