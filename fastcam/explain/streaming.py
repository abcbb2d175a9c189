"""Streams of frames: decoding, preprocessing, the model and post-processing overlap, in bounded memory and in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, ParamSpec, Protocol, TypeVar

import numpy as np

from fastcam.errors import FastcamError, shown
from fastcam.explain.request import Request
from fastcam.results.explanation import Explanation
from fastcam.runtime.inputs.batch import Batch, Empty, Rows, empty, join_batches
from fastcam.runtime.run import Run
from fastcam.runtime.thread_pipeline import Budget, Pipeline

P = ParamSpec("P")
T = TypeVar("T")
HELD = 512 << 20
"""Bytes of pictures that a stream holds at once, about: those that were read ahead, and those on their way."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a stream.

    Attributes:
        index: its number in the stream, from 0.
        source: what was given: a path or a picture; of a model of clips a clip.
        explanation: of this one picture, or with a row for each frame of the clip; None where it failed.
        error: why it failed.
    """

    index: int
    source: Any
    explanation: Explanation | None = None
    error: FastcamError | None = None


@dataclass(frozen=True, eq=False)
class Prepared:
    """A frame on its way: its part of a batch, None where it failed, its own targets, and how many it counts as."""

    frame: Frame
    part: Batch | None = None
    targets: list[Any] | None = None
    pairs: int = 1


class Prepare(Protocol):
    """A picture to its part of a batch, in an array that ``empty`` gives."""

    def __call__(self, source: Any, empty: Empty = empty) -> Batch:
        """The part."""
        ...


@dataclass(frozen=True)
class Steps:
    """What is done to frames: a picture to its part of a batch, a batch through the model, and what follows.

    Attributes:
        prepare: a picture to its part of a batch, and where that is written.
        targets: a frame's number and picture to its own list of targets; None where all frames have the same.
        check: raises what cannot be asked in a frame's own list.
        request: such lists of the frames of a run, or None, to the request of the run.
        pairs: a frame's own list, or None, to how many frames it counts as in a run.
        run: a batch through the model.
        received: the same run of a batch that another host of the file ran, by the outputs that it gave there.
        finish: the explanation of a run; or, with ``one``, what a host wants in its place.
        weight: about how many bytes a picture and its part of a batch take.
        one: (explanation of a run, number in the run, how many ran) to that of one frame.
    """

    prepare: Prepare
    targets: Callable[[int, Any], Any] | None
    check: Callable[[list[Any]], object]
    request: Callable[[list[Any] | None], Request]
    pairs: Callable[[list[Any] | None], int]
    run: Callable[[Batch, Request], Run]
    received: Callable[[Batch, Mapping[str, Any], Request], Run]
    finish: Callable[[Run, Request], Any]
    weight: Callable[[Any], int]
    one: Callable[[Any, int, int], Any]

    def each_within(self, context: Callable[[], AbstractContextManager[None]]) -> Steps:
        """The same steps, each inside a context of its own."""

        def within(step: Callable[P, T]) -> Callable[P, T]:
            def stepped(*given: P.args, **named: P.kwargs) -> T:
                with context():
                    return step(*given, **named)

            return stepped

        return replace(self, prepare=within(self.prepare), run=within(self.run), finish=within(self.finish))


def stream(
    steps: Steps,
    frames: Iterable[Any],
    batch_size: int,
    workers: int,
    wait: float | None,
    runs: int = 1,
    apart: Callable[[Any], Any] = lambda source: None,
) -> Iterator[Frame]:
    """See :meth:`fastcam.Explainer.stream`.

    Args:
        runs: batches that are run, and finished, at the same time.
        apart: what was given as a frame, to its group; frames of different groups never share a run.
    """
    if not isinstance(frames, Iterable):
        raise FastcamError(f"frames is {shown(repr(frames))}; give a list or generator of pictures, or a video's path")
    if batch_size < 1 or workers < 1:
        raise FastcamError(f"batch_size and workers must be at least 1, got {batch_size} and {workers}")
    return _Stream(steps, frames, batch_size, apart).explained(workers, wait, runs)


class _Stream:
    """The frames of one stream on their way, and what they weigh."""

    def __init__(self, steps: Steps, frames: Iterable[Any], batch_size: int, apart: Callable[[Any], Any]) -> None:
        self._steps, self._frames, self._batch_size, self._apart = steps, frames, batch_size, apart
        self._weights: dict[int, int] = {}
        self._budget = Budget(HELD)
        self._pairs = steps.pairs(None) if steps.targets is None else 1

    def explained(self, workers: int, wait: float | None, runs: int) -> Iterator[Frame]:
        """The frames in order, each with its explanation or its error."""
        with Pipeline() as pipeline:
            pipeline.callback(self._budget.close)
            ready = pipeline.stage(self._admitted(), self._prepare, workers, ahead=self._batch_size + workers)
            ahead = max(2, runs)
            batches = pipeline.batches(ready, self._batch_size, self._shape, wait, self._full)
            ran = pipeline.stage(batches, self._run, runs, ahead)
            for members in pipeline.stage(ran, self._finish, runs, ahead):
                members.reverse()
                while members:
                    index = members[-1].index
                    yield members.pop()
                    self._budget.leave(self._weights.pop(index))

    def _admitted(self) -> Iterator[tuple[Frame, Empty]]:
        """Each frame, once there is room for it, with the place of its part of a batch."""
        count = max(1, self._batch_size // self._pairs)
        for index, source in enumerate(self._frames):
            self._weights[index] = self._steps.weight(source)
            self._budget.admit(self._weights[index])
            if index % count == 0:
                rows = Rows(count)
            yield Frame(index, source), rows.row(index % count)

    def _prepare(self, admitted: tuple[Frame, Empty]) -> Prepared:
        frame, empty = admitted
        steps = self._steps
        try:
            own = None if steps.targets is None else as_list(steps.targets(frame.index, frame.source))
            if own is not None:
                steps.check(own)  # what cannot be asked is this frame's error, and no other's
            count = self._pairs if own is None else steps.pairs(own)
            return Prepared(frame, steps.prepare(frame.source, empty), own, count)
        except Exception as error:  # whatever a picture, or the library that it comes from, does
            return Prepared(_failed(frame, error))

    def _shape(self, prepared: Prepared) -> Any:
        """What frames that run together have in common."""
        part, group = prepared.part, self._apart(prepared.frame.source)
        return group if part is None else (group, part.tensor.shape, part.further.shapes(), prepared.pairs)

    def _full(self, members: list[Prepared]) -> bool:
        """Whether a batch takes no more."""
        if (len(members) + 1) * members[-1].pairs > self._batch_size:
            return True
        return sum(self._weights[each.frame.index] for each in members) >= self._budget.half

    def _run(self, members: list[Prepared]) -> tuple[list[Frame], Run | None, Request | None]:
        frames, parts = [each.frame for each in members], [each.part for each in members if each.part is not None]
        if not parts:
            return frames, None, None
        try:
            request = self._steps.request(None if self._steps.targets is None else [each.targets for each in members])
            return frames, self._steps.run(join_batches(parts), request), request
        except FastcamError as error:
            return [_failed(frame, error) for frame in frames], None, None

    def _finish(self, ran: tuple[list[Frame], Run | None, Request | None]) -> list[Frame]:
        frames, result, request = ran
        if result is None or request is None:
            return frames
        try:
            explanation = self._steps.finish(result, request)
        except FastcamError as error:
            return [_failed(frame, error) for frame in frames]
        one = self._steps.one
        return [replace(frame, explanation=one(explanation, i, len(frames))) for i, frame in enumerate(frames)]


def as_list(targets: Any) -> list[Any]:
    """The targets of one image as a list."""
    return list(targets) if isinstance(targets, list | tuple | np.ndarray) else [targets]


def _failed(frame: Frame, error: Exception) -> Frame:
    why = str(error) if isinstance(error, FastcamError) else f"it cannot be read ({type(error).__name__}: {error})"
    failure = FastcamError(f"frame {frame.index}: {why}")
    failure.__cause__ = error
    return replace(frame, error=failure)
