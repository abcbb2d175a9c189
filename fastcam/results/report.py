"""Boxes, components and sizes of an explanation as numbers for JSON: of pictures, signals and volumes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastcam.image.preprocess import Float, Geometry
from fastcam.targets.classes import Target

KEYS = {
    3: ("x0", "x1", "samples"),
    5: ("x0", "y0", "x1", "y1", "pixels"),
    7: ("x0", "y0", "z0", "x1", "y1", "z1", "voxels"),
}
"""What the numbers of a component are, by how many there are."""


def rounded(value: Any) -> float:
    """Hundredths of a pixel are enough for a reader."""
    return round(float(value), 2)


def box(numbers: Float) -> list[float] | None:
    """A box; None where there is none."""
    return [rounded(value) for value in numbers] if numbers.any() else None


def point(place: Sequence[float] | None) -> list[float] | None:
    """Where a heatmap is highest; None where there is none."""
    return None if place is None else [rounded(value) for value in place]


def components(rows: Float) -> list[dict[str, float]]:
    """Each component's box and size."""
    return [dict(zip(KEYS[len(row)], map(rounded, row), strict=True)) for row in rows]


def size(kind: str, shape: Sequence[int], geometry: Geometry) -> dict[str, int]:
    """The size of what was given.

    Args:
        kind: see :attr:`fastcam.schema.Metadata.kind`.
        shape: of the sample, [C, L] or [C, D, H, W].
        geometry: of a picture.
    """
    if kind == "signal":
        return {"samples": shape[-1]}
    height, width = geometry.original
    return {"width": width, "height": height} | ({"depth": shape[-3]} if kind == "volume" else {})


def combination(target: Target, of_classes: bool) -> dict[str, Any]:
    """What a target was that is no single class."""
    terms = [{"class": c, "coefficient": a} for c, a in target.terms]
    return {"target": target.name} | ({"terms": terms} if of_classes else {})


def predicted(target: Target, geometry: Geometry) -> tuple[float, ...] | None:
    """The box that a detector predicts, in pixels of the picture; None of other targets, or where nobody knows."""
    return None if target.box is None else tuple(map(float, geometry.to_original(np.array([target.box]))[0]))


def own(box: Sequence[float] | None) -> dict[str, Any]:
    """A detector's own box, where there is one."""
    return {} if box is None else {"predicted_box": [rounded(value) for value in box]}
