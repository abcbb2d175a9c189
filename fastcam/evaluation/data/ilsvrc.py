"""ILSVRC, classification and localization: pictures in one folder or one a class, boxes in any of three forms.

Boxes stand in the challenge's XML, in the CSV of its Kaggle edition, or in wsolevaluation's metadata; the numbers are
the same. They count from 1 and hold their last pixel, in PASCAL VOC's format; they become half-open boxes from 0. The
challenge's tools read pictures by MATLAB's ``imread``, wsolevaluation by Pillow, and both leave EXIF orientation alone.

Labels are lines of the list of synsets, "n01440764 tench, Tinca tinca", in the order of their WordNet ids; without a
list the ids alone.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from fastcam.errors import FastcamError, listed, shown
from fastcam.evaluation.data.listed import (
    OTHER_SIZE,
    SYNSET,
    Listed,
    chosen_split,
    folder_of,
    has_size,
    inclusive_box,
    inside,
    picture_at,
    pictures_under,
    unique,
)
from fastcam.evaluation.data.xml_boxes import read_annotation
from fastcam.evaluation.samples import Annotation, Box, LeftOut, Sample
from fastcam.image.preprocess import Size
from fastcam.input_files import read_text

WANTED = "give ILSVRC's folder, with pictures in val/ or ILSVRC/Data/CLS-LOC/val/"
SPLITS = ("val", "train", "test")
SYNSET_LISTS = ("LOC_synset_mapping.txt", "synset_words.txt", "synsets.txt", "imagenet_lsvrc_2015_synsets.txt")
LONGEST = 256 << 20
"""Bytes of a list of pictures or boxes, at most."""


@dataclass(frozen=True)
class Marks:
    """What annotations say of a picture.

    Attributes:
        objects: (WordNet id, box) of each; a class alone has no box.
        size: of the picture that was annotated, where they say it.
    """

    objects: Sequence[tuple[str, Box | None]]
    size: Size | None = None


MarksOf: TypeAlias = "Callable[[str], Marks | None]"
"""The marks of a picture, by its name in the list; None where nothing is said of it.

Raises:
    FastcamError: its annotation is damaged.
"""


def open_ilsvrc(
    path: Path,
    split: str | None = None,
    pictures: Path | None = None,
    annotations: Path | None = None,
    exif: bool = False,
) -> Listed:
    """The pictures of a split, sorted by name, or in the order of wsolevaluation's image_ids.txt.

    Args:
        path: the folder with pictures, annotations and the list of synsets.
        split: ``val`` or ``train``.
        pictures: their folder, where it is not found.
        annotations: a folder of XML, LOC_val_solution.csv, or a folder with wsolevaluation's localization.txt, where
            they are not found.
        exif: whether annotations lie in the pictures as their EXIF orientation turns them.

    Raises:
        FastcamError: no such folder, no pictures or annotations in it, or a damaged list.
    """
    folder = folder_of(path, WANTED)
    split, pictures = _pictures(folder, split, pictures)
    lost = LeftOut()
    source = _annotations(folder, split, annotations)
    words = _words([folder, folder / "ILSVRC", *([source if source.is_dir() else source.parent] if source else [])])
    metadata = source is not None and source.is_dir() and (source / "localization.txt").is_file()
    if source is not None and metadata:
        names = _lines(source / "image_ids.txt")
        marks_of = _of_metadata(source, sorted(words))
    else:
        names = pictures_under(pictures, lambda inner: SYNSET.fullmatch(inner) is not None)
        marks_of = _no_marks if source is None else _of_csv(source, lost) if source.is_file() else _of_folder(source)
    names = unique(names, lost)
    if not names:
        raise FastcamError(f"{shown(pictures)}: no pictures in it; {WANTED}")
    if source is None and "/" not in names[0]:
        raise FastcamError(
            f"{shown(folder)}: no annotations of {split} in it; give a folder of XML, LOC_{split}_solution.csv, or "
            "wsolevaluation's metadata (--annotations)"
        )
    ids = sorted(words) or _ids(names, marks_of)
    labels = tuple(words.get(one, one) for one in ids)
    label_of = dict(zip(ids, labels, strict=True))

    def read(place: int, left_out: LeftOut) -> Sample | None:
        return _sample(pictures, names[place], marks_of, label_of, exif, left_out)

    return Listed(f"ilsvrc:{path} {split}", labels, names, read, exif, lost)


def _sample(
    pictures: Path, name: str, marks_of: MarksOf, label_of: Mapping[str, str], exif: bool, left_out: LeftOut
) -> Sample | None:
    local = name if _exists(pictures, name) else name.partition("/")[2] or name  # val/x.JPEG, and we are in val
    picture = picture_at(pictures, local, left_out)
    if picture is None:
        return None
    try:
        marks = marks_of(name)
    except FastcamError:
        left_out.add("annotation that is damaged", name)
        return None
    if marks is not None and marks.size is not None and not has_size(picture, marks.size, exif):
        left_out.add(OTHER_SIZE, name)
        return None
    if marks is None or not marks.objects:
        synset = SYNSET.match(name)
        if synset is None:
            left_out.add("picture without an annotation", name)
            return None
        left_out.add("picture without a box, whose class alone is used", name)
        marks = Marks([(synset[0], None)])
    found = []
    for synset_id, box in marks.objects:
        if synset_id not in label_of:
            left_out.add("object of an unknown class", f"{name}: {synset_id}")
        else:
            found.append(Annotation(label_of[synset_id], box))
    return Sample(name, picture, tuple(found)) if found else None


# ---- where things lie


def _pictures(folder: Path, split: str | None, pictures: Path | None) -> tuple[str, Path]:
    if pictures is not None:
        return split or "val", folder_of(pictures, "the folder of the pictures")
    homes = ("ILSVRC/Data/CLS-LOC/{}", "Data/CLS-LOC/{}", "{}", "ILSVRC2012_img_{}")
    there = {
        one: folder / home.format(one)
        for one in SPLITS
        for home in reversed(homes)
        if (folder / home.format(one)).is_dir()
    }
    if there or split is not None:
        chosen = chosen_split(split, list(there), shown(folder))
        return chosen, there[chosen]
    return "val", folder


def _annotations(folder: Path, split: str, given: Path | None) -> Path | None:
    """A folder of XML, one with localization.txt, or a CSV."""
    if given is not None:
        if not os.path.exists(given):
            raise FastcamError(f"{shown(given)}: no such file or folder of annotations")
        below = given / split
        return below if below.is_dir() else given
    for folder_name in (
        f"ILSVRC/Annotations/CLS-LOC/{split}",
        f"Annotations/CLS-LOC/{split}",
        f"ILSVRC2012_bbox_{split}_v3/{split}",
        f"ILSVRC2012_bbox_{split}_v3",
        f"bbox/{split}",
    ):
        if (folder / folder_name).is_dir():
            return folder / folder_name
    for file in (folder / f"LOC_{split}_solution.csv", folder / "ILSVRC" / f"LOC_{split}_solution.csv"):
        if file.is_file():
            return file
    for home in (folder, folder / "metadata" / split, folder / "metadata" / "ILSVRC" / split, folder / split):
        if (home / "localization.txt").is_file():
            return home
    return None


def _exists(folder: Path, name: str) -> bool:
    path = inside(folder, name)
    return path is not None and os.path.isfile(path)


def _words(folders: Sequence[Path]) -> dict[str, str]:
    """The lines of the list of synsets, by WordNet id; empty where there is none."""
    for folder in folders:
        for name in SYNSET_LISTS:
            if (folder / name).is_file():
                lines = _lines(folder / name)
                wrong = [line for line in lines if not SYNSET.match(line)]
                if wrong:
                    raise FastcamError(f"{shown(folder / name)}: {wrong[0][:40]!r} begins with no WordNet id")
                return {line[:9]: line for line in lines}
    return {}


def _lines(file: Path) -> list[str]:
    text = read_text(file, "give one entry a line", LONGEST)
    return [line.strip() for line in text.splitlines() if line.strip()]


def _ids(names: Sequence[str], marks_of: MarksOf) -> list[str]:
    """The WordNet ids that occur, where no list says them: in folders' names, else in annotations."""
    of_folders = {match[0] for name in names if (match := SYNSET.match(name))}
    if of_folders:
        return sorted(of_folders)
    found: set[str] = set()
    for name in names:
        try:
            found |= {synset for synset, _ in (marks_of(name) or Marks(())).objects}
        except FastcamError:
            continue  # it is named when its turn comes
    return sorted(found)


# ---- the three forms of annotations


def _no_marks(name: str) -> Marks | None:
    return None


def _of_folder(folder: Path) -> MarksOf:
    """XML, one file a picture: in the picture's own folder there, in the folder itself, or in folders of synsets."""

    def marks_of(name: str) -> Marks | None:
        own, stem = inside(folder, str(PurePosixPath(name).with_suffix(".xml"))), PurePosixPath(name).stem
        for file in (own or folder, folder / f"{stem}.xml", folder / stem.partition("_")[0] / f"{stem}.xml"):
            if os.path.isfile(file):
                marked = read_annotation(file)
                return Marks([(one.label, one.box) for one in marked.objects if one.box is not None], marked.size)
        return None

    return marks_of


def _of_csv(file: Path, lost: LeftOut) -> MarksOf:
    """Kaggle's CSV: ImageId, PredictionString of "synset x0 y0 x1 y1" for each object."""
    text = read_text(file, "give LOC_val_solution.csv", LONGEST)
    rows: dict[str, str] = {}
    try:
        for row in csv.reader(io.StringIO(text)):
            if len(row) == 2 and row[0] in rows:
                lost.add("annotation that is listed twice", row[0])
            elif len(row) == 2:
                rows[row[0]] = row[1]
    except csv.Error as error:
        raise FastcamError(f"{shown(file)}: no CSV that can be read ({error}); give LOC_val_solution.csv") from error
    if "ImageId" not in rows:
        raise FastcamError(f"{shown(file)}: no line ImageId,PredictionString; give LOC_val_solution.csv")

    def marks_of(name: str) -> Marks | None:
        stem = PurePosixPath(name).stem
        if stem not in rows:
            return None
        words = rows[stem].split()
        objects = [words[i : i + 5] for i in range(0, len(words), 5)]
        return Marks([(one[0], _box(one[1:], file, stem)) for one in objects])

    return marks_of


def _of_metadata(folder: Path, ids: Sequence[str]) -> MarksOf:
    """wsolevaluation's class_labels.txt (path, class), localization.txt (path, x0, y0, x1, y1) and, where it is there,
    image_sizes.txt (path, width, height)."""
    if not ids:
        raise FastcamError(
            f"{shown(folder)}: its classes are numbers in the order of synsets; put a list of these beside them "
            f"({listed(SYNSET_LISTS)})"
        )
    classes: dict[str, str] = {}
    for line in _lines(folder / "class_labels.txt"):
        name, _, number = line.rpartition(",")
        place = _number(number)
        if place is None or place >= len(ids):
            raise FastcamError(f"{shown(folder / 'class_labels.txt')}: {line[:80]!r} is not path,class of {len(ids)}")
        classes[name.strip()] = ids[place]
    boxes: dict[str, list[str]] = {}
    for line in _lines(folder / "localization.txt"):
        name, _, corners = line.partition(",")
        boxes.setdefault(name.strip(), []).append(corners)
    sizes = _sizes(folder / "image_sizes.txt")

    def marks_of(name: str) -> Marks | None:
        if name not in classes:
            return None
        found: list[Box | None] = [
            _box(corners.split(","), folder / "localization.txt", name) for corners in boxes.get(name, ())
        ]
        return Marks([(classes[name], box) for box in found or [None]], sizes.get(name))

    return marks_of


def _sizes(file: Path) -> dict[str, Size]:
    found: dict[str, Size] = {}
    for line in _lines(file) if file.is_file() else ():
        name, *sides = line.split(",")
        numbers = [number for side in sides if (number := _number(side))]
        if len(sides) != 2 or len(numbers) != 2:
            raise FastcamError(f"{shown(file)}: {line[:80]!r} is not path,width,height")
        found[name.strip()] = (numbers[1], numbers[0])
    return found


def _number(text: str) -> int | None:
    """A whole number from 0 of a sensible length; None of other texts."""
    digits = text.strip()
    return int(digits) if digits.isdecimal() and len(digits) < 10 else None


def _box(words: Sequence[str], file: Path, stem: str) -> Box:
    try:
        x0, y0, x1, y1 = map(float, words)
    except ValueError:
        box = None
    else:
        box = inclusive_box(x0, y0, x1, y1)
    if box is None:
        raise FastcamError(f"{shown(file)}: {stem} has a damaged or empty box: {' '.join(words)[:60]!r}")
    return box
