"""Scalars of detectors: the best box, its score, its sides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastcam.errors import FastcamError
from fastcam.image.preprocess import Float
from fastcam.targets.arrays import Double, check_index
from fastcam.targets.box_layouts import SIDES, Layout, Parts, Side, layout_of, refuse_unexplained, side_slope
from fastcam.targets.spec_parser import File, Kind, Outputs, Spec, SpecFunction, SpecResult, index

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
    each = np.asarray(scores)
    if each.ndim != 1 or not len(each):
        raise FastcamError(f"scores of one image's boxes are [boxes], and not empty; got {list(each.shape)}")
    if label is None:
        return int(each.argmax())
    have = np.asarray(labels)
    if have.shape != each.shape:
        raise FastcamError(f"labels are {list(have.shape)}, scores {list(each.shape)}; give one label per box")
    if label not in have:
        raise FastcamError(f"no box has label {label}; there are boxes of {sorted({int(one) for one in have})}")
    return int(np.where(have == label, each, -np.inf).argmax())


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
    cotangent = np.zeros((len(y), len(sides), *y.shape[1:]), np.float32)
    for t, side in enumerate(sides):
        cotangent[:, t, box] = side_slope(side, form)
    return cotangent


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
    layout = Layout({"y": y}, "y", "y", objectness=objectness, turned=axis == 1)
    classes = y.shape[axis] - first
    arrays = layout.zeros(len(parts), ("y",))
    cotangents = layout.parts(arrays)
    for t, part in enumerate(parts):
        for n, k in enumerate(_boxes(layout.parts(layout.outputs), part, box)):
            if not isinstance(part, str):
                check_index((part,), (classes,))
            layout.fill(cotangents, (n, t), k, part, form)
    return arrays["y"]


def _boxes(own: Parts, part: int | str, box: int | Sequence[int] | None) -> list[int]:
    """The box of each image."""
    assert own.classes is not None
    images, count, classes = own.classes.shape
    if box is None:
        if isinstance(part, str):
            raise FastcamError(f"{part!r} is a side of which box? give box")
        check_index((part,), (classes,))
        scores = own.classes[:, :, part] * (own.objectness if own.objectness is not None else 1)
        return [int(k) for k in scores.argmax(1)]
    where = [box] * images if isinstance(box, int | np.integer) else list(box)
    if len(where) != images:
        raise FastcamError(f"{len(where)} boxes were given for {images} images; give one each")
    for k in where:
        check_index((k,), (count,))
    return where


# ---- in words


def _box_spec(spec: Spec, file: File) -> SpecFunction:
    """The best box, or the best of a class: its score, or sides of it, one target each."""
    parts = [word for word in spec.words if word in (*SIDES, "score")] or ["score"]
    named = [word for word in spec.words if word not in (*SIDES, "score")]
    if len(named) > 1:
        raise spec.wrong(f"one class at a time, got {', '.join(named)}; repeat --cotangent for others")
    wanted = index(spec, named[0], file.classes(spec, None)) if named else None
    which = int(spec.number("box", -1))
    option = spec.choice("form", ("", "corners", "centre"))
    refuse_unexplained(spec, file)

    def function(outputs: Outputs) -> SpecResult:
        layout = layout_of(spec, file, outputs, parts, wanted)
        boxes, scores = layout.values()
        form = option or layout.form
        if boxes is not None and parts != ["score"]:
            _check_form(spec, boxes, form)
        arrays, names, values = layout.zeros(len(parts), [one.output for one in file.about]), [], []
        cotangents = layout.parts(arrays)
        for n, (k, c, label) in enumerate(_picked(spec, file, scores, layout.labels, which, wanted)):
            for t, part in enumerate(parts):
                layout.fill(cotangents, (n, t), k, c if part == "score" else part, form)
            names.append(tuple(f"{part} of {label}" if part != "score" else label for part in parts))
            values.append([_value(boxes, scores[n, k, c], (n, k), part, form) for part in parts])
        return SpecResult(arrays, tuple(names), np.array(values))

    return function


def _picked(
    spec: Spec, file: File, scores_of: Double, labels_of: NDArray[np.int64] | None, which: int, wanted: int | None
) -> Iterator[tuple[int, int, str]]:
    """Of each image the box, the column of its score, and what it is called."""
    for n, scores in enumerate(scores_of):
        if not len(scores):
            raise spec.wrong(f"the model finds no box in picture {n + 1} of its run")
        labels = None if labels_of is None else labels_of[n]
        column = _column(spec, file, scores, labels, wanted)
        order = np.argsort(-column, kind="stable")[: int((column > -np.inf).sum())]
        if not -len(order) <= which < len(scores):
            raise spec.wrong(
                f"there are {len(order)} such boxes; box is a number from 0, or a rank -1 to -{len(order)}"
            )
        k = int(order[-which - 1]) if which < 0 else which
        c = 0 if scores.shape[1] == 1 else int(scores[k].argmax()) if wanted is None else wanted
        meant = c if labels is None else int(labels[k])
        known = scores.shape[1] > 1 or labels is not None
        yield k, c, f"{file.label(meant)} (box {k})" if known else f"box {k}"


def _column(spec: Spec, file: File, scores: Double, labels: NDArray[np.int64] | None, wanted: int | None) -> Double:
    """[B]: what boxes are ranked by; -inf where one is of another class."""
    if wanted is None:
        return np.asarray(scores.max(1))
    if labels is not None:
        if wanted not in labels:
            best = labels[np.argsort(-scores[:, 0], kind="stable")].tolist()
            there = ", ".join(file.label(int(k)) for k in list(dict.fromkeys(best))[:8])
            raise spec.wrong(f"no box of {file.label(wanted)}; there are boxes of {there}")
        return np.where(labels == wanted, scores[:, 0], -np.inf)
    if scores.shape[1] == 1:
        raise spec.wrong("no output says labels of these boxes, so none can be named; leave the class out")
    if wanted >= scores.shape[1]:
        raise spec.wrong(f"class {wanted} is out of range: boxes have {scores.shape[1]} classes, from 0")
    return np.asarray(scores[:, wanted])


def _value(boxes: Double | None, score: float, at: tuple[int, int], part: str, form: str) -> float:
    """The score, or a side of the box of an image."""
    if part == "score":
        return float(score)
    assert boxes is not None
    return float(side_slope(part, form).astype(np.float64) @ boxes[at])


def _check_form(spec: Spec, boxes: Double, form: str) -> None:
    """Raise where the boxes' numbers contradict what they are taken for."""
    sizes = boxes[..., 2:] - boxes[..., :2] if form == "corners" else boxes[..., 2:]
    span = float(np.abs(boxes).max(initial=0)) or 1.0
    if (sizes < -1e-4 * span).any():
        other = "centre" if form == "corners" else "corners"
        raise spec.wrong(f"taken as {form}, some boxes have a negative size; add form={other}")


KINDS = {
    "box": Kind(
        "box:NAME,x0", "detection: the best box (of a class), its score or sides x0 y0 x1 y1; box=-2 is the second",
        (1, 2), ("box", "layout", "form", "boxes", "scores", "output"), _box_spec,
        lambda spec: True,
    )
}  # fmt: skip
