"""``threads`` of an Explainer, kept by the libraries that ask nobody: NumPy's BLAS and OpenCV, while a call lasts.

Both have one number of threads for the whole process. It is lowered while calls with a limit run, to the smallest of
their limits, and is the host program's again when the last of them has ended. What the host sets meanwhile stays.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from fastcam.runtime.run_gate import RUNS

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Pool:
    """A library's threads: how many it may use, and what changes that."""

    read: Callable[[], int]
    set: Callable[[int], object]


class Limits:
    """The limits of the calls that run now, and what the pools had before the first of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: dict[object, int] = {}
        self._before: list[tuple[Pool, int]] = []
        self._set: list[int] = []

    def enter(self, call: object, threads: int) -> None:
        """A call begins."""
        with self._lock:
            if not self._asked:
                self._before = [(pool, pool.read()) for pool in pools()]
                self._set = [before for _, before in self._before]
            self._asked[call] = threads
            self._apply()

    def leave(self, call: object) -> None:
        """It ends; one that did not begin is left out."""
        with self._lock:
            if self._asked.pop(call, None) is not None:
                self._apply()

    def _apply(self) -> None:
        least = min(self._asked.values(), default=None)
        for i, (pool, before) in enumerate(self._before):
            wanted = before if least is None or least > before else least
            if wanted != self._set[i] and pool.read() == self._set[i]:  # else the host has set it since
                pool.set(wanted)
                self._set[i] = wanted

    def in_child(self) -> None:
        """A forked process has one thread, and so none of the other calls, one of which may have held the lock."""
        self._lock = threading.Lock()
        self._asked.clear()
        self._apply()


_LIMITS = Limits()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_LIMITS.in_child)


class at_most:
    """What runs inside, in any thread, finds BLAS and OpenCV limited; None limits nothing.

    A class, not a generator, which takes longer: every call enters one.
    """

    def __init__(self, threads: int | None) -> None:
        self._threads = threads

    def __enter__(self) -> None:
        if self._threads is not None:
            try:
                _LIMITS.enter(self, self._threads)
            except BaseException:
                _LIMITS.leave(self)
                raise

    def __exit__(self, *error: object) -> None:
        if self._threads is not None:
            _LIMITS.leave(self)


class call_limits(at_most):
    """What a call runs in: BLAS and OpenCV limited, and forks wait for its end."""

    def __enter__(self) -> None:
        RUNS.__enter__()
        try:
            super().__enter__()
        except BaseException:
            RUNS.__exit__()
            raise

    def __exit__(self, *error: object) -> None:
        try:
            super().__exit__()
        finally:
            RUNS.__exit__()


def limited(function: Callable[P, T]) -> Callable[P, T]:
    """What draws a result, the first argument or the first of its list: with the ``threads`` that it was made with."""

    @functools.wraps(function)
    def within(*arguments: P.args, **more: P.kwargs) -> T:
        drawn: Any = arguments[0] if arguments else None
        drawn = drawn[0] if isinstance(drawn, (list, tuple)) and drawn else drawn
        with call_limits(getattr(drawn, "threads", None)):
            return function(*arguments, **more)

    return within


@functools.cache
def pools() -> tuple[Pool, ...]:
    """The pools of this process. OpenCV is imported for it, as a picture would; what is not installed has none."""
    found = []
    with contextlib.suppress(ImportError):
        import threadpoolctl

        blas = threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers
        found = [Pool(library.get_num_threads, library.set_num_threads) for library in blas]
    with contextlib.suppress(ImportError):
        cv2 = importlib.import_module("cv2")
        found.append(Pool(cv2.getNumThreads, cv2.setNumThreads))
    return tuple(found)
