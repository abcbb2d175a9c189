"""What the loaders of all formats share: an index of names, and a sample read from it when its turn comes."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from fastcam.errors import FastcamError, listed, shown
from fastcam.evaluation.samples import Box, LeftOut, Sample
from fastcam.image.decode import is_picture
from fastcam.image.header import header
from fastcam.image.preprocess import Size

Reader: TypeAlias = "Callable[[int, LeftOut], Sample | None]"
"""Reads the sample of a place in the index; None, with a line in what is left out, where it cannot be used."""

SYNSET = re.compile(r"n\d{8}\b")
"""A WordNet identifier, such as ImageNet's class folders are called."""

OTHER_SIZE = "picture of another size than its annotations"
"""Why boxes and masks cannot be laid over a picture, which may have been made smaller since."""


class Listed:
    """A data set whose names are known before anything is read. See :class:`fastcam.evaluation.samples.Dataset`.

    Args:
        name: for people.
        labels: every class, in order.
        names: of the samples, in order.
        read: gives the sample of a place in ``names``.
        exif: whether annotations lie in the picture as its EXIF orientation turns it.
        left_out: what was lost while the index was made; every pass over the samples counts it again.
    """

    def __init__(
        self,
        name: str,
        labels: Sequence[str],
        names: Sequence[str],
        read: Reader,
        exif: bool = False,
        left_out: LeftOut | None = None,
    ) -> None:
        self.name, self.labels, self.exif = name, tuple(labels), exif
        self._names, self._read, self._lost = names, read, left_out or LeftOut()
        self.left_out = self._lost.copy()

    @property
    def names(self) -> Sequence[str]:
        """Of all samples, in order; some may turn out unusable when they are read."""
        return self._names

    def __len__(self) -> int:
        """How many names the index has."""
        return len(self._names)

    def samples(self, skip: Collection[str] = ()) -> Iterator[Sample]:
        """The samples in the index's order; what is skipped is not read."""
        self.left_out = self._lost.copy()
        for place, name in enumerate(self._names):
            if name in skip:
                continue
            own = LeftOut()
            sample = self._read(place, own)
            self.left_out.merge(own)
            if sample is not None:
                yield replace(sample, left_out=own) if own.counts else sample


def inside(folder: Path, name: str) -> Path | None:
    """The path that a name in a list means; None where it would lead out of the folder."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name or ":" in parts[0]:
        return None
    return folder / name


def picture_at(folder: Path, name: str, left_out: LeftOut, suffixes: Sequence[str] = ("",)) -> Path | None:
    """The picture of a name, with one of the endings; None, and a line in what is left out, where there is none."""
    path = inside(folder, name)
    if path is None:
        left_out.add("name that leads out of the folder", name)
        return None
    for suffix in suffixes:
        whole = path.with_name(path.name + suffix)
        if os.path.isfile(whole):  # Path.is_file raises where a name is too long
            return whole
    left_out.add("picture that is not there", name)
    return None


def size_of(data: bytes) -> Size | None:
    """Height and width that a picture's header says; None where nobody knows before it is decoded."""
    head = header(data)
    return None if head is None else (head.height, head.width)


def beginning(path: Path) -> bytes:
    """As much of a file as most pictures need to tell their size; nothing of one that cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(1 << 16)
    except OSError:
        return b""


def has_size(picture: Path, size: Size, exif: bool) -> bool:
    """Whether a picture's header says this size, or with EXIF this size on its side.

    Where it says none, whoever decodes it will see.
    """
    found = size_of(beginning(picture))
    return found in (None, size) or (exif and found == size[::-1])


def inclusive_box(x0: float, y0: float, x1: float, y1: float) -> Box | None:
    """Corners that count from 1 and belong to the box, as PASCAL VOC and ILSVRC write them, as a half-open box from 0.

    Some files have 0 as their smallest number, which means the first pixel too. None of a box without
    pixels, or without end.
    """
    box = (max(x0 - 1, 0.0), max(y0 - 1, 0.0), x1, y1)
    return box if all(map(math.isfinite, box)) and box[0] < box[2] and box[1] < box[3] else None


def chosen_split(split: str | None, splits: Sequence[str], where: str) -> str:
    """The split that was asked for, or the only one, or ``val``.

    Raises:
        FastcamError: it is not there, or nothing was said and there are several; the message names them.
    """
    if split is None and len(splits) == 1:
        return splits[0]
    wanted = split or "val"
    if wanted in splits:
        return wanted
    there = f"there are: {listed(splits)}" if splits else "there are none"
    asked = f"no split {split!r}" if split else "no split val"
    raise FastcamError(f"{where}: {asked}; {there}")


def pictures_under(home: Path, enters: Callable[[str], bool]) -> list[str]:
    """The pictures of a folder, and of those of its folders whose names ``enters`` accepts, hidden ones not among them.

    Names are sorted, those in a folder as "folder/picture.jpg".
    """
    names = []
    with os.scandir(home) as entries:
        for entry in entries:
            if enters(entry.name) and entry.is_dir():
                with os.scandir(entry) as inner:
                    names += [f"{entry.name}/{one.name}" for one in inner if _is_picture(one.name)]
            elif _is_picture(entry.name):
                names.append(entry.name)
    return sorted(names)


def _is_picture(name: str) -> bool:
    return is_picture(Path(name)) and not name.startswith(".")


def folder_of(path: str | Path, wanted: str) -> Path:
    """A folder that is there.

    Raises:
        FastcamError: it is not.
    """
    folder = Path(path)
    try:
        there = folder.is_dir()
    except (OSError, ValueError):
        there = False
    if not there:
        raise FastcamError(f"{shown(folder)}: no such folder; give {wanted}")
    return folder


def unique(names: Sequence[str], left_out: LeftOut) -> list[str]:
    """Names without those that come again."""
    first = dict.fromkeys(names)
    if len(first) != len(names):
        seen: set[str] = set()
        for name in names:
            if name in seen:
                left_out.add("name that is listed twice", name)
            seen.add(name)
    return list(first)
