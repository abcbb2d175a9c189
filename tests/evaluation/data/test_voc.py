"""PASCAL VOC's annotations, and masks whose pixels are numbers."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from fastcam.errors import FastcamError
from fastcam.evaluation.data import open_data
from fastcam.evaluation.data.index_masks import encode_indices, read_indices, voc_palette
from support.annotated_folders import picture, said, write, xml


def test_voc_boxes_that_count_from_one_become_half_open_and_difficult_objects_are_marked(voc):
    year, _ = voc
    data = open_data(f"voc:{year}")
    assert (data.name, data.labels, data.exif, len(data)) == (f"voc:{year} val", ("cat", "dog"), False, 2)
    assert said(data) == {"a": [("cat", (0, 0, 4, 5)), ("dog", (8, 1, 16, 12))], "b": [("dog", (1.5, 2, 8, 9))]}
    assert [a.difficult for s in data.samples() for a in s.annotations] == [False, True, False]
    assert data.left_out.counts == {}


def test_voc_masks_are_those_of_the_object_also_where_their_order_is_another(voc):
    year, classes = voc
    first, second = open_data(f"voc:{year.parent}", "val").samples()
    cat, dog = first.annotations
    assert np.array_equal(cat.read_mask(), classes == 1)
    assert np.array_equal(dog.read_mask(), classes == 2)
    assert np.array_equal(first.read_ignored(), classes == 255)
    assert second.annotations[0].read_mask is None
    (year / "SegmentationObject" / "a.png").unlink()
    assert np.array_equal(dog.read_mask(), classes == 2)


def test_voc_splits_are_those_of_main_and_of_any_folder_by_its_name(voc):
    year, _ = voc
    assert [s.name for s in open_data(f"voc:{year}", "Segmentation/val").samples()] == ["a"]
    assert [s.name for s in open_data(f"voc:{year}", "Main/cat_val").samples()] == ["a"]
    with pytest.raises(FastcamError, match="no split 'test'; there are: train, val, "):
        open_data(f"voc:{year}", "test")


def test_what_voc_cannot_use_is_counted(voc):
    year, _ = voc
    write(year / "ImageSets" / "Main" / "train.txt", "c\nmissing\n../../x\nc\nbad\nnone\n")
    picture(year / "JPEGImages" / "bad.jpg")
    picture(year / "JPEGImages" / "none.jpg")
    write(year / "Annotations" / "bad.xml", "<annotation><object>")
    data = open_data(f"voc:{year}", "train")
    assert said(data) == {"c": []}
    assert data.left_out.counts == {
        "name that is listed twice": 1,
        "object of an unknown class": 1,
        "object with a damaged or empty box": 1,
        "picture that is not there": 1,
        "name that leads out of the folder": 1,
        "annotation that is damaged": 1,
        "annotation that is not there": 1,
    }


def test_a_folder_of_vocs_form_with_its_own_classes_needs_no_lists(voc, tmp_path):
    year, _ = voc
    own = tmp_path / "own"
    (own / "Annotations").mkdir(parents=True)
    picture(own / "JPEGImages" / "1.png")
    write(own / "Annotations" / "1.xml", xml(("screw", (1, 1, 2, 2), 0), ("bolt", (0, 0, 2, 2), 0)))
    data = open_data(f"voc:{own}")
    assert data.labels == ("bolt", "screw")
    assert said(data) == {"1": [("screw", (0, 0, 2, 2)), ("bolt", (0, 0, 2, 2))]}
    write(own / "class_names.txt", "_background_\nscrew\nbolt\n")
    assert open_data(f"voc:{own}").labels == ("screw", "bolt")
    with pytest.raises(FastcamError, match="it has VOC2012, own"):
        open_data(f"voc:{tmp_path}")
    with pytest.raises(FastcamError, match="no Annotations"):
        open_data(f"voc:{year / 'JPEGImages'}")


HOSTILE = {
    "entities": '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;&b;">]><annotation>&c;</annotation>',
    "a file": '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>',
    "depth": "<annotation>" + "<object>" * 5000,
    "another root": "<html></html>",
    "nothing": "",
    "binary": "\x00\x01",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_hostile_xml_is_a_damaged_annotation(voc, content, encoding):
    year, _ = voc
    (year / "Annotations" / "c.xml").write_bytes(content.encode(encoding))
    data = open_data(f"voc:{year}", "train")
    assert not list(data.samples())
    assert data.left_out.counts == {"annotation that is damaged": 1}


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("interlaced", [False, True])
def test_numbers_in_a_palette_png_are_read_as_pillow_reads_them(tmp_path, bits, interlaced):
    numbers = np.random.default_rng(bits).integers(0, 1 << bits, (13, 17)).astype(np.uint8)
    image = Image.fromarray(numbers, "P")
    image.putpalette(voc_palette().tobytes())
    image.info["transparency"] = 0
    image.save(tmp_path / "a.png", bits=bits, interlace=interlaced)
    assert np.array_equal(read_indices(tmp_path / "a.png"), numbers)
    assert np.array_equal(np.array(Image.open(tmp_path / "a.png")), numbers)


def test_grey_pngs_are_numbers_too_and_pictures_of_colours_are_not(tmp_path):
    numbers = np.random.default_rng(0).integers(0, 60000, (5, 7)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "deep.png"), numbers)
    cv2.imwrite(str(tmp_path / "colours.png"), np.zeros((5, 7, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "a.jpg"), np.zeros((5, 7), np.uint8))
    assert np.array_equal(read_indices(tmp_path / "deep.png"), numbers)
    with pytest.raises(FastcamError, match="colours"):
        read_indices(tmp_path / "colours.png")
    with pytest.raises(FastcamError, match="no whole PNG"):
        read_indices(tmp_path / "a.jpg")
    (tmp_path / "cut.png").write_bytes((tmp_path / "deep.png").read_bytes()[:-20])
    with pytest.raises(FastcamError, match="no whole PNG"):
        read_indices(tmp_path / "cut.png")


def test_numbers_are_written_as_pillow_reads_them_in_vocs_colours(tmp_path):
    numbers = np.arange(256, dtype=np.uint8).reshape(8, 32)
    (tmp_path / "a.png").write_bytes(encode_indices(numbers))
    image = Image.open(tmp_path / "a.png")
    assert image.mode == "P"
    assert np.array_equal(np.array(image), numbers)
    assert np.array_equal(read_indices(tmp_path / "a.png"), numbers)
    colours = np.array(image.convert("RGB")).reshape(256, 3)
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 15: (192, 128, 128), 20: (0, 64, 128), 255: (224, 224, 192)}
    assert {number: tuple(map(int, colours[number])) for number in known} == known
