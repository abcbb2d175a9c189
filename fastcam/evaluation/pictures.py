"""Picture files of which nothing more is known, as a data set."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from fastcam.evaluation.data.listed import unique
from fastcam.evaluation.samples import LeftOut, Sample


class Pictures:
    """Picture files without annotations, as a data set; one that is given twice is one."""

    def __init__(self, files: Sequence[Path], name: str, exif: bool = True) -> None:
        self.name, self.exif = name, exif
        self.labels: tuple[str, ...] = ()
        self.left_out = LeftOut()
        self._files = [Path(name) for name in unique([str(file) for file in files], self.left_out)]

    def __len__(self) -> int:
        return len(self._files)

    def samples(self, skip: Collection[str] = ()) -> Iterator[Sample]:
        """Each file, named as it was given."""
        return (Sample(str(file), file) for file in self._files if str(file) not in skip)
