"""COCO's masks: the same pixels as the COCO API has, and no damaged mask becomes a picture."""

from __future__ import annotations

import numpy as np
import pytest

from fastcam.evaluation.data.coco_masks import counts_of_text, from_counts, from_polygons, mask_reader

API = [
    # outline, height, width, run lengths as maskApi.c of the COCO API writes them
    ([[2, 2], [12.5, 3], [9, 13.25], [1, 9]], 15, 16, "d0484O001O0010O01OO1M3Ml1"),
    ([[0, 0], [0, 9], [11, 9], [11, 0]], 9, 11, "0S3"),
    ([[-3.5, 4], [20, -2], [14.2, 17], [5, 6], [3, 21]], 12, 18, "393000O10N2L42M2O1O1OV21fM3"),
    ([[1, 1], [8, 8], [8, 1], [1, 8]], 10, 10, ";65N2N;0E2N2b0"),
    ([[3, 3], [3, 3], [7.5, 3], [7.5, 6.25]], 9, 9, "W1181O0015"),
    ([[4, 4], [4.3, 4.2], [4.2, 4.4]], 8, 8, "P2"),
]


@pytest.mark.parametrize(("outline", "height", "width", "text"), API)
def test_a_polygon_has_the_pixels_that_the_api_gives_it(outline, height, width, text):
    expected = from_counts(counts_of_text(text), height, width)
    assert np.array_equal(from_polygons([np.array(outline, float)], height, width), expected)


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools and NumPy 2
def test_random_polygons_and_run_lengths_are_those_of_pycocotools():
    api = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    rng = np.random.default_rng(0)
    for i in range(500):
        height, width = map(int, rng.integers(1, 60, 2))
        outlines = [rng.uniform(-0.3, 1.3, (int(rng.integers(3, 9)), 2)) * [width, height] for _ in range(1 + i % 2)]
        coded = api.merge(api.frPyObjects([o.ravel().tolist() for o in outlines], height, width))
        expected = api.decode(coded).astype(bool)
        assert np.array_equal(from_polygons(outlines, height, width), expected)
        assert np.array_equal(from_counts(counts_of_text(coded["counts"].decode()), height, width), expected)


def test_run_lengths_go_down_the_columns_and_begin_outside():
    rng = np.random.default_rng(1)
    for _ in range(50):
        mask = rng.random(tuple(rng.integers(1, 12, 2))) < 0.5
        flat = [bool(mask[y, x]) for x in range(mask.shape[1]) for y in range(mask.shape[0])]
        counts, value = [0], False
        for one in flat:
            if one != value:
                counts.append(0)
                value = one
            counts[-1] += 1
        read = mask_reader({"size": list(mask.shape), "counts": counts}, *mask.shape)
        assert np.array_equal(read(), mask)


def test_a_large_polygon_covers_what_an_even_odd_rule_covers_but_for_its_edge():
    star = np.array([[50, 5], [78, 90], [5, 35], [95, 35], [22, 90]], float)
    y, x = np.mgrid[:100, :100] + 0.5
    crossings = np.zeros((100, 100), int)
    for (x0, y0), (x1, y1) in zip(star, np.roll(star, -1, 0), strict=True):
        spans = (y0 <= y) != (y1 <= y)
        crossings += spans & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0 + (y0 == y1)))
    length = np.abs(star - np.roll(star, -1, 0)).sum()
    assert (from_polygons([star], 100, 100) != (crossings % 2 == 1)).sum() < length / 4


def test_of_several_outlines_a_pixel_in_any_is_inside():
    left, right = np.array([[1, 1], [1, 6], [5, 6], [5, 1]], float), np.array([[4, 2], [4, 8], [9, 8], [9, 2]], float)
    both = from_polygons([left, right], 10, 10)
    assert np.array_equal(both, from_polygons([left], 10, 10) | from_polygons([right], 10, 10))


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [4, 4], "counts": [3, 4]},
        {"size": [4, 5], "counts": [10, 10]},
        {"size": [4, 4], "counts": [20, -4]},
        {"size": [4, 4], "counts": [True, 15]},
        {"size": [4, 4], "counts": "~~"},
        {"size": [4, 4], "counts": "o"},
        {"size": [4, 4], "counts": "oooooooooooooooooooooooooo0"},
        {"size": [4, 4]},
        {"counts": [16]},
        [[0, 0, 1, 1]],
        [[0, 0, 1, 1, 2]],
        [[0, 0, 1, 1, float("nan"), 3]],
        [[0, 0, 1e300, 1, 2, 3]],
        [[0, 0, 9e5, 9e5] * 40],
        [["a"] * 6],
        [],
        7,
    ],
)
def test_a_damaged_mask_is_none(segmentation):
    assert mask_reader(segmentation, 4, 4) is None
