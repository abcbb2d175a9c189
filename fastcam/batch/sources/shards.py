"""Pictures in tar files, as WebDataset writes them, compressed or not. Nothing is unpacked to the disk.

Source of the format: https://github.com/webdataset/webdataset, "The WebDataset Format".
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from fastcam.batch.sources.items import Cursor, Failed, Item, Part, Piece, failed
from fastcam.batch.sources.places import Place, one_line, opened, read, too_long
from fastcam.errors import FastcamError, shown
from fastcam.image.decode import is_picture

ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
HEADER = 1 << 20
"""Bytes of a header, at most: a long name is read into memory, whatever length it claims."""
_DAMAGED = (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError, ValueError)
_OPEN: dict[str, Any] = {".gz": gzip.open, ".tgz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


def is_shard(name: str) -> bool:
    """Whether a file is a shard by its name."""
    return name.lower().endswith(ENDINGS)


class _Bounded:
    """A file that gives no more at once than a header may have."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._file.read(size)

    def seek(self, place: int, whence: int = 0) -> int:
        return self._file.seek(place, whence)

    def tell(self) -> int:
        return self._file.tell()


@contextmanager
def _plain(at: str) -> Iterator[BinaryIO]:
    """A shard's tar file, for reading and seeking."""
    with opened(at) as file:
        unpack = _OPEN.get(Path(at).suffix.lower())
        if unpack is None:
            yield file
        else:
            with unpack(file, "rb") as inside:
                yield cast(BinaryIO, inside)


def _members(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """The pictures of a tar file; what is a link, a folder or a device is none."""
    with tarfile.open(fileobj=cast(Any, _Bounded(file)), mode="r:", errorlevel=1) as tar:
        while (member := tar.next()) is not None:
            cast(Any, tar).members = []  # a list of all would grow with the shard
            hidden = Path(member.name).name.startswith(".")  # macOS: "._photo.jpg" beside each photo
            if member.isreg() and not member.issparse() and is_picture(Path(member.name)) and not hidden:
                yield member
        file.seek(cast(Any, tar).offset)  # tarfile takes a damaged header, and the end of the file, for the end
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("it has no end, or a header that is none")


@dataclass(frozen=True)
class Members:
    """Pictures of a shard that is not compressed, by their places in it."""

    at: str
    members: tuple[tuple[str, int, int], ...]

    def items(self, most: int, cursor: Cursor) -> Iterator[Item]:
        """See :class:`fastcam.batch.sources.items.Piece`."""
        for name, offset, size in self.members:
            if size > most:
                yield failed(name, str(too_long(name, most)))
            else:
                yield Item(name, partial(read, self.at, most, offset, size))


@dataclass(frozen=True)
class Unpacked:
    """Pictures of a compressed shard, which is read from its beginning on."""

    at: str
    names: tuple[str, ...]
    first: int

    def items(self, most: int, cursor: Cursor) -> Iterator[Item]:
        """See :class:`fastcam.batch.sources.items.Piece`."""
        found = 0
        try:
            key = (self.at, most)
            for data in cursor.rows(key, self.first, len(self.names), partial(self._begin, most)):
                name = self.names[found]
                if data is None:
                    yield failed(name, str(too_long(name, most)))
                else:
                    yield Item(name, partial(bytes, data), True)
                found += 1
            why = f"{shown(self.at)}: it has fewer pictures than it had"
        except FastcamError as error:
            cursor.forget()
            why = str(error)
        for name in self.names[found:]:
            yield failed(name, why)

    def _begin(self, most: int, first: int) -> tuple[int, Iterator[bytes | None]]:
        return 0, self._read(most)

    def _read(self, most: int) -> Iterator[bytes | None]:
        try:
            with _plain(self.at) as file:
                for member in _members(file):
                    data = None
                    if member.size <= most:
                        file.seek(member.offset_data)
                        data = file.read(member.size)
                    yield data
        except FastcamError:
            raise
        except _DAMAGED as error:
            raise FastcamError(f"{shown(self.at)}: damaged ({one_line(error)}); copy it again") from error


@dataclass(frozen=True)
class Shards:
    """Pictures of several tar files. They are known by the names and lengths of these.

    Attributes:
        places: of the files.
    """

    places: tuple[Place, ...]

    @property
    def about(self) -> Mapping[str, Any]:
        """See :class:`fastcam.batch.sources.items.Source`."""
        digest = hashlib.sha256()
        for place in self.places:
            digest.update(f"{place.name}\0{place.size}\n".encode(errors="surrogatepass"))
        return {"kind": "shards", "files": len(self.places), "sha256": digest.hexdigest()}

    def parts(self, size: int) -> Iterator[Part]:
        """See :class:`fastcam.batch.sources.items.Source`.

        Raises:
            FastcamError: there is no picture in any of them.
        """
        total, first = max(1, sum(place.size for place in self.places)), 0
        members = self._members()
        while part := tuple(islice(members, size)):
            share = min(1.0, part[-1].until / total)
            yield Part(first // size, first, len(part), tuple(_pieces(part)), share)
            first += len(part)
        if not first:
            at = shown(self.places[0].at)
            raise FastcamError(f"{at}: no pictures in it; give tar files with JPEG, PNG or WebP files")

    def _members(self) -> Iterator[_Member]:
        """The pictures of all shards; the place from which on one is damaged counts as a picture."""
        before = 0
        for place in self.places:
            packed = _packed(place.at)
            number, why = 0, ""
            try:
                with _plain(place.at) as file:
                    for member in _members(file):
                        name, end = f"{place.name}/{member.name}", member.offset_data + member.size
                        until = before + min(place.size, end if not packed else 0)
                        yield _Member(place.at, number, name, member.offset_data, member.size, until)
                        number += 1
            except FastcamError as error:
                why = str(error)
            except _DAMAGED as error:
                why = f"{shown(place.at)}: damaged ({one_line(error)}); copy it again"
            before += place.size
            if why:
                yield _Member(place.at, number, place.name, 0, 0, before, why)


class _Member(NamedTuple):
    """A picture of a shard.

    Attributes:
        at: of the shard.
        number: in the shard.
        name: of the picture.
        offset, size: where it lies.
        until: bytes of all shards that lie before its end, as far as that is known.
        why: it is no picture, but a place that cannot be read.
    """

    at: str
    number: int
    name: str
    offset: int
    size: int
    until: int
    why: str = ""


def _packed(at: str) -> bool:
    return Path(at).suffix.lower() in _OPEN


def _pieces(members: Iterable[_Member]) -> Iterator[Piece]:
    """Neighbours of one shard together."""
    for (at, why), group in groupby(members, lambda one: (one.at, one.why)):
        found = list(group)
        if why:
            yield Failed(found[0].name, why)
        elif _packed(at):
            yield Unpacked(at, tuple(one.name for one in found), found[0].number)
        else:
            yield Members(at, tuple((one.name, one.offset, one.size) for one in found))
