"""Data sets as people have them on disk, one file a format: pictures with boxes and masks, one after the other.

    from fastcam.evaluation.data import open_data
    data = open_data("coco:annotations/instances_val2017.json")
    for sample in data.samples():
        print(sample.name, sample.labels)
    print(data.left_out.counts)

The index is light, pictures and masks are read when somebody asks. What is missing, damaged or unknown is counted and
named in ``left_out``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fastcam.errors import FastcamError, typed
from fastcam.evaluation.data.coco import open_coco
from fastcam.evaluation.data.folder import open_folder
from fastcam.evaluation.data.generated import open_scenes
from fastcam.evaluation.data.ilsvrc import open_ilsvrc
from fastcam.evaluation.data.voc import open_voc
from fastcam.evaluation.data.vqa_hat import open_vqa_hat
from fastcam.evaluation.samples import Dataset

__all__ = ["FORMATS", "open_data"]

FORMATS: Mapping[str, str] = {
    "ilsvrc": "ilsvrc:DIR",
    "voc": "voc:DIR",
    "coco": "coco:FILE.json or coco:DIR",
    "folder": "folder:DIR",
    "vqa-hat": "vqa-hat:DIR",
    "scenes": "scenes:COUNT, also scenes:COUNT,seed=1,size=256,objects=3,marks=all",
}
"""What specs look like, by format."""


def open_data(
    spec: str,
    split: str | None = None,
    *,
    pictures: str | Path | None = None,
    annotations: str | Path | None = None,
    exif: bool | None = None,
) -> Dataset:
    """The data set that a text names, see :data:`FORMATS`.

    Args:
        spec: the format and where it is: "voc:VOCdevkit/VOC2012".
        split: such as "val"; None: the only one, or "val".
        pictures: the folder of the pictures, where it is not where the format has it.
        annotations: the file or folder of boxes or masks, where it is not where the format has it.
        exif: whether annotations lie in the pictures as their EXIF orientation turns them; None: as the format has it.

    Raises:
        FastcamError: no such format, folder or split, an option that the format does not have, or files that are not
            what the format says.
    """
    typed("data", spec, str, f"a text: {'; '.join(FORMATS.values())}")
    kind, _, where = spec.partition(":")
    if kind not in FORMATS or not where:
        raise FastcamError(f"data {spec!r}: no format and place; give {'; '.join(FORMATS.values())}")
    given: dict[str, Any] = {
        "split": split,
        "pictures": None if pictures is None else Path(pictures),
        "annotations": None if annotations is None else Path(annotations),
        "exif": exif,
    }
    given = {name: value for name, value in given.items() if value is not None}
    opened, known = _OPENERS[kind]
    for name in given:
        if name not in known:
            raise FastcamError(f"data {spec!r}: {kind} has no {name}; leave it out")
    data = opened(where, **given)
    others = [f"{name} {value}" for name, value in given.items() if name != "split"]
    data.name = ", ".join([data.name, *others])  # a run that is resumed goes by it
    return data


def _scenes(where: str) -> Dataset:
    count, *options = where.split(",")
    values: dict[str, Any] = {"count": _number("the number of scenes", count)}
    for option in options:
        name, _, value = option.partition("=")
        if name not in ("seed", "size", "objects", "marks"):
            raise FastcamError(f"scenes: no option {name!r}; there are seed, size, objects and marks, as in seed=1")
        values[name] = value if name == "marks" else _number(name, value)
    return open_scenes(**values)


def _number(what: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise FastcamError(f"scenes: {what} is {text!r}; give a whole number, as in scenes:200,seed=1")
    return int(text)


_OPENERS: dict[str, tuple[Callable[..., Dataset], tuple[str, ...]]] = {
    "ilsvrc": (
        lambda where, **given: open_ilsvrc(Path(where), **given),
        ("split", "pictures", "annotations", "exif"),
    ),
    "voc": (lambda where, **given: open_voc(Path(where), **given), ("split", "exif")),
    "folder": (lambda where, **given: open_folder(Path(where), **given), ("split", "annotations", "exif")),
    "coco": (lambda where, **given: open_coco(Path(where), **given), ("split", "pictures", "exif")),
    "vqa-hat": (lambda where, **given: open_vqa_hat(Path(where), **given), ("split", "pictures", "annotations")),
    "scenes": (_scenes, ()),
}
"""By format: what opens it, and the options that it has."""
