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


def best_overlap(box: NDArray[np.generic], others: Boxes) -> float:
    """The largest intersection over union of a box with any of the others, 0 with empty ones and without others."""
    x0, y0, x1, y1 = (float(side) for side in box.tolist())
    area, best = max(x1 - x0, 0.0) * max(y1 - y0, 0.0), 0.0
    for left, top, right, bottom in others.tolist():
        shared = max(min(x1, right) - max(x0, left), 0.0) * max(min(y1, bottom) - max(y0, top), 0.0)
        union = area + max(right - left, 0.0) * max(bottom - top, 0.0) - shared
        best = max(best, shared / union if union > 0 else 0.0)
    return best


def box_slices(boxes: Boxes, size: Size) -> list[tuple[slice, slice]]:
    """Of each box the pixels in it: those whose x and y are in x0 <= x < x1 and y0 <= y < y1."""
    edges = np.ceil(np.clip(boxes, 0, (size[1], size[0]) * 2)).astype(np.int64)
    return [(slice(y0, y1), slice(x0, x1)) for x0, y0, x1, y1 in edges.tolist()]


def box_pixels(boxes: Boxes, size: Size) -> Mask:
    """Which pixels lie in some of the boxes, see :func:`box_slices`."""
    inside = np.zeros(size, np.bool_)
    for each in box_slices(boxes, size):
        inside[each] = True
    return inside


def mask_pixels(annotations: Sequence[Annotation], size: Size) -> Mask | None:
    """The pixels of the marks, to be read; None where one of them has no mask, or there is no mark."""
    masks = [mask for each in annotations if (mask := each.mask) is not None]
    if not masks or len(masks) < len(annotations):
        return None
    if len(masks) == 1 and masks[0].shape == size:
        return masks[0]
    inside = np.zeros(size, np.bool_)
    for mask in masks:
        inside |= mask
    return inside


def pixels(annotations: Sequence[Annotation], size: Size) -> Mask:
    """The pixels of the marks, to be read: of each its mask where it has one, and otherwise its box."""
    masks = mask_pixels(annotations, size)
    if masks is not None:
        return masks
    inside = np.zeros(size, np.bool_)
    for each in annotations:
        if (mask := each.mask) is not None:
            inside |= mask
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
        outside = outside | sample.read_ignored()
    return outside & ~pixels(kept, size)
