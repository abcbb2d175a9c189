"""Job: what is explained, with which file and how; and the pictures of parts as rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from fastcam.batch.rows import Row, failed_row, named_rows, rows_of
from fastcam.batch.sources.items import Cursor, Item, Part, Source
from fastcam.cache import sha256_of
from fastcam.errors import FastcamError, shown, typed
from fastcam.explain.request import ExplainOptions, Request
from fastcam.explain.streaming import Frame, Steps, stream
from fastcam.explainer import Explainer
from fastcam.runtime.inputs.batch import Empty, empty
from fastcam.runtime.run import Run
from fastcam.runtime.thread_pipeline import Pipeline
from fastcam.schema import __version__

PART = 1024
"""Pictures of a part."""
MOST = 64 << 20
"""Bytes of a picture, encoded."""
READERS = 4
"""Threads that read pictures which do not lie on this machine."""


@dataclass(frozen=True)
class Job:
    """Worker processes get it as it is.

    Attributes:
        model: a file that ``fastcam export`` wrote.
        targets: of every picture, see :meth:`fastcam.Explainer.__call__`.
        opening: further arguments of :class:`fastcam.Explainer`.
        how: further arguments of :meth:`fastcam.Explainer.__call__`: threshold, method, ...
        maps: whether maps are kept.
        part: pictures of a file of the table, rounded up to whole runs of the model.
        most: bytes of a picture; one with more has its error.
        decoders: threads that decode and prepare pictures.
    """

    model: Path
    targets: Sequence[Any] = (-1,)
    opening: Mapping[str, Any] = field(default_factory=dict)
    how: Mapping[str, Any] = field(default_factory=dict)
    maps: bool = False
    part: int = PART
    most: int = MOST
    decoders: int = 2

    def __post_init__(self) -> None:
        for name in ("part", "most", "decoders"):
            typed(name, getattr(self, name), int, "a whole number")
            if getattr(self, name) < 1:
                raise FastcamError(f"{name} is {getattr(self, name)}; give at least 1")
        if not self.targets:
            raise FastcamError("no targets; give at least one")

    def opened(self) -> Explainer:
        """The file, ready to explain.

        Raises:
            FastcamError: it cannot be used so, or not for pictures.
        """
        explainer = Explainer(self.model, **self.opening)
        metadata, name = explainer.metadata, shown(self.model)
        how = metadata.preprocessing
        if metadata.kind != "picture" or (how is not None and how.stack > 1):
            raise FastcamError(f"{name}: explains no single pictures; fastcam batch takes models of pictures")
        if how is None:
            raise FastcamError(f"{name}: does not say how pictures become its input; say it by --preprocess")
        if explainer.missing_inputs:
            one = explainer.missing_inputs[0]
            raise FastcamError(
                f"{name}: its input {one!r} has no value for a whole batch; give it one at the export "
                f"(fastcam export --input-value {one}=...)"
            )
        explainer.steps(ExplainOptions(list(self.targets), **self.how))  # what cannot be asked is refused at once
        return explainer

    def part_size(self, explainer: Explainer) -> int:
        """Pictures of a part: whole runs."""
        size = explainer.batch_size
        return -(-self.part // size) * size

    def settings(self, explainer: Explainer, source: Source) -> dict[str, Any]:
        """What must be the same for a table to go on."""
        about = explainer.metadata.to_json()
        half = explainer.profile.precision if explainer.profile is not None else None
        return {
            "fastcam": __version__,
            "model": sha256_of(self.model),
            "model's settings": hashlib.sha256(about.encode()).hexdigest(),
            "source": dict(source.about),
            "targets": [str(one) for one in self.targets],
            "how": {name: repr(value) for name, value in sorted(self.how.items())},
            "exif": explainer.exif,
            "pixels": self.opening.get("max_pixels"),
            "bytes": self.most,
            "maps": self.maps,
            "pictures of a run": explainer.batch_size,
            "pictures of a part": self.part_size(explainer),
            **({"precision": half} if half not in (None, "f32") else {}),
        }


class Explained(NamedTuple):
    """A picture that is done.

    Attributes:
        part: that it belongs to.
        rows: of the table.
        failed: whether one of them is an error.
    """

    part: Part
    rows: list[Row]
    failed: bool


class _Unread(NamedTuple):
    """A picture before it is read."""

    part: Part
    number: int
    item: Item


class _Read(NamedTuple):
    """A picture that was read, or why it could not be."""

    part: Part
    number: int
    name: str
    content: bytes | Path | None
    error: FastcamError | None


def explained(job: Job, explainer: Explainer, parts: Iterable[Part]) -> Iterator[Explained]:
    """The pictures of parts, in order. Reading, decoding, the model and what follows overlap, from part to part too.

    Pictures of two parts never share a run of the model, so a part has the same numbers whatever came before it.
    """
    steps = explainer.steps(ExplainOptions(list(job.targets), **job.how))
    cursor = Cursor()

    def items() -> Iterator[_Unread]:
        for part in parts:
            for number, item in part.items(job.most, cursor):
                yield _Unread(part, number, item)

    done = stream(
        _to_rows(steps, job),
        _read_ahead(items()),
        explainer.batch_size,
        job.decoders,
        None,
        explainer.sessions,
        lambda one: one.part.number,
    )
    for frame in done:
        rows = _rows(job, explainer, frame)
        yield Explained(frame.source.part, rows, any(row.get("error") is not None for row in rows))


def _read_ahead(found: Iterator[_Unread]) -> Iterator[_Read]:
    """The pictures, read: what is at hand at once; from the first one on that is not, all of them by threads, ahead."""
    for one in found:
        if not one.item.at_hand:
            with Pipeline() as pipeline:
                yield from pipeline.stage(chain([one], found), _read, READERS, ahead=2 * READERS)
            return
        yield _read(one)


def _read(found: _Unread) -> _Read:
    part, number, item = found
    try:
        return _Read(part, number, item.name, item.load(), None)
    except FastcamError as error:
        return _Read(part, number, item.name, None, error)


def _to_rows(steps: Steps, job: Job) -> Steps:
    """The steps from pictures that were read already to rows: those of a run are made together, in its thread."""

    def prepare(source: _Read, empty: Empty = empty) -> Any:
        if source.error is not None:
            raise source.error
        return steps.prepare(source.content, empty)

    def weight(read: _Read) -> int:
        return 0 if read.content is None else steps.weight(read.content)

    def finish(run: Run, request: Request) -> list[list[Row]]:
        return rows_of(steps.one(steps.finish(run, request), 0, 1), job.targets, job.maps)

    def one(rows: list[list[Row]], number: int, count: int) -> list[Row]:
        return rows[number]

    return replace(steps, prepare=prepare, weight=weight, finish=finish, one=one)


def _rows(job: Job, explainer: Explainer, frame: Frame) -> list[Row]:
    read: _Read = frame.source
    made: Any = frame.explanation  # what the steps above make of it
    if made is not None:
        return named_rows(read.number, read.name, made)
    if read.error is not None:
        return [failed_row(read.number, read.name, str(read.error))]
    return _alone(job, explainer, read)


def _alone(job: Job, explainer: Explainer, read: _Read) -> list[Row]:
    """A picture whose run has failed, perhaps by another picture: once more by itself, then target by target."""
    try:
        return _called(job, explainer, read, job.targets)
    except Exception as error:  # whatever a picture, or the library that it comes from, does
        whole = _said(error)
    if len(job.targets) == 1:
        return [failed_row(read.number, read.name, whole)]
    rows, good = [], False
    for target in job.targets:
        try:
            rows += _called(job, explainer, read, [target])
            good = True
        except Exception as error:
            rows.append(failed_row(read.number, read.name, _said(error), target))
    return rows if good else [failed_row(read.number, read.name, whole)]


def _called(job: Job, explainer: Explainer, read: _Read, targets: Sequence[Any]) -> list[Row]:
    explanation = explainer(read.content, list(targets), **job.how)
    return named_rows(read.number, read.name, rows_of(explanation, targets, job.maps)[0])


def _said(error: Exception) -> str:
    if isinstance(error, FastcamError):
        return str(error)
    return f"it cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
