"""ILSVRC's boxes in its three forms."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastcam.errors import FastcamError
from fastcam.evaluation.data import open_data
from support.annotated_folders import EXPECTED, MARKS, SYNSETS, in_csv, in_metadata, in_xml, picture, said, write, xml


@pytest.mark.parametrize("form", ["xml", "csv", "metadata", "xml elsewhere", "csv elsewhere"])
def test_ilsvrc_boxes_are_the_same_in_each_form(ilsvrc, tmp_path_factory, form):
    other, options = tmp_path_factory.mktemp("other"), {}
    if form == "xml":
        in_xml(ilsvrc / "ILSVRC" / "Annotations" / "CLS-LOC" / "val")
    elif form == "csv":
        in_csv(ilsvrc / "LOC_val_solution.csv")
    elif form == "metadata":
        in_metadata(ilsvrc / "metadata" / "ILSVRC" / "val")
    elif form == "xml elsewhere":
        in_xml(other / "val")
        options = {"annotations": other}
    else:
        in_csv(other / "boxes.csv")
        options = {"annotations": other / "boxes.csv"}
    data = open_data(f"ilsvrc:{ilsvrc}", **options)
    assert (data.labels, data.exif, len(data)) == (SYNSETS, False, 2)
    assert {Path(name).name: marks for name, marks in said(data).items()} == EXPECTED
    assert data.left_out.counts == {}


def test_ilsvrc_in_folders_of_classes_takes_the_class_from_them_where_a_picture_has_no_box(ilsvrc, tmp_path_factory):
    home = tmp_path_factory.mktemp("torchvision")
    for name, (synset, _) in MARKS.items():
        picture(home / "val" / synset / f"{name}.png")
    in_xml(home / "boxes")
    (home / "boxes" / "ILSVRC2012_val_00000002.xml").unlink()
    data = open_data(f"ilsvrc:{home}", annotations=home / "boxes")
    assert data.labels == ("n01440764", "n02123045")
    assert said(data) == {
        "n01440764/ILSVRC2012_val_00000002.png": [("n01440764", None)],
        "n02123045/ILSVRC2012_val_00000001.png": [("n02123045", (1, 2, 9, 8)), ("n02123045", (0, 0, 5, 5))],
    }
    assert data.left_out.counts == {"picture without a box, whose class alone is used": 1}
    assert [s.name[:9] for s in open_data(f"ilsvrc:{home / 'val'}").samples()] == ["n01440764", "n02123045"]


def test_what_ilsvrc_cannot_use_is_counted(ilsvrc):
    boxes = ilsvrc / "ILSVRC" / "Annotations" / "CLS-LOC" / "val"
    in_xml(boxes)
    write(boxes / "ILSVRC2012_val_00000001.xml", "<annotation>")
    write(boxes / "ILSVRC2012_val_00000002.xml", xml(("n09999999", (1, 1, 2, 2), 0)))
    picture(ilsvrc / "ILSVRC" / "Data" / "CLS-LOC" / "val" / "stray.png")
    data = open_data(f"ilsvrc:{ilsvrc}")
    assert said(data) == {}
    assert data.left_out.counts == {
        "annotation that is damaged": 1,
        "object of an unknown class": 1,
        "picture without an annotation": 1,
    }


@pytest.mark.parametrize(
    ("prepare", "options", "message"),
    [
        (lambda home: None, {}, "no annotations of val"),
        (lambda home: None, {"split": "train"}, "no split 'train'; there are: val"),
        (lambda home: None, {"annotations": "nowhere"}, "no such file or folder of annotations"),
        (lambda home: write(home / "LOC_val_solution.csv", "a,b\n"), {}, "ImageId,PredictionString"),
        (lambda home: write(home / "LOC_synset_mapping.txt", "tench\n"), {}, "begins with no WordNet id"),
        (lambda home: (in_metadata(home / "metadata" / "val"), (home / "LOC_synset_mapping.txt").unlink()), {},
         "put a list of these"),
        (lambda home: (in_metadata(home / "metadata" / "val"),
                       write(home / "metadata" / "val" / "class_labels.txt", "val/a.JPEG,7")), {}, "not path,class"),
    ],
)  # fmt: skip
def test_bad_folders_of_ilsvrc_are_refused_in_one_line(ilsvrc, prepare, options, message):
    prepare(ilsvrc)
    with pytest.raises(FastcamError, match=message):
        open_data(f"ilsvrc:{ilsvrc}", **options)
