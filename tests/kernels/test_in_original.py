"""Boxes in pixels of the picture, and maps that are the same everywhere: beside plain arithmetic, one box at a time."""

from __future__ import annotations

import numpy as np
import pytest

from fastcam.image.preprocess import Geometry
from fastcam.kernels import native, reference

GEOMETRY = (
    Geometry((480, 640), (224, 224), (0, 0, 640, 480), (0, 0, 224, 224)),
    Geometry((333, 500), (224, 224), (83, 0, 416, 333), (0, 0, 224, 224)),
    Geometry((100, 37), (64, 96), (0, 0, 37, 100), (36, 0, 60, 64)),
)


def by_hand(g, side, value):
    """One side of a box, in float64, clipped to the picture."""
    (source, target), end = (g.source, g.target), g.original[1 - side % 2]
    axis = side % 2
    scale = (source[axis + 2] - source[axis]) / (target[axis + 2] - target[axis])
    return np.float32(min(max((value - target[axis]) * scale + source[axis], 0.0), float(end)))


@pytest.mark.parametrize("k", [native, reference], ids=["native", "reference"])
def test_boxes_are_those_of_each_component_alone_and_the_first_of_the_largest(k):
    rng = np.random.default_rng(0)
    counts = np.array([[3, 0], [1, 2], [0, 4]], np.int32)
    components = rng.integers(0, 97, (10, 5)).astype(np.int32)
    components[[0, 2], 4] = 1000  # a tie: the first counts
    boxes, parts = k.in_original(counts, components, [g.way_back for g in GEOMETRY])
    assert boxes.dtype == np.float32 and boxes.shape == (3, 2, 4)
    at = 0
    for n, t in np.ndindex(3, 2):
        rows = components[at : at + counts[n, t]]
        at += counts[n, t]
        wanted = [[*(by_hand(GEOMETRY[n], s, row[s]) for s in range(4)), row[4]] for row in rows.tolist()]
        assert parts[n][t].dtype == np.float32
        np.testing.assert_array_equal(parts[n][t], np.array(wanted, np.float32).reshape(-1, 5))
        best = max(range(len(rows)), key=lambda k: (rows[k, 4], -k), default=None)
        np.testing.assert_array_equal(boxes[n, t], np.zeros(4) if best is None else parts[n][t][best, :4])


@pytest.mark.parametrize("k", [native, reference], ids=["native", "reference"])
def test_boxes_of_a_whole_input_are_the_whole_picture(k):
    g = GEOMETRY[0]
    boxes, _ = k.in_original(np.array([[1]], np.int32), np.array([[0, 0, 224, 224, 9]], np.int32), [g.way_back])
    assert boxes.tolist() == [[[0, 0, 640, 480]]]
    np.testing.assert_array_equal(boxes[0], g.to_original([[0, 0, 224, 224]]))


@pytest.mark.parametrize("counts", [[[3]], [[-1]], [[1], [1]]])
def test_native_refuses_counts_that_are_not_those_of_the_components(counts):
    rows = np.zeros((2, 5), np.int32)
    with pytest.raises(ValueError, match="must be"):
        native.in_original(np.array(counts, np.int32), rows, [GEOMETRY[0].way_back])


@pytest.mark.parametrize("k", [native, reference], ids=["native", "reference"])
def test_maps_are_the_same_everywhere_up_to_a_millionth(k):
    maps = np.full((2, 4, 3, 5), 0.7, np.float32)
    maps[0, 1, 2, 4] *= 1 + 5e-7  # rounding
    maps[0, 2, 0, 0] *= 1 + 5e-6
    maps[0, 3, 1, 1] = np.nan
    maps[1, 0] = np.inf
    maps[1, 1] = 0
    maps[1, 2] = np.arange(15, dtype=np.float32).reshape(3, 5)
    with np.errstate(invalid="ignore"):  # infinity less infinity
        same, some = k.same_everywhere(maps), k.same_everywhere(maps[:, :1, :, :3])
    assert same.dtype == np.bool_
    assert same.tolist() == [[True, True, False, False], [False, True, False, True]]
    assert some.tolist() == [[True], [False]]
