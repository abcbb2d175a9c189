"""Colour maps, boxes, captions and sheets: which pixels they touch, against formulas and OpenCV's tables."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from fastcam.render import drawing
from fastcam.schema import FastcamError


def test_jet_runs_from_blue_over_green_to_red():
    lut = drawing.colormap("jet")
    assert lut.shape == (256, 3) and lut.dtype == np.uint8
    np.testing.assert_array_equal(lut[[0, 255]], [[0, 0, 128], [128, 0, 0]])
    for v in range(256):
        ramps = [min(1, max(0, 1.5 - abs(4 * v / 255 - c))) for c in (3, 2, 1)]
        np.testing.assert_allclose(lut[v], np.array(ramps) * 255, atol=0.51)
    # the field's jet, as OpenCV tabulates it, to its own coarser steps
    opencv = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_JET)[:, 0, ::-1]
    assert np.abs(lut.astype(int) - opencv).max() <= 6


@pytest.mark.parametrize("name", ["turbo", "viridis", "cividis", "inferno"])
def test_opencv_maps_are_rgb(name):
    bgr = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[None], getattr(cv2, f"COLORMAP_{name.upper()}"))
    np.testing.assert_array_equal(drawing.colormap(name), bgr[0, :, ::-1])


@pytest.mark.parametrize("name", ["viridis", "cividis", "inferno"])
def test_perceptual_maps_grow_in_lightness(name):
    luma = drawing.colormap(name) @ np.array([0.299, 0.587, 0.114])
    assert (np.diff(luma) > -0.5).all() and luma[-1] - luma[0] > 150


def test_unknown_colour_maps_are_refused_and_known_ones_cannot_be_changed():
    with pytest.raises(FastcamError, match="no colour map 'rainbow'; there are: jet"):
        drawing.colormap("rainbow")
    with pytest.raises(ValueError, match="read-only"):
        drawing.colormap("jet")[0] = 0


def test_a_box_is_drawn_on_its_own_outermost_pixels():
    image = np.full((40, 50, 3), 90, np.uint8)
    drawn = drawing.draw_box(image, [10, 5, 30, 25])
    expected = np.zeros((40, 50), bool)
    expected[5:25, 10:30] = True
    expected[6:24, 11:29] = False
    np.testing.assert_array_equal((drawn != image).any(axis=2), expected)
    assert (image == 90).all()


@pytest.mark.parametrize("box", [[0, 0, 50, 40], [-3, -3, 60, 60]])
def test_a_box_around_the_picture_is_drawn_along_its_border(box):
    drawn = drawing.draw_box(np.zeros((40, 50, 3), np.uint8), box)
    border = np.ones((40, 50), bool)
    border[1:-1, 1:-1] = False
    np.testing.assert_array_equal(drawn.any(axis=2), border)


@pytest.mark.parametrize("box", [[49.5, 39.5, 50, 40], [50, 40, 50, 40]])
def test_a_box_in_the_last_corner_is_the_last_pixel(box):
    drawn = drawing.draw_box(np.zeros((40, 50, 3), np.uint8), box)
    assert np.argwhere(drawn.any(axis=2)).tolist() == [[39, 49]]


def test_a_box_shows_on_white_and_on_black():
    for ground in (0, 255):
        drawn = drawing.draw_box(np.full((200, 200, 3), ground, np.uint8), [50, 50, 150, 150])
        assert (drawn == 255).all(axis=2).any() and (drawn == 0).all(axis=2).any()


@pytest.mark.parametrize("size", [(96, 96), (224, 224), (300, 1200), (1600, 1200), (4000, 3000)])
def test_captions_are_legible_at_any_size(size):
    image = np.full((*size, 3), 200, np.uint8)
    drawn = drawing.caption(image, "tabby 0.93")
    ink = (drawn > 220).all(axis=2)
    rows, columns = np.nonzero(ink)
    height, width = size
    assert rows.max() - rows.min() + 1 >= max(6, width / 45)  # letters: at least 6 pixels, and in proportion
    assert columns.max() < width - 1 and columns.min() > 0
    band = np.nonzero((drawn == 200).all(axis=(1, 2)))[0].min()
    assert rows.max() < band <= height / 3 and (drawn[band:] == 200).all()
    assert (drawn[0] == 50).all()  # a dark band on a light picture
    assert (image == 200).all()


def ink_width(drawn):
    columns = np.nonzero((drawn > 200).all(axis=2))[1]
    return columns.max() - columns.min()


def test_long_captions_shrink_and_then_are_cut_inside_the_picture():
    image = np.zeros((224, 224, 3), np.uint8)
    long = drawing.caption(image, "a very long class name " * 10)
    assert 160 < ink_width(long) < 222
    assert not (long[:, -2:] > 100).any()
    medium = drawing.caption(image, "golden retriever, a dog 0.93")
    assert ink_width(medium) < 222


def test_captions_leave_pictures_alone_that_are_too_small_for_letters():
    for size in ((8, 8), (32, 32), (20, 300), (1, 1)):
        image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
        np.testing.assert_array_equal(drawing.caption(image, "tabby 0.93"), image)


def test_letters_of_other_scripts_tell_names_apart():
    image = np.zeros((100, 200, 3), np.uint8)
    for one, other in (("猫", "犬"), ("кошка", "собака"), ("猫", "?")):
        assert drawing.caption(image, one).any()
        assert not np.array_equal(drawing.caption(image, one), drawing.caption(image, other))


def test_enlarging_repeats_pixels_by_a_whole_factor():
    image = np.random.default_rng(0).integers(0, 256, (28, 40, 3), dtype=np.uint8)
    big, factor = drawing.enlarge(image, 192)
    assert factor == 7 and big.shape == (196, 280, 3)
    np.testing.assert_array_equal(big, np.kron(image, np.ones((7, 7, 1), np.uint8)))
    same, one = drawing.enlarge(image, 20)
    assert one == 1 and same is image


@pytest.mark.parametrize("shape", [(1, 100_000), (100_000, 1), (1, 3000), (5, 700), (1, 1)])
def test_a_strip_stays_one(shape):
    """A row of 100,000 pixels would be one of 192 times as many, in both ways."""
    picture, factor = drawing.enlarge(np.zeros((*shape, 3), np.uint8), 192)
    assert picture.shape[:2] == (shape[0] * factor, shape[1] * factor)
    assert max(picture.shape) <= max(4096, *shape) and (factor > 1) == (max(shape) <= 2048)


def test_a_contact_sheet_holds_each_picture_in_its_cell():
    tiles = [(np.full((64, 64, 3), 40 * i + 40, np.uint8), "") for i in range(5)]
    sheet = drawing.contact_sheet(tiles, columns=3, tile=64)
    assert sheet.shape == (2 * 66 + 2, 3 * 66 + 2, 3)
    for i in range(5):
        row, column = divmod(i, 3)
        cell = sheet[2 + row * 66 : 66 + row * 66, 2 + column * 66 : 66 + column * 66]
        assert (cell == 40 * i + 40).all()
    assert (sheet[68:, 134:] == 24).all()  # the empty sixth cell


def test_contact_sheets_keep_aspect_ratios_and_caption():
    wide = np.full((50, 100, 3), 255, np.uint8)
    sheet = drawing.contact_sheet([(wide, "")], tile=200)
    inside = (sheet == 255).all(axis=2)
    rows, columns = np.nonzero(inside)
    assert (rows.max() - rows.min() + 1, columns.max() - columns.min() + 1) == (100, 200)
    captioned = drawing.contact_sheet([(wide, "a dog")], tile=200)
    strip = len(captioned) - len(sheet)
    np.testing.assert_array_equal(captioned[strip + 3 :], sheet[3:])  # captions stand above, not on, the pictures
    assert strip > 10 and (captioned[:strip] > 200).any()
    with pytest.raises(FastcamError, match="at least one picture"):
        drawing.contact_sheet([])


def test_png_bytes_decode_to_the_same_picture():
    image = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    data = np.frombuffer(drawing.encode_png(image), np.uint8)
    np.testing.assert_array_equal(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1], image)


def test_a_legend_stands_in_the_band_where_there_is_room():
    image = np.zeros((224, 224, 3), np.uint8)
    legend = drawing.Legend(drawing.colormap("jet"))
    plain, drawn = drawing.caption(image, "a dog"), drawing.caption(image, "a dog", legend=legend)
    changed = (plain != drawn).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert rows.max() < 40 and columns.min() > ink_width(plain) and columns.max() < 222
    seen = {tuple(color) for color in drawn.reshape(-1, 3).tolist()}
    assert {tuple(drawing.colormap("jet")[i].tolist()) for i in (0, 255)} <= seen
    long = "a very long class name " * 10
    np.testing.assert_array_equal(drawing.caption(image, long, legend=legend), drawing.caption(image, long))


def test_a_box_shows_through_the_band_of_a_caption():
    image = np.full((224, 224, 3), 100, np.uint8)
    drawn = drawing.caption(image, "a dog", [150, 0, 224, 224])
    assert (drawn[0, 152:222] == 255).all() and (drawn[:, 150] == 255).all()


def test_the_diverging_table_is_the_diverging_scale():
    table = drawing.diverging_table()
    assert table[0].tolist() == [0, 0, 255] and table[255].tolist() == [255, 0, 0] and table[127:129].min() > 250
    assert (np.diff(table[:, 0].astype(int)) >= 0).all() and (np.diff(table[:, 2].astype(int)) <= 0).all()
