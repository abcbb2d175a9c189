"""COCO's masks: run lengths, as lists or as text, and polygons, pixel for pixel those of pycocotools.

Reimplemented, so that an evaluation needs no compiled package and has the same figures with and without it. Run lengths
go down the columns. A polygon's outline is walked on a grid five times as fine, and a pixel lies inside where the
outline has crossed its column an odd number of times above it.

Source: the definition in maskApi of the COCO API (Dollar and Lin, 2015).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam.evaluation.samples import Mask

Ints = NDArray[np.int64]
_FINE = 5
_FURTHEST, _LONGEST = 1e6, 1e6
"""Of a polygon, in pixels: the coordinates and the length that are still taken. Longer ones would fill the memory."""


def mask_reader(segmentation: Any, height: int, width: int) -> Callable[[], Mask] | None:
    """What gives the mask of an annotation's ``segmentation``, bool [height, width]; None where it is damaged."""
    if isinstance(segmentation, Mapping):
        counts = _counts(segmentation, height, width)
        return None if counts is None else lambda: from_counts(counts, height, width)
    polygons = _polygons(segmentation)
    return None if polygons is None else lambda: from_polygons(polygons, height, width)


def _counts(rle: Mapping[str, Any], height: int, width: int) -> Ints | None:
    """The run lengths, if they fill the picture."""
    if rle.get("size") != [height, width]:
        return None
    counts = rle.get("counts")
    try:
        found = counts_of_text(counts) if isinstance(counts, str) else np.array(counts, np.int64)
    except (ValueError, TypeError, OverflowError):
        return None
    whole = isinstance(counts, str) or (
        isinstance(counts, list) and all(isinstance(one, int) and not isinstance(one, bool) for one in counts)
    )
    good = whole and found.ndim == 1 and len(found) <= height * width + 2 and (found >= 0).all()
    good = good and (found <= height * width).all()  # else their sum may be right by overflow
    return found if good and found.sum() == height * width else None


def counts_of_text(text: str) -> Ints:
    """Run lengths from COCO's text: groups of five bits, low ones first; from the fourth on differences to the one
    before the last.

    Raises:
        ValueError: letters that do not occur in such a text, or an end within a number.
    """
    counts: list[int] = []
    number, shift = 0, 0
    for letter in text:
        code = ord(letter) - 48
        if not 0 <= code < 64 or shift > 55:
            raise ValueError("no run lengths")
        number |= (code & 31) << shift
        shift += 5
        if not code & 32:
            number -= (1 << shift) if code & 16 else 0
            counts.append(number + counts[-2] if len(counts) > 2 else number)
            number, shift = 0, 0
    if shift:
        raise ValueError("no run lengths")
    return np.array(counts, np.int64)


def from_counts(counts: Ints, height: int, width: int) -> Mask:
    """bool [height, width] of run lengths down the columns, outside first."""
    inside = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return np.ascontiguousarray(inside.reshape(width, height).T)


def _polygons(segmentation: Any) -> list[NDArray[np.float64]] | None:
    """The outlines [points, 2], if there are any and each has three points."""
    if not isinstance(segmentation, list) or not segmentation:
        return None
    found = []
    for outline in segmentation:
        if not isinstance(outline, list) or len(outline) < 6 or len(outline) % 2:
            return None
        if not all(isinstance(one, int | float) and abs(one) < _FURTHEST for one in outline):
            return None
        points = np.array(outline, np.float64).reshape(-1, 2)
        if np.abs(points - np.roll(points, -1, 0)).sum() > _LONGEST:
            return None
        found.append(points)
    return found


def from_polygons(outlines: Sequence[NDArray[np.float64]], height: int, width: int) -> Mask:
    """bool [height, width]: the pixels inside any of the outlines."""
    inside = np.zeros((height, width), np.bool_)
    for outline in outlines:
        inside |= _filled(outline, height, width)
    return inside


def _filled(outline: NDArray[np.float64], height: int, width: int) -> Mask:
    """The pixels inside one outline, [points, 2] of x and y."""
    u, v = _walk((_FINE * outline + 0.5).astype(np.int64))
    turn = np.flatnonzero(u[1:] != u[:-1])  # where the walk comes to another column of the fine grid
    left = np.where(u[turn + 1] < u[turn], u[turn + 1], u[turn + 1] - 1)
    column, off = np.divmod(left - _FINE // 2, _FINE)  # the columns through the middles of pixels
    kept = (off == 0) & (column >= 0) & (column < width)
    top = np.minimum(v[turn], v[turn + 1])[kept]
    row = np.ceil(np.clip((top + 0.5) / _FINE - 0.5, 0, height)).astype(np.int64)
    crossings = np.bincount(column[kept] * height + row, minlength=height * width + 1)[: height * width]
    inside = np.cumsum(crossings) % 2 == 1
    return np.ascontiguousarray(inside.reshape(width, height).T)


def _walk(points: Ints) -> tuple[Ints, Ints]:
    """Every point of the fine grid along the closed outline, one step of the longer axis after the other."""
    us, vs = [], []
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, 0), strict=True):
        if abs(x1 - x0) >= abs(y1 - y0):
            u, v = _line(x0, x1, y0, y1)
        else:
            v, u = _line(y0, y1, x0, x1)
        us.append(u)
        vs.append(v)
    return np.concatenate(us), np.concatenate(vs)


def _line(a0: int, a1: int, b0: int, b1: int) -> tuple[Ints, Ints]:
    """Steps along the longer axis from a0 to a1, and the other axis' rounded value; from either end the same points."""
    low, start, end = (a0, b0, b1) if a0 <= a1 else (a1, b1, b0)
    steps = np.arange(abs(a1 - a0) + 1)
    slope = (end - start) / max(abs(a1 - a0), 1)
    values = (start + slope * steps + 0.5).astype(np.int64)
    order = slice(None) if a0 <= a1 else slice(None, None, -1)
    return (low + steps)[order], values[order]
