"""Scalars of detectors: the best box, its score, its sides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from fastcam.errors import FastcamError
from fastcam.image.preprocess import Float
from fastcam.targets.arrays import check_index, numbers
from fastcam.targets.box_layouts import SIDES, Layout, Parts, Side, side_slope
from fastcam.targets.detectors.forms import Detections
from fastcam.targets.detectors.picks import Picks
from fastcam.targets.detectors.recognised import form_of, refuse_unexplained
from fastcam.targets.detectors.rows import DECODES
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
    y = numbers(output)
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
        raise spec.wrong(f"one class at a time, got {', '.join(named)}; repeat --target for others")
    wanted = index(spec, named[0], file.classes(spec, None)) if named else None
    spec.choice("form", ("", *DECODES))
    picks = Picks(spec, file, wanted, int(spec.number("box", -1)), int(spec.number("most", 1)))
    refuse_unexplained(spec, file)

    def function(outputs: Outputs) -> SpecResult:
        form = form_of(spec, file, outputs)
        _refuse_parts(spec, file, form, parts)
        rows = picks.of(form)
        most = len(parts) * max(map(len, rows))
        arrays = form.zeros(most, [one.output for one in file.about])
        values, drawn = np.zeros((len(rows), most)), np.full((len(rows), most, 4), np.nan)
        names = []
        for n, row in enumerate(rows):
            targets = [(k, c, label, part) for k, c, label in row for part in parts]
            for t, (k, c, _, part) in enumerate(targets):
                values[n, t] = _explained(form, arrays, (n, t), k, c, part)
                if form.pixels is not None:
                    drawn[n, t] = form.pixels[n, k]
            names.append(tuple(label if part == "score" else f"{part} of {label}" for _, _, label, part in targets))
        return SpecResult(arrays, tuple(names), values, drawn)

    return function


def _explained(form: Detections, arrays: dict[str, Float], at: tuple[int, int], k: int, c: int, part: str) -> float:
    """Sets the cotangent of a target, and gives its value."""
    if part == "score":
        form.fill_score(arrays, at, k, c)
        return float(form.scores[at[0], k, c])
    assert form.corners is not None
    form.fill_side(arrays, at, k, part)
    return float(form.corners[at[0], k, SIDES.index(part)])


def _refuse_parts(spec: Spec, file: File, form: Detections, parts: list[str]) -> None:
    """Raise where the file does not explain what is asked of a box, or nobody knows where its sides are."""
    explained = [one.output for one in file.about]
    asked = {name for part in parts for name in form.reads(part != "score")}
    for name in sorted(asked - {*explained}):
        raise spec.wrong(f"{file.name} does not explain {name}; export again with --output-name {name} as well")
    if parts == ["score"]:
        return
    if form.corners is None:
        raise spec.wrong(
            "no output says where these boxes count from; explain their score, or give the anchors as priors=FILE.npy "
            "([boxes, 4]: centre and size)"
        )
    sizes = form.corners[..., 2:] - form.corners[..., :2]
    if (sizes < -1e-4 * (float(np.abs(form.corners).max(initial=0)) or 1.0)).any():
        other = "centre" if spec.options.get("form", "corners") == "corners" else "corners"
        raise spec.wrong(
            f"taken as {spec.options.get('form', form.name)}, some boxes have a negative size; add form={other}"
        )


KINDS = {
    "box": Kind(
        "box:NAME,x0",
        "detection: the best box (of a class), its score or sides x0 y0 x1 y1; box=-2 is the second, most=5 are the "
        "best five that do not overlap",
        (1, 2, 3, 4),
        ("box", "most", "layout", "form", "boxes", "scores", "priors", "output"),
        _box_spec,
        lambda spec: True,
    )
}
