"""Annotations that no tool should write, and some do: each is counted and named, and no other picture suffers."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from fastcam.errors import FastcamError
from fastcam.evaluation.data import open_data
from fastcam.evaluation.data.coco_masks import mask_reader

SYNSETS = ("n01440764", "n01443537", "n01484850")


def picture(path, height=20, width=30):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((height, width, 3), 90, np.uint8))


# ---- COCO


def coco(tmp_path, annotations):
    for i in (1, 2):
        picture(tmp_path / "images" / f"{i}.png")
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 20, "width": 30} for i in (1, 2)],
        "categories": [{"id": 7, "name": "cat"}, {"id": 8, "name": "never shown"}],
        "annotations": [{"image_id": 2, "category_id": 7, "bbox": [2, 3, 4, 5]}, *annotations],
    }
    (tmp_path / "instances.json").write_text(json.dumps(content))
    return open_data(f"coco:{tmp_path}")


@pytest.mark.parametrize("bbox", [[10**400, 1, 2, 2], [1e308, 1, 1e308, 2], [1, 1, True, 2], [-1e300, 0, 1, 1]])
def test_a_box_of_numbers_without_measure_is_damaged(tmp_path, bbox):
    data = coco(tmp_path, [{"image_id": 1, "category_id": 7, "bbox": bbox}])
    first, second = data.samples()
    assert first.annotations == () and second.annotations[0].box == (2, 3, 6, 8)
    assert data.left_out.counts == {"object with a damaged or empty box": 1}


@pytest.mark.parametrize(
    "crowd, marked", [(0, False), (1, True), (False, False), (True, True), ("0", False), (None, False)]
)
def test_a_crowd_is_what_says_so_by_a_number(tmp_path, crowd, marked):
    data = coco(tmp_path, [{"image_id": 1, "category_id": 7, "bbox": [1, 1, 5, 5], "iscrowd": crowd}])
    (annotation,) = next(iter(data.samples())).annotations
    assert annotation.crowd is marked


@pytest.mark.parametrize("counts", [[2**62] * 4 + [16], [2**63 - 1, 2**63 - 1, 18], [16, 2**62, 2**62, 2**62, 2**62]])
def test_run_lengths_whose_sum_is_right_only_by_overflow_are_damaged(counts):
    assert mask_reader({"size": [4, 4], "counts": counts}, 4, 4) is None


def test_a_mask_without_a_pixel_is_one(tmp_path):
    empty = {"size": [20, 30], "counts": [600]}
    data = coco(tmp_path, [{"image_id": 1, "category_id": 7, "bbox": [1, 1, 5, 5], "segmentation": empty}])
    (annotation,) = next(iter(data.samples())).annotations
    assert annotation.mask is not None and not annotation.mask.any() and data.labels == ("cat", "never shown")


# ---- ILSVRC


def wsol(tmp_path, names, classes, boxes, sizes=None):
    """wsolevaluation's metadata."""
    for name in names:
        picture(tmp_path / "val" / name)
    folder = tmp_path / "metadata" / "val"
    folder.mkdir(parents=True)
    (tmp_path / "synset_words.txt").write_text("".join(f"{one} name\n" for one in SYNSETS))
    (folder / "image_ids.txt").write_text("\n".join(names))
    (folder / "class_labels.txt").write_text("\n".join(classes))
    (folder / "localization.txt").write_text("\n".join(boxes))
    if sizes is not None:
        (folder / "image_sizes.txt").write_text("\n".join(sizes))
    return open_data(f"ilsvrc:{tmp_path}", "val")


def test_pictures_of_one_name_in_two_folders_have_their_own_classes_and_boxes(tmp_path):
    """As in ImageNetV2, which wsolevaluation chooses thresholds on: val2/0/3.jpeg and val2/1/3.jpeg."""
    names = [f"{folder}/3.png" for folder in (0, 1, 2)]
    boxes = [f"{name},{i + 1},1,{i + 9},10" for i, name in enumerate(names)]
    data = wsol(tmp_path, names, [f"{name},{i}" for i, name in enumerate(names)], boxes)
    found = [(one.name, one.annotations[0].label[:9], one.annotations[0].box) for one in data.samples()]
    assert found == [(name, SYNSETS[i], (i, 0, i + 9, 10)) for i, name in enumerate(names)]


def test_xml_in_a_folder_of_the_pictures_class_is_that_pictures(tmp_path):
    for i, synset in enumerate(SYNSETS[:2]):
        picture(tmp_path / "val" / synset / "1.png")
        folder = tmp_path / "Annotations" / "CLS-LOC" / "val" / synset
        folder.mkdir(parents=True)
        corners = "".join(
            f"<{name}>{value}</{name}>" for name, value in zip(("xmin", "ymin", "xmax", "ymax"), (i + 1, 1, 9, 9))
        )
        (folder / "1.xml").write_text(
            f"<annotation><object><name>{synset}</name><bndbox>{corners}</bndbox></object></annotation>"
        )
    found = [(one.annotations[0].label, one.annotations[0].box) for one in open_data(f"ilsvrc:{tmp_path}").samples()]
    assert found == [(synset, (i, 0, 9, 9)) for i, synset in enumerate(SYNSETS[:2])]


@pytest.mark.parametrize("which", ["classes", "sizes"])
@pytest.mark.parametrize("number", ["long", "-1", "x", "1.5", ""])
def test_numbers_of_wsolevaluation_that_are_none_are_refused_in_a_line(tmp_path, which, number):
    classes, sizes = ["a.png,0"], ["a.png,30,20"]
    number = number.replace("long", "9" * 5000)
    (classes if which == "classes" else sizes)[0] = f"a.png,{number}" + (",20" if which == "sizes" else "")
    with pytest.raises(FastcamError, match="is not path,") as caught:
        wsol(tmp_path, ["a.png"], classes, ["a.png,1,1,9,9"], sizes)
    assert len(str(caught.value)) < 1300


@pytest.mark.parametrize("line", ["a,LONG", '"a', "a,\0"], ids=["long", "quote", "zero"])
def test_a_csv_that_cannot_be_read_is_refused_in_a_line(tmp_path, line):
    picture(tmp_path / "val" / "a.JPEG")
    content = "ImageId,PredictionString\n" + line.replace("LONG", "x" * 200_000)
    (tmp_path / "LOC_val_solution.csv").write_text(content)
    try:
        samples = list(open_data(f"ilsvrc:{tmp_path}").samples())
    except FastcamError as error:
        assert "LOC_val_solution.csv" in str(error)
    else:
        assert samples == []


def test_a_csv_that_marks_a_picture_twice_is_counted(tmp_path):
    picture(tmp_path / "val" / "a.JPEG")
    rows = [f"a,{synset} 1 1 9 9" for synset in SYNSETS[:2]]
    (tmp_path / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *rows]))
    data = open_data(f"ilsvrc:{tmp_path}")
    (sample,) = data.samples()
    assert [one.label for one in sample.annotations] == [SYNSETS[0]]
    assert data.left_out.counts == {"annotation that is listed twice": 1}


def test_classes_without_a_picture_and_pictures_of_unknown_classes_are_told_apart(tmp_path):
    data = wsol(tmp_path, ["a.png", "b.png", "c.png"], ["a.png,0", "c.png,2"], ["a.png,1,1,9,9"])
    assert len(data.labels) == 3
    assert [(one.name, one.annotations[0].box) for one in data.samples()] == [("a.png", (0, 0, 9, 9)), ("c.png", None)]
    assert data.left_out.names == {"picture without an annotation": ["b.png"]}
