"""COCO: instances in one JSON file, pictures in a folder; also what exports in this format.

Boxes are [x, y, width, height] from the picture's corner; masks are run lengths or polygons, see ``coco_masks``.
``iscrowd`` marks a group, which counts neither for nor against. COCO's own photos have no EXIF orientation (none of 45
that were looked at), and its tools ignore it, so annotations lie in the picture as its file stores it. Other tools that
write this format may mean the turned picture: ``exif``. A picture of another size than the JSON says is left out, which
shows where the choice is wrong.

The file is read through once, entry by entry. What stays is a line of numbers for each annotation; the annotation
itself is read when its picture's turn comes. pycocotools, which loads the whole file into dicts (several times its 450
MB for train2017), raises where one entry is damaged, and is a compiled package that not every platform has, is not
needed: it is the oracle in the tests, where every object of real photos has the same box, mask, crowd and overlap.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

import numpy as np
from numpy.typing import NDArray

from fastcam.errors import FastcamError, shown
from fastcam.evaluation.data.coco_masks import mask_reader
from fastcam.evaluation.data.json_index import entries, entry_at, utf8
from fastcam.evaluation.data.listed import OTHER_SIZE, Listed, chosen_split, folder_of, has_size, picture_at
from fastcam.evaluation.samples import Annotation, Box, LeftOut, Sample
from fastcam.image.reading import MAX_PIXELS

_FURTHEST = 1e9
"""Of a box, in pixels."""
WANTED = "give an instances JSON of COCO, or the folder that has one under annotations/"


@dataclass
class _Index:
    """What is kept of the file; of annotations their picture's id and their place."""

    names: list[str] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    place_of: dict[int, int] = field(default_factory=dict)
    categories: dict[int, str] = field(default_factory=dict)
    owners: array[int] = field(default_factory=lambda: array("q"))
    begins: array[int] = field(default_factory=lambda: array("q"))
    ends: array[int] = field(default_factory=lambda: array("q"))
    lost: LeftOut = field(default_factory=LeftOut)


def open_coco(path: Path, split: str | None = None, pictures: Path | None = None, exif: bool = False) -> Listed:
    """The pictures of an instances JSON, in the file's order.

    Args:
        path: the JSON, or a folder with ``annotations/instances_SPLIT.json`` or ``instances.json``.
        split: of a folder, such as ``val2017``.
        pictures: their folder, where it lies elsewhere than beside the JSON under its usual names.
        exif: whether annotations lie in the pictures as their EXIF orientation turns them.

    Raises:
        FastcamError: no such file or split, no COCO in it, or no folder of pictures.
    """
    file, split = _file(path, split)
    index = _indexed(file)
    folder = _folder(file, split, pictures)
    order, starts = _by_picture(index)
    labels = tuple(dict.fromkeys(index.categories.values()))

    def read(place: int, left_out: LeftOut) -> Sample | None:
        name, (height, width) = index.names[place], index.sizes[place]
        picture = picture_at(folder, name, left_out)
        if picture is None:
            return None
        if not has_size(picture, (height, width), exif):
            left_out.add(OTHER_SIZE, name)
            return None
        found = []
        with open(file, "rb") as source:
            for i in order[starts[place] : starts[place + 1]]:
                raw = _raw(source, index.begins[i], index.ends[i], file)
                annotation = _annotation(raw, index.categories, (height, width), name, left_out)
                if annotation is not None:
                    found.append(annotation)
        return Sample(name, picture, tuple(found))

    return Listed(f"coco:{path}{f' {split}' if split else ''}", labels, index.names, read, exif, index.lost)


# ---- where things lie


def _file(path: Path, split: str | None) -> tuple[Path, str]:
    """The JSON, and the split that it is of."""
    if os.path.isfile(path):
        own = path.stem.removeprefix("instances").lstrip("_")
        if split is not None and split != own:
            raise FastcamError(f"{shown(path)}: this file is of one split; leave out {split!r}, or give the folder")
        return path, own
    folder = folder_of(path, WANTED.removeprefix("give "))
    splits = {one.stem.removeprefix("instances_"): one for one in sorted(folder.glob("annotations/instances_*.json"))}
    if not splits and split is None:
        for single in (folder / "instances.json", folder / "annotations" / "instances.json"):
            if single.is_file():
                return single, ""
    if not splits:
        raise FastcamError(f"{shown(folder)}: no annotations/instances_*.json in it; {WANTED}")
    years = [name for name in splits if split is not None and name.removesuffix(name[-4:]) == split]
    wanted = years[0] if len(years) == 1 and split not in splits else split  # "val" for val2017
    if wanted is None:
        vals = [name for name in splits if name.startswith("val")]
        wanted = vals[0] if len(vals) == 1 else None
    chosen = chosen_split(wanted, list(splits), shown(folder))
    return splits[chosen], chosen


def _folder(file: Path, split: str, pictures: Path | None) -> Path:
    """Where the pictures are."""
    if pictures is not None:
        return folder_of(pictures, "the folder of the pictures")
    homes = (file.parent, file.parent.parent)
    names = [name for name in (split, f"images/{split}" if split else "", "images") if name]
    for home in homes:
        for name in names:
            if (home / name).is_dir():
                return home / name
    raise FastcamError(f"{shown(file)}: no folder {' or '.join(names)} of pictures beside it; say where (--pictures)")


# ---- the index


def _indexed(file: Path) -> _Index:
    index = _Index()
    keys = set()
    for key, entry, begin, end in entries(file, WANTED):
        keys.add(key)
        if key == "annotations":
            owner = entry.get("image_id") if isinstance(entry, Mapping) else None
            if not _whole(owner):
                index.lost.add("annotation of no picture", f"byte {begin}")
                continue
            index.owners.append(owner)
            index.begins.append(begin)
            index.ends.append(end)
        elif key == "images":
            _add_picture(index, entry)
        elif key == "categories" and isinstance(entry, Mapping):
            number, name = entry.get("id"), entry.get("name")
            if not _whole(number) or not isinstance(name, str) or number in index.categories:
                raise FastcamError(f"{shown(file)}: a category without a number of its own or a name; {WANTED}")
            index.categories[number] = utf8(name)
    missing = [key for key in ("images", "categories") if key not in keys]
    if missing:
        raise FastcamError(f"{shown(file)}: no {' and no '.join(missing)} in this JSON; {WANTED}")
    return index


def _add_picture(index: _Index, entry: Any) -> None:
    entry = entry if isinstance(entry, Mapping) else {}
    number, name = entry.get("id"), entry.get("file_name")
    height, width = entry.get("height"), entry.get("width")
    called = utf8(name) if isinstance(name, str) else str(number)
    if not _whole(number) or not isinstance(name, str):
        index.lost.add("picture without a number or a name", called)
    elif not (_whole(height) and _whole(width)) or min(height, width) < 1 or height * width > MAX_PIXELS:
        index.lost.add("picture without a size", called)
    elif number in index.place_of or called in index.seen:
        index.lost.add("picture that is listed twice", called)
    else:
        index.place_of[number] = len(index.names)
        index.seen.add(called)
        index.names.append(called)
        index.sizes.append((height, width))


def _by_picture(index: _Index) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Annotations by number, those of a picture together and in the file's order; and where each picture begins."""
    places = np.array([index.place_of.get(owner, -1) for owner in index.owners], np.int64)
    for i in np.flatnonzero(places < 0):
        index.lost.add("annotation of no picture", f"image_id {index.owners[i]}")
    order = np.argsort(places, kind="stable")
    return order, np.searchsorted(places[order], np.arange(len(index.names) + 1))


# ---- an annotation


def _raw(source: BinaryIO, begin: int, end: int, file: Path) -> Mapping[str, Any]:
    try:
        raw = entry_at(source, begin, end)
    except (ValueError, RecursionError):
        raw = None
    if not isinstance(raw, Mapping):
        raise FastcamError(f"{shown(file)}: has changed while it was read; start again")
    return raw


def _annotation(
    raw: Mapping[str, Any], categories: Mapping[int, str], size: tuple[int, int], name: str, left_out: LeftOut
) -> Annotation | None:
    number = raw.get("category_id")
    label = categories.get(number) if _whole(number) else None
    if label is None:
        left_out.add("object of an unknown category", f"{name}: {str(number)[:40]}")
        return None
    box = _box(raw.get("bbox"))
    if box is None:
        left_out.add("object with a damaged or empty box", f"{name}: {label}")
        return None
    mask = None
    if raw.get("segmentation"):
        mask = mask_reader(raw["segmentation"], *size)
        if mask is None:
            left_out.add("mask that is damaged", f"{name}: {label}")
    return Annotation(label, box, mask, crowd=raw.get("iscrowd") == 1)


def _box(raw: Any) -> Box | None:
    if not isinstance(raw, list) or len(raw) != 4:
        return None
    if not all(isinstance(one, int | float) and not isinstance(one, bool) and abs(one) < _FURTHEST for one in raw):
        return None
    x, y, width, height = map(float, raw)
    return (x, y, x + width, y + height) if width > 0 and height > 0 else None


def _whole(number: Any) -> TypeGuard[int]:
    return isinstance(number, int) and not isinstance(number, bool) and abs(number) < 2**62
