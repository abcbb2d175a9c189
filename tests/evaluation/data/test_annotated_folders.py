"""ILSVRC, PASCAL VOC and folders of pictures: what their files say, to the pixel, and what damaged ones may not do."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from fastcam.errors import FastcamError
from fastcam.evaluation.data import open_data
from fastcam.evaluation.data.index_masks import encode_indices, read_indices
from support.annotated_folders import MARKS, in_metadata, picture, said, write, xml


def test_a_folder_a_class_needs_no_further_file(animals):
    data = open_data(f"folder:{animals}")
    assert (data.labels, data.exif) == (("cat", "dog"), True)
    assert said(data) == {"cat/1.png": [("cat", None)], "cat/2.png": [("cat", None)], "dog/1.png": [("dog", None)]}


@pytest.mark.parametrize(
    "table",
    [
        "file,x0,y0,x1,y1\ncat/1.png,1,2,5,6\n2.png,0,0,3.5,4\n\ndog/1.png,1,1,2,2\n",
        "Filename,xmin,ymin,xmax,ymax,other\ncat/1.png,1,2,5,6,a\n./cat/2.png,0,0,3.5,4,b\ndog/1.png,1,1,2,2,c\n",
        "image,x,y,width,height\ncat/1.png,1,2,4,4\n2.png,0,0,3.5,4\ndog/1.png,1,1,1,1\n",
    ],
)
def test_boxes_of_a_csv_are_found_by_the_names_of_its_columns(animals, table):
    write(animals / "boxes.csv", table)
    expected = {"cat/1.png": [("cat", (1, 2, 5, 6))], "cat/2.png": [("cat", (0, 0, 3.5, 4))],
                "dog/1.png": [("dog", (1, 1, 2, 2))]}  # fmt: skip
    assert said(open_data(f"folder:{animals}")) == expected


def test_pictures_in_one_folder_have_their_classes_from_the_csv(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    rows = ["a.png,cat,1,1,3,3", "a.png,dog,2,2,9,9", "c.png,cat,1,1,2,2", "a.png,cat,3,3,3,9", "a.png,cat,x,3,3,9"]
    write(tmp_path / "boxes.csv", "\n".join(["file,class,x0,y0,x1,y1", *rows]))
    data = open_data(f"folder:{tmp_path}")
    assert said(data) == {"a.png": [("cat", (1, 1, 3, 3)), ("dog", (2, 2, 9, 9))]}
    assert data.left_out.counts == {
        "box of no picture": 1,
        "object with a damaged or empty box": 2,
        "picture without a class": 1,
    }


def test_masks_lie_beside_the_pictures_and_belong_to_the_boxes_that_they_lie_in(animals):
    mask = np.zeros((12, 16), np.uint8)
    mask[2:6, 1:9] = 255
    (animals / "masks" / "cat").mkdir(parents=True)
    cv2.imwrite(str(animals / "masks" / "cat" / "1.png"), mask)
    data = open_data(f"folder:{animals}")
    assert data.labels == ("cat", "dog")
    first = next(data.samples())
    assert np.array_equal(first.annotations[0].read_mask(), mask > 0)
    assert len(list(data.samples())) == 3
    assert data.left_out.names == {"mask that is not there": ["cat/2.png", "dog/1.png"]}
    write(animals / "boxes.csv", "file,x0,y0,x1,y1\ncat/1.png,0,0,4,12\ncat/1.png,4,0,16,12")
    left, right = next(open_data(f"folder:{animals}").samples()).annotations
    assert (left.read_mask().sum(), right.read_mask().sum()) == (12, 20)


def test_a_folder_of_splits_says_which_there_are(animals):
    animals.rename(animals.parent / "train")
    picture(animals.parent / "test" / "cat" / "9.png")
    with pytest.raises(FastcamError, match="no split val; there are: train, test"):
        open_data(f"folder:{animals.parent}")
    assert list(said(open_data(f"folder:{animals.parent}", "test"))) == ["cat/9.png"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("a,b\n1,2\n", "columns a, b"),
        ("", "without names"),
        ("file,x0,y0,x1,y1\ncat/1.png,1,2\n", "line 2 has 3 columns"),
    ],
)
def test_a_csv_without_its_columns_is_refused(animals, table, message):
    write(animals / "boxes.csv", table)
    with pytest.raises(FastcamError, match=message):
        open_data(f"folder:{animals}")


def test_folders_without_pictures_or_classes_are_refused(tmp_path):
    with pytest.raises(FastcamError, match="no pictures in it"):
        open_data(f"folder:{tmp_path}")
    picture(tmp_path / "a.png")
    with pytest.raises(FastcamError, match="nothing says the pictures' classes"):
        open_data(f"folder:{tmp_path}")
    with pytest.raises(FastcamError, match="no such CSV"):
        open_data(f"folder:{tmp_path}", annotations="nowhere")


def test_masks_that_cannot_be_the_pictures_are_named_and_the_boxes_stay(voc, animals):
    year, _ = voc
    for folder in ("SegmentationClass", "SegmentationObject"):
        (year / folder / "b.png").write_bytes(encode_indices(np.zeros((16, 12), np.uint8)))
    (year / "SegmentationClass" / "a.png").write_bytes((year / "SegmentationClass" / "a.png").read_bytes()[:-30])
    data = open_data(f"voc:{year}")
    samples = list(data.samples())
    assert data.left_out.names == {
        "mask that is damaged": ["a"],
        "mask of another size than its picture": ["b"],
    }
    assert all(a.box and a.read_mask is None for s in samples for a in s.annotations)
    assert all(s.read_ignored is None for s in samples)
    (animals / "masks").mkdir()
    cv2.imwrite(str(animals / "masks" / "2.png"), np.zeros((12, 16, 3), np.uint8))
    cv2.imwrite(str(animals / "masks" / "1.png"), np.zeros((16, 12), np.uint8))  # a picture that EXIF turns, maybe
    upright = open_data(f"folder:{animals}", exif=False)
    assert [s.annotations[0].read_mask for s in upright.samples()] == [None] * 3
    assert upright.left_out.counts == {
        "mask of another size than its picture": 2,
        "mask of colours and not of numbers": 1,
    }


def test_pictures_that_were_made_smaller_since_they_were_annotated_are_named(voc, ilsvrc):
    year, _ = voc
    path = year / "Annotations" / "b.xml"
    path.write_text(path.read_text().replace("<object>", "<size><width>160</width><height>120</height></size><object>"))
    data = open_data(f"voc:{year}")
    assert list(said(data)) == ["a"]
    assert data.left_out.names == {"picture of another size than its annotations": ["b"]}
    metadata = ilsvrc / "metadata" / "val"
    in_metadata(metadata)
    first, second = MARKS
    write(metadata / "image_sizes.txt", f"val/{first}.JPEG,16,12\nval/{second}.JPEG,500,375\n")
    data = open_data(f"ilsvrc:{ilsvrc}")
    assert list(said(data)) == [f"val/{first}.JPEG"]
    assert data.left_out.names == {"picture of another size than its annotations": [f"val/{second}.JPEG"]}
    write(metadata / "image_sizes.txt", "val/a.JPEG,16\n")
    with pytest.raises(FastcamError, match="not path,width,height"):
        open_data(f"ilsvrc:{ilsvrc}")


def test_names_that_no_file_can_have_and_boxes_without_end_are_counted(voc, ilsvrc):
    year, _ = voc
    write(year / "ImageSets" / "Main" / "val.txt", f"a\n{'x' * 5000}\n")
    write(year / "Annotations" / "a.xml", xml(("cat", (1, 1, "inf", 5), 0), ("dog", (1, 1, "nan", 5), 0)))
    data = open_data(f"voc:{year}")
    assert said(data) == {"a": []}
    assert data.left_out.counts == {"object with a damaged or empty box": 2, "picture that is not there": 1}
    first, second = MARKS
    write(ilsvrc / "LOC_val_solution.csv", f"ImageId,PredictionString\n{first},n02123045 1 1 3 1e999\n{second},n 1 2\n")
    assert not list(open_data(f"ilsvrc:{ilsvrc}").samples())
    with pytest.raises(FastcamError, match="no such folder"):
        open_data("coco:" + "x" * 5000)


def test_a_png_with_fewer_pixels_than_it_says_is_refused(tmp_path):
    """Its chunk of pixels is another's, whole in itself."""
    small, large = (encode_indices(np.ones((side, 9), np.uint8)) for side in (5, 8))
    head, rest = large.index(b"IHDR"), small.index(b"PLTE") - 4
    (tmp_path / "a.png").write_bytes(large[: head + 21] + small[rest:])
    with pytest.raises(FastcamError, match="fewer pixels"):
        read_indices(tmp_path / "a.png")
