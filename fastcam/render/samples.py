"""Signals as curves over their heat, volumes as slices under it: pictures uint8 RGB of samples that are no pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam import kernels
from fastcam.errors import FastcamError
from fastcam.image.preprocess import Float, Uint8, opencv, resize
from fastcam.render import drawing

WIDTH, ROW, LEAST = 960, 120, 240
"""Of a curve's picture: its width, the height of a channel's row, and of all of them at least."""
MOST_ROWS, MOST_SLICES = 12, 9
SLICE = 224
"""The shorter side of a slice, at least."""
BAND = 12
"""The part of the width, one in so many, that a caption takes on top."""


def curves(signal: Float, heat: Float | None, segment: Float | None, table: Uint8, alpha: float) -> Uint8:
    """A row for each channel of a signal [C, L] (the first dozen), over the colours of its heat [L] in 0..1.

    Args:
        segment: [x0, x1] in samples, marked by two lines; or None.
        table: the colour map, uint8 [256, 3].
        alpha: weight of the colours.
    """
    cv2 = opencv()
    shown = np.nan_to_num(np.asarray(signal[:MOST_ROWS], np.float32))
    band = WIDTH // BAND
    tall = max(ROW, LEAST // len(shown))
    height = band + tall * len(shown)
    picture = np.full((height, WIDTH, 3), 255, np.uint8)
    length = shown.shape[1]
    if heat is not None:
        at = np.minimum((np.arange(WIDTH) + 0.5) * length / WIDTH, length - 1).astype(int)
        colours = table[np.rint(np.clip(heat[at], 0, 1) * 255).astype(int)]
        mixed = (1 - alpha) * 255 + alpha * colours.astype(np.float32)
        picture[band:] = np.rint(mixed).astype(np.uint8)[None]
    x = (np.arange(length) + 0.5) * WIDTH / length
    for row, values in enumerate(shown):
        low, high = float(values.min()), float(values.max())
        middle = band + tall * row + tall / 2
        y = middle - (values - (low + high) / 2) / ((high - low) or 1) * tall * 0.85
        points = np.rint(np.stack([x, y], 1) * 8).astype(np.int32)
        cv2.polylines(picture, [points[:, None]], False, (0, 0, 0), 1, cv2.LINE_AA, 3)
    for end in () if segment is None else segment:
        place = min(WIDTH - 1, round(float(end) * WIDTH / length))
        cv2.line(picture, (place, band), (place, height - 1), (90, 90, 90), 2)
    return picture


def slices(volume: Float, heat: Float | None, cuboid: Float | None, table: Uint8, alpha: float) -> Uint8:
    """Up to nine slices of a volume [C, D, H, W], in the order of a page, under their heat [D, H, W] in 0..1.

    The mean of the channels is shown, from its 1st to its 99th percentile. Slices lie at equal distances, in the cuboid
    [x0, y0, z0, x1, y1, z1] where there is one that has as many, else around it.
    """
    grey = np.nan_to_num(np.asarray(volume, np.float32)).mean(0)
    depth = len(grey)
    count = min(MOST_SLICES, depth)
    first, last = (0, depth) if cuboid is None else _around(int(cuboid[2]), int(cuboid[5]), count, depth)
    chosen = [first + int((k + 0.5) * (last - first) / count) for k in range(count)]
    low, high = np.percentile(grey, (1, 99))
    bytes_ = np.rint(np.clip((grey - low) / ((high - low) or 1), 0, 1) * 255).astype(np.uint8)
    scale = max(1, -(-SLICE // min(grey.shape[1:])))
    size = (grey.shape[1] * scale, grey.shape[2] * scale)
    tiles = [_slice(bytes_[z], None if heat is None else heat[z], cuboid, z, size, table, alpha) for z in chosen]
    columns = min(3, count)
    blank = [np.zeros_like(tiles[0])] * (-count % columns)
    rows = [np.concatenate((tiles + blank)[k : k + columns], 1) for k in range(0, count, columns)]
    page = np.concatenate(rows)
    return np.concatenate([np.zeros((page.shape[1] // BAND, page.shape[1], 3), np.uint8), page])


def _around(first: int, last: int, count: int, depth: int) -> tuple[int, int]:
    """Slices from ``first`` to ``last``, with neighbours on both sides where they are fewer than ``count``."""
    missing = max(0, count - (last - first))
    first = min(max(0, first - missing // 2), depth - count)
    return first, max(last, first + count)


def _slice(
    grey: Uint8, heat: Float | None, cuboid: Float | None, z: int, size: tuple[int, int], table: Uint8, alpha: float
) -> Uint8:
    picture = np.ascontiguousarray(np.repeat(resize(grey, size)[..., None], 3, 2))
    if heat is not None:
        large = kernels.get().upsample(np.ascontiguousarray(heat, np.float32), size)
        picture = kernels.get().overlay(picture, large, table, alpha)
    if cuboid is not None and cuboid[2] <= z < cuboid[5]:
        factor = size[0] / grey.shape[0]
        picture = drawing.draw_box(picture, np.asarray(cuboid)[[0, 1, 3, 4]] * factor)
    drawing.write(picture, f"slice {z}", (6, picture.shape[0] - 8), 0.5)
    return picture


def refuse(kind: str) -> None:
    """Raise for what is shown of pictures only."""
    if kind in ("signal", "volume", "text"):
        raise FastcamError(
            f"that is a picture of a picture's pixels, and this is a {kind}; take the arrays, or overlay"
        )


def picture(
    kind: str, sample: NDArray[Any], heat: Float | None, box: Float | None, table: Uint8, alpha: float
) -> Uint8:
    """A signal or volume as a picture; see :func:`curves` and :func:`slices`."""
    draw = curves if kind == "signal" else slices
    return draw(sample, heat, box, table, alpha)
