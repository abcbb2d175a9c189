"""Key points: the score of a point where its map is highest, or where the two rows of SimCC are.

A map model (HRNet, ViTPose) gives [N, points, h, w]. SimCC (RTMPose; Li et al. 2022) gives two outputs, [N, points, X]
and [N, points, Y], each a row of scores along one side of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastcam.errors import FastcamError
from fastcam.image.preprocess import Float
from fastcam.labels import short_label
from fastcam.schema import Cotangent
from fastcam.targets.arrays import Classes, Double, check_index, numbers
from fastcam.targets.classes import Targets
from fastcam.targets.spec_parser import (
    INPUT_SIZE,
    File,
    Kind,
    Outputs,
    Spec,
    SpecFunction,
    SpecResult,
    array_of,
    index,
    sizes,
)

COCO = (
    *("nose", "left eye", "right eye", "left ear", "right ear", "left shoulder", "right shoulder"),
    *("left elbow", "right elbow", "left wrist", "right wrist", "left hip", "right hip"),
    *("left knee", "right knee", "left ankle", "right ankle"),
)
"""The points of a person as COCO counts them; 17 points without names are these."""
DRAWN = 32
"""A point is drawn as a square of this part of the picture's shorter side, or as its cell where that is larger."""


def point(scores: ArrayLike, points: Classes) -> Float:
    """s = max_p y_kp: the score of a key point k where it is highest.

    Args:
        scores: [N, points, h, w], a map for each point; or [N, points, X], one of the two rows of SimCC, whose scores
            add up.
        points: one point or T of them, indices.

    Returns:
        float32 [N, T, points, h, w] or [N, T, points, X].

    Raises:
        FastcamError: scores of another shape, or no such point.
    """
    y = numbers(scores, "scores of key points")
    if y.ndim not in (3, 4) or 0 in y.shape:
        raise FastcamError(f"scores of key points are [N, points, h, w] or [N, points, X], got {list(y.shape)}")
    wanted = [points] if isinstance(points, int | np.integer) else list(points)
    for k in wanted:
        check_index((k,), y.shape[1:2])
    return _at_highest(y, np.array([wanted] * len(y)))


def _point_spec(spec: Spec, file: File) -> SpecFunction:
    """One target for each word; without one the point with the highest score."""
    about = _outputs(spec, file)
    by_graph = ("last", "first") if about[0].axes == "HWC" else ("first", "last")
    last = len(about) == 1 and spec.choice("axis", by_graph) == "last"
    counted = sizes(about[0])[-1 if last else 0]
    names = _names(file, counted)
    known = Targets(counted if isinstance(counted, int) else None, names)
    points = [index(spec, word, known) for word in spec.words]

    def function(outputs: Outputs) -> SpecResult:
        scores = [array_of(outputs, one) for one in about]
        if last:
            scores[0] = np.moveaxis(scores[0], -1, 1)
        for k in points:
            if k >= scores[0].shape[1]:
                raise spec.wrong(f"there are {scores[0].shape[1]} points, numbered from 0")
        highest = np.sum([y.reshape(*y.shape[:2], -1).max(2) for y in scores], axis=0)  # [N, points]
        rows = np.array([points or [int(own.argmax())] for own in highest])
        arrays = {one.output: _at_highest(y, rows) for one, y in zip(about, scores, strict=True)}
        if last:
            arrays[about[0].output] = np.moveaxis(arrays[about[0].output], 2, -1)
        labels = tuple(tuple(short_label(names[k]) if names else f"point {k}" for k in row) for row in rows)
        size = np.asarray(outputs[INPUT_SIZE]).ravel() if INPUT_SIZE in outputs else None
        places = None if size is None else _squares(scores, rows, (int(size[0]), int(size[1])))
        return SpecResult(arrays, labels, np.take_along_axis(highest, rows, 1), places)

    return function


def _outputs(spec: Spec, file: File) -> list[Cotangent]:
    """The map of points; or the two rows of SimCC, along the width and along the height.

    Raises:
        FastcamError: the file explains neither.
    """
    rows = [one for one in file.about if len(sizes(one)) == 2 and one.batched]
    if (
        len(rows) == 2
        and len(file.about) == 2
        and "output" not in spec.options
        and sizes(rows[0])[0] == sizes(rows[1])[0]
    ):
        if "axis" in spec.options:
            raise spec.wrong("axis says where the points of a map lie; leave it out for rows")
        return rows[::-1] if _of_height(rows[0].output) or _of_width(rows[1].output) else rows
    if len(rows) == 1 and rows[0].output == spec.options.get("output", rows[0].output) and len(file.about) == 1:
        raise spec.wrong(
            f"{file.name} explains one row for each point, {rows[0].output}; export it with --output-name for both, "
            "the one along the width and the one along the height"
        )
    return [file.output(spec, (3,))]


def _of_width(name: str) -> bool:
    return name.casefold().endswith("x")


def _of_height(name: str) -> bool:
    return name.casefold().endswith("y")


def _names(file: File, count: int | str) -> Sequence[str] | None:
    """The names of the points: the file's own, COCO's, or none."""
    if file.labels is not None and len(file.labels) == count:
        return file.labels
    return COCO if count == len(COCO) else None


def _at_highest(y: Double, rows: NDArray[np.int64]) -> Float:
    """float32 [N, T, points, ...]: 1 where a point's scores [N, points, ...] are highest."""
    n, points = y.shape[:2]
    flat = y.reshape(n, points, -1)
    cotangent = np.zeros((n, rows.shape[1], points, flat.shape[2]), np.float32)
    for i, row in enumerate(rows):
        for t, k in enumerate(row):
            cotangent[i, t, k, flat[i, k].argmax()] = 1
    return cotangent.reshape(n, rows.shape[1], *y.shape[1:])


def _squares(scores: list[Double], rows: NDArray[np.int64], size: tuple[int, int]) -> Double:
    """[N, T, 4]: a square around each point, in pixels of the network's input of this height and width."""
    if len(scores) == 1:
        h, w = scores[0].shape[2:]
        highest = scores[0].reshape(*scores[0].shape[:2], -1).argmax(2)
        y, x = highest // w, highest % w
    else:
        w, h = (each.shape[2] for each in scores)
        x, y = (each.argmax(2) for each in scores)
    cell = np.array([size[1] / w, size[0] / h])
    centres = np.take_along_axis((np.stack([x, y], -1) + 0.5) * cell, rows[..., None], 1)
    half = np.maximum(cell, min(size) / DRAWN) / 2
    return np.concatenate([centres - half, centres + half], -1)


KINDS = {
    "point": Kind(
        "point:NAME",
        "key points: the score of a point where its map, or its rows along both sides, are highest; point alone is the "
        "one with the highest score",
        (2, 3),
        ("output", "axis"),
        _point_spec,
        lambda spec: True,
    )
}
