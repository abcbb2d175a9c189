"""A data set kept in memory, for what goes over it many times."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import islice

from fastcam.evaluation.samples import Dataset, LeftOut, Sample


class InMemory:
    """A data set whose samples were read before. See :class:`fastcam.evaluation.samples.Dataset`.

    Args:
        data: what is read.
        every: of its samples, the first of so many.
    """

    def __init__(self, data: Dataset, every: int = 1) -> None:
        self.name, self.labels, self.exif, self.left_out = data.name, data.labels, data.exif, LeftOut()
        self.held = list(islice(data.samples(), 0, None, every))

    def __len__(self) -> int:
        return len(self.held)

    def samples(self, skip: Collection[str] = ()) -> Iterator[Sample]:
        """All that are not skipped."""
        return (sample for sample in self.held if sample.name not in skip)
