"""Picture files of which nothing more is known, as a data set."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from fastcam.evaluation.samples import LeftOut, Sample


class Pictures:
    """Picture files without annotations, as a data set."""

    def __init__(self, files: Sequence[Path], name: str, exif: bool = True) -> None:
        self.name, self.exif = name, exif
        self.labels: tuple[str, ...] = ()
        self.left_out = LeftOut()
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def samples(self, skip: Collection[str] = ()) -> Iterator[Sample]:
        """Each file, named as it was given."""
        return (Sample(str(file), file) for file in self._files if str(file) not in skip)
