"""Pictures in Parquet files: a column of bytes, of paths, or of both as {bytes, path}."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastcam.batch.sources.items import Cursor, Item, Part, Piece, failed
from fastcam.batch.sources.pictures import PATHS, chosen_column, of_file
from fastcam.batch.sources.places import Place, one_line, opened, place_named, too_long
from fastcam.errors import FastcamError, shown

KNOWN = ("image", "bytes", "picture", "content", "data", "jpg", "png", *PATHS)
"""Names of a column of pictures, in this order."""
NAMES = ("name", "key", "__key__", "id", "image_id", "file_name", "filename")
"""Of a column with the names of pictures of bytes, in this order."""
AT_ONCE = 16
"""Rows that are read at once."""
BUFFER = 1 << 20
"""Bytes of a column that are read at once, so that no row group is held."""


def arrow() -> tuple[Any, Any]:
    """pyarrow and pyarrow.parquet.

    Raises:
        FastcamError: they are not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise FastcamError(f"tables need pyarrow ({error}); run: pip install fastcam[batch]") from error
    return pyarrow, pyarrow.parquet


@contextmanager
def _opened(at: str) -> Iterator[Any]:
    """A Parquet file.

    Raises:
        FastcamError: it is none, or is damaged.
    """
    pa, parquet = arrow()
    with opened(at) as file:
        try:
            yield parquet.ParquetFile(file, buffer_size=BUFFER, pre_buffer=False)
        except FastcamError:
            raise
        except (pa.ArrowException, OSError, ValueError) as error:
            raise FastcamError(f"{shown(at)}: no Parquet file that can be read ({one_line(error)})") from error


def _of(pa: Any, kind: Any, what: str) -> bool:
    """Whether a column holds bytes ("binary") or texts ("string"), in whichever of Arrow's ways."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    ways = [f"is_{what}", f"is_large_{what}", f"is_{what}_view", f"is_fixed_size_{what}"]
    return any(hasattr(pa.types, way) and getattr(pa.types, way)(kind) for way in ways)


@dataclass(frozen=True)
class Rows:
    """Neighbouring rows of a file."""

    at: str
    name: str
    column: str
    names: str | None
    first: int
    count: int

    def items(self, most: int, cursor: Cursor) -> Iterator[Item]:
        """See :class:`fastcam.batch.sources.items.Piece`. Behind a damaged place every row has its error."""
        row = self.first
        try:
            for value, called in cursor.rows((self.at, self.column), self.first, self.count, self._begin):
                yield self._item(row, value, called, most)
                row += 1
        except FastcamError as error:
            cursor.forget()
            why = str(error)
        else:
            why = f"{shown(self.at)}: it has fewer rows than it had"
        for left in range(row, self.first + self.count):
            yield failed(f"{self.name}:{left}", why)

    def _begin(self, first: int) -> tuple[int, Iterator[tuple[Any, Any]]]:
        with _opened(self.at) as file:
            sizes = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
        at = group = 0
        while group < len(sizes) and at + sizes[group] <= first:
            at, group = at + sizes[group], group + 1
        return at, self._read(range(group, len(sizes)))

    def _read(self, groups: Sequence[int]) -> Iterator[tuple[Any, Any]]:
        columns = [self.column] + ([self.names] if self.names is not None else [])
        with _opened(self.at) as file:
            for group in groups:  # one by one: what is damaged in one is not in those in front of it
                for batch in file.iter_batches(AT_ONCE, row_groups=[group], columns=columns):
                    values = batch.column(self.column)
                    names = batch.column(self.names) if self.names is not None else None
                    for i in range(len(values)):
                        yield values[i].as_py(), None if names is None else names[i].as_py()

    def _item(self, row: int, value: Any, called: Any, most: int) -> Item:
        path = value.get("path") if isinstance(value, Mapping) else value if isinstance(value, str) else None
        data = value.get("bytes") if isinstance(value, Mapping) else value
        name = str(called if called is not None else path if path is not None else f"{self.name}:{row}")
        if isinstance(data, bytes):
            if len(data) > most:
                return failed(name, str(too_long(name, most)))
            return Item(name, lambda: data, True)
        if path is None:
            return failed(name, "no picture in this row")
        return of_file(name, place_named(self.at, path), most)


@dataclass(frozen=True)
class Parquet:
    """Rows of several files."""

    files: tuple[tuple[Place, int], ...]
    column: str
    names: str | None
    digest: str

    @classmethod
    def of(cls, places: Sequence[Place], column: str | None = None, names: str | None = None) -> Parquet:
        """Read what the files say of themselves.

        Raises:
            FastcamError: one is no Parquet, lacks the column, or has something else there.
        """
        pa, _ = arrow()
        digest, files = hashlib.sha256(), []
        for place in places:
            with _opened(place.at) as file:
                schema, rows = file.schema_arrow, file.metadata.num_rows
                written = io.BytesIO()
                file.metadata.write_metadata_file(written)  # with the places and statistics of every column
            column = chosen_column(place.at, schema.names, column, KNOWN)
            kind = schema.field(column).type
            if pa.types.is_struct(kind):
                good = "bytes" in [kind.field(i).name for i in range(kind.num_fields)]
            else:
                good = _of(pa, kind, "binary") or _of(pa, kind, "string")
            if not good:
                raise FastcamError(
                    f"{shown(place.at)}: the column {shown(repr(column))} has {kind}; give one of bytes, or of paths"
                )
            if names is not None:
                chosen_column(place.at, schema.names, names, ())
            files.append((place, rows))
            digest.update(f"{place.name}\0{place.size}\0".encode(errors="surrogatepass") + written.getvalue())
        if not sum(rows for _, rows in files):
            raise FastcamError(f"{shown(places[0].at)}: no rows in it; give Parquet files with pictures")
        assert column is not None
        with _opened(places[0].at) as file:
            binary = _of(pa, file.schema_arrow.field(column).type, "binary")
            if names is None and binary:
                names = next((name for name in NAMES if name in file.schema_arrow.names and name != column), None)
        return cls(tuple(files), column, names, digest.hexdigest())

    @property
    def about(self) -> Mapping[str, Any]:
        """See :class:`fastcam.batch.sources.items.Source`."""
        about = {"kind": "parquet", "pictures": sum(rows for _, rows in self.files), "sha256": self.digest}
        return about | {"column": self.column, "names": self.names}

    def parts(self, size: int) -> Iterator[Part]:
        """See :class:`fastcam.batch.sources.items.Source`."""
        total = sum(rows for _, rows in self.files)
        pieces: list[Piece] = []
        number = held = 0
        for place, rows in self.files:
            at = 0
            while at < rows:
                count = min(rows - at, size - held)
                pieces.append(Rows(place.at, Path(place.name).name, self.column, self.names, at, count))
                at, held = at + count, held + count
                if held == size:
                    yield Part(number, number * size, held, tuple(pieces), (number + 1) * size / total)
                    number, held, pieces = number + 1, 0, []
        if pieces:
            yield Part(number, number * size, held, tuple(pieces), 1.0)
