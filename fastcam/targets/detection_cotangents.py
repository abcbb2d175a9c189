"""Cotangents of detectors: the best box, its score, its sides; :mod:`fastcam.targets.cotangents` has them by the same
names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastcam.errors import FastcamError
from fastcam.image.preprocess import Float

Double = NDArray[np.float64]
Side = Literal["x0", "y0", "x1", "y1"]
SIDES: tuple[Side, ...] = ("x0", "y0", "x1", "y1")
Form = Literal["corners", "centre"]


def best_box(scores: ArrayLike, labels: ArrayLike | None = None, label: int | None = None) -> int:
    """The index of the box with the highest score, of one image; of those with a label.

    Args:
        scores: [boxes].
        labels: [boxes], and
        label: the one that counts.

    Raises:
        FastcamError: there is no box, or none with this label.
    """
    found = np.asarray(scores)
    if found.ndim != 1 or not len(found):
        raise FastcamError(f"scores of one image's boxes are [boxes], and not empty; got {list(found.shape)}")
    if label is None:
        return int(found.argmax())
    have = np.asarray(labels)
    if have.shape != found.shape:
        raise FastcamError(f"labels are {list(have.shape)}, scores {list(found.shape)}; give one label per box")
    if label not in have:
        raise FastcamError(f"no box has label {label}; there are boxes of {sorted({int(one) for one in have})}")
    return int(np.where(have == label, found, -np.inf).argmax())


def coordinate(boxes: ArrayLike, box: int, *sides: Side, form: Form = "corners", batched: bool = False) -> Float:
    """s = a side of a box, one target for each of ``sides``.

    Args:
        boxes: [boxes, 4], or [N, boxes, 4] where ``batched``.
        box: which.
        sides: "x0", "y0", "x1", "y1".
        form: what the four numbers are: x0, y0, x1, y1, or centre and size x, y, w, h; then x0 = x - w / 2.
    """
    y = np.asarray(boxes) if batched else np.asarray(boxes)[None]
    if y.ndim != 3 or y.shape[2] != 4:
        raise FastcamError(f"boxes are [{'N, ' * batched}boxes, 4], got {list(np.shape(boxes))}")
    check_index((box,), y.shape[1:2])
    made = np.zeros((len(y), len(sides), *y.shape[1:]), np.float32)
    for t, side in enumerate(sides):
        made[:, t, box] = side_of(side, form)
    return made


def dense(
    output: ArrayLike,
    *parts: int | Side,
    box: int | Sequence[int] | None = None,
    axis: Literal[1, 2] = 2,
    objectness: bool = False,
    form: Form = "centre",
) -> Float:
    """A class's score, or a side, of a box of a detector that gives all boxes in one output, as YOLO does.

    Args:
        output: [N, boxes, 4 + classes] (``axis`` 2), or [N, 4 + classes, boxes] (``axis`` 1: YOLOv8 and later).
        parts: one target each: a class index or a side.
        box: which box, or one for each image; None: the best of that class (then ``parts`` are classes).
        objectness: a fifth number in front of the classes (YOLOv5, v7), whose product with the class's is the score.
        form: of the first four numbers, see :func:`coordinate`.
    """
    y = np.asarray(output, np.float64)
    first = 5 if objectness else 4
    if y.ndim != 3 or y.shape[axis] <= first:
        raise FastcamError(f"the output is [N, boxes, {first} + classes], or transposed; got {list(y.shape)}: set axis")
    rows = y if axis == 2 else y.swapaxes(1, 2)
    made = np.zeros((len(rows), len(parts), *rows.shape[1:]), np.float32)
    for t, part in enumerate(parts):
        where = _boxes(rows, part, box, first)
        for n, k in enumerate(where):
            if isinstance(part, str):
                made[n, t, k, :4] = side_of(part, form)
            else:
                check_index((part,), (rows.shape[2] - first,))
                made[n, t, k, first + part] = rows[n, k, 4] if objectness else 1
                made[n, t, k, 4] += rows[n, k, first + part] if objectness else 0
    return made if axis == 2 else made.swapaxes(2, 3)


def _boxes(rows: Double, part: int | str, box: int | Sequence[int] | None, first: int) -> list[int]:
    """The box of each image."""
    if box is None:
        if isinstance(part, str):
            raise FastcamError(f"{part!r} is a side of which box? give box")
        check_index((part,), (rows.shape[2] - first,))
        scores = rows[:, :, first + part] * (rows[:, :, 4] if first == 5 else 1)
        return [int(k) for k in scores.argmax(1)]
    where = [box] * len(rows) if isinstance(box, int | np.integer) else list(box)
    if len(where) != len(rows):
        raise FastcamError(f"{len(where)} boxes were given for {len(rows)} images; give one each")
    for k in where:
        check_index((k,), rows.shape[1:2])
    return where


def side_of(name: str, form: str) -> Float:
    """How a side follows from a box's four numbers."""
    if name not in SIDES or form not in ("corners", "centre"):
        raise FastcamError(f"a side is one of {', '.join(SIDES)}, form corners or centre; got {name!r}, {form!r}")
    if form == "corners":
        return np.asarray(np.eye(4, dtype=np.float32)[SIDES.index(name)])
    made: Float = np.zeros(4, np.float32)
    made["xy".index(name[0])] = 1
    made["xy".index(name[0]) + 2] = 0.5 if name[1] == "1" else -0.5
    return made


def check_index(index: tuple[Any, ...], shape: tuple[int, ...]) -> None:
    if len(index) != len(shape) or not all(0 <= i < size for i, size in zip(index, shape, strict=True)):
        raise FastcamError(f"index {list(index)} is outside of {list(shape)}; give one number per axis, from 0")
