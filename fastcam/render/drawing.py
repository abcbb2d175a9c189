"""Colour maps, overlays, boxes, captions and contact sheets. Pictures are uint8 RGB [height, width, 3]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam.errors import FastcamError
from fastcam.image.preprocess import Uint8, opencv, resize
from fastcam.render import text as text_

COLORMAPS = ("jet", "turbo", "viridis", "cividis", "inferno")

_BOX = (255, 255, 255)
_EDGE = (0, 0, 0)
_PREDICTED = (0, 230, 118)
_GROUND = 24  # of contact sheets
_FONT_HEIGHT = 21.0  # pixels from baseline to the top of a capital letter at scale 1
_SMALLEST = 0.32  # the scale below which letters run together


@cache
def colormap(name: str = "jet") -> Uint8:
    """The colour map called ``name`` as a read-only table, uint8 RGB [256, 3]; 0 is cold, 255 is hot.

    "jet" is what papers of the field show: three clipped ramps, 1.5 - |4 v - c| for c = 3 (red), 2 (green), 1 (blue).
    The others are OpenCV's. Viridis, cividis and inferno grow evenly in lightness, so that they survive print and
    colour-blindness; cividis (Nunez et al. 2018) looks the same to most colour-blind readers.

    Raises:
        FastcamError: no such colour map.
    """
    if name == "jet":
        v = np.arange(256)[:, None] / 255
        lut = np.rint(np.clip(1.5 - np.abs(4 * v - np.array([3, 2, 1])), 0, 1) * 255).astype(np.uint8)
    elif name in COLORMAPS:
        cv2 = opencv()
        bgr = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], getattr(cv2, f"COLORMAP_{name.upper()}"))
        lut = np.ascontiguousarray(bgr[:, 0, ::-1])
    else:
        raise FastcamError(f"no colour map {name!r}; there are: {', '.join(COLORMAPS)}")
    table: Uint8 = lut
    table.setflags(write=False)
    return table


def on_grey(values: NDArray[Any]) -> Uint8:
    """Signed values [C, H, W] as colours around grey, which is zero: uint8 RGB [H, W, 3].

    The 99.5th percentile of their size, and what is larger, becomes full colour. Of other than three channels the sum
    is shown.
    """
    channels = np.moveaxis(values if len(values) == 3 else values.sum(axis=0, keepdims=True), 0, -1)
    grey: Uint8 = np.rint(127.5 + 127.5 * _scaled(channels)).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(grey, (*grey.shape[:2], 3)))


def diverging(values: NDArray[Any]) -> Uint8:
    """Signed values [H, W] from blue (negative) over white (zero) to red: uint8 RGB [H, W, 3], scaled as on grey."""
    v = _scaled(values)
    picture: Uint8 = np.rint(255 * np.stack([1 + np.minimum(v, 0), 1 - np.abs(v), 1 - np.maximum(v, 0)], -1)).astype(
        np.uint8
    )
    return picture


@cache
def diverging_table() -> Uint8:
    """The colours of :func:`diverging` as a read-only table, uint8 RGB [256, 3]: blue, white in the middle, red."""
    table: Uint8 = diverging(np.linspace(-1, 1, 256)[None])[0]
    table.setflags(write=False)
    return table


def _scaled(values: NDArray[Any]) -> NDArray[Any]:
    """Values in -1..1, zero kept; what is not finite counts as zero."""
    finite = np.nan_to_num(values, nan=0, posinf=0, neginf=0)
    most = float(np.percentile(np.abs(finite), 99.5)) or float(np.abs(finite).max())
    scaled: NDArray[Any] = np.clip(finite / (most or 1), -1, 1)
    return scaled


LONGEST = 4096
"""Pixels of the longer side of a picture that is magnified."""


def enlarge(image: Uint8, min_side: int) -> tuple[Uint8, int]:
    """``image`` magnified by the smallest whole factor that brings its shorter side to ``min_side``, and the factor.

    It is smaller where the longer side would be longer than :data:`LONGEST`: a picture of one row stays a strip.
    """
    height, width = image.shape[:2]
    factor = max(1, min(-(-min_side // min(height, width)), LONGEST // max(height, width)))
    if factor == 1:
        return image, 1
    return np.ascontiguousarray(image.repeat(factor, axis=0).repeat(factor, axis=1)), factor


def draw_box(image: Uint8, box: Sequence[float] | NDArray[Any], color: tuple[int, int, int] = _BOX) -> Uint8:
    """A copy of ``image`` with the half-open ``box`` [x0, y0, x1, y1): white with a dark edge, seen on any ground."""
    cv2 = opencv()
    height, width = image.shape[:2]
    x0, y0, x1, y1 = (float(value) for value in box)
    left, top = min(width - 1, max(0, int(x0))), min(height - 1, max(0, int(y0)))
    # half open: the last pixel that belongs to the box is the one before its end
    right = min(width - 1, max(left, int(np.ceil(x1)) - 1))
    bottom = min(height - 1, max(top, int(np.ceil(y1)) - 1))
    thick = max(1, round(min(height, width) / 200))
    drawn = image.copy()
    if min(height, width) >= 64:
        cv2.rectangle(drawn, (left, top), (right, bottom), _EDGE, thick + 2)
    cv2.rectangle(drawn, (left, top), (right, bottom), color, thick)
    return drawn


def draw_predicted(image: Uint8, box: Sequence[float] | None, factor: int = 1) -> Uint8:
    """``image`` with a box that the model itself predicts in green, ``factor`` times as large; as it is without one."""
    return image if box is None else draw_box(image, [factor * side for side in box], _PREDICTED)


def caption(
    image: Uint8, text: str, box: Sequence[float] | NDArray[Any] | None = None, legend: Legend | None = None
) -> Uint8:
    """A copy of ``image`` with ``text`` in white on a dark band along its top, and what is seen through that band.

    The letters grow with the picture (a 28th of its width), shrink to fit, and are cut with "..." where even the
    smallest legible ones do not fit. A picture too small for legible letters (under about 48 pixels) has no band.

    Args:
        box: drawn over the band and under the letters, see :func:`draw_box`.
        legend: stands at the band's right end where the text leaves room for it.
    """
    height, width = image.shape[:2]
    text, scale = _fitted(text, width)
    tall, margin, band = _band(scale)
    drawn = image.copy()
    banded = bool(text) and band * 3 <= height
    if banded:
        drawn[:band] = drawn[:band] // 4
    if box is not None:
        drawn = draw_box(drawn, box)
    if banded:
        write(drawn, text, (margin, margin + tall), scale)
        wide = legend.width(tall, scale) if legend else 0
        if legend and text_width(text, scale) + wide + 4 * margin <= width:
            legend.draw(drawn, (width - wide - margin, margin), tall, scale)
    return drawn


def scaled(image: Uint8, width: int) -> Uint8:
    """``image`` at this width, with its aspect ratio."""
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    return np.ascontiguousarray(resize(np.ascontiguousarray(image), (height, width)))


def label(text: str, width: int, like: int | None = None) -> Uint8:
    """A line of ``text``, white on black, uint8 RGB [height, width, 3]; the height is the same for all texts.

    Letters shrink so that the text fits, as :func:`caption`'s do; with ``like`` they have the size that they have on a
    picture of that width, and what does not fit is cut.
    """
    band = _band(_letters(like or width))[2]
    line = np.zeros((band, width, 3), np.uint8)
    if like is None:
        return np.ascontiguousarray(caption(np.zeros((3 * band, width, 3), np.uint8), text)[:band])
    scale = _letters(like)
    tall, margin, _ = _band(scale)
    write(line, _cut(text, scale, width - 2 * margin), (margin, margin + tall), scale)
    return line


def write(image: Uint8, text: str, at: tuple[int, int], scale: float) -> None:
    """Draw ``text`` in white into ``image`` itself, from (x, baseline)."""
    text_.write(image, text, at, scale * _FONT_HEIGHT)


def text_width(text: str, scale: float) -> int:
    """How many pixels wide :func:`write` draws ``text``."""
    return text_.width(text, scale * _FONT_HEIGHT)


@dataclass(frozen=True, eq=False)
class Legend:
    """A bar of the colours of a table, uint8 RGB [256, 3], with what its ends mean."""

    table: Uint8
    low: str = "0"
    high: str = "1"

    def width(self, tall: int, scale: float) -> int:
        """Pixels that bar and ends take beside letters of this height and scale."""
        return 6 * tall + text_width(self.low, scale) + text_width(self.high, scale) + tall

    def draw(self, image: Uint8, at: tuple[int, int], tall: int, scale: float) -> None:
        """Draw into ``image`` itself, with the upper left corner at (x, y)."""
        (x, y), gap = at, tall // 2
        write(image, self.low, (x, y + tall), scale)
        x += text_width(self.low, scale) + gap
        bar = self.table[np.arange(6 * tall) * 255 // max(1, 6 * tall - 1)]
        image[y : y + tall, x : x + 6 * tall] = bar
        write(image, self.high, (x + 6 * tall + gap, y + tall), scale)


GREY = Legend(np.ascontiguousarray(np.arange(256, dtype=np.uint8)[:, None].repeat(3, axis=1)), "-", "+")
"""What :func:`on_grey` shows, channel by channel."""


def _letters(width: int) -> float:
    """The font scale for a picture of this width, before it is known what has to fit."""
    return max(_SMALLEST, 0.45 * min(1.0, width / 224), width / 28 / _FONT_HEIGHT)


def _band(scale: float) -> tuple[int, int, int]:
    """Height of the letters, margin around them, and height of the band that holds them."""
    tall, margin = round(scale * _FONT_HEIGHT), max(2, round(scale * _FONT_HEIGHT * 0.4))
    return tall, margin, tall + 3 * margin


def _fitted(text: str, width: int) -> tuple[str, float]:
    """``text`` and the font scale with which it fits a picture of this width: smaller, then cut, at last empty."""
    scale = _letters(width)
    room = width - 2 * _band(scale)[1]
    scale = max(_SMALLEST, min(scale, scale * room / max(1, text_width(text, scale))))
    return _cut(text, scale, room), scale


def _cut(text: str, scale: float, room: int) -> str:
    """``text``, or as much of it as fits ``room`` pixels with "..." behind."""
    while len(text) > 4 and text_width(text, scale) > room:
        text = text.removesuffix("...")[:-1].rstrip() + "..."
    return text if text_width(text, scale) <= room else ""


def contact_sheet(tiles: Sequence[tuple[Uint8, str]], columns: int | None = None, tile: int = 256) -> Uint8:
    """Pictures with captions in a grid: each fits a ``tile`` x ``tile`` cell, in reading order, on a dark ground.

    Args:
        tiles: (picture, caption); captions stand above the pictures.
        columns: per row; None makes the sheet about square.

    Returns:
        uint8 RGB.

    Raises:
        FastcamError: there are no pictures.
    """
    if not tiles:
        raise FastcamError("a contact sheet needs at least one picture")
    columns = columns or int(np.ceil(np.sqrt(len(tiles))))
    gap = max(2, tile // 64)
    strip = _band(_letters(tile))[2] if any(text for _, text in tiles) else 0
    rows, high, wide = -(-len(tiles) // columns), strip + tile + gap, tile + gap
    sheet = np.full((rows * high + gap, columns * wide + gap, 3), _GROUND, np.uint8)
    for index, (image, text) in enumerate(tiles):
        y, x = gap + index // columns * high, gap + index % columns * wide
        cell = np.full((strip + tile, tile, 3), _GROUND, np.uint8)
        cell[strip:] = _framed(image, tile)
        sheet[y : y + strip + tile, x : x + tile] = caption(cell, text) if text else cell
    return sheet


def _framed(image: Uint8, side: int) -> Uint8:
    """``image`` in the middle of a dark square of ``side`` pixels, as large as its aspect ratio allows."""
    scale = side / max(image.shape[:2])
    height, width = (max(1, round(extent * scale)) for extent in image.shape[:2])
    frame = np.full((side, side, 3), _GROUND, np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    frame[top : top + height, left : left + width] = resize(np.ascontiguousarray(image), (height, width))
    return frame


def encode_png(image: Uint8) -> bytes:
    """``image`` as a PNG file."""
    cv2 = opencv()
    return bytes(cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))[1])
