"""Streams of frames: decoding, preprocessing, the model and post-processing overlap, in bounded memory and in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fastcam.errors import FastcamError
from fastcam.image.preprocess import Uint8, is_picture, opencv
from fastcam.results.explanation import Explanation
from fastcam.runtime.batch import Batch, Run
from fastcam.runtime.thread_pipeline import Pipeline

VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
"""What is opened as a video. Which of them can be read is up to OpenCV's build."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a stream.

    Attributes:
        index: its number in the stream, from 0.
        source: what was given: a path or a picture.
        explanation: of this one picture; None where it failed.
        error: why it failed.
    """

    index: int
    source: Any
    explanation: Explanation | None = None
    error: FastcamError | None = None


@dataclass(frozen=True)
class Steps:
    """What is done to frames: a picture to its part of a batch, a batch through the model, and what follows."""

    prepare: Callable[[Any], Batch]
    run: Callable[[Batch], Run]
    finish: Callable[[Run], Explanation]


def stream(steps: Steps, frames: Iterable[Any], batch_size: int, workers: int, wait: float | None) -> Iterator[Frame]:
    """See :meth:`fastcam.Explainer.stream`."""
    if batch_size < 1 or workers < 1:
        raise FastcamError(f"batch_size and workers must be at least 1, got {batch_size} and {workers}")

    def prepare(given: tuple[int, Any]) -> tuple[Frame, Batch | None]:
        frame = Frame(*given)
        try:
            return frame, steps.prepare(frame.source)
        except FastcamError as error:
            return _failed(frame, error), None

    def run(together: list[tuple[Frame, Batch | None]]) -> tuple[list[Frame], Run | None]:
        members, parts = [frame for frame, _ in together], [part for _, part in together if part is not None]
        if not parts:
            return members, None
        try:
            return members, steps.run(_joined(parts))
        except FastcamError as error:
            return [_failed(frame, error) for frame in members], None

    def finish(ran: tuple[list[Frame], Run | None]) -> list[Frame]:
        members, found = ran
        if found is None:
            return members
        try:
            whole = steps.finish(found)
        except FastcamError as error:
            return [_failed(frame, error) for frame in members]
        return [replace(frame, explanation=whole[i]) for i, frame in enumerate(members)]

    def shape(prepared: tuple[Frame, Batch | None]) -> Any:
        return None if prepared[1] is None else prepared[1].tensor.shape

    def explained() -> Iterator[Frame]:
        with Pipeline() as pipeline:
            ready = pipeline.stage(enumerate(frames), prepare, workers, ahead=batch_size + workers)
            ran = pipeline.stage(pipeline.batches(ready, batch_size, shape, wait), run)
            for members in pipeline.stage(ran, finish):
                yield from members

    return explained()


def _joined(parts: Sequence[Batch]) -> Batch:
    """Batches of one frame each as one batch."""
    tensor = np.concatenate([part.tensor for part in parts])
    images, geometry, files = (
        tuple(getattr(part, name)[0] for part in parts) for name in ("images", "geometry", "files")
    )
    return Batch(tensor, images, geometry, files)


def _failed(frame: Frame, error: FastcamError) -> Frame:
    return replace(frame, error=FastcamError(f"frame {frame.index}: {error}"))


def read_video(path: str | Path) -> Iterator[Uint8]:
    """The frames of a video file, uint8 RGB [height, width, 3], one after the other.

    Raises:
        FastcamError: no such file, or OpenCV cannot read it as a video.
    """
    cv2 = opencv()
    if not Path(path).is_file():
        raise FastcamError(f"{path}: no such file; give a video, or a folder of pictures")
    video = cv2.VideoCapture(str(path))
    try:
        good, picture = video.read()
        if not good:
            raise FastcamError(f"{path}: OpenCV cannot read this as a video; convert it, or give a folder of pictures")
        while good:
            yield np.ascontiguousarray(picture[:, :, ::-1])
            good, picture = video.read()
    finally:
        video.release()


def is_video(path: Path) -> bool:
    """Whether a file is one by its name, and no animated picture."""
    return path.suffix.lower() in VIDEOS and not is_picture(path)
