"""Files of annotated data sets: COCO, PASCAL VOC, ILSVRC, folders with CSVs, masks, maps of classes, neuron tables."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from fastcam.errors import FastcamError
from fastcam.evaluation.class_map import class_map
from fastcam.evaluation.data import open_data
from fastcam.evaluation.data.index_masks import encode_indices
from fastcam.evaluation.dissection.neuron_names import read_names
from fastcam.evaluation.samples import Sample
from fastcam.schema import Metadata, Score, TargetLayer
from fastcam_bench.fuzz import WrongAnswer

NAME = "Data sets"
SIZE = (12, 16)
PIECES = [b"<!DOCTYPE a>", b"&amp;", b"<object>", b"</object>", b"[[[[", b'{"', b"\\ud800", b"nan", b",", b"\n", b'"']
PIECES += [b"n02123045 ", b"1e999", b"-1", b"true", b"../../", b"\\", b"9" * 30, b"&a ", b"*a ", b"IDAT", b"PLTE"]
PICTURES = ["coco/images/0.png", "coco/images/1.png", "voc/JPEGImages/a.png", "voc/JPEGImages/b.png"]
PICTURES += ["kaggle/val/n02123045/x.png", "wsol/val/x.png", "folder/cat/1.png", "folder/dog/2.png"]


def _coco() -> str:
    polygon = {"image_id": 0, "category_id": 1, "bbox": [1, 2, 3, 4.5], "segmentation": [[1, 2, 1, 6, 4, 6, 4, 2]]}
    crowd = {"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4], "iscrowd": 1}
    runs = {"size": [*SIZE], "counts": [3, 9, 180]}
    pictures = [{"id": i, "file_name": f"{i}.png", "height": 12, "width": 16} for i in range(2)]
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dög"}]
    marks = [polygon, crowd | {"segmentation": runs}, crowd | {"segmentation": {"size": [*SIZE], "counts": "39d5"}}]
    return json.dumps({"annotations": marks, "images": pictures, "categories": categories}, ensure_ascii=False)


def _xml() -> str:
    box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9.5</xmax><ymax>8</ymax></bndbox>"
    objects = "".join(f"<object><name>{name}</name><difficult>1</difficult>{box}</object>" for name in ("cat", "dog"))
    return f"<annotation><size><width>16</width><height>12</height></size>{objects}</annotation>"


def files() -> dict[str, bytes]:
    """Good files by path; an input changes one of them."""
    mask = encode_indices((np.arange(192, dtype=np.uint8) % 5).reshape(SIZE))
    words = "n02123045 tabby, cat\nn02123046 tiger\n"
    texts = {
        "coco/instances.json": _coco(),
        "voc/Annotations/a.xml": _xml(),
        "voc/Annotations/b.xml": _xml(),
        "voc/ImageSets/Main/val.txt": "a\nb\n",
        "voc/class_names.txt": "_background_\ncat\ndog\n",
        "kaggle/LOC_val_solution.csv": "ImageId,PredictionString\nx,n02123045 1 2 3 4 n02123045 1 1 9 9\n",
        "kaggle/synset_words.txt": words,
        "wsol/synset_words.txt": words,
        "wsol/localization.txt": "val/x.png,1,2,3,4\n",
        "wsol/class_labels.txt": "val/x.png,0\n",
        "wsol/image_ids.txt": "val/x.png\n",
        "wsol/image_sizes.txt": "val/x.png,16,12\n",
        "folder/boxes.csv": 'file,class,x0,y0,x1,y1\ncat/1.png,cat,1,2,3,4\n2.png,"dog",0,0,4,4\n',
        "map.json": '{"cat": [1, 2], "dog": "tench", "bird": null}',
        "map.yaml": "cat: [1, tench]\ndog: 2\n",
        "names.csv": "unit,category,label,score\n1,object,a,0.1\n2,object,b,0.2\n",
    }
    masks = dict.fromkeys(
        ("voc/SegmentationClass/a.png", "voc/SegmentationObject/a.png", "folder/masks/cat/1.png"), mask
    )
    return {path: text.encode() for path, text in texts.items()} | masks


FILES = files()
PATHS = list(FILES)
"""The first byte of an input chooses one."""


def seeds() -> list[bytes]:
    """Each good file behind its number."""
    return [bytes([number]) + FILES[path] for number, path in enumerate(PATHS)]


def mutate(data: bytes, random: np.random.Generator) -> bytes:
    """A piece of one of the formats, once or often, put in anywhere."""
    at = int(random.integers(1, len(data) + 1)) if data else 0
    piece = PIECES[int(random.integers(len(PIECES)))] * int(random.choice([1, 1, 1, 2, 400]))
    return data[:at] + piece + data[at + int(random.integers(0, 6)) :]


def attempt(data: bytes) -> str:
    """Read the set that a file is of; boxes are finite and masks of their picture's size, or it is refused."""
    path = PATHS[(data[:1] or b"\0")[0] % len(PATHS)]
    _make()
    Path(path).write_bytes(data[1:])
    try:
        _read(path)
    except FastcamError as error:
        if "\n" in str(error):
            raise WrongAnswer(f"a message of several lines: {error}") from error
        raise
    finally:
        Path(path).write_bytes(FILES[path])
    return "accepted"


def _make() -> None:
    """All files, where they are not there yet."""
    if Path("map.json").exists():
        return
    for path in (*PICTURES, *FILES):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    for path in PICTURES:
        cv2.imwrite(path, np.full((*SIZE, 3), 90, np.uint8))
    for path, content in FILES.items():
        Path(path).write_bytes(content)


def _read(path: str) -> None:
    top = path.partition("/")[0]
    special: dict[str, Callable[[str], object]] = {"names.csv": read_names, "map.json": _map, "map.yaml": _map}
    if path in special:
        special[path](path)
        return
    kind = {"kaggle": "ilsvrc", "wsol": "ilsvrc"}.get(top, top)
    for sample in open_data(f"{kind}:{top}").samples():
        _check(sample)


def _map(path: str) -> None:
    score = Score("scores", "scores", "logit", 3)
    model = Metadata("weights", TargetLayer("a"), score, "x", (1, 3, 8, 8), labels=("background", "tench", "cat"))
    found = class_map(("cat", "dog", "bird"), model, path)
    if any(not 0 <= index < 3 for classes in found.by_label.values() for index in classes):
        raise WrongAnswer(f"classes that the model has not: {found}")


def _check(sample: Sample) -> None:
    for mark in sample.annotations:
        if mark.box is not None:
            x0, y0, x1, y1 = mark.box
            if not (all(map(math.isfinite, mark.box)) and x0 < x1 and y0 < y1):
                raise WrongAnswer(f"a box without pixels: {mark.box}")
        if mark.read_mask is not None and mark.read_mask().shape != SIZE:
            raise WrongAnswer(f"a mask of another size: {mark.read_mask().shape}")
    if sample.read_ignored is not None and sample.read_ignored().shape != SIZE:
        raise WrongAnswer("void of another size")
