"""Places of files: paths of this machine, and URLs that fsspec knows."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from fastcam.errors import FastcamError, listed, reason, shown
from fastcam.input_files import checked

SCHEMES = (
    "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "hdfs", "webhdfs", "hf", "http", "https", "memory", "file",
)  # fmt: skip
"""Of URLs that are read. Others of fsspec's, and chains of them, do more than to read a file."""
TRIES = 3
"""Times that a file behind a URL is asked for before that is its error."""
WAIT = 0.5
"""Seconds before the second try; before the third twice as long."""
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


class Place(NamedTuple):
    """A file.

    Attributes:
        name: for people, within its source.
        at: its path or URL.
        size: bytes; -1 where nobody says.
    """

    name: str
    at: str
    size: int


def is_url(at: str) -> bool:
    """Whether a place is a URL, and no path."""
    return "://" in at


def filesystem(url: str) -> tuple[Any, str]:
    """fsspec's file system of a URL, and the path there.

    Raises:
        FastcamError: a scheme that is not read, or a package that is missing.
    """
    found = _SCHEME.match(url)
    scheme = found[1].lower() if found else ""
    if scheme not in SCHEMES or "::" in url:
        raise FastcamError(f"{shown(url)}: URLs of this kind are not read; give one of {listed(SCHEMES)}")
    try:
        import fsspec
    except ImportError as error:
        raise FastcamError(f"URLs need fsspec ({error}); run: pip install fastcam[batch]") from error
    try:
        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise FastcamError(f"{shown(url)}: one more package is needed ({one_line(error)})") from error
    except Exception as error:  # whatever a remote system's library raises
        raise FastcamError(f"{shown(url)}: cannot be opened ({one_line(error)})") from error
    return system, path


def is_folder(at: str) -> bool:
    """Whether there is a folder at a place."""
    if not is_url(at):
        return os.path.isdir(at)
    system, path = filesystem(at)
    return bool(_retried(at, lambda: system.isdir(path)))


def size_of(at: str) -> int:
    """Bytes of a file.

    Raises:
        FastcamError: there is none.
    """
    if is_url(at):
        system, path = filesystem(at)
        size = _retried(at, lambda: system.size(path))
        return -1 if size is None else int(size)
    try:
        return checked(at).st_size
    except (OSError, ValueError) as error:
        raise FastcamError(f"{shown(at)}: cannot be read ({reason(error)})") from error


def opened(at: str) -> BinaryIO:
    """A file, for reading and seeking.

    Raises:
        FastcamError: it cannot be opened.
    """
    if is_url(at):
        system, path = filesystem(at)
        return cast(BinaryIO, _retried(at, lambda: system.open(path, "rb")))
    try:
        checked(at)
        return open(at, "rb")
    except (OSError, ValueError) as error:
        raise FastcamError(f"{shown(at)}: cannot be read ({reason(error)})") from error


def read(at: str, most: int, offset: int = 0, length: int | None = None) -> bytes:
    """The bytes of a file behind a URL, or ``length`` of any file's from ``offset`` on.

    Raises:
        FastcamError: it cannot be read, or has more than ``most`` bytes.
    """
    if length is not None and length > most:
        raise too_long(at, most)
    if not is_url(at):
        with opened(at) as file:
            file.seek(offset)
            return whole(file.read(most + 1 if length is None else length), length, at)
    system, path = filesystem(at)
    end = offset + (most + 1 if length is None else length)
    data = bytes(_retried(at, lambda: system.cat_file(path, start=offset, end=end)))
    if len(data) > most:
        raise too_long(at, most)
    return whole(data, length, at)


def whole(data: bytes, length: int | None, at: str) -> bytes:
    """The bytes, if they are as many as they were said to be."""
    if length is not None and len(data) != length:
        raise FastcamError(f"{shown(at)}: cut short; copy it again")
    return data


def too_long(name: str, most: int) -> FastcamError:
    """The error of a picture with too many bytes."""
    return FastcamError(f"{shown(name)}: more than the {most / (1 << 20):.4g} MiB that a picture may have")


def walk(at: str) -> Iterator[Place]:
    """The files of a folder and of its subfolders, sorted within each; hidden ones are left out.

    Raises:
        FastcamError: a folder that cannot be read.
    """
    if is_url(at):
        system, path = filesystem(at)
        yield from _walk_remote(system, path, at, "")
    else:
        yield from _walk(at, "")


def _walk(folder: str, prefix: str) -> Iterator[Place]:
    try:
        with os.scandir(folder) as entries:
            inside = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda one: one.name)
    except OSError as error:
        raise FastcamError(f"{shown(folder)}: the folder cannot be read ({reason(error)})") from error
    for entry in inside:
        try:
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path, f"{prefix}{entry.name}/")
            elif entry.is_file():
                yield Place(f"{prefix}{entry.name}", entry.path, entry.stat().st_size)
        except OSError:  # it went away meanwhile
            continue


def _walk_remote(system: Any, path: str, at: str, prefix: str) -> Iterator[Place]:
    found = _retried(at, lambda: system.ls(path, detail=True))
    inside = {one["name"].rstrip("/").rsplit("/", 1)[-1]: one for one in found}
    for name, entry in sorted(inside.items()):
        if name.startswith(".") or entry["name"].strip("/") == path.strip("/"):
            continue
        if entry["type"] == "directory":
            yield from _walk_remote(system, entry["name"], at, f"{prefix}{name}/")
        else:
            size = entry.get("size")
            yield Place(f"{prefix}{name}", system.unstrip_protocol(entry["name"]), -1 if size is None else int(size))


_BRACES = re.compile(r"\{([0-9]+)\.\.([0-9]+)\}")


def expanded(spec: str) -> list[Place]:
    """The files of a pattern: ``{000..012}`` counts, ``*``, ``?`` and ``[...]`` match names; sorted."""
    braces = _BRACES.search(spec)
    if braces is not None:
        first, last = int(braces[1]), int(braces[2])
        if not 0 <= last - first < 100_000:
            raise FastcamError(f"{shown(spec)}: {{{braces[1]}..{braces[2]}}} counts nothing that can be; count upwards")
        numbers = (str(number).zfill(len(braces[1])) for number in range(first, last + 1))
        return [place for one in numbers for place in expanded(spec[: braces.start()] + one + spec[braces.end() :])]
    if not any(sign in spec for sign in "*?["):
        return [Place(os.path.basename(spec), spec, size_of(spec))]
    if is_url(spec):
        system, path = filesystem(spec)
        found = [system.unstrip_protocol(one) for one in _retried(spec, lambda: system.glob(path))]
    else:
        import glob

        found = glob.glob(spec, recursive=True)
    files = sorted(found)
    if not files:
        raise FastcamError(f"{shown(spec)}: nothing matches; give a pattern of files that are there")
    return [Place(os.path.basename(one), one, size_of(one)) for one in files]


def place_named(at: str, name: str) -> str:
    """The place that a file names: a URL and an absolute path as they are, others from the file's own folder on."""
    if is_url(name) or (os.path.isabs(name) and not is_url(at)):
        return name
    folder = at.rsplit("/", 1)[0] if is_url(at) else str(Path(at).parent)
    return f"{folder}/{name}" if is_url(at) else os.path.join(folder, name)


def _retried(at: str, call: Any) -> Any:
    """A call of a remote system, once more where it fails for a moment.

    Raises:
        FastcamError: it fails each time, or there is no such file.
    """
    for number in range(TRIES):
        try:
            return call()
        except (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError) as error:
            raise FastcamError(f"{shown(at)}: cannot be read ({type(error).__name__})") from error
        except Exception as error:  # whatever a remote system's library raises
            if number == TRIES - 1:
                raise FastcamError(f"{shown(at)}: cannot be read ({one_line(error)})") from error
            time.sleep(WAIT * 2**number)
    raise AssertionError("a try returns or raises")


def one_line(error: BaseException) -> str:
    """What an error of another library says, short."""
    return " ".join(str(error).split())[:200].rstrip(" .") or type(error).__name__
