"""The peak of a heatmap: the middle of its plateau, in the picture's pixels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from fastcam.image.preprocess import Geometry
from fastcam.results.peak import in_picture, peak


def enlarged(small, size):
    return cv2.resize(np.array(small, np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)


def test_of_one_cell_it_is_the_cells_middle():
    small = np.zeros((7, 7), np.float32)
    small[2, 4] = 1
    assert peak(enlarged(small, (224, 224))) == (4.5 * 32, 2.5 * 32)


def test_at_the_border_it_is_the_middle_of_the_plateau_and_not_its_corner():
    small = np.zeros((7, 7), np.float32)
    small[0, 6] = 1
    heatmap = enlarged(small, (224, 224))
    assert np.unravel_index(heatmap.argmax(), heatmap.shape) == (0, 208)  # what argmax would say
    assert peak(heatmap) == (216, 8)


def test_of_two_equal_plateaus_it_is_the_first_one_and_not_between_them():
    heatmap = np.zeros((6, 10), np.float32)
    heatmap[1, 2:5] = heatmap[4, 7:9] = 0.5
    assert peak(heatmap) == (3.5, 1.5)


def test_of_a_ring_it_lies_on_the_ring():
    heatmap = np.zeros((9, 9), np.float32)
    heatmap[1:8, 1:8] = 1
    heatmap[3:6, 3:6] = 0
    x, y = peak(heatmap)
    assert heatmap[int(y), int(x)] == 1


@pytest.mark.parametrize(
    "shape, at, wanted", [((12,), (7,), (7.5,)), ((3, 5, 4), (2, 1, 3), (3.5, 1.5, 2.5))], ids=["signal", "volume"]
)
def test_of_signals_and_volumes(shape, at, wanted):
    heatmap = np.zeros(shape, np.float32)
    heatmap[at] = 2
    assert peak(heatmap) == wanted


def test_in_a_picture_that_was_cropped_and_in_one_between_bars():
    heatmap = np.zeros((100, 100), np.float32)
    heatmap[50, 20] = 1
    cropped = Geometry((300, 400), (100, 100), (50, 0, 350, 300), (0, 0, 100, 100))
    assert in_picture(heatmap, cropped) == pytest.approx((50 + 20.5 * 3, 50.5 * 3))
    heatmap[2, 30] = 9  # on a bar, where there is no picture
    barred = Geometry((200, 400), (100, 100), (0, 0, 400, 200), (0, 25, 100, 75))
    assert in_picture(heatmap, barred) == pytest.approx((20.5 * 4, 25.5 * 4))
