"""Video files, by OpenCV: which files they are, and their frames, one after the other or some of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fastcam.errors import FastcamError, shown
from fastcam.image.preprocess import Uint8, is_picture, opencv
from fastcam.image.reading import DEFAULT, Reading

VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
"""What is opened as a video. Which of them can be read is up to OpenCV's build."""
ESTIMATED = 2
"""Frames, or percent of them, by which a sound file's count may be wrong: some formats tell their length alone."""
NO_VIDEO = "OpenCV cannot read this as a video; convert it, or give a folder of pictures"
MOST_BYTES = 512 << 20
"""Bytes of frames, at most, that wait to be chosen."""


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
    """Some frames of a video. A long one is read twice, so that never more than :data:`MOST_BYTES` wait to be chosen.

    Args:
        chosen: the number of frames -> the numbers of those that are wanted.

    Raises:
        FastcamError: see :func:`read_video`.
    """
    kept: list[Uint8] = []
    held = count = 0
    for frame in read_video(path, reading):
        count, held = count + 1, held + frame.nbytes
        if held <= MOST_BYTES:
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
