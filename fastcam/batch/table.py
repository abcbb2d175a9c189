"""The table: a folder of Parquet files, one a part. Which of them are there is all that is known of how far a run is.

A file takes its name when it is complete, so a run may end at any moment. Beside the files ``_fastcam.json`` says what
they are of; nobody goes on with other settings.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fastcam.atomic_files import json_bytes, locked, refused, replaced, write_files
from fastcam.batch.rows import Row, batches, schema
from fastcam.batch.sources.parquet import arrow
from fastcam.errors import FastcamError, shown
from fastcam.input_files import read_text

ABOUT = "_fastcam.json"
_LOCK = "_lock"
_PART = re.compile(r"part-([0-9]{6,})\.parquet")


def part_name(number: int) -> str:
    """The file of a part."""
    return f"part-{number:06}.parquet"


class Table:
    """The folder, held by one process at a time.

    Args:
        folder: is made.
        settings: what must be the same for a run to go on.

    Attributes:
        done: numbers of the parts that are there.

    Raises:
        FastcamError: it holds something else, or a table of other settings; another process writes it.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder, self.settings = folder, json.loads(json.dumps(settings))
        with refused(folder, "folder"):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = open(folder / _LOCK, "ab")  # noqa: SIM115, it is held until the end
        try:
            locked(self._file, folder)
            self._check()
            self.done = {int(found[1]) for name in os.listdir(folder) if (found := _PART.fullmatch(name))}
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Table:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let others write it."""
        self._file.close()

    def _check(self) -> None:
        """What is there is of the same settings; what a run that was ended has left over is removed."""
        about = self.folder / ABOUT
        for name in os.listdir(self.folder):
            if name.startswith(".fastcam-"):
                with suppress(OSError):
                    (self.folder / name).unlink()
            elif name not in (ABOUT, _LOCK) and not (about.exists() and _PART.fullmatch(name)):
                raise FastcamError(
                    f"{shown(self.folder)}: holds {shown(name)}, which is no table's; give an empty folder"
                )
        if not any(map(_PART.fullmatch, os.listdir(self.folder))):  # also of a run that failed: nothing is lost
            write_files({about: json_bytes(self.settings)})
            return
        try:
            before = json.loads(read_text(about, "give another folder"))
        except (ValueError, RecursionError):
            before = None
        if not isinstance(before, dict):
            raise FastcamError(f"{shown(about)}: cannot be understood; give another folder")
        for key in {**before, **self.settings}:
            old, new = before.get(key), self.settings.get(key)
            if old != new:
                raise FastcamError(
                    f"{shown(self.folder)}: the table was begun with {key} {_said(old)}, and now it is {_said(new)}; "
                    "give another folder, or what it was begun with"
                )


def _said(value: Any) -> str:
    return shown(json.dumps(value))


@contextmanager
def _part(folder: Path, number: int) -> Iterator[Any]:
    """The open file of a part; it has its name when all of it is on the disk."""
    path = folder / part_name(number)
    with replaced(path) as partial, refused(path), open(partial, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def write_part(folder: Path, number: int, rows: Iterable[list[Row]], maps: bool) -> None:
    """The file of a part, from the rows of its pictures.

    Raises:
        FastcamError: the disk refuses; what ``rows`` raises. Then there is no such file.
    """
    with _part(folder, number) as file:
        write_rows(file, rows, maps)


def write_content(folder: Path, number: int, content: bytes) -> None:
    """The file of a part that was made elsewhere.

    Raises:
        FastcamError: the disk refuses.
    """
    with _part(folder, number) as file:
        file.write(content)


def write_rows(file: Any, rows: Iterable[list[Row]], maps: bool) -> None:
    """Rows of pictures to an open file, as Parquet."""
    _, parquet = arrow()
    with parquet.ParquetWriter(file, schema(maps), compression="zstd") as writer:
        for batch in batches(rows, maps):
            writer.write_batch(batch)


def files_of(folder: Path) -> list[Path]:
    """The parts of a table in order.

    Raises:
        FastcamError: there are none.
    """
    found = sorted((int(match[1]), path) for path in _listed(folder) if (match := _PART.fullmatch(path.name)))
    if not found:
        raise FastcamError(f"{shown(folder)}: no table; give a folder that fastcam batch has written")
    return [path for _, path in found]


def _listed(folder: Path) -> Iterator[Path]:
    try:
        yield from folder.iterdir()
    except OSError as error:
        raise FastcamError(f"{shown(folder)}: no table there; give a folder that fastcam batch has written") from error
