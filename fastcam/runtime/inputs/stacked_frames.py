"""Networks that see the last frames of a game or camera at once, one behind the other in the channels.

An agent's picture is a stack of frames, the newest last (Mnih et al., "Human-level control through deep reinforcement
learning", 2015). Neighbouring pictures go in, and each is explained with those in front of it. In front of the first
stands the first again, as environments begin an episode. What is shown is the newest frame.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastcam.errors import FastcamError
from fastcam.image.preprocess import Float, Geometry, Uint8
from fastcam.preprocessing import Preprocessing
from fastcam.runtime.inputs.base import Inputs, Sources
from fastcam.runtime.inputs.batch import Empty, empty


@dataclass(frozen=True, eq=False)
class FrameStack:
    """Neighbouring frames that are seen together: pictures or paths, the newest last."""

    frames: tuple[Any, ...]


def stacks_of(frames: Iterable[Any], count: int) -> Iterator[FrameStack]:
    """For each frame the last ``count`` up to it; stacks as they are."""
    last: deque[Any] = deque(maxlen=count)
    for frame in frames:
        if isinstance(frame, FrameStack):
            yield frame
            continue
        if not last:
            last.extend([frame] * count)
        last.append(frame)
        yield FrameStack(tuple(last))


class StackInputs(Inputs):
    """Turns neighbouring pictures into batches of stacks, one for each picture.

    A list holds the frames of one episode in their order; so does an array uint8 [frames, height, width, 3]. Float
    tensors [N, C, H, W] are stacks already.
    """

    @property
    def stack(self) -> int:
        """How many frames are seen together."""
        return self.preprocessing.stack if self.preprocessing is not None else 1

    def _sources(self, images: Any) -> Sources:
        if isinstance(images, np.ndarray) and images.dtype.kind != "f" and images.ndim == 4:
            images = list(images)
        found = super()._sources(images)
        if isinstance(found.images, list):
            stacks = list(stacks_of(found.images, self.stack))
            newest = [one.frames[-1] for one in stacks]
            files = [str(frame) if isinstance(frame, str | Path) else None for frame in newest]
            return Sources(stacks, files, found.further)
        return found

    def _loaded(
        self, sources: Any, preprocessing: Preprocessing, empty: Empty = empty
    ) -> tuple[Float, list[tuple[Uint8, Geometry]]]:
        """All stacks' tensor, and the newest picture of each and its geometry; each frame is read once."""
        ready: dict[int, tuple[Float, tuple[Uint8, Geometry]]] = {}
        for frame in (frame for stack in sources for frame in stack.frames):
            if id(frame) not in ready:
                tensor, [shown] = super()._loaded([frame], preprocessing)
                ready[id(frame)] = tensor, shown
        if len({tensor.shape for tensor, _ in ready.values()}) > 1:
            raise FastcamError(f"the frames that {self._name} sees together must have one size")
        axis = 3 if preprocessing.layout == "NHWC" else 1
        tensors = [np.concatenate([ready[id(frame)][0] for frame in stack.frames], axis) for stack in sources]
        return np.concatenate(tensors), [ready[id(stack.frames[-1])][1] for stack in sources]

    def _channels(self, layout: str) -> int | None:
        """The channels of one frame, where the input fixes them."""
        channels = super()._channels(layout)
        return channels if channels is None else channels // self.stack

    def weight(self, source: Any) -> int:
        """About how many bytes a stack takes on its way."""
        if isinstance(source, Mapping) or not isinstance(source, FrameStack):
            return super().weight(source)
        return sum(map(super().weight, source.frames))
