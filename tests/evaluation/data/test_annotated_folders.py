"""ILSVRC, PASCAL VOC and folders of pictures: what their files say, to the pixel, and what damaged ones may not do."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from fastcam.errors import FastcamError
from fastcam.evaluation.data import open_data
from fastcam.evaluation.data.index_masks import encode_indices, read_indices, voc_palette

SYNSETS = ("n01440764 tench, Tinca tinca", "n01443537 goldfish", "n02123045 tabby, tabby cat")


def picture(path: Path, height: int = 12, width: int = 16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((height, width, 3), 90, np.uint8))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def xml(*objects: tuple, head: str = "") -> str:
    marks = "".join(
        f"<object><name>{label}</name><difficult>{difficult}</difficult><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}"
        f"</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox><part><bndbox><xmin>1</xmin></bndbox></part></object>"
        for label, box, difficult in objects
    )
    return f"{head}<annotation><filename>a</filename>{marks}</annotation>"


def said(data) -> dict:
    return {s.name: [(a.label, a.box) for a in s.annotations] for s in data.samples()}


# ---- PASCAL VOC


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


# ---- masks of numbers


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


# ---- ILSVRC

MARKS = {
    "ILSVRC2012_val_00000001": ("n02123045", [(2, 3, 9, 8), (0, 1, 5, 5)]),
    "ILSVRC2012_val_00000002": ("n01440764", [(1, 1, 16, 12)]),
}
EXPECTED = {
    "ILSVRC2012_val_00000001.JPEG": [(SYNSETS[2], (1, 2, 9, 8)), (SYNSETS[2], (0, 0, 5, 5))],
    "ILSVRC2012_val_00000002.JPEG": [(SYNSETS[0], (0, 0, 16, 12))],
}


def in_xml(folder: Path) -> None:
    for name, (synset, boxes) in MARKS.items():
        write(folder / f"{name}.xml", xml(*((synset, box, 0) for box in boxes)))


def in_csv(file: Path) -> None:
    rows = [f"{n},{' '.join(f'{s} {a} {b} {c} {d}' for a, b, c, d in boxes)} " for n, (s, boxes) in MARKS.items()]
    write(file, "\n".join(["ImageId,PredictionString", *rows]))


def in_metadata(folder: Path) -> None:
    ids = [line[:9] for line in SYNSETS]
    write(folder / "image_ids.txt", "".join(f"val/{name}.JPEG\n" for name in MARKS))
    write(folder / "class_labels.txt", "".join(f"val/{n}.JPEG,{ids.index(s)}\n" for n, (s, _) in MARKS.items()))
    rows = [f"val/{n}.JPEG,{','.join(map(str, box))}\n" for n, (_, boxes) in MARKS.items() for box in boxes]
    write(folder / "localization.txt", "".join(rows))


@pytest.fixture
def ilsvrc(tmp_path):
    for name in MARKS:
        picture(tmp_path / "ILSVRC" / "Data" / "CLS-LOC" / "val" / f"{name}.JPEG".replace("JPEG", "jpg"))
        made = tmp_path / "ILSVRC" / "Data" / "CLS-LOC" / "val" / f"{name}.jpg"
        made.rename(made.with_suffix(".JPEG"))
    write(tmp_path / "LOC_synset_mapping.txt", "\n".join(reversed(SYNSETS)))
    return tmp_path


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


# ---- folders


@pytest.fixture
def animals(tmp_path):
    for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
        picture(tmp_path / "animals" / name)
    return tmp_path / "animals"


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
