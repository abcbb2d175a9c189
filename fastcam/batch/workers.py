"""A batch by several processes of this machine. Each writes parts of its own; this one hands them out."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from multiprocessing import connection, get_context
from pathlib import Path
from typing import Any

from fastcam.batch.job import Job
from fastcam.batch.run import Progress, Told, missing_parts, written
from fastcam.batch.sources.items import Part, Source
from fastcam.batch.table import Table
from fastcam.errors import FastcamError, typed

AHEAD = 2
"""Parts that a process has at once, so that it need not wait for the next one."""
PATIENCE = 10.0
"""Seconds in which a process that has nothing left to do ends."""


def run_in_processes(job: Job, source: Source, out: Path, count: int, told: Told = lambda progress: None) -> Progress:
    """See :func:`fastcam.batch.run.run`.

    Args:
        count: of processes. Where the job says nothing of threads they share the cores.
        told: is told after each part.
    """
    typed("workers", count, int, "a whole number")
    if count < 1:
        raise FastcamError(f"workers is {count}; give at least 1")
    job = with_threads(job, count, os.cpu_count() or 1)
    explainer = job.opened()  # what is wrong is said once
    progress = Progress()
    with Table(out, job.settings(explainer, source)) as table:
        parts = missing_parts(job, explainer, source, table, progress)
        with _Crew(job, table.folder, count) as crew:
            for part, done in crew.work(parts):
                progress.add(replace(done, share=part.share))
                told(progress)
    return progress


def with_threads(job: Job, count: int, cores: int) -> Job:
    """The job of one of several workers."""
    if job.opening.get("threads") is not None:
        return job
    return replace(job, opening={**job.opening, "threads": max(1, cores // count)})


class _Crew:
    """The processes, which end when this one does, however it ends."""

    def __init__(self, job: Job, folder: Path, count: int) -> None:
        self._job, self._folder, self._count = job, folder, count
        self._crew: dict[Any, Any] = {}

    def __enter__(self) -> _Crew:
        context = get_context("spawn")  # a fork would have the locks of ONNX Runtime's threads, and none of the threads
        for _ in range(self._count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, self._job, self._folder), daemon=True)
            process.start()
            theirs.close()
            self._crew[ours] = process
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is not None:
            for process in self._crew.values():
                process.terminate()
        for ours, process in self._crew.items():
            process.join(PATIENCE)
            if process.is_alive():
                process.kill()
                process.join()
            ours.close()

    def work(self, parts: Iterator[Part]) -> Iterator[tuple[Part, Progress]]:
        """Hand out parts; each comes back when it is written.

        Raises:
            FastcamError: what a process raises, or one that has ended.
        """
        out: dict[Any, list[Part]] = {ours: [] for ours in self._crew}
        for _ in range(AHEAD):
            for ours in self._crew:
                _hand(ours, parts, out[ours])
        while any(out.values()):
            ready: list[Any] = connection.wait([one for one, held in out.items() if held])
            for ours in ready:
                try:
                    answer: Progress | str = ours.recv()
                except (EOFError, OSError):
                    process = self._crew[ours]
                    process.join(PATIENCE)
                    raise FastcamError(
                        f"a worker process has ended (exit code {process.exitcode}), perhaps for want of memory; "
                        "call it again to go on, with fewer workers or a smaller batch size"
                    ) from None
                if isinstance(answer, str):
                    raise FastcamError(answer)
                part = out[ours].pop(0)
                _hand(ours, parts, out[ours])
                yield part, answer


def _hand(ours: Any, parts: Iterator[Part], held: list[Part]) -> None:
    """The next part, or word that there is none: until then a process waits for more, with its last runs not full."""
    part = next(parts, None)
    if part is not None:
        held.append(part)
    with suppress(OSError):  # it has ended, which is found out when its answer is read
        ours.send(part)


def _work(pipe: Any, job: Job, folder: Path) -> None:
    """A process: parts in, and for each that is written what was done."""
    given: queue.Queue[Part | None] = queue.Queue()

    def receive() -> None:
        while True:
            try:
                part = pipe.recv()
            except (EOFError, OSError):
                os._exit(1)  # nobody is there who would want the rest
            given.put(part)
            if part is None:
                return

    threading.Thread(target=receive, daemon=True).start()
    try:
        progress = Progress()
        for _ in written(job, job.opened(), iter(given.get, None), folder, progress, lambda progress: None):
            pipe.send(progress)
            progress.done = progress.failed = 0
    except FastcamError as error:
        pipe.send(str(error))
    except KeyboardInterrupt:
        pass
