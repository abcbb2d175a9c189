"""Requests that wait together run together; one's error, or its end of time, is no other's."""

from __future__ import annotations

import threading
import time

import pytest

from fastcam import FastcamError
from fastcam.serving.batching import Batcher
from fastcam.serving.errors import Gone, NotInTime

SOON = 30.0


class Recorded:
    """A run that doubles numbers, waits for ``go`` the first time, and fails for negative ones."""

    def __init__(self):
        self.batches, self.begun, self.go = [], threading.Event(), threading.Event()

    def __call__(self, items):
        self.batches.append(list(items))
        self.begun.set()
        assert self.go.wait(SOON)
        if any(item < 0 for item in items):
            raise FastcamError("a negative number")
        return [2 * item for item in items]


def ask_all(batcher, items, key=lambda item: 0, seconds=SOON):
    """Threads that ask; their answers come into the list."""
    answers = {}

    def ask(item):
        try:
            answers[item] = batcher.ask(item, key(item), time.monotonic() + seconds)
        except FastcamError as error:
            answers[item] = error

    threads = [threading.Thread(target=ask, args=(item,)) for item in items]
    for thread in threads:
        thread.start()
    return threads, answers


def waiting(batcher, count):
    until = time.monotonic() + SOON
    while len(batcher) < count and time.monotonic() < until:
        time.sleep(0.001)


@pytest.fixture
def run():
    return Recorded()


@pytest.fixture
def batcher(run):
    made = Batcher(run, 4)
    yield made
    run.go.set()
    made.close()


def held_up(batcher, run):
    """A first item that keeps the thread until ``run.go``."""
    first = ask_all(batcher, [100])
    assert run.begun.wait(SOON)
    return first


def test_what_waits_runs_together_up_to_the_size_of_a_batch(batcher, run):
    first = held_up(batcher, run)
    threads, answers = ask_all(batcher, range(6))
    waiting(batcher, 6)
    run.go.set()
    for thread in [*threads, *first[0]]:
        thread.join(SOON)
    assert answers == {item: 2 * item for item in range(6)} and first[1] == {100: 200}
    assert [len(batch) for batch in run.batches] == [1, 4, 2]
    assert sorted(item for batch in run.batches[1:] for item in batch) == list(range(6))


def test_items_of_other_keys_run_by_themselves(batcher, run):
    first = held_up(batcher, run)
    threads, answers = ask_all(batcher, range(4), key=lambda item: item % 2)
    waiting(batcher, 4)
    run.go.set()
    for thread in [*threads, *first[0]]:
        thread.join(SOON)
    assert answers == {item: 2 * item for item in range(4)}
    assert sorted(map(sorted, run.batches[1:])) == [[0, 2], [1, 3]]


def test_an_error_is_that_items_alone(batcher, run):
    first = held_up(batcher, run)
    threads, answers = ask_all(batcher, [1, -2, 3])
    waiting(batcher, 3)
    run.go.set()
    for thread in [*threads, *first[0]]:
        thread.join(SOON)
    assert (answers[1], answers[3], str(answers[-2])) == (2, 6, "a negative number")


def test_what_nobody_waits_for_any_more_is_not_run(batcher, run):
    first = held_up(batcher, run)
    threads, answers = ask_all(batcher, [7], seconds=0.05)
    threads[0].join(SOON)
    assert isinstance(answers[7], NotInTime)
    run.go.set()
    first[0][0].join(SOON)
    assert batcher.ask(8, 0, time.monotonic() + SOON) == 16
    assert [7] not in run.batches and all(7 not in batch for batch in run.batches)


def test_a_batch_waits_for_pictures_that_are_on_their_way(run):
    run.go.set()
    batcher = Batcher(run, 4, delay=SOON)
    batcher._busy = 1.0
    batcher.coming(2)
    threads, answers = ask_all(batcher, [1])
    waiting(batcher, 1)
    time.sleep(0.05)
    assert not run.batches
    batcher.coming(-1)
    more, others = ask_all(batcher, [2])
    waiting(batcher, 2)
    batcher.coming(-1)
    for thread in [*threads, *more]:
        thread.join(SOON)
    batcher.close()
    assert (answers, others) == ({1: 2}, {2: 4}) and sorted(run.batches[0]) == [1, 2]


def test_a_batch_of_an_idle_thread_waits_for_nobody(run):
    run.go.set()
    batcher = Batcher(run, 4, delay=SOON)
    batcher.coming(1)
    assert batcher.ask(1, 0, time.monotonic() + SOON) == 2 and run.batches == [[1]]
    batcher.coming(-1)
    batcher.close()


def test_patience_grows_with_the_share_of_runs_in_the_time():
    """Runs of 20 ms: one after the other, then with pauses of 80 ms."""

    def slow(items):
        time.sleep(0.02)
        return items

    batcher = Batcher(slow, 4, delay=1.0)
    assert batcher.patience == 0
    for _ in range(20):
        batcher.ask(1, 0, time.monotonic() + SOON)
    busy = batcher.patience
    for _ in range(20):
        time.sleep(0.08)
        batcher.ask(1, 0, time.monotonic() + SOON)
    idle = batcher.patience
    batcher.close()
    assert 0 < idle < busy <= 1.0, "busier threads wait longer"


# --- an item that is alone -------------------------------------------------------------------------------------------


class Watched:
    """A run that doubles numbers, says in which thread it was, and never runs beside itself."""

    def __init__(self):
        self.threads, self.batches, self._inside = [], [], threading.Lock()
        self.begun, self.go = threading.Event(), threading.Event()
        self.go.set()

    def __call__(self, items):
        assert self._inside.acquire(blocking=False), "two runs at once"
        try:
            self.threads.append(threading.get_ident())
            self.batches.append(list(items))
            self.begun.set()
            assert self.go.wait(SOON)
            if any(item < 0 for item in items):
                raise FastcamError("a negative number")
            return [2 * item for item in items]
        finally:
            self._inside.release()


@pytest.fixture
def known():
    """A batcher that has run once, so that it knows how long that takes, and its run."""
    watched = Watched()
    batcher = Batcher(watched, 4)
    assert batcher.ask(0, 0, time.monotonic() + SOON) == 0
    assert watched.threads != [threading.get_ident()], "of the first run nobody knows how long it takes"
    watched.threads.clear(), watched.batches.clear(), watched.begun.clear()
    yield batcher, watched
    watched.go.set()
    batcher.close()


def test_an_item_that_is_alone_runs_where_it_is_asked(known):
    batcher, watched = known
    times = []
    assert batcher.ask(4, 0, time.monotonic() + SOON, lambda *said: times.append(said)) == 8
    assert watched.threads == [threading.get_ident()]
    ((asked, begun, ended),) = times
    assert asked <= begun <= ended
    with pytest.raises(FastcamError, match="negative"):
        batcher.ask(-1, 0, time.monotonic() + SOON)
    assert batcher.ask(5, 0, time.monotonic() + SOON) == 10, "an error is that item's alone"


def test_what_comes_while_an_item_runs_by_itself_waits_and_runs_together(known):
    batcher, watched = known
    watched.go.clear()
    first, one = ask_all(batcher, [1])
    assert watched.begun.wait(SOON)
    threads, answers = ask_all(batcher, range(2, 6))
    waiting(batcher, 4)
    watched.go.set()
    for thread in [*first, *threads]:
        thread.join(SOON)
    assert one == {1: 2} and answers == {i: 2 * i for i in range(2, 6)}
    assert [sorted(batch) for batch in watched.batches] == [[1], [2, 3, 4, 5]]
    assert len(set(watched.threads)) == 2


def test_an_item_does_not_run_by_itself_while_another_is_on_its_way(known):
    batcher, watched = known
    batcher.coming(1)
    batcher.ask(1, 0, time.monotonic() + SOON)
    batcher.coming(-1)
    assert watched.threads != [threading.get_ident()]


def test_one_whose_time_may_be_too_short_can_leave_its_run(known):
    batcher, watched = known
    batcher._took = 1.0
    watched.go.clear()
    with pytest.raises(NotInTime):
        batcher.ask(1, 0, time.monotonic() + 0.1)
    watched.go.set()
    assert watched.threads != [threading.get_ident()]


def test_the_end_waits_for_an_item_that_runs_by_itself(known):
    batcher, watched = known
    watched.go.clear()
    threads, answers = ask_all(batcher, [1])
    assert watched.begun.wait(SOON)
    closing = threading.Thread(target=batcher.close)
    closing.start()
    closing.join(0.1)
    assert closing.is_alive()
    watched.go.set()
    closing.join(SOON)
    threads[0].join(SOON)
    assert not closing.is_alive() and answers == {1: 2}


def test_one_that_is_closed_answers_what_waits_and_takes_no_more(batcher, run):
    first = held_up(batcher, run)
    threads, answers = ask_all(batcher, [5])
    waiting(batcher, 1)
    closing = threading.Thread(target=batcher.close)
    closing.start()
    run.go.set()
    closing.join(SOON)
    for thread in [*threads, *first[0]]:
        thread.join(SOON)
    assert answers == {5: 10}
    with pytest.raises(Gone):
        batcher.ask(6, 0, time.monotonic() + SOON)
