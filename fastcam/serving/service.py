"""What stands behind every protocol: the models, who may ask, how many at once, and threads that compute."""

from __future__ import annotations

import asyncio
import hmac
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import cache
from typing import Any, TypeVar

from fastcam.errors import FastcamError
from fastcam.serving.batching import LEARNING
from fastcam.serving.caller import CALLER, Caller
from fastcam.serving.errors import Gone, Left, NotAllowed, TooMany
from fastcam.serving.kept import Kept
from fastcam.serving.limits import Limits
from fastcam.serving.model import NO_SPANS, ServedModel
from fastcam.serving.repository import Repository
from fastcam.serving.watching import logs
from fastcam.serving.watching.metrics import Metrics
from fastcam.serving.watching.tracing import Spans

T = TypeVar("T")
LOG = logging.getLogger("fastcam.serving")
BODIES, SMALL = 256 << 20, 1 << 20
"""Bytes of bodies that are on their way at once, about; those that are small come through beyond it."""
BEHIND = 64
"""Requests whose maps are still to be counted, about; those of one more are counted before its answer."""
EARLY = "early"
"""The route of requests that were refused before theirs was known."""
AWAY, PART, LEAST = 0.01, 1 / 50, 0.001
"""Seconds that the event loop looks away at most, the same as a part of an answer's time, and the least that pays."""
FAILED = "the server failed; its log says why"
"""What a client is told of a defect."""


class Service:
    """A repository behind limits, for one event loop. HTTP and gRPC share one, so its limits hold for both together.

    Args:
        repository: what is served.
        limits: of requests.
        metrics: what is counted.
        keys: one of which a client must send; empty: anybody may ask.
        spans: record requests.
    """

    def __init__(
        self,
        repository: Repository,
        limits: Limits,
        metrics: Metrics,
        keys: tuple[str, ...] = (),
        spans: Spans = NO_SPANS,
    ) -> None:
        self.spans = spans
        self.repository, self.limits, self.metrics = repository, limits, metrics
        self.kept = Kept(limits.kept, limits.kept_seconds)
        self._keys = [key.encode() for key in keys]
        self._pool = ThreadPoolExecutor(limits.waiting, "fastcam request")
        self._counting = ThreadPoolExecutor(1, "fastcam counting")
        self._to_count = 0
        self._lock = threading.Lock()
        self._under_way = self._receiving = 0
        # to look a counter up takes longer than to count
        self._refused = cache(lambda status: metrics.requests.labels(EARLY, status))
        self._took, self._looks_away = 0.0, False  # seconds of an answer; whether that is about to begin
        self.draining = False

    def check_key(self, said: str) -> None:
        """Refuse a client without a key.

        Raises:
            NotAllowed: ``said``, "Bearer KEY" or the key alone, is none.
        """
        given = said.removeprefix("Bearer ").encode("utf-8", "replace")
        if self._keys and not any(hmac.compare_digest(given, key) for key in self._keys):
            raise NotAllowed("no key, or a wrong one; send the header Authorization: Bearer KEY")

    @property
    def ready(self) -> bool:
        """Whether requests are answered: there are models, and the end is not near."""
        return bool(self.repository.models) and not self.draining

    @property
    def full(self) -> bool:
        """Whether as many requests as may be are under way."""
        return self._under_way >= self.limits.waiting

    def refuse_more(self) -> None:
        """Refuse a request before its body is read.

        Raises:
            TooMany: as many requests as may be are under way.
        """
        if self.full:
            raise TooMany(f"{self._under_way} requests are under way; come again later")

    def refused_early(self, status: int = 429) -> None:
        """A request, or a connection, was refused before its route was known: it is counted and logged."""
        self._refused(str(status)).inc()
        logs.request(EARLY, status, 0.0, "")

    def gather(self, loop: Any) -> None:
        """Let the event loop look away for a moment, so that requests which will be refused come together.

        Each alone takes the processor from the runs and finds the caches filled by them, which costs more than all that
        is done to it. An answer comes later by :data:`PART` of its time at most.
        """
        moment = min(AWAY, PART * self._took)
        if moment >= LEAST and not self._looks_away:
            self._looks_away = True
            loop.call_soon(self._look_away, moment)

    def _look_away(self, moment: float) -> None:
        self._looks_away = False
        if self.full:
            time.sleep(moment)

    @contextmanager
    def receiving(self) -> Iterator[Callable[[int], None]]:
        """The body of a request while it comes; the context says how many bytes more are there.

        Raises:
            TooMany: a large body, while those that are on their way take too much memory.
        """
        held = 0

        def more(count: int) -> None:
            nonlocal held
            held += count
            self._receiving += count
            if self._receiving > BODIES and held > SMALL:
                raise TooMany("too many large bodies are on their way; come again later")

        try:
            yield more
        finally:
            self._receiving -= held

    async def work(
        self, call: Callable[..., T], *arguments: Any, gone: Callable[[], Coroutine[Any, Any, None]] | None = None
    ) -> T:
        """A call that computes, in a thread. Where this is cancelled, what the call has queued is not run.

        Args:
            gone: what comes to its end when the client has left.

        Raises:
            TooMany: as many requests as may be are under way.
            Left: the client has left.
        """
        with self._lock:
            self.refuse_more()
            self._under_way += 1
            self.metrics.waiting.set(self._under_way)
        begun = time.monotonic()
        caller, context = Caller(self._to_count < BEHIND), copy_context()
        context.run(CALLER.set, caller)
        computing = self._pool.submit(context.run, call, *arguments)
        computing.add_done_callback(self._done)  # a client may leave earlier; the thread is taken until then
        leaving = None if gone is None else asyncio.ensure_future(gone())
        if leaving is not None:
            leaving.add_done_callback(lambda done: None if done.cancelled() else caller.leave())
        try:
            with caller.telling(computing.cancel):
                answer = await asyncio.wrap_future(computing)
                self._took += LEARNING * (time.monotonic() - begun - self._took)
                return answer
        except asyncio.CancelledError:
            if leaving is None or not leaving.done():  # this task was cancelled
                caller.leave()
                raise
            raise Left("the client has left") from None
        finally:
            if leaving is not None:
                leaving.cancel()
            asyncio.get_running_loop().call_soon(self._count, caller)  # the answer is written before that

    def _count(self, caller: Caller) -> None:
        """What an answer, which is on its way, has left behind."""
        calls = caller.take_deferred()
        if calls:
            with self._lock:
                self._to_count += 1
            self._counting.submit(self._called, calls)

    def _called(self, calls: Sequence[Callable[[], object]]) -> None:
        for call in calls:
            try:
                call()
            except Exception as error:
                LOG.error("maps were not counted", exc_info=error)
        with self._lock:
            self._to_count -= 1

    async def all_counted(self) -> None:
        """Waits until what the answers so far have left behind is done."""
        await asyncio.wrap_future(self._counting.submit(lambda: None))

    def _done(self, computing: Any) -> None:
        with self._lock:
            self._under_way -= 1
            self.metrics.waiting.set(self._under_way)

    def with_model(self, name: str | None, version: str | None, call: Callable[[ServedModel], T]) -> T:
        """A call with a model; once more where that was replaced meanwhile.

        Raises:
            FastcamError: what the call raises, without the place where the file lies.
        """
        try:
            return self.with_this(self.repository.get(name, version), call)
        except Gone:
            return self.with_this(self.repository.get(name, version), call)

    def with_this(self, model: ServedModel, call: Callable[[ServedModel], T]) -> T:
        """The same with a model that was found."""
        try:
            with model.statistics.request():
                return call(model)
        except FastcamError as error:
            if model.explainer.name not in str(error):
                raise
            raise type(error)(str(error).replace(model.explainer.name, model.name)) from error

    def drain(self) -> None:
        """From now on it is not ready; what is under way goes on."""
        self.draining = True

    def close(self) -> None:
        """Answer what is under way, then end all threads."""
        self.drain()
        self._pool.shutdown(wait=True)
        self._counting.shutdown(wait=True)
        self.repository.close()
        self.spans.close()

    @contextmanager
    def counted(
        self, route: str, name: str, carrier: Mapping[str, str], attributes: Mapping[str, str]
    ) -> Iterator[Any]:
        """A request, counted, logged and traced; the context is told its status by ``said(status, failed)``.

        Args:
            route: as metrics and logs call it.
            name, carrier, attributes: see :meth:`fastcam.serving.watching.tracing.Spans.request`.
        """
        begun = time.monotonic()
        last: list[str | int] = ["CANCELLED"]

        with self.spans.request(name, carrier, attributes) as span:

            def said(status: str | int, failed: bool) -> None:
                last[0] = status
                span.ended(status, failed)

            try:
                yield said
            finally:
                seconds = time.monotonic() - begun
                self.metrics.requests.labels(route, str(last[0])).inc()
                self.metrics.latency.labels(route).observe(seconds)
                logs.request(route, last[0], seconds, span.trace)


def said_of(error: Exception, status: int) -> str:
    """What a client is told of an error; a defect goes to the log."""
    if status != 500:
        return str(error)
    LOG.error("a request failed", exc_info=error)
    return FAILED
