"""A batch, from a source to a table: in this process, in several, or on Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from fastcam.batch.job import Explained, Job, explained
from fastcam.batch.rows import Row
from fastcam.batch.sources.items import Part, Source
from fastcam.batch.table import Table, write_part
from fastcam.explainer import Explainer


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        before: pictures of parts that earlier runs have written.
        done: pictures that this run has explained.
        failed: of these, with an error in one of their rows.
        first: the first of these errors.
        share: of the source that is done, 0 to 1.
    """

    before: int = 0
    done: int = 0
    failed: int = 0
    first: str = ""
    share: float = 0.0

    def add(self, other: Progress) -> None:
        """What another process has done."""
        self.done, self.failed = self.done + other.done, self.failed + other.failed
        self.first = self.first or other.first
        self.share = max(self.share, other.share)


Told = Callable[[Progress], None]


def run(job: Job, source: Source, out: Path, told: Told = lambda progress: None) -> Progress:
    """Explain what of a source is not in the table yet, in this process.

    Killed and called again it goes on behind the parts that are there. The table is the same whatever happened.

    Args:
        told: is told after each picture.

    Raises:
        FastcamError: the model, the source or the table cannot be used; the message says why.
    """
    explainer = job.opened()
    progress = Progress()
    with Table(out, job.settings(explainer, source)) as table:
        missing = missing_parts(job, explainer, source, table, progress)
        for _ in written(job, explainer, missing, table.folder, progress, told):
            pass
    return progress


def missing_parts(job: Job, explainer: Explainer, source: Source, table: Table, progress: Progress) -> Iterator[Part]:
    """The parts that the table lacks, in order; those that it has are counted."""
    for part in source.parts(job.part_size(explainer)):
        if part.number in table.done:
            progress.before += part.count
            progress.share = max(progress.share, part.share)
        else:
            yield part


def written(
    job: Job, explainer: Explainer, parts: Iterable[Part], folder: Path, progress: Progress, told: Told
) -> Iterator[Part]:
    """Each part, when its file is there."""
    for part, rows in each_part(job, explainer, parts, progress, told):
        write_part(folder, part.number, rows, job.maps)
        yield part


def each_part(
    job: Job, explainer: Explainer, parts: Iterable[Part], progress: Progress, told: Told
) -> Iterator[tuple[Part, Iterator[list[Row]]]]:
    """Each part with the rows of its pictures, which are to be taken before the next one."""

    def counted(group: Iterable[Explained], part: Part) -> Iterator[list[Row]]:
        begun = progress.share
        for taken, one in enumerate(group, 1):
            progress.done += 1
            progress.failed += one.failed
            if one.failed and not progress.first:
                progress.first = next(str(row["error"]) for row in one.rows if row.get("error") is not None)
            progress.share = max(begun, begun + (part.share - begun) * taken / part.count)
            told(progress)
            yield one.rows

    for part, group in groupby(explained(job, explainer, parts), lambda one: one.part):
        yield part, counted(group, part)
