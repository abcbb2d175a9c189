"""Where the entries of a long JSON file lie: COCO's annotations of 118,000 pictures in flat memory.

``json.load`` makes of instances_train2017.json, 450 MB, several times that in dicts. Here each entry of the top
level's lists is parsed alone and let go; who wants it again reads it by its place.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from fastcam.errors import FastcamError, reason, shown
from fastcam.input_files import checked

_CHUNK = 1 << 20
LONGEST = 64 << 20
"""Bytes of one entry, at most."""
_SPACE = " \t\r\n"


class _Text:
    """A file as text of one letter a byte, of which only a window is held."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.text, self.at, self.start = file, "", 0, 0
        self.decoder = json.JSONDecoder()

    def more(self) -> bool:
        """Read on; what lies before the place is let go."""
        data = self.file.read(max(_CHUNK, len(self.text) - self.at))
        self.start += self.at
        self.text = self.text[self.at :] + data.decode("latin-1")
        self.at = 0
        if len(self.text) > LONGEST:
            raise ValueError(f"an entry longer than {LONGEST >> 20} MiB")
        return bool(data)

    def peek(self) -> str:
        """The next letter that is no space; "" at the end."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in _SPACE:
                self.at += 1
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def take(self, letters: str) -> str:
        """The next letter, which is one of these."""
        letter = self.peek()
        if not letter or letter not in letters:
            raise ValueError(f"{'its end' if not letter else repr(letter)} where {' or '.join(letters)} must stand")
        self.at += 1
        return letter

    def value(self) -> tuple[Any, int, int]:
        """The next value, and where it begins and ends in the file."""
        self.peek()
        while True:
            try:
                found, end = self.decoder.raw_decode(self.text, self.at)
                if end < len(self.text) or not self.more():  # a number may go on behind the window
                    break
            except json.JSONDecodeError:
                if not self.more():
                    raise
        begin = self.start + self.at
        length = end - self.at
        self.at = end
        return found, begin, begin + length


def entries(path: Path, wanted: str) -> Iterator[tuple[str, Any, int, int]]:
    """(key, entry, begin, end) for each entry of the lists at the top level of a JSON object.

    Texts in an entry are Latin-1 here; :func:`entry_at` gives them as they are. Values that are no lists come whole.

    Args:
        wanted: what to give instead, for the message.

    Raises:
        FastcamError: the file cannot be read, or is no such JSON.
    """
    try:
        checked(path)
        with open(path, "rb") as file:
            yield from _entries(_Text(file))
    except FastcamError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        why = reason(error) if isinstance(error, OSError) else " ".join(str(error).split())[:160] or "nested too deeply"
        raise FastcamError(f"{shown(path)}: no JSON that can be read ({why}); {wanted}") from error


def _entries(text: _Text) -> Iterator[tuple[str, Any, int, int]]:
    if text.peek() == "\xef":
        text.at += 3  # a byte order mark
    text.take("{")
    if text.peek() == "}":
        return
    while True:
        key = text.value()[0]
        if not isinstance(key, str):
            raise ValueError("a key that is no text")
        text.take(":")
        if text.peek() == "[":
            text.take("[")
            if text.peek() == "]":
                text.take("]")
            else:
                while True:
                    yield key, *text.value()
                    if text.take(",]") == "]":
                        break
        else:
            yield key, *text.value()
        if text.take(",}") == "}":
            return


def utf8(text: str) -> str:
    """A text of :func:`entries` as it is in the file."""
    return text.encode("latin-1", "ignore").decode("utf-8", "replace") if not text.isascii() else text


def entry_at(file: BinaryIO, begin: int, end: int) -> Any:
    """The entry at a place.

    Raises:
        ValueError: there is none, so the file has changed.
    """
    file.seek(begin)
    return json.loads(file.read(end - begin))
