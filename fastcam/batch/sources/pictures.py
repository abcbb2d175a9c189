"""Pictures that are files of their own: of a folder and its subfolders, or as a manifest lists them."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from fastcam.batch.sources.items import Cursor, Item, Part
from fastcam.batch.sources.places import is_url, opened, place_named, read, size_of, too_long, walk
from fastcam.errors import FastcamError, listed, shown
from fastcam.image.decode import is_picture

PATHS = ("path", "file", "file_name", "filename", "image", "picture", "url")
"""Names of a column with the paths of pictures, in this order."""
LONGEST = 1 << 16
"""Letters of a line of a manifest, at most."""


@dataclass(frozen=True)
class Files:
    """Pictures by name and place."""

    files: tuple[tuple[str, str], ...]

    def items(self, most: int, cursor: Cursor) -> Iterator[Item]:
        """See :class:`fastcam.batch.sources.items.Piece`."""
        for name, at in self.files:
            yield of_file(name, at, most)


def of_file(name: str, at: str, most: int) -> Item:
    """A picture that is a file of its own."""
    return Item(name, partial(loaded, at, most), not is_url(at))


def loaded(at: str, most: int) -> bytes | Path:
    """A picture file that has no more than ``most`` bytes: its path, or what a URL gives.

    Raises:
        FastcamError: there is none, or it is too long.
    """
    if is_url(at):
        return read(at, most)
    if size_of(at) > most:
        raise too_long(at, most)
    return Path(at)


@dataclass(frozen=True)
class Listed:
    """A source of single files. They are listed anew each time, so that no list of millions is held.

    Attributes:
        kind: of the source, for :attr:`about`.
        listing: (name, place, what else tells whether it is the same) of each picture.
    """

    kind: str
    listing: Callable[[], Iterator[tuple[str, str, str]]]
    count: int
    digest: str

    @classmethod
    def of(cls, kind: str, where: str, listing: Callable[[], Iterator[tuple[str, str, str]]]) -> Listed:
        """Go through the listing once.

        Raises:
            FastcamError: it is empty.
        """
        digest, count = hashlib.sha256(), 0
        for name, _, state in listing():
            digest.update(f"{name}\0{state}\n".encode(errors="surrogatepass"))
            count += 1
        if not count:
            raise FastcamError(f"{shown(where)}: no pictures in it; give a folder of pictures, or a list of them")
        return cls(kind, listing, count, digest.hexdigest())

    @property
    def about(self) -> Mapping[str, Any]:
        """See :class:`fastcam.batch.sources.items.Source`."""
        return {"kind": self.kind, "pictures": self.count, "sha256": self.digest}

    def parts(self, size: int) -> Iterator[Part]:
        """See :class:`fastcam.batch.sources.items.Source`."""
        files = ((name, at) for name, at, _ in self.listing())
        first = number = 0
        while piece := tuple(islice(files, size)):
            end = first + len(piece)
            yield Part(number, first, len(piece), (Files(piece),), min(1.0, end / self.count))
            first, number = end, number + 1


def folder(at: str) -> Listed:
    """The pictures of a folder and its subfolders. They are known by their names and lengths."""

    def listing() -> Iterator[tuple[str, str, str]]:
        for name, place, size in walk(at):
            if is_picture(Path(name)):
                yield name, place, str(size)

    return Listed.of("pictures", at, listing)


def manifest(at: str, column: str | None = None) -> Listed:
    """The pictures of a list: a path or URL a line, or a CSV or TSV file with a column of them.

    Relative paths are from the list's own folder on. The list is known by its lines.

    Raises:
        FastcamError: it cannot be read, or has no such column.
    """
    separator = {".csv": ",", ".tsv": "\t"}.get(os.path.splitext(at)[1].lower())
    rows = partial(_lines, at) if separator is None else partial(_column, at, column, separator)

    def listing() -> Iterator[tuple[str, str, str]]:
        for name in rows():
            yield name, place_named(at, name), ""

    return Listed.of("manifest", at, listing)


@contextmanager
def _text(at: str) -> Iterator[Iterator[str]]:
    """The lines of a text file in UTF-8."""
    with opened(at) as binary:
        file = io.TextIOWrapper(binary, "utf-8-sig", newline="")

        def lines() -> Iterator[str]:
            while line := file.readline(LONGEST + 1):
                if len(line) > LONGEST:
                    raise FastcamError(f"{shown(at)}: a line of more than {LONGEST} letters; give a path a line")
                yield line

        try:
            yield lines()
        except (UnicodeDecodeError, csv.Error) as error:
            raise FastcamError(f"{shown(at)}: no list that can be read ({error}); give text in UTF-8") from error


def _lines(at: str) -> Iterator[str]:
    with _text(at) as lines:
        for line in lines:
            name = line.strip()
            if name and not name.startswith("#"):
                yield name


def _column(at: str, column: str | None, separator: str) -> Iterator[str]:
    with _text(at) as lines:
        table = csv.DictReader(lines, delimiter=separator)
        names = list(table.fieldnames or ())
        chosen = chosen_column(at, names, column, PATHS)
        for row in table:
            if name := (row[chosen] or "").strip():
                yield name


def chosen_column(at: str, names: list[str], asked: str | None, known: tuple[str, ...]) -> str:
    """The column that was asked for, or the first whose name is known.

    Raises:
        FastcamError: there is none.
    """
    wanted = (asked,) if asked is not None else known
    found = next((name for name in wanted if name in names), None)
    if found is None:
        said = f"no column {shown(repr(asked))}" if asked is not None else f"no column called {listed(known)}"
        raise FastcamError(f"{shown(at)}: {said}; it has {listed(names) or 'none'}: give one of them by --column")
    return found
