"""What is marked, as boxes and as pixels: which marks count, how far boxes overlap, what lies inside."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from fastcam.evaluation.samples import Annotation, Box, Mask, Sample
from fastcam.image.preprocess import Size

Boxes = NDArray[np.float64]
"""float64 [n, 4]: x0, y0, x1, y1, half open, in pixels of the picture."""


def counted(annotations: Iterable[Annotation]) -> tuple[Annotation, ...]:
    """The marks that count: neither "difficult" nor a crowd under one mark."""
    return tuple(each for each in annotations if not (each.difficult or each.crowd))


def boxes_of(annotations: Iterable[Annotation]) -> Boxes:
    """The boxes of the marks; of a mark with pixels alone the box around these. Marks with neither are left out."""
    found = [box for each in annotations if (box := box_of(each)) is not None]
    return np.array(found, np.float64).reshape(-1, 4)


def box_of(annotation: Annotation) -> Box | None:
    """The box of a mark, or the one around its pixels."""
    if annotation.box is not None or annotation.mask is None:
        return annotation.box
    y, x = np.nonzero(annotation.mask)
    return (float(x.min()), float(y.min()), float(x.max() + 1), float(y.max() + 1)) if len(x) else None


def overlaps(boxes: NDArray[np.generic], others: Boxes) -> NDArray[np.float64]:
    """Intersection over union of each box [n, 4] with each other one [m, 4]: float64 [n, m], 0 for empty boxes."""
    a, b = np.asarray(boxes, np.float64)[:, None], np.asarray(others, np.float64)[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = np.maximum(sides, 0).prod(-1)
    union = _areas(a) + _areas(b) - shared
    shares: NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return shares


def _areas(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    areas: NDArray[np.float64] = np.maximum(boxes[..., 2:] - boxes[..., :2], 0).prod(-1)
    return areas


def best_overlap(box: NDArray[np.generic], others: Boxes) -> float:
    """The largest intersection over union of a box with any of the others; 0 without others."""
    return float(overlaps(np.asarray(box)[None], others).max(initial=0))


def box_pixels(boxes: Boxes, size: Size) -> Mask:
    """Which pixels lie in some of the boxes: those whose x and y are in x0 <= x < x1 and y0 <= y < y1."""
    inside = np.zeros(size, np.bool_)
    edges = np.ceil(np.clip(boxes, 0, (size[1], size[0]) * 2)).astype(np.int64)
    for x0, y0, x1, y1 in edges.tolist():
        inside[y0:y1, x0:x1] = True
    return inside


def mask_pixels(annotations: Sequence[Annotation], size: Size) -> Mask | None:
    """The pixels of the marks; None where one of them has no mask, or there is no mark."""
    masks = [each.mask for each in annotations if each.mask is not None]
    if not masks or len(masks) < len(annotations):
        return None
    inside = np.zeros(size, np.bool_)
    for mask in masks:
        inside |= mask
    return inside


def pixels(annotations: Sequence[Annotation], size: Size) -> Mask:
    """The pixels of the marks: of each its mask where it has one, and otherwise its box."""
    inside = np.zeros(size, np.bool_)
    for each in annotations:
        if each.mask is not None:
            inside |= each.mask
        elif each.box is not None:
            inside |= box_pixels(boxes_of([each]), size)
    return inside


def ignored_pixels(sample: Sample, annotations: Sequence[Annotation], size: Size) -> Mask | None:
    """The pixels that count for nothing: those the sample ignores, and those of marks of the class that do not count.

    None where there are none.
    """
    kept = counted(annotations)
    others = [each for each in annotations if each not in kept]
    if not others and sample.read_ignored is None:
        return None
    outside = pixels(others, size)
    if sample.read_ignored is not None:
        outside |= sample.read_ignored()
    return outside & ~pixels(kept, size)
