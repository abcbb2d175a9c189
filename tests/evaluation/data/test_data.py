"""Data sets: what all formats promise, COCO's files and the generated scenes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from fastcam.errors import FastcamError
from fastcam.evaluation.data import json_index, open_data
from fastcam.evaluation.scenes import CLASSES, COLORS, TEXTURES, scene, scene_seeds


def picture(path: Path, height: int = 20, width: int = 30) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((height, width, 3), 90, np.uint8))


@pytest.fixture
def coco(tmp_path):
    """Three pictures, the second without an object, their annotations in another order."""
    for i in (1, 2, 3):
        picture(tmp_path / "val2017" / f"{i}.png")
    content = {
        "info": {"nested": [1, {"a": "]}"}]},
        "annotations": [
            {"image_id": 30, "category_id": 7, "bbox": [2, 3, 4.5, 5], "iscrowd": 0,
             "segmentation": [[2, 3, 2, 8, 6, 8, 6, 3]]},
            {"image_id": 10, "category_id": 9, "bbox": [0, 0, 30, 20], "iscrowd": 1,
             "segmentation": {"size": [20, 30], "counts": [0, 600]}},
            {"image_id": 30, "category_id": 9, "bbox": [1, 1, 1, 1], "iscrowd": 0, "segmentation": []},
        ],
        "images": [{"id": 10 * i, "file_name": f"{i}.png", "height": 20, "width": 30} for i in (1, 2, 3)],
        "categories": [{"id": 7, "name": "kätzchen"}, {"id": 9, "name": "dog"}],
    }  # fmt: skip

    def write(name: str = "instances_val2017.json", **changes: object) -> Path:
        path = tmp_path / "annotations" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content | changes, ensure_ascii=False), encoding="utf-8")
        return path

    write.content = content
    return write


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_coco_gives_pictures_in_its_order_with_half_open_boxes_masks_and_crowds(coco, tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(json_index, "_CHUNK", chunk)
    coco()
    data = open_data(f"coco:{tmp_path}", "val2017")
    assert data.labels == ("kätzchen", "dog")
    assert (len(data), data.exif) == (3, False)
    first, second, third = data.samples()
    assert [one.name for one in (first, second, third)] == ["1.png", "2.png", "3.png"]
    assert first.annotations[0].crowd
    assert first.annotations[0].read_mask().all()
    assert second.annotations == ()
    assert third.labels == ("kätzchen", "dog")
    cat, dog = third.annotations
    assert cat.box == (2, 3, 6.5, 8)
    assert cat.read_mask().sum() == 20
    assert (dog.read_mask, dog.crowd) == (None, False)
    assert data.left_out.counts == {}


def test_coco_is_found_by_its_file_too_and_a_split_without_its_year(coco, tmp_path):
    path = coco()
    assert [s.name for s in open_data(f"coco:{path}").samples()] == ["1.png", "2.png", "3.png"]
    assert len(open_data(f"coco:{tmp_path}")) == len(open_data(f"coco:{tmp_path}", "val")) == 3


def test_what_is_skipped_is_not_read(coco, tmp_path):
    path = coco()
    (tmp_path / "val2017" / "1.png").unlink()
    data = open_data(f"coco:{path}")
    assert [s.name for s in data.samples(skip={"1.png", "2.png"})] == ["3.png"]
    assert data.left_out.counts == {}
    assert [s.name for s in data.samples()] == ["2.png", "3.png"]
    assert data.left_out.names == {"picture that is not there": ["1.png"]}


def test_what_coco_cannot_use_is_counted_and_named_in_every_pass(coco, tmp_path):
    good = coco.content["annotations"]
    bad = [
        {"image_id": 10, "category_id": 8, "bbox": [1, 1, 2, 2]},
        {"image_id": 10, "category_id": 7, "bbox": [1, 1, 0, 2]},
        {"image_id": 10, "category_id": 7, "bbox": [1, 1, 2, 2], "segmentation": {"size": [20, 30], "counts": [7]}},
        {"image_id": 99, "category_id": 7, "bbox": [1, 1, 2, 2]},
        {"category_id": 7},
        "no annotation",
    ]
    pictures = coco.content["images"]
    more = [
        {"id": 40, "file_name": "../outside.png", "height": 20, "width": 30},
        {"id": 50, "file_name": "missing.png", "height": 20, "width": 30},
        {"id": 60, "file_name": "1.png", "height": 20, "width": 30},
        {"id": 70, "file_name": "4.png", "height": 30, "width": 20},
        {"id": 80, "file_name": "5.png"},
        {"file_name": "6.png", "height": 20, "width": 30},
    ]
    picture(tmp_path / "val2017" / "4.png")
    picture(tmp_path / "outside.png")
    data = open_data(f"coco:{coco(annotations=good + bad, images=pictures + more)}")
    for _ in range(2):
        assert [s.name for s in data.samples()] == ["1.png", "2.png", "3.png"]
        assert data.left_out.counts == {
            "annotation of no picture": 3,
            "picture that is listed twice": 1,
            "picture without a size": 1,
            "picture without a number or a name": 1,
            "object of an unknown category": 1,
            "object with a damaged or empty box": 1,
            "mask that is damaged": 1,
            "name that leads out of the folder": 1,
            "picture that is not there": 1,
            "picture of another size than its annotations": 1,
        }
    assert data.left_out.names["object of an unknown category"] == ["1.png: 8"]


def test_a_picture_that_exif_turns_has_its_size_as_exif_says(coco, tmp_path):
    from PIL import Image

    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "val2017" / "1.jpg", exif=exif)
    upright = coco(images=[{"id": 1, "file_name": "1.jpg", "height": 30, "width": 20}], annotations=[])
    assert not list(open_data(f"coco:{upright}").samples())
    turned = open_data(f"coco:{upright}", exif=True)
    assert turned.exif
    assert len(list(turned.samples())) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "its end"),
        (b"[]", "must stand"),
        (b'{"images": [', "no JSON that can be read"),
        (b'{"images": [{"id": 1}', "its end"),
        (b'{"images": [{"id": 1} {"id": 2}]}', "must stand"),
        (b'{"images": [], 7: 1}', "no text"),
        (b'{"images": []}', "no categories in this JSON"),
        (b'{"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}], "images": []}', "category"),
        (b'{"images": ' + b"[" * 100_000, "no JSON that can be read"),
        (b"\x89PNG\r\n", "must stand"),
    ],
)
def test_what_is_no_coco_is_refused_in_one_line(coco, content, message):
    path = coco()
    path.write_bytes(content)
    with pytest.raises(FastcamError, match=message) as caught:
        open_data(f"coco:{path}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("coco", {}, "coco:FILE.json"),
        ("scenes:", {}, "no format and place"),
        ("tar:x", {}, "no format"),
        (7, {}, "give a text"),
        ("coco:nowhere", {}, "no such folder"),
        ("coco:{}", {"split": "test"}, "no split 'test'; there are: train2017, val2017"),
        ("coco:{}", {"pictures": "nowhere"}, "no such folder"),
        ("coco:{}", {"annotations": "x"}, "coco has no annotations"),
        ("coco:{}/annotations/instances_val2017.json", {"split": "train2017"}, "one split"),
        ("scenes:0", {}, "number of scenes"),
        ("scenes:x", {}, "whole number"),
        ("scenes:-3", {}, "whole number"),
        ("scenes:3,size=4", {}, "size is 4"),
        ("scenes:3,colour=red", {}, "no option 'colour'"),
        ("scenes:3,marks=shape", {}, "no marks 'shape'"),
        ("scenes:3,objects=99", {}, "objects is 99"),
        ("scenes:3", {"split": "val"}, "scenes has no split"),
    ],
)
def test_bad_specs_are_refused_in_one_line(coco, tmp_path, spec, options, message):
    coco()
    coco("instances_train2017.json")
    with pytest.raises(FastcamError, match=message):
        open_data(spec.format(tmp_path) if isinstance(spec, str) else spec, **options)


def test_scenes_are_those_of_their_seed_and_a_longer_list_begins_with_a_shorter():
    data = open_data("scenes:4,seed=5,size=64")
    made = [scene(each, 64) for each in scene_seeds(4, 5)]
    for sample, one in zip(data.samples(), made, strict=True):
        assert np.array_equal(sample.picture, one.image)
        assert [a.label for a in sample.annotations] == [o.class_name for o in one.objects]
        assert [a.box for a in sample.annotations] == [o.box for o in one.objects]
        assert all(np.array_equal(a.read_mask(), o.mask) for a, o in zip(sample.annotations, one.objects, strict=True))
    assert data.labels == CLASSES
    names = [s.name for s in data.samples()]
    longer = open_data("scenes:400,seed=5,size=64")
    rest = [f"scene-5-64-{i:06}" for i in range(4, 400)]
    assert [s.name for s in longer.samples(skip=rest)] == names
    assert len(longer) == 400


def test_scenes_are_marked_with_colours_and_textures_where_these_are_asked_for():
    one = next(open_data("scenes:1,seed=5,marks=all").samples())
    made = scene(scene_seeds(1, 5)[0]).objects
    expected = [label for o in made for label in (o.class_name, o.color, o.texture)]
    assert [a.label for a in one.annotations] == expected
    assert open_data("scenes:1,marks=all").labels == (*CLASSES, *COLORS, *TEXTURES)
    assert open_data("scenes:1,marks=color").labels == COLORS


@pytest.mark.skipif("FASTCAM_ASSETS" not in os.environ, reason="FASTCAM_ASSETS is not set")
def test_photos_of_coco_are_read_as_json_says():
    folder = Path(os.environ["FASTCAM_ASSETS"]) / "coco"
    raw = json.loads((folder / "instances.json").read_text())
    data = open_data(f"coco:{folder}")
    by_picture = {one["id"]: one for one in raw["images"]}
    named = {one["id"]: one["name"] for one in raw["categories"]}
    samples = {s.name: s for s in data.samples()}
    assert list(samples) == [one["file_name"] for one in raw["images"]]
    assert data.left_out.counts == {}
    for name, sample in samples.items():
        marks = [m for m in raw["annotations"] if by_picture[m["image_id"]]["file_name"] == name]
        assert [a.label for a in sample.annotations] == [named[m["category_id"]] for m in marks]
        for one, mark in zip(sample.annotations, marks, strict=True):
            assert one.crowd or abs(one.read_mask().sum() - mark["area"]) < 0.03 * mark["area"] + 60
