"""A batch on a Ray cluster, by Ray Data: actors explain parts, this process writes them.

The model and the source must be found at the same place by every machine of the cluster; only this one needs the table.

Source of the API: https://docs.ray.io/en/latest/data/api/dataset.html, ``Dataset.map`` with a class.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from fastcam.batch.job import Job
from fastcam.batch.run import Progress, Told, each_part, missing_parts
from fastcam.batch.sources.items import Part, Source
from fastcam.batch.sources.places import one_line
from fastcam.batch.table import Table, write_content, write_rows
from fastcam.errors import FastcamError, typed

WINDOW = 256
"""Parts that the cluster has at once: of more than that the list would grow with the source."""
LOCAL = "local"
"""In place of an address: a cluster of this machine alone, as long as the run lasts."""


def run_on_ray(
    job: Job, source: Source, out: Path, address: str, count: int, told: Told = lambda progress: None
) -> Progress:
    """See :func:`fastcam.batch.run.run`.

    Args:
        address: of the cluster, as ``ray.init`` takes it; :data:`LOCAL` starts one here.
        count: of actors. Each asks for as many cores as the job says threads, one where it says nothing.
        told: is told after each part.

    Raises:
        FastcamError: as there; or Ray is not installed, or cannot be reached.
    """
    typed("workers", count, int, "a whole number")
    threads = job.opening.get("threads") or 1
    job = replace(job, opening={**job.opening, "threads": threads})
    explainer = job.opened()  # what is wrong is said once
    progress = Progress()
    with Table(out, job.settings(explainer, source)) as table, cluster(address) as ray:
        parts = missing_parts(job, explainer, source, table, progress)
        while window := tuple(islice(parts, WINDOW)):
            shares = {part.number: part.share for part in window}
            for row in _rows(ray, job, window, count, threads):
                if row["error"]:
                    raise FastcamError(row["error"])
                write_content(table.folder, row["number"], row["content"])
                share = max(progress.share, shares[row["number"]])
                progress.add(Progress(done=row["done"], failed=row["failed"], first=row["first"], share=share))
                told(progress)
    return progress


@contextmanager
def cluster(address: str) -> Iterator[Any]:
    """Ray, connected to a cluster.

    Raises:
        FastcamError: it is not installed, or there is no such cluster.
    """
    try:
        import ray
        import ray.data
        import ray.exceptions
    except ImportError as error:
        raise FastcamError(f"Ray is not installed, or not whole ({error}); run: pip install fastcam[ray]") from error
    own = not ray.is_initialized()
    try:
        if own:
            ray.init(address=address, log_to_driver=False, logging_level="error")
    except Exception as error:  # whatever it does where there is no cluster
        raise FastcamError(f"no Ray cluster at {address} ({one_line(error)}); give its address, or {LOCAL}") from error
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        yield ray
    except ray.exceptions.RayError as error:
        raise FastcamError(f"Ray failed ({one_line(error)}); call it again to go on") from error
    finally:
        if own:
            ray.shutdown()


def _rows(ray: Any, job: Job, parts: tuple[Part, ...], count: int, threads: int) -> Iterator[dict[str, Any]]:
    """What the actors make of parts, in the order in which they are done."""
    rows = [{"part": pickle.dumps(part)} for part in parts]
    given = ray.data.from_items(rows, override_num_blocks=len(rows))
    done = given.map(
        Worker, fn_constructor_args=(job,), num_cpus=threads, compute=ray.data.ActorPoolStrategy(size=count)
    )
    yield from done.iter_rows()


class Worker:
    """An actor: a part in, its file and what was done out."""

    def __init__(self, job: Job) -> None:
        self._job, self._explainer = job, job.opened()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """The file of a part, as bytes; or the error that ends the run."""
        part, progress, file = pickle.loads(row["part"]), Progress(), io.BytesIO()
        error = ""
        try:
            for _, rows in each_part(self._job, self._explainer, [part], progress, lambda progress: None):
                write_rows(file, rows, self._job.maps)
        except FastcamError as failure:
            error = str(failure)
        counts = {"done": progress.done, "failed": progress.failed, "first": progress.first}
        return {"number": part.number, "content": file.getvalue(), "error": error} | counts
