"""What is timed: an opened file, one picture a call or a stream of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from fastcam.explainer import Explainer
from fastcam.runtime.profile import Goal

STREAM = 32
"""Pictures that a stream has, so that its start and its end weigh as they do in use; of a slow network half of them."""
BRIEF = 1.0
"""Seconds that a stream should take at most."""


class Contestant:
    """An explainer, and what is timed of it.

    Args:
        explainer: of the file, opened in one way.
        picture: that it explains.
        goal: "latency" is a call with one picture, "throughput" a stream, of full batches for all runs that go on at
            the same time.
        least: pictures of a stream at least; None finds out.

    Attributes:
        pictures: of a call.
    """

    def __init__(self, explainer: Explainer, picture: Any, goal: Goal, least: int | None = None) -> None:
        self.explainer, self._picture, self._goal, self.pictures = explainer, picture, goal, 1
        if goal == "throughput":
            explainer(picture)
            began = time.perf_counter()
            explainer(picture)
            slow = (time.perf_counter() - began) * STREAM > BRIEF
            wanted = (STREAM // 2 if slow else STREAM) if least is None else least
            size = explainer.batch_size * explainer.sessions
            self.pictures = -(-wanted // size) * size

    def __call__(self) -> Sequence[Any]:
        """Boxes of all pictures."""
        if self._goal == "latency":
            return [self.explainer(self._picture).boxes]
        return [frame.explanation for frame in self.explainer.stream([self._picture] * self.pictures)]
