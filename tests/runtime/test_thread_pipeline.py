"""Stages in threads: order, bounds, errors in their place, prompt ends."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from itertools import count, islice

import pytest

from fastcam.runtime.thread_pipeline import Channel, Pipeline, Workers

SOON = 20  # seconds after which a test that hangs is a test that fails


def test_results_keep_their_order_whatever_finishes_first():
    release = [threading.Event() for _ in range(4)]

    def work(i):
        if i + 1 < 4:
            assert release[i + 1].wait(SOON)  # every item waits for the one behind it
        release[i].set()
        return i * i

    with Pipeline() as pipeline:
        assert list(pipeline.stage(range(4), work, workers=4, ahead=4)) == [0, 1, 4, 9]


def test_stages_run_at_the_same_time():
    """The first stage works on item 1 while the second works on item 0: each waits for the other."""
    meeting = threading.Barrier(2, timeout=SOON)

    def first(i):
        if i == 1:
            meeting.wait()
        return i

    def second(i):
        if i == 0:
            meeting.wait()
        return i

    with Pipeline() as pipeline:
        assert list(pipeline.stage(pipeline.stage(range(3), first), second)) == [0, 1, 2]


def test_no_more_is_read_than_fits():
    read = []
    enough = threading.Event()

    def source():
        for i in count():
            read.append(i)
            if i == 4:
                enough.set()
            yield i

    with Pipeline() as pipeline:
        results = pipeline.stage(source(), lambda i: i, ahead=3)
        assert list(islice(results, 2)) == [0, 1]
        assert enough.wait(SOON)  # two taken, three ahead
    assert len(read) <= 2 + 3 + 1  # and one in the feeder's hand


@pytest.mark.parametrize("where", ["source", "function"])
def test_an_error_comes_in_its_place(where):
    def source():
        yield from range(2)
        if where == "source":
            raise ZeroDivisionError("in place")
        yield 2

    def work(i):
        if i == 2:
            raise ZeroDivisionError("in place")
        return i

    with Pipeline() as pipeline:
        results = pipeline.stage(pipeline.stage(source(), work), lambda i: i)
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(ZeroDivisionError, match="in place"):
            next(results)


def test_leaving_early_ends_every_stage():
    threads = threading.active_count()
    with Pipeline() as pipeline:
        results = pipeline.stage(pipeline.batches(pipeline.stage(count(), str), 3, len, None), list, workers=2)
        assert next(results) == ["0", "1", "2"]
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and thread.daemon:
            thread.join(SOON)
    assert threading.active_count() <= threads


@pytest.mark.parametrize("wait", [None, SOON])
def test_batches_are_neighbours_of_one_key(wait):
    items = [1, 3, 5, 2, 4, 7, 9, 11, 13, 8]
    with Pipeline() as pipeline:
        batches = list(pipeline.batches(items, 3, lambda i: i % 2, wait))
    assert batches == [[1, 3, 5], [2, 4], [7, 9, 11], [13], [8]]


def test_a_batch_does_not_wait_for_a_source_that_is_slow():
    more = threading.Event()

    def camera():
        yield 0
        assert more.wait(SOON)
        yield 1

    with Pipeline() as pipeline:
        batches = pipeline.batches(camera(), 2, lambda i: 0, wait=0.0)
        assert next(batches) == [0]
        more.set()
        assert list(batches) == [[1]]


def test_batches_that_wait_for_no_clock_need_no_thread():
    where = []

    def source():
        for item in range(3):
            where.append(threading.get_ident())
            yield item

    with Pipeline() as pipeline:
        assert list(pipeline.batches(source(), 2, lambda i: 0, None)) == [[0, 1], [2]]
    assert where == [threading.get_ident()] * 3


@pytest.mark.parametrize("wait", [None, SOON])
def test_an_error_between_batches_comes_after_what_was_before_it(wait):
    def source():
        yield from range(3)
        raise ZeroDivisionError

    with Pipeline() as pipeline:
        batches = pipeline.batches(source(), 2, lambda i: 0, wait)
        assert [next(batches), next(batches)] == [[0, 1], [2]]
        with pytest.raises(ZeroDivisionError):
            next(batches)


def test_a_closed_channel_refuses_and_drops():
    channel = Channel(1)
    assert channel.put(1)
    refused = []
    writer = threading.Thread(target=lambda: refused.append(channel.put(2)))
    writer.start()
    channel.close()
    writer.join(SOON)
    assert refused == [False] and channel.take() == []


# --- threads that stay ------------------------------------------------------------------------------------------


def test_workers_are_the_same_threads_in_every_call():
    workers = Workers(2)
    met = threading.Barrier(2, timeout=10)

    def who(_: int) -> int:
        met.wait()  # so that both threads have a part of each call
        return threading.get_ident()

    first, second = set(workers.map(who, range(4))), set(workers.map(who, range(4)))
    assert len(first) == 2
    assert first == second
    assert threading.get_ident() in first  # the caller's own is one of them


def test_workers_keep_order_raise_and_go_on():
    workers = Workers(3)
    assert workers.map(lambda i: i * i, range(20)) == [i * i for i in range(20)]
    with pytest.raises(ZeroDivisionError):
        workers.map(lambda i: 1 // i, range(5))
    assert workers.map(str, [1, 2]) == ["1", "2"]


def test_workers_raise_what_comes_first_in_the_order_of_the_items():
    second_failed = threading.Event()

    def fail(i: int) -> None:
        if i == 0:
            second_failed.wait(SOON)
        else:
            second_failed.set()
        raise ValueError(f"item {i}")

    with pytest.raises(ValueError, match="item 0"):
        Workers(2).map(fail, range(50))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_workers_live_again_in_a_forked_process():
    workers = Workers(2)
    assert workers.map(abs, [-1, -2]) == [1, 2]
    child = os.fork()
    if child == 0:
        signal.alarm(SOON)  # a child that waits for threads that it does not have is ended by it
        os._exit(0 if workers.map(abs, [-3, -4]) == [3, 4] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def ends(number):
    """Whether there are no more threads than ``number`` soon."""
    until = time.monotonic() + SOON
    while threading.active_count() > number and time.monotonic() < until:
        time.sleep(0.005)
    return threading.active_count() <= number


@pytest.mark.parametrize("kind", ["stage", "batches"])
def test_an_interruption_as_a_thread_starts_leaves_none(kind, monkeypatch):
    start, before = threading.Thread.start, threading.active_count()

    def interrupted(thread):
        start(thread)
        if getattr(thread, "_target", None).__name__ == "feed":
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt), Pipeline() as pipeline:
        if kind == "stage":
            pipeline.stage(count(), lambda i: i, ahead=1)
        else:
            pipeline.batches(count(), 2, lambda i: 0, wait=0.0)
    assert ends(before)


def test_a_source_that_is_asked_while_its_reader_leaves_is_closed_at_once():
    """And not when garbage is collected next: it may hold threads of its own."""
    asked, left, closed = (threading.Event() for _ in range(3))

    def source():
        try:
            yield 0
            asked.set()
            left.wait(SOON)
            yield 1
        finally:
            closed.set()

    gc.disable()
    try:
        with Pipeline() as pipeline:
            assert next(pipeline.stage(source(), abs)) == 0
            assert asked.wait(SOON)
        left.set()
        assert closed.wait(SOON)
    finally:
        gc.enable()
