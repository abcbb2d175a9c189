"""PASCAL VOC: a devkit year, or any folder of its form, with Annotations, ImageSets, JPEGImages and masks.

Boxes in the XML count from 1 and hold their last pixel (VOCdevkit: "the top-left pixel in the image has coordinates
(1,1)"); they become half-open boxes from 0. Numbers in SegmentationClass are places in the list of classes, from 1; 0
is the background, and 255 the void at objects' borders and in what nobody could tell, which counts for nothing. Numbers
in SegmentationObject are places in the XML, from 1. "Difficult" objects are marked, and the benchmarks leave them out.
The devkit reads pictures by MATLAB's ``imread``, which knows no EXIF orientation.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastcam.errors import FastcamError, listed, shown
from fastcam.evaluation.data.index_masks import Indices, read_indices, why_unfit
from fastcam.evaluation.data.listed import (
    OTHER_SIZE,
    Listed,
    chosen_split,
    folder_of,
    has_size,
    inside,
    picture_at,
    unique,
)
from fastcam.evaluation.data.xml_boxes import MarkedObject, read_annotation
from fastcam.evaluation.samples import Annotation, Box, LeftOut, Mask, Sample
from fastcam.image.decode import JPEG
from fastcam.input_files import read_text

WANTED = "give a devkit's year, such as VOCdevkit/VOC2012"
CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
VOID = 255
ENDINGS = (*JPEG, ".JPEG", ".JPG", ".png")
_NO_CLASSES = ("_background_", "__background__", "background", "__ignore__", "_ignore_")


def open_voc(path: Path, split: str | None = None, exif: bool = False) -> Listed:
    """The pictures of a split, in its order.

    Args:
        path: the year's folder, or the devkit's where it has one year.
        split: such as ``val``, of ImageSets/Main or the first folder that has it; ``Segmentation/val`` of that folder.
        exif: whether annotations lie in the pictures as their EXIF orientation turns them.

    Raises:
        FastcamError: no such folder or split.
    """
    folder = _year(path)
    splits = _splits(folder)
    chosen = chosen_split(split, list(splits), shown(folder))
    lost = LeftOut()
    names = unique(_names(splits[chosen]), lost)
    labels = _labels(folder, names)

    def read(place: int, left_out: LeftOut) -> Sample | None:
        return _sample(folder, names[place], labels, exif, left_out)

    return Listed(f"voc:{path} {chosen}", labels, names, read, exif, lost)


# ---- folders and lists


def _year(path: Path) -> Path:
    folder = folder_of(path, WANTED)
    if (folder / "Annotations").is_dir():
        return folder
    years = sorted(one.name for one in folder.iterdir() if (one / "Annotations").is_dir())
    if len(years) == 1:
        return folder / years[0]
    has = f"it has {listed(years)}" if years else "there is no Annotations in it"
    raise FastcamError(f"{shown(folder)}: no folder of PASCAL VOC's form; {has}; {WANTED}")


def _splits(folder: Path) -> dict[str, Path]:
    """The lists by name: "val" of Main or the first folder that has one, "Segmentation/val"; else all annotations."""
    sets = folder / "ImageSets"
    homes = sorted((one for one in sets.iterdir() if one.is_dir()), key=_main_first) if sets.is_dir() else []
    found: dict[str, Path] = {}
    for home in [*homes, *([sets] if sets.is_dir() else [])]:
        lists = [one for one in sorted(home.glob("*.txt")) if not _of_class(one)]
        found |= {one.stem: one for one in lists if one.stem not in found}
    for home in homes:
        found |= {f"{home.name}/{one.stem}": one for one in sorted(home.glob("*.txt"))}
    return found or {"all": folder / "Annotations"}


def _main_first(home: Path) -> tuple[bool, str]:
    return home.name != "Main", home.name


def _of_class(file: Path) -> bool:
    """Whether a list says of each picture whether it has one class: cat_val.txt."""
    return file.stem.rpartition("_")[2] in ("train", "val", "trainval", "test") and "_" in file.stem


def _names(source: Path) -> list[str]:
    """The pictures of a list, or of a folder of annotations. Of a class's list those that have it (not -1)."""
    if source.is_dir():
        return sorted(one.stem for one in source.glob("*.xml"))
    lines = [line.split() for line in read_text(source, "give a list of picture names").splitlines()]
    return [line[0] for line in lines if line and line[-1] != "-1"]


def _labels(folder: Path, names: Sequence[str]) -> tuple[str, ...]:
    """The classes: those of a list beside the data, those that the lists of Main are named by, or those that occur."""
    for file in (folder / "class_names.txt", folder / "labels.txt"):
        if file.is_file():
            lines = [line.strip() for line in read_text(file, "give a class name a line").splitlines()]
            return tuple(line for line in lines if line and line not in _NO_CLASSES)
    main = sorted(
        {one.stem.rpartition("_")[0] for one in (folder / "ImageSets" / "Main").glob("*.txt") if _of_class(one)}
    )
    if main:
        return tuple(main)
    found: set[str] = set()
    for name in names:
        path = inside(folder / "Annotations", f"{name}.xml")
        try:
            found |= {one.label for one in read_annotation(path).objects} if path is not None else set()
        except FastcamError:
            continue  # it is named when its turn comes
    return CLASSES if found <= set(CLASSES) else tuple(sorted(found))


# ---- a sample


def _sample(folder: Path, name: str, labels: Sequence[str], exif: bool, left_out: LeftOut) -> Sample | None:
    picture = picture_at(folder / "JPEGImages", name, left_out, ENDINGS)
    if picture is None:
        return None
    try:
        marked = read_annotation(folder / "Annotations" / f"{name}.xml")
    except FastcamError:
        there = os.path.exists(folder / "Annotations" / f"{name}.xml")
        left_out.add("annotation that is damaged" if there else "annotation that is not there", name)
        return None
    if marked.size is not None and not has_size(picture, marked.size, exif):
        left_out.add(OTHER_SIZE, name)
        return None
    classes, instances = (folder / kind / f"{name}.png" for kind in ("SegmentationClass", "SegmentationObject"))
    masks = [file for file in (classes, instances) if file.is_file()]
    unfit = next((why for file in masks if (why := why_unfit(file, picture, exif)) is not None), None)
    if unfit is not None:
        left_out.add(unfit, name)
    has_masks = classes.is_file() and unfit is None
    found = []
    for place, one in enumerate(marked.objects):
        if one.label not in labels:
            left_out.add("object of an unknown class", f"{name}: {one.label}")
        elif one.box is None:
            left_out.add("object with a damaged or empty box", f"{name}: {one.label}")
        else:
            number = labels.index(one.label) + 1
            mask = _mask_of(one, place + 1, number, classes, instances) if has_masks else None
            found.append(Annotation(one.label, one.box, mask, one.difficult))
    ignored = (lambda: read_indices(classes) == VOID) if has_masks else None
    return Sample(name, picture, tuple(found), ignored)


def _mask_of(one: MarkedObject, place: int, number: int, classes: Path, instances: Path) -> Callable[[], Mask]:
    """What reads the mask of an object: of its class's pixels where there is no file of objects.

    In some files objects do not stand at their places in the XML. Then the object of the class that fits the box best
    is taken.
    """

    def read() -> Mask:
        of_class: Mask = read_indices(classes) == number
        if not instances.is_file():
            return of_class
        owners = read_indices(instances)
        if owners.shape != of_class.shape:
            raise FastcamError(f"{shown(instances)}: of another size than {classes.name} beside it; make them equal")
        mask: Mask = owners == place
        if (mask & of_class).sum() * 2 > mask.sum() and _fit(mask, one.box) > 0.5:
            return mask
        return _best(owners, of_class, one.box)

    return read


def _best(owners: Indices, of_class: Mask, box: Box | None) -> Mask:
    """The object of a class whose pixels fit a box best; no pixels where the class has none."""
    numbers = [number for number in np.unique(owners[of_class]) if number not in (0, VOID)]
    masks = [owners == number for number in numbers]
    return max(masks, key=lambda mask: _fit(mask, box), default=np.zeros_like(of_class))


def _fit(mask: NDArray[np.bool_], box: Box | None) -> float:
    """Intersection over union of a mask's own box with another."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if box is None or not len(rows):
        return 0.0
    own = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    width = min(own[2], box[2]) - max(own[0], box[0])
    height = min(own[3], box[3]) - max(own[1], box[1])
    shared = max(width, 0) * max(height, 0)
    areas = sum((each[2] - each[0]) * (each[3] - each[1]) for each in (own, box))
    return float(shared / (areas - shared))
