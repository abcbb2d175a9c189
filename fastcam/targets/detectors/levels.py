"""Detectors that give each level, or each map, by itself: classes, objectness and boxes of a resolution.

Known by the number of positions that outputs share and the numbers that each has, then by their names:

    NanoDet, PicoDet    classes [h w, C] and four distributions [h w, 4 bins]
    YuNet               class and objectness [h w, 1], box [h w, 4]: offset and logarithm of the size
    SCRFD, FCOS         scores, and distances to the four sides; a centerness beside them
    RetinaNet           maps [anchors C, h, w] and [anchors 4, h, w]
    FastestDet          one map [5 + C, h, w]: objectness, four numbers of the box, classes
    CenterNet           maps [C, h, w], of sizes [2, h, w], and mostly of offsets [2, h, w] in a cell
    YOLO                maps [anchors (5 + C), h, w], [anchors, h, w, 5 + C] or [4 bins + C, h, w], not decoded

Maps may have their channels last. How boxes follow from anchors is in no output: such boxes have scores alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam.targets.arrays import Double
from fastcam.targets.detectors import decoding
from fastcam.targets.detectors.decoding import Decode
from fastcam.targets.detectors.forms import Detections, Level, Numbers
from fastcam.targets.detectors.tables import Table, points, tables
from fastcam.targets.spec_parser import File

BINS = (8, 16, 17, 32, 33)
"""Numbers of a distribution over distances: reg_max + 1."""
KEY_POINTS = 10
SIZES = re.compile(r"(\b|_)wh|size|dim|height_?width")
FAR = 2.0
"""The most that the offset of a centre in its cell can be, in cells."""
Size = tuple[int, int] | None
Values = Mapping[str, Double]
"""Outputs, float64 [N, ...]."""


def levels_of(file: File, arrays: Mapping[str, NDArray[Any]], size: Size) -> Detections | None:
    """The form, where each level or map has outputs of its own; None where it is another.

    Args:
        file: whose explained outputs they are.
        arrays: the outputs of a run.
        size: height and width of the network's input, where they are known.
    """
    explained = list(tables(file.about, arrays))
    maps = [one for one in explained if one.grid is not None]
    if not explained or (maps and len(maps) < len(explained)):  # masks beside boxes
        return None
    groups: dict[Any, list[Table]] = {}
    for one in explained:
        groups.setdefault(one.grid or len(one.index), []).append(one)
    columns = {tuple(sorted(one.columns for one in group)) for group in groups.values()}
    if len(columns) > 1 or not (maps or len(groups) > 1):
        return None
    values = {one.output: np.asarray(arrays[one.output], np.float64) for one in file.about}
    values = {one.output: values[one.output] if one.batched else values[one.output][None] for one in file.about}
    classes = len(file.labels) if file.labels is not None else None
    order = sorted(groups.values(), key=lambda group: -len(group[0].index))
    if len(order) == 1 and order[0][0].grid is not None:
        centres = _centres(order[0], values, size)
        if centres is not None:
            return centres
    if len(order[0]) == 1:
        return _combined([group[0] for group in order], values, classes, size)
    return _apart(order, values, classes, size)


# ---- one table a level


def _combined(levels: Sequence[Table], values: Values, classes: int | None, size: Size) -> Detections | None:
    """All numbers of a level in one output."""
    first = levels[0]
    if len(levels) == 1 and first.columns > 5 and _of(values, first.numbers(5)).min() >= 0:
        scores, objectness = _of(values, first.numbers(5)), _of(values, first.numbers(0, 1))
        squashed = _of(values, first.numbers(1, 5))
        if scores.max() <= 1 and objectness.min() >= 0 and objectness.max() <= 1 and squashed.min() < 0:
            return _fastestdet(first, values, size)
    for bins in BINS:
        if classes is not None and first.columns == classes + 4 * bins:
            return _distributions(levels, values, classes, size)
    anchors = _anchors(first, classes)
    if anchors is None:
        return None
    made = []
    for table in levels:
        rows = table.apart(anchors)
        boxes = rows.numbers(0, 4)
        priors = points(len(rows.index), size, rows.grid)
        free = priors is not None and priors[1] == 1 and bool((_of(values, boxes)[..., 2:] < 0).any())
        how = (decoding.exponential, priors[0]) if free and priors is not None else (None, None)
        made.append(Level(rows.numbers(5), (rows.numbers(4, 5),), boxes, *how))
    return Detections("maps of boxes, objectness and classes", values, tuple(made), logits=_are_logits(values, made))


def _anchors(table: Table, classes: int | None) -> int | None:
    """How many boxes a position of a combined map has."""
    if classes is not None:
        each, rest = divmod(table.columns, 5 + classes)
        return each if each and not rest else None
    if table.columns < 6:
        return None
    return next((n for n in (3, 5) if table.columns % n == 0 and table.columns // n > 5), 1)


def _fastestdet(table: Table, values: Values, size: Size) -> Detections:
    priors = points(len(table.index), size, table.grid)
    how: tuple[Decode | None, Double | None] = (None, None)
    if priors is not None and size is not None:
        how = decoding.squashed(size), priors[0]
    level = Level(table.numbers(5), (table.numbers(0, 1),), table.numbers(1, 5), *how)
    return Detections("a map of objectness, boxes and classes", values, (level,), power=0.4)


def _distributions(levels: Sequence[Table], values: Values, classes: int, size: Size) -> Detections:
    """Classes and distributions in one output, either first."""
    ends = levels[0].columns - classes
    scored = _of(values, levels[0].numbers(0, classes))
    classes_first = scored.min() >= 0 and scored.max() <= 1
    made = []
    for table in levels:
        prior = points(len(table.index), size, table.grid, 0.5)
        scores = table.numbers(0, classes) if classes_first else table.numbers(ends)
        boxes = table.numbers(classes) if classes_first else table.numbers(0, ends)
        made.append(Level(scores, (), boxes, decoding.bins, None if prior is None else prior[0]))
    return Detections("maps of classes and distributions", values, tuple(made), logits=_are_logits(values, made))


# ---- several tables a level


def _apart(levels: Sequence[Sequence[Table]], values: Values, classes: int | None, size: Size) -> Detections | None:
    """Classes, boxes and factors in outputs of their own."""
    made = []
    for group in levels:
        rest = [one for one in group if one.says != "points" and one.columns != KEY_POINTS]
        box = _box(rest, classes)
        others = [one for one in rest if one is not box]
        scores = _scores(others)
        if scores is None:
            return None
        factors = [one for one in others if one is not scores and (one.columns == 1 or one.says == "factor")]
        anchors = _positions(scores, box, factors, classes)
        boxes = None if box is None else box.apart(anchors).numbers()
        rows = scores.apart(anchors)
        how = _decoded(values, boxes, points(len(rows.index), size, rows.grid), size, bool(factors))
        made.append(Level(rows.numbers(), tuple(one.apart(anchors).numbers() for one in factors), boxes, *how))
    return Detections(
        f"classes and boxes of {len(made)} level{'s' * (len(made) > 1)}",
        values,
        tuple(_in_pixels(made, values, size)),
        logits=_are_logits(values, made),
        power=0.5 if made[0].factors and len(made[0].classes.index[0]) == 1 else 1.0,
    )


def _centres(group: Sequence[Table], values: Values, size: Size) -> Detections | None:
    """Heatmaps of the classes' centres, sizes, and perhaps offsets, of one resolution; None of another form."""
    rest = [one for one in group if one.says != "points"]
    pairs = [one for one in rest if one.columns == 2 and one.says != "class"]
    others = [one for one in rest if one not in pairs]
    if len(others) != 1 or not 1 <= len(pairs) <= 2:
        return None
    scores, prior = others[0], points(len(others[0].index), size, others[0].grid)
    ranges = {one.output: np.abs(_of(values, one.numbers())).max(initial=0) for one in pairs}
    named = [one for one in pairs if SIZES.search(one.output.lower())]
    sizes = named[0] if len(named) == 1 else max(pairs, key=lambda one: ranges[one.output])
    offsets = next((one for one in pairs if one is not sizes), None)
    if offsets is not None and ranges[offsets.output] > FAR:
        return None
    how: tuple[Decode | None, Double | None] = (None, None)
    best = _of(values, scores.numbers()).max(2).argmax(1)
    largest = np.abs(_of(values, sizes.numbers())[np.arange(len(best)), best]).max(initial=0)
    if prior is not None and size is not None and largest * prior[0][0, 2] <= 2 * max(size):  # in cells, not pixels
        how = decoding.centre if offsets is not None else decoding.size_alone, prior[0]
    boxes = None if offsets is None else offsets.numbers()
    level = Level(scores.numbers(), (), boxes, *how, sizes.numbers())
    return Detections("heatmaps of centres", values, (level,), logits=_are_logits(values, [level]))


def _box(tables: Sequence[Table], classes: int | None) -> Table | None:
    """The table of the boxes."""
    fitting = [one for one in tables if one.columns % 4 == 0 and (one.columns != classes or one.says == "box")]
    named = [one for one in fitting if one.says == "box"]
    plain = [one for one in fitting if one.columns == 4 and one.says != "class"]
    spread = [one for one in fitting if one.columns // 4 in BINS and one.says != "class"]
    return next(iter([*named, *plain, *spread]), None)


def _scores(tables: Sequence[Table]) -> Table | None:
    """The table of the classes."""
    named = [one for one in tables if one.says == "class"]
    plain = [one for one in tables if one.says != "factor"]
    return max(named or plain, key=lambda one: one.columns, default=None)


def _positions(scores: Table, box: Table | None, factors: Sequence[Table], classes: int | None) -> int:
    """How many boxes a row of the tables has: anchors among the channels of a map."""
    if scores.grid is None:
        return 1
    if classes is not None and scores.columns % classes == 0:
        return scores.columns // classes
    if factors:
        return factors[0].columns
    if box is None or box.columns // 4 in BINS or scores.columns % (box.columns // 4):
        return 1
    return box.columns // 4


def _decoded(
    values: Values, boxes: Numbers | None, priors: tuple[Double, int] | None, size: Size, factored: bool
) -> tuple[Decode | None, Double | None]:
    """How boxes follow from their numbers, as far as the numbers tell."""
    if boxes is None or priors is None:
        return None, None
    where, anchors = priors
    count = boxes.index.shape[1]
    if count > 4:
        return decoding.bins, where + _half(where)
    numbers = _of(values, boxes)
    if (numbers >= 0).all():
        return decoding.distances, where + (_half(where) if anchors == 1 and factored else 0)
    return (decoding.exponential, where) if anchors == 1 else (None, None)


def _half(priors: Double) -> Double:
    """The way from a cell's corner to its middle."""
    half: Double = priors[:, [2, 3, 2, 3]] * np.array([0.5, 0.5, 0, 0])
    return half


def _in_pixels(levels: Sequence[Level], values: Values, size: Size) -> list[Level]:
    """Levels whose distances are in pixels, if in strides they would reach far beyond the picture."""
    far = False
    for level in levels:
        if level.decode is decoding.distances and level.boxes is not None and level.priors is not None and size:
            far = far or _of(values, level.boxes).max() * level.priors[0, 2] > 2 * max(size)
    if not far:
        return list(levels)
    return [
        Level(
            one.classes, one.factors, one.boxes, one.decode,
            None if one.priors is None else np.concatenate([one.priors[:, :2], np.ones_like(one.priors[:, 2:])], 1),
        )
        for one in levels
    ]  # fmt: skip


def _of(values: Values, numbers: Numbers) -> Double:
    """[N, P, k]."""
    y = values[numbers.output]
    rows: Double = y.reshape(len(y), -1)[:, numbers.index]
    return rows


def _are_logits(values: Values, levels: Sequence[Level]) -> bool:
    each = [_of(values, level.classes) for level in levels]
    return any(one.min() < 0 or one.max() > 1 for one in each)
