"""A lane with several runs at the same time, and one whose runs are others where many pictures wait."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

from fastcam.serving.errors import Gone
from fastcam.serving.lanes import Lane, Work
from fastcam.serving.model import NO_SPANS

PART = SimpleNamespace(tensor=SimpleNamespace(shape=(1,)), further=SimpleNamespace(shapes=lambda: ()))


def work(run):
    return Work(check=lambda targets: None, prepare=lambda source: PART, weight=lambda source: 1, run=run)


def lane(run, runs, crowd=None):
    return Lane(work(run), runs, 4, 0.0, lambda count, seconds: None, None if crowd is None else (work(crowd), 2))


def ask(made, targets):
    return made.answer(b"", targets, time.monotonic() + 30, lambda what, value: None, NO_SPANS, lambda *times: None)


def test_two_requests_run_at_the_same_time_where_two_runs_do():
    barrier = threading.Barrier(2)

    def run(items):
        barrier.wait(20)  # in vain, if the other waited for the end of this one
        return [item.targets for item in items]

    made = lane(run, 2)
    for one in made.batchers:
        one._took = 60.0  # a run of unknown length goes on in the lane's own thread
    answers = {}
    threads = [threading.Thread(target=lambda i=i: answers.update({i: ask(made, [i])})) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert answers == {0: [0], 1: [1]}
    made.close()
    with pytest.raises(Gone):
        ask(made, [0])


class Held:
    """Runs that wait for ``go``, and what they were of."""

    def __init__(self):
        self.batches, self.begun, self.go = [], threading.Semaphore(0), threading.Event()

    def __call__(self, items):
        self.batches.append(sorted(item.targets[0] for item in items))
        self.begun.release()
        assert self.go.wait(30)
        return [item.targets for item in items]

    @property
    def seen(self):
        return [item for batch in self.batches for item in batch]


@pytest.fixture
def crowded():
    """A lane of one run of up to four pictures, and of two where many wait; and both kinds of runs."""
    usual, crowd = Held(), Held()
    made = lane(usual, 1, crowd)
    yield made, usual, crowd
    usual.go.set()
    crowd.go.set()
    made.close()


def inside(made):
    """How many wait, and how many run."""
    return sum(len(one) + one._running for one in made.batchers)


def asked(made, targets, before=0):
    """Threads that ask, each when those before are in a queue or run, as ``before`` of others are."""
    threads = []
    for number, target in enumerate(targets, before + 1):
        threads.append(threading.Thread(target=ask, args=(made, [target])))
        threads[-1].start()
        until_inside(made, number)
    return threads


def until_inside(made, number):
    until = time.monotonic() + 30
    while inside(made) != number and time.monotonic() < until:
        time.sleep(0.001)
    assert inside(made) == number


def test_many_pictures_go_to_the_runs_for_a_crowd_in_smaller_parts(crowded):
    made, usual, crowd = crowded
    threads = asked(made, [0])
    assert usual.begun.acquire(timeout=30)
    threads += asked(made, [1], 1)
    assert not crowd.batches, "two pictures are no crowd for two runs"
    threads += asked(made, range(2, 4), 2)
    for _ in range(2):  # both run at the same time: neither has ended
        assert crowd.begun.acquire(timeout=30)
    threads += asked(made, range(4, 12), 4)
    crowd.go.set()
    usual.go.set()
    for thread in threads:
        thread.join(30)
    assert usual.batches == [[0], [1]]
    assert sorted(crowd.seen) == [*range(2, 12)]
    assert sorted(map(len, crowd.batches)) == [1, 1, 2, 2, 2, 2], "four pictures of a run are two of each of two runs"


def test_behind_a_crowd_who_is_alone_has_the_usual_run(crowded):
    made, usual, crowd = crowded
    threads = asked(made, [0])
    assert usual.begun.acquire(timeout=30)
    threads += asked(made, range(1, 4), 1)
    assert crowd.begun.acquire(timeout=30) and crowd.begun.acquire(timeout=30)
    usual.go.set()
    for thread in threads[:2]:
        thread.join(30)
    until_inside(made, 2)
    threads += asked(made, [4], 2)
    assert len(usual.batches) == 2, "while half as many are there, they stay together"
    crowd.go.set()
    for thread in threads:
        thread.join(30)
    ask(made, [5])
    assert usual.batches[-1] == [5] and 4 in crowd.seen
