"""Several processes of a server: one that ends unasked is replaced, and the others go on meanwhile.

They take connections from one socket, which the process that looks after them holds open: what no worker has taken yet
is taken by the next, also while one of them is being replaced.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import Any

from fastcam.errors import FastcamError
from fastcam.serving.processes.process import Process

CONTEXT = multiprocessing.get_context("spawn")
LOOK = 0.2
"""Seconds between two looks at whether it is time to end."""
SOON, LATEST = 0.1, 30.0
"""Seconds before a worker is started again: the first time, and after many failures in a row."""
WELL = 10.0
"""Seconds after which a worker that ends is no failure in a row."""
METRICS = "PROMETHEUS_MULTIPROC_DIR"
"""Where prometheus_client adds up the counts of several processes."""


@dataclass(eq=False)
class _Worker:
    process: Any
    begun: float
    failures: int = 0
    """How often it ended soon after its start, in a row."""


@dataclass(eq=False)
class Workers:
    """Looks after the processes of a server.

    Attributes:
        count: of processes.
        process: what each of them does.
        listening: the socket from which they take connections.
        told: is told a line about models and processes.
        ready: is called when the first of them answers.
    """

    count: int
    process: Process
    listening: socket.socket
    told: Callable[[str], None]
    ready: Callable[[], None]
    _stop: bool = field(default=False, init=False)

    def run(self) -> None:
        """Start the workers, and replace those that end, until SIGTERM or SIGINT; then they end what is under way.

        Raises:
            FastcamError: a model cannot be loaded: no worker is started then.
        """
        with _signals(self._end), _metrics():
            workers = [self._first()]
            workers += [self._started() for _ in range(self.count - 1) if not self._stop]
            try:
                self._look_after(workers)
            finally:
                self._ended(workers)

    def _end(self, number: int, frame: Any) -> None:
        self._stop = True

    def _first(self) -> _Worker:
        """The first worker, when it answers."""
        here, there = CONTEXT.Pipe(duplex=False)
        worker = self._started(there)
        there.close()
        while not here.poll(LOOK):
            if self._stop:
                return worker
        try:
            said = here.recv()
        except EOFError:  # it ended without a word
            said = "the first process of the server ended before it was ready"
        if said is not None:
            worker.process.join()
            raise FastcamError(said)
        self.ready()
        return worker

    def _started(self, report: Any = None, failures: int = 0) -> _Worker:
        arguments = self.process, self.listening, report, self.told
        made = CONTEXT.Process(target=_work, args=arguments, name="fastcam worker", daemon=False)
        made.start()
        return _Worker(made, time.monotonic(), failures)

    def _look_after(self, workers: list[_Worker]) -> None:
        again: list[tuple[float, int]] = []  # when to start another, and how often that has failed
        while not self._stop:
            wait([worker.process.sentinel for worker in workers], LOOK)
            for worker in [worker for worker in workers if not worker.process.is_alive()]:
                workers.remove(worker)
                if self._stop:
                    return
                _forget(worker.process.pid)
                well = time.monotonic() - worker.begun > WELL
                failures = 0 if well else worker.failures + 1
                self.told(f"process {worker.process.pid} ended ({worker.process.exitcode}); it is replaced")
                again.append((time.monotonic() + min(LATEST, SOON * 2**failures), failures))
            for due in [one for one in again if one[0] <= time.monotonic()]:
                again.remove(due)
                workers.append(self._started(failures=due[1]))

    def _ended(self, workers: list[_Worker]) -> None:
        for worker in workers:
            worker.process.terminate()
        until = time.monotonic() + self.process.limits.seconds + 5
        for worker in workers:
            worker.process.join(max(0.0, until - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()


def _work(process: Process, listening: socket.socket, report: Any, told: Callable[[str], None]) -> None:
    """What a worker does. The first tells what it loads, and whether it could; the others what changes later."""
    threading.Thread(target=_end_with_parent, name="fastcam parent", daemon=True).start()
    if process.json_log:
        from fastcam.serving.watching import logs

        logs.to_stderr()
    answers = threading.Event()

    def ready() -> None:
        answers.set()
        if report is not None:
            report.send(None)
            report.close()
        told(f"process {os.getpid()} answers")

    try:
        process.serve([listening], lambda line: told(line) if report is not None or answers.is_set() else None, ready)
    except FastcamError as error:
        if report is None or answers.is_set():
            told(str(error))
        else:
            report.send(str(error))
        raise SystemExit(2) from error


def _end_with_parent() -> None:
    """A process whose parent was killed ends too, as nobody would ever end it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def _signals(handler: Any) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextlib.contextmanager
def _metrics() -> Iterator[None]:
    """A folder in which the workers' counts lie."""
    with tempfile.TemporaryDirectory(prefix="fastcam-metrics-") as folder:
        os.environ[METRICS] = folder
        try:
            yield
        finally:
            del os.environ[METRICS]


def _forget(pid: int) -> None:
    """What a worker had under way counts no more; its requests stay counted."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]
