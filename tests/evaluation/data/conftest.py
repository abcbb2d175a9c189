"""Small data sets on disk: of VOC's form, of ILSVRC's, and folders of classes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from fastcam.evaluation.data.index_masks import voc_palette
from support.annotated_folders import MARKS, SYNSETS, picture, write, xml


@pytest.fixture
def voc(tmp_path):
    """A year with three pictures, the first with masks: a cat before a dog, which stand the other way in the masks."""
    year = tmp_path / "VOC2012"
    for name, objects in {
        "a": [("cat", (1, 1, 4, 5), 0), ("dog", (9, 2, 16, 12), 1)],
        "b": [("dog", ("2.5", 3, 8, 9), 0)],
        "c": [("cow", (1, 1, 2, 2), 0), ("cat", (5, 5, 4, 9), 0)],
    }.items():
        picture(year / "JPEGImages" / f"{name}.jpg")
        write(year / "Annotations" / f"{name}.xml", xml(*objects))
    for name, lines in {"Main/val": "a\nb\n", "Main/train": "c\n", "Main/cat_val": "a  1\nb -1\n",
                        "Main/dog_val": "a  1\nb  1\n", "Segmentation/val": "a\n"}.items():  # fmt: skip
        write(year / "ImageSets" / f"{name}.txt", lines)
    classes, objects = np.zeros((12, 16), np.uint8), np.zeros((12, 16), np.uint8)
    classes[0:5, 0:4], classes[1:12, 8:16], classes[5, 0:4] = 1, 2, 255
    objects[0:5, 0:4], objects[1:12, 8:16], objects[5, 0:4] = 2, 1, 255
    for kind, mask in (("SegmentationClass", classes), ("SegmentationObject", objects)):
        (year / kind).mkdir()
        image = Image.fromarray(mask, "P")
        image.putpalette(voc_palette().tobytes())
        image.save(year / kind / "a.png")
    return year, classes


@pytest.fixture
def ilsvrc(tmp_path):
    for name in MARKS:
        picture(tmp_path / "ILSVRC" / "Data" / "CLS-LOC" / "val" / f"{name}.JPEG".replace("JPEG", "jpg"))
        made = tmp_path / "ILSVRC" / "Data" / "CLS-LOC" / "val" / f"{name}.jpg"
        made.rename(made.with_suffix(".JPEG"))
    write(tmp_path / "LOC_synset_mapping.txt", "\n".join(reversed(SYNSETS)))
    return tmp_path


@pytest.fixture
def animals(tmp_path):
    for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
        picture(tmp_path / "animals" / name)
    return tmp_path / "animals"
