"""Pictures of a source before they are read, and the parts in which a source is worked on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from fastcam.errors import FastcamError


class Item(NamedTuple):
    """A picture.

    Attributes:
        name: within its source.
        load: its bytes, or its path where it lies on this machine; raises FastcamError.
        at_hand: whether that reads nothing, so that it is not worth a thread.
    """

    name: str
    load: Callable[[], bytes | Path]
    at_hand: bool = False


class Cursor:
    """Where a process has stopped reading a file that is read from its beginning on, for the part that comes next."""

    def __init__(self) -> None:
        self._key: object = None
        self._at = 0
        self._rows: Iterator[Any] = iter(())

    def rows(
        self, key: object, first: int, count: int, begin: Callable[[int], tuple[int, Iterator[Any]]]
    ) -> Iterator[Any]:
        """``count`` rows of a file from number ``first`` on.

        Args:
            key: of the file.
            begin: opens it near a row, and says at which.
        """
        if self._key != key or self._at > first:
            self._key = None
            self._at, self._rows = begin(first)
        self._key, rows = key, self._rows
        for row in rows:
            self._at += 1
            if self._at > first:
                yield row
                count -= 1
                if not count:
                    return

    def forget(self) -> None:
        """The file is damaged: do not go on in it."""
        self._key, self._rows = None, iter(())


class Piece(Protocol):
    """Neighbouring pictures of a source. Other processes get it, so it can be pickled and holds no picture."""

    def items(self, most: int, cursor: Cursor) -> Iterator[Item]:
        """The pictures, in order and as many as were counted; ``most``: bytes of each."""


@dataclass(frozen=True, eq=False)
class Part:
    """Pictures that become one file of the table.

    Attributes:
        number: from 0.
        first: number of its first picture in the source.
        count: of its pictures.
        pieces: what it consists of.
        share: of the source that lies before its end, 0 to 1.
    """

    number: int
    first: int
    count: int
    pieces: tuple[Piece, ...]
    share: float

    def items(self, most: int, cursor: Cursor) -> Iterator[tuple[int, Item]]:
        """Each picture with its number in the source."""
        number = self.first
        for piece in self.pieces:
            for item in piece.items(most, cursor):
                yield number, item
                number += 1


class Source(Protocol):
    """Pictures in an order that is the same each time."""

    @property
    def about(self) -> Mapping[str, Any]:
        """What must be the same for a table to go on: the kind, and a digest of what is there."""

    def parts(self, size: int) -> Iterator[Part]:
        """All parts of ``size`` pictures, the last one shorter."""


@dataclass(frozen=True)
class Failed:
    """A place in a source that cannot be read, which counts as a picture."""

    name: str
    why: str

    def items(self, most: int, cursor: Cursor) -> Iterator[Item]:
        """One that fails."""
        yield failed(self.name, self.why)


def failed(name: str, why: str) -> Item:
    """A picture that cannot be had."""

    def load() -> bytes:
        raise FastcamError(why)

    return Item(name, load, True)
