"""The COCO loader beside pycocotools, on real photos: the same pictures, objects, boxes, masks, crowds and overlaps."""

from __future__ import annotations

import numpy as np
import pytest

from fastcam.evaluation.data import open_data
from fastcam.evaluation.protocols.regions import best_overlap, mask_pixels

coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
api = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools and NumPy 2


def some(known):
    """The photos with a crowd, and every ninth other one."""
    crowded = {one["image_id"] for one in known.anns.values() if one["iscrowd"]}
    return [one for i, one in enumerate(known.imgs.values()) if one["id"] in crowded or i % 9 == 0]


@pytest.fixture(scope="module")
def known(assets):
    return coco.COCO(str(assets / "coco" / "instances.json"))


@pytest.fixture(scope="module")
def samples(assets):
    return {one.name: one for one in open_data(f"coco:{assets / 'coco'}").samples()}


def test_every_object_of_every_photo_is_pycocotools(known, samples):
    crowds, objects = 0, 0
    assert sorted(samples) == sorted(one["file_name"] for one in known.imgs.values())
    for picture in some(known):
        theirs = known.loadAnns(known.getAnnIds(picture["id"]))
        ours = samples[picture["file_name"]].annotations
        assert len(ours) == len(theirs)
        for mine, other in zip(ours, theirs, strict=True):
            x, y, width, height = other["bbox"]
            assert mine.label == known.cats[other["category_id"]]["name"]
            assert mine.box == (x, y, x + width, y + height) and mine.crowd == bool(other["iscrowd"])
            assert np.array_equal(mine.mask, known.annToMask(other).astype(bool))
            objects, crowds = objects + 1, crowds + mine.crowd
    assert objects > 50 and crowds


def test_overlaps_of_boxes_and_masks_are_pycocotools(known, samples):
    for picture in some(known):
        theirs = known.loadAnns(known.getAnnIds(picture["id"]))
        ours = samples[picture["file_name"]].annotations
        boxes = np.array([one["bbox"] for one in theirs])
        corners = np.array([one.box for one in ours])
        found = [[best_overlap(one, other[None]) for other in corners] for one in corners]
        np.testing.assert_allclose(found, api.iou(boxes, boxes, [0] * len(boxes)), atol=1e-9)
        coded = [known.annToRLE(one) for one in theirs]
        flat = np.stack([one.mask.ravel() for one in ours]).astype(np.float64)
        shared, areas = flat @ flat.T, flat.sum(1)
        union = areas[:, None] + areas - shared
        np.testing.assert_allclose(shared / union, api.iou(coded, coded, [0] * len(coded)), atol=1e-9)
        for label in {one.label for one in ours}:
            marks = [(mine, other) for mine, other in zip(ours, coded, strict=True) if mine.label == label]
            merged = api.decode(api.merge([other for _, other in marks])).astype(bool)
            size = picture["height"], picture["width"]
            assert np.array_equal(mask_pixels([mine for mine, _ in marks], size), merged)
