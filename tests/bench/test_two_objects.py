"""Two objects, two questions: the counts of the table against maps whose answer is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from fastcam_bench.accuracy import two_objects
from fastcam_bench.accuracy.two_objects import judge, region

LEFT, RIGHT = [(0, 0, 10, 20)], [(20, 5, 40, 20)]
SHAPE = (20, 40)


def heat(left, right, peak=None):
    """A map with so much on each pixel of the left and of the right object, and one pixel higher."""
    found = np.zeros(SHAPE, np.float32)
    found[region(LEFT, SHAPE)], found[region(RIGHT, SHAPE)] = left, right
    if peak is not None:
        found[peak] = 9
    return found


REGIONS = (region(LEFT, SHAPE), region(RIGHT, SHAPE))


@pytest.mark.parametrize(
    ("maps", "expected"),
    [
        ((heat(3, 1), heat(1, 2)), ["maximum energy moves", "maximum energy moves"]),
        ((heat(1, 2), heat(2, 1)), ["", ""]),
        ((heat(3, 1), heat(3, 1)), ["maximum energy", ""]),  # one map for both: one is right, nothing moves
        ((heat(3, 1, peak=(8, 30)), heat(3, 2)), ["energy moves", "moves"]),
        ((heat(2, 1), heat(3, 1)), ["maximum energy", ""]),  # more energy on the other's object: the wrong way
        ((heat(0, 0), heat(0, 1)), ["", "maximum energy moves"]),
    ],
)
def test_what_is_counted(maps, expected):
    found = [" ".join(key for key, true in verdict.items() if true) for verdict in judge(maps, REGIONS)]
    assert found == expected


def test_a_small_object_may_be_right_with_less_heat_in_all():
    """A mean, not a sum: an object of a tenth of the size wins with twice the heat per pixel."""
    small, large = region([(0, 0, 2, 5)], SHAPE), region([(20, 0, 40, 20)], SHAPE)
    warm = np.where(small, 2.0, 1.0).astype(np.float32)
    assert judge([warm, warm], [small, large])[0]["energy"]


def test_pairs_are_objects_that_are_large_and_apart(tmp_path):
    path = tmp_path / "p.png"
    cv2.imwrite(str(path), np.zeros((100, 200, 3), np.uint8))
    objects = {
        "table": ([532], [(0, 40, 200, 100)]),
        "cup": ([968], [(10, 50, 40, 80)]),  # all on the table
        "dog": ([200], [(20, 0, 80, 60)]),  # a third on the table
        "mouse": ([673], [(190, 0, 200, 10)]),  # half a percent of the picture
    }
    (pair,) = [p for p in two_objects._pairs_of(path, "", "", objects) if "table" in p.names]
    assert pair.names == ("dog", "table") and pair.classes == ([200], [532])
    assert pair.regions[0].sum() == 60 * 40 and pair.regions[1].sum() == 200 * 60 - 60 * 20
    others = [p.names for p in two_objects._pairs_of(path, "", "", objects) if "table" not in p.names]
    assert others == [("cup", "dog")]


def test_counts_add_up():
    rows = [
        {"found": {"gradcam": judge((heat(3, 1), heat(1, 2)), REGIONS)}},
        {"found": {"gradcam": judge((heat(3, 1), heat(3, 1)), REGIONS)}},
    ]
    assert two_objects.counts(rows)["gradcam"] == {"maximum": 3, "energy": 3, "moves": 2, "both": 1, "maps": 4}


def test_no_method_that_runs_the_network_again_takes_part():
    """Score-CAM asks one pass for each of hundreds of channels, of each map: the command would take hours."""
    assert {"gradcam", "hirescam", "layercam", "eigencam", "fem"} <= {*two_objects.methods()}
    assert not {"scorecam", "sscam", "iscam", "ablationcam", "reciprocam", "smoothgradcam++"} & {*two_objects.methods()}
