"""Rows of pictures as they are measured, on disk: a run that was stopped goes on where it stood.

A line of JSON a picture, behind a first line that says with which settings. A line that was cut off when the process
ended is dropped, and its picture measured again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from fastcam.atomic_files import locked, refused
from fastcam.errors import FastcamError, shown

_BINARY = getattr(os, "O_BINARY", 0)  # Windows

Line = dict[str, Any]
"""Of a picture its "name", and "rows" by protocol, an "error", or why it was "left out"."""


class Journal:
    """The lines of one run. Without a path nothing is kept.

    Args:
        path: of the file; its folder is made.
        settings: what must be the same for the run to go on.
        again: begin anew, whatever the file holds.

    Raises:
        FastcamError: the file is of other settings or no journal, or it cannot be written.
    """

    def __init__(self, path: Path | None, settings: Mapping[str, Any], again: bool = False) -> None:
        self.path, self.settings = path, json.loads(json.dumps(settings))
        self._file: BinaryIO | None = None
        if path is None:
            return
        with refused(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | _BINARY, 0o666), "r+b")
        try:
            locked(self._file, path)
        except FastcamError:
            self._file.close()
            raise
        if again:  # not before it is locked: another process may be writing it
            with refused(path):
                self._file.truncate(0)
        if not self._complete_first_line(path):
            self._write(self.settings)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def lines(self) -> Iterator[Line]:
        """What earlier runs have measured, picture by picture; what follows the last whole line is cut off."""
        if self._file is None:
            return
        self._file.seek(0)
        end = len(self._file.readline())
        for line in self._file:
            try:
                read = json.loads(line)
            except (ValueError, RecursionError):
                break
            if not line.endswith(b"\n") or not isinstance(read, dict) or "name" not in read:
                break
            end += len(line)
            yield read
        self._file.seek(end)
        self._file.truncate()

    def add(self, line: Line) -> None:
        """One more picture; it is on its way to the disk when this returns.

        Raises:
            FastcamError: the disk is full, or cannot be written.
        """
        if self._file is not None:
            self._write(line)

    def _write(self, line: Mapping[str, Any]) -> None:
        assert self._file is not None and self.path is not None
        with refused(self.path):
            self._file.write(json.dumps(line, ensure_ascii=True, separators=(",", ":")).encode() + b"\n")
            self._file.flush()

    def _complete_first_line(self, path: Path) -> bool:
        """Whether the file has one, which is then of the same settings; an unfinished one is cut off."""
        assert self._file is not None
        first = self._file.readline()
        if not first.endswith(b"\n"):
            with suppress(OSError):
                self._file.seek(0)
                self._file.truncate()
            if first and not first.startswith(b"{"):
                raise FastcamError(f"{shown(path)}: this is no journal of fastcam evaluate; give another folder")
            return False
        try:
            before = json.loads(first)
        except (ValueError, RecursionError):
            before = None
        if not isinstance(before, dict):
            raise FastcamError(f"{shown(path)}: this is no journal of fastcam evaluate; give another folder")
        names = [key for key in {**before, **self.settings} if before.get(key) != self.settings.get(key)]
        if names and not self._file.read(1):  # nothing was measured under the other settings
            self._file.seek(0)
            self._file.truncate()
            return False
        if names:
            key = names[0]
            raise FastcamError(
                f"{shown(path)}: an earlier run had another {key} ({shown(json.dumps(before.get(key)))}, now "
                f"{shown(json.dumps(self.settings.get(key)))}); give another folder, or --restart"
            )
        self._file.seek(0, os.SEEK_END)
        return True
