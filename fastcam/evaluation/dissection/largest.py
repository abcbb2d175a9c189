"""The largest values of many channels in one pass, and with them high quantiles, exact, in memory that has a bound."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastcam.image.preprocess import Float

BYTES = 1 << 28
"""Of all values that are kept, at most; beyond it pictures are thinned."""


class Largest:
    """Of each of K channels the ``share`` of all values that are largest.

    Args:
        channels: K.
        expected: how many values a channel will get, at most.
        share: of the values that are kept.

    Where the memory does not suffice every n-th call of :meth:`add` counts, and the quantile is one of these.
    """

    def __init__(self, channels: int, expected: int, share: float) -> None:
        most = max(1, BYTES // (8 * channels))
        wanted = int(share * expected) + 1
        self.step = -(-wanted // most)
        self.keep, self.share, self.count = -(-wanted // self.step), share, 0
        self._values = np.empty((channels, 2 * self.keep), np.float32)
        self._filled = self._calls = 0

    def add(self, values: Float) -> None:
        """More values of each channel, [K, n]."""
        self._calls += 1
        if (self._calls - 1) % self.step:
            return
        self.count += values.shape[1]
        for start in range(0, values.shape[1], self.keep):
            part = values[:, start : start + self.keep]
            if self._filled + part.shape[1] > self._values.shape[1]:
                self._drop()
            self._values[:, self._filled : self._filled + part.shape[1]] = part
            self._filled += part.shape[1]

    def _drop(self) -> None:
        """Only the largest stay, in front."""
        kept = self._filled - self.keep
        self._values[:, : self._filled].partition(kept, axis=1)
        self._values[:, : self.keep] = self._values[:, kept : self._filled]
        self._filled = self.keep

    def thresholds(self) -> NDArray[np.float32]:
        """float32 [K]: the value that at most ``share`` of a channel's values exceed, and no smaller one of them does.

        Where values are equal fewer may exceed it.
        """
        above = min(int(self.share * self.count), self._filled - 1)
        place = self._filled - 1 - above
        return np.asarray(np.partition(self._values[:, : self._filled], place, axis=1)[:, place])
