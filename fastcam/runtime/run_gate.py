"""Forks wait until no session runs: a lock of ONNX Runtime that another thread holds would stay locked in the child."""

from __future__ import annotations

import os
import threading

LONGEST = 30.0
"""Seconds that a fork waits for runs that are under way."""


class RunGate:
    """What every run of a session goes through. Runs do not wait for each other; while a fork is made none begins."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0

    def __enter__(self) -> None:
        with self._changed:
            self._running += 1

    def __exit__(self, *error: object) -> None:
        with self._changed:
            self._running -= 1
            self._changed.notify_all()

    def before_fork(self) -> None:
        """Wait until nothing runs, and let nothing begin."""
        self._changed.acquire()
        self._changed.wait_for(lambda: self._running == 0, LONGEST)

    def after_fork_in_parent(self) -> None:
        """Runs may begin."""
        self._changed.release()

    def after_fork_in_child(self) -> None:
        """Nothing runs here."""
        self._running = 0
        self._changed.release()


RUNS = RunGate()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=RUNS.before_fork, after_in_parent=RUNS.after_fork_in_parent, after_in_child=RUNS.after_fork_in_child
    )
