"""Text in pictures: where letters stand, which font draws which script, what stands for a letter without a font."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from fastcam.render import drawing, text
from fastcam.schema import FastcamError

UNKNOWN = "\U000f1234"  # for private use: no font has it


@pytest.fixture(autouse=True)
def no_fonts_of_this_machine(monkeypatch):
    monkeypatch.setattr(text, "SYSTEM_FONTS", ())
    monkeypatch.delenv(text.VARIABLE, raising=False)
    caches = [text._has, text._font]
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


def font_of_squares(path: Path, letters: str) -> Path:
    """A font whose every letter is a filled square, 1000 units of 1000 wide, that stands on the baseline."""
    builder = pytest.importorskip("fontTools.fontBuilder").FontBuilder(1000, isTTF=True)
    pens = pytest.importorskip("fontTools.pens.ttGlyphPen")
    pen = pens.TTGlyphPen(None)
    pen.moveTo((0, 0)), pen.lineTo((0, 1000)), pen.lineTo((1000, 1000)), pen.lineTo((1000, 0)), pen.closePath()
    empty, names = pens.TTGlyphPen(None).glyph(), [f"square{i}" for i in range(len(letters))]
    builder.setupGlyphOrder([".notdef", *names])
    builder.setupCharacterMap(dict(zip(map(ord, letters), names, strict=True)))
    builder.setupGlyf({".notdef": empty} | dict.fromkeys(names, pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys((".notdef", *names), (1000, 0)))
    builder.setupHorizontalHeader(ascent=1000, descent=0)
    builder.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    builder.setupOS2(), builder.setupPost()
    builder.save(path)
    return path


def drawn(words: str, tall: float = 20) -> np.ndarray:
    """White on black, [100, 600], from x = 10 and the baseline y = 60."""
    image = np.zeros((100, 600, 3), np.uint8)
    text.write(image, words, (10, 60), tall)
    assert (image == image[..., :1]).all()
    return image[..., 0]


@pytest.mark.parametrize("tall", [7, 20, 40])
def test_capital_letters_are_as_tall_as_asked_for_and_stand_on_the_baseline(tall):
    rows, columns = np.nonzero(drawn("HEH", tall) > 100)
    assert rows.max() == 59 and abs(rows.min() - (60 - tall)) <= 1
    assert columns.min() >= 10 and columns.max() <= 10 + text.width("HEH", tall)
    assert text.width("HEH", tall) - (columns.max() + 1 - columns.min()) < tall / 2


def test_a_font_of_the_users_draws_the_script_that_the_others_lack(tmp_path, monkeypatch):
    font = font_of_squares(tmp_path / "squares.ttf", "猫ক")
    plain = drawn("cat")
    monkeypatch.setenv(text.VARIABLE, str(font))
    rows, columns = np.nonzero(drawn("猫") == 255)
    side = rows.max() + 1 - rows.min()
    assert rows.max() == 59 and abs(columns.max() + 1 - columns.min() - side) <= 1 and len(rows) >= (side - 1) ** 2
    assert text.width("猫猫", 20) == 2 * text.width("猫", 20)
    np.testing.assert_array_equal(drawn("cat"), plain)
    both = drawn("猫 cat")  # a font for each
    assert (both[:, : 10 + side] == drawn("猫")[:, : 10 + side]).all()
    assert both[:, 10 + side :].any()
    assert (drawing.caption(np.zeros((224, 224, 3), np.uint8), "猫 0.93") == 255).any()


def test_a_letter_that_no_font_has_is_drawn_without_its_accents_or_as_its_code():
    np.testing.assert_array_equal(drawn(f"a {UNKNOWN} b"), drawn("a U+F1234 b"))
    np.testing.assert_array_equal(drawn("猫"), drawn("U+732B"))
    assert not np.array_equal(drawn("猫"), drawn("犬"))
    assert text._instead("ä") == "a" and text._instead("…") == "..." and text._instead("한") == "U+D55C"


def test_lines_and_tabs_in_names_are_spaces_and_empty_text_is_nothing():
    np.testing.assert_array_equal(drawn("a\tb\nc"), drawn("a b c"))
    assert not drawn("").any() and text.width("", 20) == 0


def test_letters_may_reach_beyond_the_picture():
    image = np.zeros((10, 20, 3), np.uint8)
    text.write(image, "tabby", (-5, 12), 20)
    assert image.any()
    text.write(image, "tabby", (0, 500), 20)
    text.write(image, "tabby", (0, -500), 20)


def test_a_font_that_is_none_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv(text.VARIABLE, str(tmp_path / "none.ttf"))
    with pytest.raises(FastcamError, match=r"FASTCAM_FONT is '.*none\.ttf', which is no font"):
        drawn("cat")


def test_without_pillow_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(FastcamError, match=r"text in pictures needs Pillow .*; run: pip install pillow"):
        drawing.caption(np.zeros((224, 224, 3), np.uint8), "cat")
