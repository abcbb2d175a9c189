"""Clips: a video of any length as neighbours, each as long as the model takes, and clips as the network's input."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastcam import input_files
from fastcam.errors import FastcamError
from fastcam.image import preprocess as images_
from fastcam.image.preprocess import Geometry, Uint8
from fastcam.image.video_file import is_video, sampled_video
from fastcam.runtime.inputs.base import Inputs, Sources
from fastcam.runtime.inputs.batch import Batch

FREE_FRAMES = 16
"""Frames of a clip where the model takes any number."""


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


def clip_order(shape: Sequence[int | str | None]) -> str:
    """The axes of a video input of this shape, by where one or three channels lie: PyTorch's, Transformers', Keras'."""
    channels = [axis for axis in (1, 2, 4) if shape[axis] in (1, 3)]
    return {2: "NTCHW", 4: "NTHWC"}.get(channels[0] if channels else 1, "NCTHW")


class ClipInputs(Inputs):
    """Turns clips into batches: a video file, a folder or list of pictures, uint8 [frames, height, width, 3], float
    tensors, or .npy files of those.

    A clip has as many frames as the model takes; one with more or fewer is sampled: with M frames, the model's k-th of
    F is the one at (k + 1/2) M / F.
    """

    @property
    def order(self) -> str:
        """The input's axes, see :func:`clip_order`."""
        return self._metadata.order or clip_order(self.shape)

    @property
    def frames(self) -> int:
        """Frames of a clip."""
        count = self.shape[self.order.index("T")]
        return count if isinstance(count, int) else FREE_FRAMES

    def _guessed_layout(self) -> str:
        return "NHWC" if self.order == "NTHWC" else "NCHW"

    def _spatial(self, layout: str) -> tuple[int, int] | None:
        height, width = (self.shape[self.order.index(axis)] for axis in "HW")
        return (height, width) if isinstance(height, int) and isinstance(width, int) else None

    def _sources(self, images: Any) -> Sources:
        """Clips: a checked tensor, or a list of paths, lists of pictures and arrays."""
        ready = self._ready(images)
        if ready is not None:
            return ready
        if not isinstance(images, str | Path | list | tuple):
            images = images_.as_array(images)
            if images.dtype.kind == "f":
                return Sources(self._checked(images), [None] * len(images))
        if self.preprocessing is None:
            raise FastcamError(
                f"{self._name} does not say how pictures become its input; say it with preprocess (--preprocess), or "
                f"give a float tensor {self.order}"
            )
        clips = list(images) if _are_clips(images) else [images]
        if not clips:
            raise FastcamError("no clip given; give at least one")
        return Sources(clips, [str(clip) if isinstance(clip, str | Path) else None for clip in clips])

    def _batch(self, sources: Sources) -> Batch:
        """One run's clips as the network's input; ``images`` of the batch are the clips' frames."""
        order, clips, files = self.order, sources.images, tuple(sources.files)
        if isinstance(clips, np.ndarray):
            height, width = (clips.shape[order.index(axis)] for axis in "HW")
            frames = np.moveaxis(clips, order.index("T"), 1).astype(np.float32, copy=False)
            return Batch(clips, tuple(frames), (Geometry.unchanged((height, width)),) * len(clips), files)
        preprocessing = self.preprocessing
        assert preprocessing is not None  # sources() refuses pictures without it
        pictures = [self._frames(clip) for clip in clips]
        prepared = [[images_.prepare(frame, preprocessing) for frame in clip] for clip in pictures]
        if len({tensor.shape for clip in prepared for tensor, _ in clip}) > 1:
            raise FastcamError(f"the frames of one call of {self._name} must have one size; give clips one by one")
        axis = order.index("T")  # of what prepare gives, [1, C, H, W] or [1, H, W, C], side by side
        tensor = np.concatenate([np.stack([tensor for tensor, _ in clip], axis) for clip in prepared])
        geometry = tuple(clip[0][1] for clip in prepared)
        return Batch(tensor.astype(self._dtype, copy=False), tuple(map(np.stack, pictures)), geometry, files)

    def weight(self, source: Any) -> int:
        """About how many bytes a clip takes on its way."""
        each = source.frames if isinstance(source, Clip) else source
        return sum(map(super().weight, each)) if isinstance(each, list | tuple) else super().weight(each)

    def _frames(self, clip: Any) -> list[Uint8]:
        if isinstance(clip, str | Path) and Path(clip).is_dir():
            clip = images_.pictures_in(Path(clip))
        elif isinstance(clip, str | Path) and not is_video(Path(clip)):
            clip = input_files.read_array(clip, "give a video, a folder of pictures, or an array of them as .npy")
        if isinstance(clip, str | Path):
            pictures = sampled_video(clip, self._chosen, self._reading)
        elif all(isinstance(one, str | Path) for one in clip):
            read = {k: images_.load(clip[k], self._reading) for k in set(self._chosen(len(clip)))}
            pictures = [read[k] for k in self._chosen(len(clip))]
        else:
            given = [images_.load(one, self._reading) for one in clip]
            pictures = [given[k] for k in self._chosen(len(given))]
        if len({picture.shape for picture in pictures}) > 1:
            raise FastcamError("the frames of a clip have different sizes; give frames of one size")
        return pictures

    def _chosen(self, count: int) -> list[int]:
        """Which of so many frames the model sees, as many as it takes."""
        if not count:
            raise FastcamError("a clip has no frames; give at least one")
        return [int(k) for k in ((np.arange(self.frames) + 0.5) * count / self.frames).astype(int)]


def _are_clips(images: Any) -> bool:
    """Whether this is several clips: not a path, and of entries that are clips themselves."""
    if isinstance(images, str | Path):
        return False
    first = images[0] if len(images) else None
    if isinstance(first, str | Path):
        return is_video(Path(first)) or Path(first).is_dir() or Path(first).suffix.lower() == ".npy"
    return isinstance(first, list | tuple) or getattr(first, "ndim", 0) == 4
