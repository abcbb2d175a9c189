"""Where a character is: the counts of the table against maps whose answer is known."""

import numpy as np
import pytest
from PIL import Image

from fastcam_bench.accuracy.characters import WORDS, judge, lines


def heat(*columns):
    found = np.zeros((48, 320))
    found[20, list(columns)] = 1
    return found


@pytest.mark.parametrize(
    ("columns", "hit", "inside"),
    [((55,), True, 1.0), ((20,), False, 0.0), ((59, 100), True, 0.5), ((61, 62), True, 0.0), ((63,), False, 0.0)],
)
def test_what_is_counted(columns, hit, inside):
    assert judge(heat(*columns), 50.2, 60.4) == (hit, inside)


def test_characters_are_where_they_are_said_to_be(tmp_path):
    """Of lines on plain ground, ink lies within the sides of each letter and nowhere beside the line."""
    Image.new("RGB", (400, 400), (90, 90, 90)).save(tmp_path / "photo.png")
    drawn = lines([tmp_path / "photo.png"])
    assert [line.text for line in drawn] == list(WORDS)
    for line in drawn[::2]:
        ink = np.abs(line.image.astype(int) - line.image[0, 0]).sum((0, 2)) > 0
        columns = np.flatnonzero(ink)
        assert line.columns[0][0] - 2 <= columns.min() and columns.max() <= line.columns[-1][1] + 2
        for character, (left, right) in zip(line.text, line.columns):
            assert ink[round(left) : round(right)].any() == (character != " ")
