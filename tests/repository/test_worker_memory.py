"""A test run keeps what its fixtures hold, and no more."""

import contextlib
import gc
import weakref

import numpy as np
import pytest

from support.worker_memory import GROWTH, Memory, resident


class Cycle:
    """Holds memory, and itself: only a collection frees it."""

    def __init__(self, size):
        self.held, self.itself = np.ones(size, np.uint8), self


@pytest.mark.skipif(not resident(), reason="this system does not say how large a process is")
@pytest.mark.parametrize("size, freed", [(GROWTH + 2**26, True), (GROWTH // 4, False)])
def test_cycles_are_freed_behind_a_test_that_left_much(size, freed):
    gc.collect()
    gc.disable()
    try:
        memory = Memory()
        teardown = memory.pytest_runtest_teardown()
        next(teardown)
        before, left = resident(), weakref.ref(Cycle(size))
        assert resident() > before + size // 2
        with contextlib.suppress(StopIteration):
            teardown.send(None)
        assert (left() is None) == freed
        assert not freed or resident() < before + size // 2
    finally:
        gc.enable()
        gc.collect()
