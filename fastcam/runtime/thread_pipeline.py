"""Ordered stages in threads between bounded channels: what keeps a stream moving, and knows nothing of frames."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, Generic, TypeVar

from fastcam.errors import FastcamError

T = TypeVar("T")
S = TypeVar("S")


class OwnLock:
    """A lock that a forked process finds open: the thread that may have held it is not there."""

    def __init__(self) -> None:
        self._lock = os.getpid(), threading.Lock()

    def __enter__(self) -> None:
        if self._lock[0] != os.getpid():
            self._lock = os.getpid(), threading.Lock()
        self._lock[1].acquire()

    def __exit__(self, *error: object) -> None:
        self._lock[1].release()


class Channel(Generic[T]):
    """A bounded queue from one thread to another that either side can end.

    Args:
        capacity: how many items wait at most; :meth:`put` blocks while there are as many.
    """

    def __init__(self, capacity: int) -> None:
        self._items: deque[T] = deque()
        self._capacity, self._process = capacity, os.getpid()
        self._changed = threading.Condition()
        self._finished = self._closed = False

    def put(self, item: T) -> bool:
        """Append an item as soon as there is room; False where the reader has closed the channel."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._items) < self._capacity)
            if not self._closed:
                self._items.append(item)
                self._changed.notify_all()
            return not self._closed

    def finish(self) -> None:
        """The writer's end: what waits is still read."""
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    def close(self) -> None:
        """The reader's end: what waits is dropped, and the writer's next :meth:`put` is refused."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()

    def take(self, timeout: float | None = None) -> list[T]:
        """The next item in a list; an empty one at the end, or after ``timeout`` seconds without an item.

        Raises:
            FastcamError: in a forked process, which has no thread that would put one in.
        """
        if os.getpid() != self._process:
            raise FastcamError("a stream does not go on in a forked process; begin it there")
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._finished or self._items, timeout)
            if not self._items:
                return []
            item = self._items.popleft()
            self._changed.notify_all()
            return [item]

    def __iter__(self) -> Iterator[T]:
        while item := self.take():
            yield item[0]


class Budget:
    """Bytes that items may take on their way through stages, from their source to their reader.

    An item comes in while half of the bytes are free, however large it is, or while there is room for it. So one that
    is larger than all of them still passes, and a batch that holds less than half never waits for what cannot come in.

    Args:
        most: bytes.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._held = 0
        self._changed = threading.Condition()
        self._closed = False

    @property
    def half(self) -> int:
        """Bytes at which a batch is full."""
        return self.most // 2

    def admit(self, size: int) -> None:
        """Wait until an item of ``size`` bytes may come in."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or self._held < self.half or self._held + size <= self.most,
            )
            self._held += size

    def leave(self, size: int) -> None:
        """An item of ``size`` bytes has been read."""
        with self._changed:
            self._held -= size
            self._changed.notify_all()

    def close(self) -> None:
        """Nothing waits any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Workers:
    """Threads that stay from call to call, made when they are first needed. Any number of threads may share them.

    Libraries keep memory for each thread that ever calls them (OpenCV some hundred bytes, for good): threads made for
    every call would be a leak.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._lock = OwnLock()
        self._pool: tuple[int, ThreadPoolExecutor] | None = None

    def map(self, function: Callable[[S], T], items: Iterable[S]) -> list[T]:
        """``list(map(function, items))``, several at a time; ``function`` must not call this itself.

        The caller's thread works too, so that nothing waits for a thread that is slow to wake. What ``function`` raises
        for the first of the items that it raises for is raised here; items behind it may be left out.
        """
        given = list(items)
        results: list[Any] = [None] * len(given)
        errors: dict[int, BaseException] = {}
        left = deque(range(len(given)))

        def work() -> None:
            while True:
                try:
                    i = left.popleft()
                except IndexError:
                    return
                try:
                    results[i] = function(given[i])
                except BaseException as error:
                    left.clear()
                    errors[i] = error

        helpers = [self._threads().submit(work) for _ in range(min(self.count, len(given)) - 1)]
        work()
        for helper in helpers:
            if not helper.cancel():
                helper.result()
        if errors:
            raise errors[min(errors)]
        return results

    def _threads(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None or self._pool[0] != os.getpid():  # a forked process has none of the threads
                self._pool = os.getpid(), ThreadPoolExecutor(self.count)
            return self._pool[1]


class Pipeline(ExitStack):
    """Stages that run at the same time. Leaving the context ends all of them and waits until they have.

    An interruption (KeyboardInterrupt) may come between any two steps: what ends a thread is known before it starts,
    and what an interruption cuts off is done again. In a forked process there is none of their threads, and nothing to
    wait for.
    """

    def __init__(self) -> None:
        super().__init__()
        self._process = os.getpid()

    def __exit__(self, *error: Any) -> bool:
        if os.getpid() != self._process:
            self.pop_all()
        try:
            return bool(super().__exit__(*error))
        except BaseException:
            self.close()  # what an interruption has left over
            raise

    def start(self, feed: Callable[[], None], channel: Channel[Any]) -> None:
        """Run ``feed``, which writes into ``channel``, in a thread that ends when the context is left.

        A source that blocks for ever must not hold the program.
        """
        self.callback(_surely, channel.close)
        threading.Thread(target=feed, daemon=True).start()

    def stage(self, items: Iterable[S], function: Callable[[S], T], workers: int = 1, ahead: int = 2) -> Iterator[T]:
        """``map(function, items)``, in order, computed in ``workers`` threads up to ``ahead`` results ahead.

        ``items`` is read in a thread of its own. What it or ``function`` raises is raised to the reader in its place,
        and ends the stage.
        """
        pool = ThreadPoolExecutor(workers)
        self.callback(_surely, functools.partial(pool.shutdown, wait=True, cancel_futures=True))
        channel: Channel[Future[T]] = Channel(ahead)

        def feed() -> None:
            try:
                for item in items:
                    if not channel.put(pool.submit(function, item)):
                        break
            except BaseException as error:  # the reader's to handle
                channel.put(_failed(error))
            finally:
                channel.finish()

        self.start(feed, channel)
        return (future.result() for future in channel)

    def batches(
        self,
        items: Iterable[T],
        size: int,
        key: Callable[[T], Any],
        wait: float | None,
        full: Callable[[list[T]], bool] = lambda batch: False,
    ) -> Iterator[list[T]]:
        """Neighbours with the same ``key``, up to ``size`` of them.

        Args:
            wait: seconds after the first item in which a batch may fill up; None waits for as long as it takes.
            full: whether a batch is not to grow, whatever its size.
        """
        if wait is None:  # nobody looks at a clock: no thread is needed between the two
            return _batches(_taker(items), size, key, None, full)
        channel: Channel[T | BaseException] = Channel(1)

        def feed() -> None:
            try:
                for item in items:
                    if not channel.put(item):
                        break
            except BaseException as error:
                channel.put(error)
            finally:
                channel.finish()

        self.start(feed, channel)
        return _batches(channel.take, size, key, wait, full)


def _failed(error: BaseException) -> Future[Any]:
    """A future that raises. Held where the error was caught, it would hold itself by the traceback, and the source."""
    future: Future[Any] = Future()
    future.set_exception(error)
    return future


def _surely(end: Callable[[], object]) -> None:
    """Call what may be called twice, once more where an interruption came in between."""
    try:
        end()
    except BaseException:
        end()
        raise


def _taker(items: Iterable[Any]) -> Callable[[float | None], list[Any]]:
    """What :meth:`Channel.take` is for a channel, for items that are asked for in the thread that takes them."""
    left = iter(items)

    def take(timeout: float | None = None) -> list[Any]:
        try:
            return [next(left)]
        except StopIteration:
            return []
        except BaseException as error:  # those in front of it go first
            return [error]

    return take


def _batches(
    take: Callable[[float | None], list[Any]],
    size: int,
    key: Callable[[Any], Any],
    wait: float | None,
    full: Callable[[list[Any]], bool],
) -> Iterator[list[Any]]:
    following = take(None)
    while following:
        batch, following = following, []
        until = None if wait is None else time.monotonic() + wait
        while not isinstance(batch[0], BaseException) and len(batch) < size and not full(batch):
            following = take(None if until is None else max(0.0, until - time.monotonic()))
            if not following or isinstance(following[0], BaseException) or key(following[0]) != key(batch[0]):
                break
            batch, following = batch + following, []
        if isinstance(batch[0], BaseException):
            raise batch[0]
        yield batch
        following = following or take(None)
