"""Predictions of the last minutes, which may still be explained."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from fastcam.errors import shown
from fastcam.results.prediction import Prediction
from fastcam.serving.errors import NotServed
from fastcam.serving.model import ServedModel


@dataclass(frozen=True, eq=False)
class _Entry:
    model: ServedModel
    prediction: Prediction
    size: int
    until: float


class Kept:
    """Predictions by a name that nobody guesses, within a bound of memory: the oldest make room.

    Args:
        most: bytes.
        seconds: that each is kept.
        clock: seconds.
    """

    def __init__(self, most: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._seconds, self._clock = most, seconds, clock
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._held = 0

    def add(self, model: ServedModel, prediction: Prediction) -> str | None:
        """Keep a prediction: its name; None of one that is larger than the bound."""
        size, name = prediction.nbytes, secrets.token_urlsafe(16)
        if size > self._most:
            return None
        with self._lock:
            self._entries[name] = _Entry(model, prediction, size, self._clock() + self._seconds)
            self._held += size
            self._tidy()
        return name

    def get(self, name: str) -> tuple[ServedModel, Prediction]:
        """A prediction and its model.

        Raises:
            NotServed: there is none of that name any more.
        """
        with self._lock:
            self._tidy()
            entry = self._entries.get(name)
        if entry is None or entry.model.closed:
            raise NotServed(
                f"no prediction {shown(repr(name))}; it is kept for {self._seconds:g} seconds at most, and by the "
                "process that made it: predict again"
            )
        return entry.model, entry.prediction

    def _tidy(self) -> None:
        now = self._clock()
        while self._entries:
            oldest = next(iter(self._entries.values()))
            if self._held <= self._most and oldest.until > now:
                return
            self._entries.popitem(last=False)
            self._held -= oldest.size
