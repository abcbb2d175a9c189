"""A video of any length as clips: neighbours, each as long as the model takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, eq=False)
class Clip:
    """Some neighbouring frames of a video.

    Attributes:
        frames: pictures or paths, in order.
        start: the number of the first in the video, from 0.
        seen: how many of them, from the first on, were in the clip before.
    """

    frames: Sequence[Any]
    start: int
    seen: int = 0

    def __len__(self) -> int:
        return len(self.frames)

    def rows(self, explained: int) -> list[tuple[int, int]]:
        """(frame of the video, row of the explanation) of each frame that no clip before had.

        Args:
            explained: the rows; more than the frames where a video is shorter than a clip, whose frames are repeated.
        """
        count = len(self.frames)
        which = [int((row + 0.5) * count / explained) for row in range(explained)]
        return [(self.start + k, which.index(k)) for k in range(self.seen, count)]


def clips_of(frames: Iterable[Any], length: int) -> Iterator[Clip]:
    """The frames of one video as clips of ``length`` neighbours.

    A rest that is shorter is completed by the frames in front of it; a video that is shorter is one clip.
    """
    last: list[Any] = []
    part: list[Any] = []
    start = 0
    for frame in frames:
        part.append(frame)
        if len(part) == length:
            yield Clip(part, start)
            last, part, start = part, [], start + length
    if part:
        missing = (length - len(part)) if last else 0
        yield Clip([*last[len(last) - missing :], *part], start - missing, missing)
