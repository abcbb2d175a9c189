"""A lane with several runs at the same time."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

from fastcam.serving.errors import Gone
from fastcam.serving.model import NO_SPANS, Lane, Work

PART = SimpleNamespace(tensor=SimpleNamespace(shape=(1,)), further=SimpleNamespace(shapes=lambda: ()))


def lane(run, runs):
    work = Work(check=lambda targets: None, prepare=lambda source: PART, weight=lambda source: 1, run=run)
    return Lane(work, runs, 4, 0.0, lambda count, seconds: None)


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
