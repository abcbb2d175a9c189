"""Runs many independent measurements in a process of their own, which a crash or an endless one cannot take along."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import TimeoutError as TookTooLong
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any

Row = dict[str, Any]


def each(measure: Callable[[str], Row], names: Iterable[str], limit: float) -> Iterator[tuple[str, Row]]:
    """(name, ``measure(name)``) for all names; a row with status "failed" where it raised, crashed or took too long.

    The latter two also have "unfinished": True.

    Args:
        measure: a function of a module.
        names: what to measure.
        limit: seconds for one, the first one's imports included.
    """
    waiting = list(names)
    while waiting:
        pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        processes: list[Any] = []
        try:
            alive = True
            while waiting and alive:
                name = waiting.pop(0)
                try:
                    future = pool.submit(measure, name)
                    processes = list((pool._processes or {}).values())
                    row = future.result(limit)
                except TookTooLong:
                    row, alive = _unfinished(f"took longer than {limit:g} s"), False
                except BrokenProcessPool:
                    row, alive = _unfinished("the process crashed or ran out of memory"), False
                except Exception as error:  # whatever a measurement raises belongs in its row
                    row = {"status": "failed", "reason": " ".join(f"{type(error).__name__}: {error}".split())[:300]}
                yield name, row
        finally:
            for process in processes:
                with contextlib.suppress(OSError):
                    process.kill()
            pool.shutdown(wait=False, cancel_futures=True)


def _unfinished(reason: str) -> Row:
    return {"status": "failed", "reason": reason, "unfinished": True}
