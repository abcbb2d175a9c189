"""Keeps the workers of a test run small.

A worker that has compared a large network is several gigabytes: cycles hold autograd's graphs and float64 copies of the
weights, and glibc keeps what was freed, in case the process wants it again.
"""

import contextlib
import ctypes
import gc
import os
from pathlib import Path

import pytest

GROWTH = 256 * 2**20
"""So many bytes may a test leave behind before they are looked for."""


def resident():
    """Bytes of this process in memory; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def give_back():
    """Free what only cycles hold, autograd's graphs and evaluators, and give what glibc keeps of it to the system."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


class Memory:
    """After a test that made the worker grow, see to it that it keeps what its fixtures hold and nothing else."""

    def __init__(self):
        self.kept = resident()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self):
        result = yield
        if resident() > self.kept + GROWTH:
            give_back()
            self.kept = resident()
        self.kept = min(self.kept, resident())
        return result
