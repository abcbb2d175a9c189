"""Forks wait until no other thread is in a call: what a library has locked there would stay locked in the child."""

from __future__ import annotations

import concurrent.futures.thread as _executors
import logging as _logging
import os
import threading

LONGEST = 30.0
"""Seconds that a fork waits for calls that are under way, and a call for a fork."""


class RunGate:
    """What every call goes through, and in it every run of a session. Calls do not wait for each other.

    While a thread wants to fork, others begin no call; those that are in one may begin a further one inside it. The
    thread that forks may be in a call itself.
    """

    def __init__(self) -> None:
        self._inside: dict[int, int] = {}  # how many calls a thread is in, one inside the other
        self._forking = 0
        self._new_lock()

    def _new_lock(self) -> None:
        self._lock = threading.RLock()  # which takes less time by itself than as the condition
        self._changed = threading.Condition(self._lock)

    def __enter__(self) -> None:
        thread = threading.get_ident()
        with self._lock:
            if self._forking and thread not in self._inside:
                self._changed.wait_for(lambda: not self._forking, LONGEST)
            self._inside[thread] = self._inside.get(thread, 0) + 1

    def __exit__(self, *error: object) -> None:
        thread = threading.get_ident()
        with self._lock:
            self._inside[thread] -= 1
            if not self._inside[thread]:
                del self._inside[thread]
                if self._forking:
                    self._changed.notify_all()

    def before_fork(self) -> None:
        """Wait until no other thread is in a call, and let none begin."""
        self._changed.acquire()
        self._forking += 1
        self._changed.wait_for(lambda: not self._inside.keys() - {threading.get_ident()}, LONGEST)

    def after_fork_in_parent(self) -> None:
        """Calls may begin."""
        self._forking -= 1
        self._changed.notify_all()
        self._changed.release()

    def after_fork_in_child(self) -> None:
        """There is one thread here: the one that forked."""
        thread = threading.get_ident()
        self._inside = {own: calls for own, calls in self._inside.items() if own == thread}
        self._forking = 0
        self._new_lock()


RUNS = RunGate()
_BEFORE = _executors, _logging
"""Modules that take a lock of their own before a fork. What is registered last is called first: they are imported by
now, so a fork waits for calls before it takes their locks, which those calls need."""
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=RUNS.before_fork, after_in_parent=RUNS.after_fork_in_parent, after_in_child=RUNS.after_fork_in_child
    )
