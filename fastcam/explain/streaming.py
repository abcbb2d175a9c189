"""Streams of frames: decoding, preprocessing, the model and post-processing overlap, in bounded memory and in order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar

import numpy as np

from fastcam.errors import FastcamError, shown
from fastcam.explain.request import Request
from fastcam.image.preprocess import Uint8, is_picture, opencv
from fastcam.image.reading import DEFAULT, Reading
from fastcam.results.explanation import Explanation
from fastcam.runtime.inputs.batch import Batch, Empty, Rows, empty, join_batches
from fastcam.runtime.run import Run
from fastcam.runtime.thread_pipeline import Budget, Pipeline

P = ParamSpec("P")
T = TypeVar("T")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
"""What is opened as a video. Which of them can be read is up to OpenCV's build."""
HELD = 512 << 20
"""Bytes of pictures that a stream holds at once, about: those that were read ahead, and those on their way."""
ESTIMATED = 2
"""Frames, or percent of them, by which a sound file's count may be wrong: some formats tell their length alone."""
NO_VIDEO = "OpenCV cannot read this as a video; convert it, or give a folder of pictures"


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
    weights: dict[int, int] = {}
    budget = Budget(HELD)
    pairs = steps.pairs(None) if steps.targets is None else 1

    def admitted() -> Iterator[tuple[Frame, Empty]]:
        count = max(1, batch_size // pairs)
        for index, source in enumerate(frames):
            weights[index] = steps.weight(source)
            budget.admit(weights[index])
            if index % count == 0:
                rows = Rows(count)
            yield Frame(index, source), rows.row(index % count)

    def prepare(given: tuple[Frame, Empty]) -> Prepared:
        frame, empty = given
        try:
            own = None if steps.targets is None else as_list(steps.targets(frame.index, frame.source))
            if own is not None:
                steps.check(own)  # what cannot be asked is this frame's error, and no other's
            count = pairs if own is None else steps.pairs(own)
            return Prepared(frame, steps.prepare(frame.source, empty), own, count)
        except Exception as error:  # whatever a picture, or the library that it comes from, does
            return Prepared(_failed(frame, error))

    def run(members: list[Prepared]) -> tuple[list[Frame], Run | None, Request | None]:
        frames, parts = [each.frame for each in members], [each.part for each in members if each.part is not None]
        if not parts:
            return frames, None, None
        try:
            request = steps.request(None if steps.targets is None else [each.targets for each in members])
            return frames, steps.run(join_batches(parts), request), request
        except FastcamError as error:
            return [_failed(frame, error) for frame in frames], None, None

    def finish(ran: tuple[list[Frame], Run | None, Request | None]) -> list[Frame]:
        frames, result, request = ran
        if result is None or request is None:
            return frames
        try:
            explanation = steps.finish(result, request)
        except FastcamError as error:
            return [_failed(frame, error) for frame in frames]
        return [replace(frame, explanation=steps.one(explanation, i, len(frames))) for i, frame in enumerate(frames)]

    def shape(prepared: Prepared) -> Any:
        part, group = prepared.part, apart(prepared.frame.source)
        return group if part is None else (group, part.tensor.shape, part.further.shapes(), prepared.pairs)

    def full(members: list[Prepared]) -> bool:
        if (len(members) + 1) * members[-1].pairs > batch_size:
            return True
        return sum(weights[each.frame.index] for each in members) >= budget.half

    def explained() -> Iterator[Frame]:
        with Pipeline() as pipeline:
            pipeline.callback(budget.close)
            ready = pipeline.stage(admitted(), prepare, workers, ahead=batch_size + workers)
            ahead = max(2, runs)
            ran = pipeline.stage(pipeline.batches(ready, batch_size, shape, wait, full), run, runs, ahead)
            for members in pipeline.stage(ran, finish, runs, ahead):
                members.reverse()
                while members:
                    index = members[-1].index
                    yield members.pop()
                    budget.leave(weights.pop(index))

    return explained()


def as_list(targets: Any) -> list[Any]:
    """The targets of one image as a list."""
    return list(targets) if isinstance(targets, list | tuple | np.ndarray) else [targets]


def _failed(frame: Frame, error: Exception) -> Frame:
    why = str(error) if isinstance(error, FastcamError) else f"it cannot be read ({type(error).__name__}: {error})"
    failure = FastcamError(f"frame {frame.index}: {why}")
    failure.__cause__ = error
    return replace(frame, error=failure)


def open_video(path: str | Path) -> Any:
    """A ``cv2.VideoCapture`` of a file, by FFmpeg where OpenCV has it.

    Of a file that FFmpeg cannot read for a moment another decoder would show other pixels, without a word.

    Raises:
        FastcamError: no such file, or it cannot be opened as a video.
    """
    cv2 = opencv()
    if not os.path.isfile(path):
        raise FastcamError(f"{shown(path)}: no such file; give a video, or a folder of pictures")
    ffmpeg = cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG)
    video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG if ffmpeg else cv2.CAP_ANY)
    if not video.isOpened():
        raise FastcamError(f"{shown(path)}: {NO_VIDEO}")
    return video


def read_video(path: str | Path, reading: Reading = DEFAULT) -> Iterator[Uint8]:
    """The frames of a video file, uint8 RGB [height, width, 3], one after the other.

    Raises:
        FastcamError: no such file, OpenCV cannot read it as a video, or its frames are too large; behind the last
            frame: the file promises more.
    """
    cv2, video = opencv(), open_video(path)
    count, promised = 0, video.get(cv2.CAP_PROP_FRAME_COUNT)
    sides = (int(video.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    width, height = (max(0, side) for side in sides)
    try:
        reading.check(width * height, width, height, shown(path))
        good, picture = video.read()
        if not good:
            raise FastcamError(f"{shown(path)}: {NO_VIDEO}")
        while good:
            count += 1
            height, width = picture.shape[:2]  # which may change on the way
            reading.check(width * height, width, height, shown(path))
            yield np.ascontiguousarray(picture[:, :, ::-1])
            good, picture = video.read()
        if promised - count > max(ESTIMATED, promised * ESTIMATED / 100):
            raise FastcamError(
                f"{shown(path)}: the video is cut short or damaged, {count} of {promised:.0f} frames can be read; "
                "copy it again"
            )
    finally:
        video.release()


def sampled_video(path: str | Path, chosen: Callable[[int], list[int]], reading: Reading = DEFAULT) -> list[Uint8]:
    """Some frames of a video. A long one is read twice, so that never more than :data:`HELD` bytes wait to be chosen.

    Args:
        chosen: the number of frames -> the numbers of those that are wanted.

    Raises:
        FastcamError: see :func:`read_video`.
    """
    kept: list[Uint8] = []
    held = count = 0
    for frame in read_video(path, reading):
        count, held = count + 1, held + frame.nbytes
        if held <= HELD:
            kept.append(frame)
        else:
            kept.clear()
    wanted = chosen(count)
    if len(kept) == count:
        return [kept[k] for k in wanted]
    numbers = set(wanted)
    found = {k: frame for k, frame in enumerate(read_video(path, reading)) if k in numbers}
    return [found[k] for k in wanted]


def is_video(path: Path) -> bool:
    """Whether a file is one by its name, and no animated picture."""
    return path.suffix.lower() in VIDEOS and not is_picture(path)
