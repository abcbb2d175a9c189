"""A folder of pictures, one folder a class or all in one, with a CSV of boxes or a folder of masks beside them.

The CSV is ``boxes.csv``: a line a box under the names of its columns, such as ``file,class,x0,y0,x1,y1`` or
``file,x,y,width,height``; boxes are half-open, in pixels from 0. Masks are ``masks/CLASS/NAME.png`` or
``masks/NAME.png``; what is not 0 is the object. Tools of today mark the picture as they show it, so it is turned as its
EXIF orientation says.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from fastcam.errors import FastcamError, listed, shown
from fastcam.evaluation.data.index_masks import read_indices, why_unfit
from fastcam.evaluation.data.listed import Listed, chosen_split, folder_of, picture_at, pictures_under
from fastcam.evaluation.samples import Annotation, Box, LeftOut, Mask, Sample
from fastcam.input_files import read_text

WANTED = "give a folder with a folder of pictures for each class, or with pictures and boxes.csv"
SPLITS = ("train", "val", "valid", "validation", "test")
MASKS, BOXES = "masks", "boxes.csv"
LONGEST = 64 << 20
"""Bytes of a CSV, at most."""
_FILE = ("file", "filename", "file_name", "image", "path", "picture", "name")
_CLASS = ("class", "label", "class_name", "category")
_CORNERS = (("x0", "y0", "x1", "y1"), ("xmin", "ymin", "xmax", "ymax"), ("left", "top", "right", "bottom"))
_SIZES = (("x", "y", "width", "height"), ("x", "y", "w", "h"))


@dataclass(frozen=True)
class _Row:
    """A line of the CSV; a class of None is the folder's."""

    label: str | None
    box: Box | None


def open_folder(path: Path, split: str | None = None, annotations: Path | None = None, exif: bool = True) -> Listed:
    """The pictures of a folder, sorted by name.

    Args:
        path: with a folder for each class, or with pictures.
        split: the folder in it that is meant; needed where it has several such as train and val.
        annotations: a CSV of boxes or a folder of masks, where it is not boxes.csv or masks in the folder.
        exif: whether annotations lie in the pictures as their EXIF orientation turns them.

    Raises:
        FastcamError: no such folder or split, no pictures in it, no classes known, or a CSV without the columns.
    """
    folder = folder_of(path, WANTED)
    splits = [name for name in SPLITS if (folder / name).is_dir()]
    home = folder
    if split is not None or splits:
        home = folder / chosen_split(split, splits, shown(folder))
    table, masks = _boxes_and_masks(folder, home, annotations)
    names = pictures_under(home, lambda inner: inner != MASKS and not inner.startswith("."))
    if not names:
        raise FastcamError(f"{shown(home)}: no pictures in it; {WANTED}")
    lost = LeftOut()
    rows = _rows(table, names, lost) if table is not None else {}
    labels = sorted({label for name in names for label in _classes(name, rows)})
    if not labels:
        raise FastcamError(f"{shown(home)}: nothing says the pictures' classes; {WANTED}, with a column class")

    def read(place: int, left_out: LeftOut) -> Sample | None:
        name = names[place]
        picture = picture_at(home, name, left_out)
        if picture is None:
            return None
        mask = None if masks is None else _mask_file(masks, name)
        if masks is not None and mask is None:
            left_out.add("mask that is not there", name)
        unfit = None if mask is None else why_unfit(mask, picture, exif)
        if unfit is not None:
            left_out.add(unfit, name)
            mask = None
        marks = rows.get(name) or [_Row(None, None)]
        label = _of_folder(name)
        found = [_annotation(one.label or label, one.box, mask) for one in marks if one.label or label]
        if not found:
            left_out.add("picture without a class", name)
            return None
        return Sample(name, picture, tuple(found))

    return Listed(f"folder:{path}{f' {split}' if split else ''}", labels, names, read, exif, lost)


def _annotation(label: str | None, box: Box | None, mask: Path | None) -> Annotation:
    assert label is not None
    return Annotation(label, box, None if mask is None else _mask_reader(mask, box))


def _mask_reader(file: Path, box: Box | None) -> Callable[[], Mask]:
    """The mask in a file; of an object with a box what lies in it."""

    def read() -> Mask:
        mask: Mask = read_indices(file) != 0
        if box is not None:
            y, x = (np.arange(side) for side in mask.shape)
            mask &= ((y >= math.floor(box[1])) & (y < box[3]))[:, None] & (x >= math.floor(box[0])) & (x < box[2])
        return mask

    return read


# ---- where things lie


def _boxes_and_masks(folder: Path, home: Path, given: Path | None) -> tuple[Path | None, Path | None]:
    """The CSV of boxes and the folder of masks."""
    if given is not None:
        if os.path.isdir(given):
            return None, given
        if os.path.isfile(given):
            return given, None
        raise FastcamError(f"{shown(given)}: no such CSV of boxes or folder of masks")
    tables = [place / BOXES for place in (home, folder) if (place / BOXES).is_file()]
    masks = [place for place in (home / MASKS, folder / MASKS / home.name, folder / MASKS) if place.is_dir()]
    return (tables[0] if tables else None), (masks[0] if masks else None)


def _of_folder(name: str) -> str | None:
    """The class that a picture's folder is named by."""
    return name.rpartition("/")[0] or None


def _classes(name: str, rows: Mapping[str, list[_Row]]) -> list[str]:
    labels = [one.label or _of_folder(name) for one in rows.get(name, ())] or [_of_folder(name)]
    return [label for label in labels if label is not None]


def _mask_file(masks: Path, name: str) -> Path | None:
    own = PurePosixPath(name).with_suffix(".png")
    return next((file for file in (masks / own, masks / own.name) if file.is_file()), None)


# ---- the CSV


def _rows(file: Path, names: list[str], lost: LeftOut) -> dict[str, list[_Row]]:
    """The lines by picture; what cannot be used is counted."""
    text = read_text(file, f"give a CSV of boxes: {', '.join(('file', 'class', *_CORNERS[0]))}", LONGEST)
    reader = csv.reader(io.StringIO(text))
    try:
        lines = list(reader)
    except csv.Error as error:
        raise FastcamError(f"{shown(file)}: no CSV that can be read ({error})") from error
    head = [name.strip().lower() for name in lines[0]] if lines else []
    picture, label = (next((head.index(name) for name in known if name in head), None) for known in (_FILE, _CLASS))
    columns = next((each for each in (*_CORNERS, *_SIZES) if all(name in head for name in each)), None)
    if picture is None or columns is None:
        raise FastcamError(
            f"{shown(file)}: columns {listed(head) or 'without names'}; name them, such as file,class,x0,y0,x1,y1"
        )
    places, sized = [head.index(name) for name in columns], columns in _SIZES
    by_name: dict[str, list[str]] = {}
    for name in names:
        for key in {name, PurePosixPath(name).name}:
            by_name.setdefault(key, []).append(name)
    found: dict[str, list[_Row]] = {}
    for number, line in enumerate(lines[1:], 2):
        if not any(line):
            continue
        if len(line) != len(head):
            raise FastcamError(f"{shown(file)}: line {number} has {len(line)} columns and not {len(head)}")
        called = line[picture].strip()
        pictures = by_name.get(called.removeprefix("./"), [])
        box = _box([line[place] for place in places], sized)
        if len(pictures) != 1:
            lost.add("box of no picture" if not pictures else "box of several pictures of one name", called)
        elif box is None:
            lost.add("object with a damaged or empty box", f"{called} in line {number}")
        else:
            named = line[label].strip() if label is not None else ""
            found.setdefault(pictures[0], []).append(_Row(named or None, box))
    return found


def _box(words: list[str], sized: bool) -> Box | None:
    try:
        x0, y0, x1, y1 = map(float, words)
    except ValueError:
        return None
    if sized:
        x1, y1 = x0 + x1, y0 + y1
    good = all(map(math.isfinite, (x0, y0, x1, y1))) and x0 < x1 and y0 < y1
    return (x0, y0, x1, y1) if good else None
