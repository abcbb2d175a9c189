"""Specs of boxes: where a detector's outputs keep boxes, scores and labels, and what "box:dog,x0" means there.

Layouts of one output, as their exporters write them (B boxes, C classes):

    v5     [N, B, 5 + C]   centre, size, objectness, classes; the score is their product (YOLOv5, v7, YOLOX)
    v8     [N, 4 + C, B]   centre, size, classes (YOLOv8 to v12); of segmenters mask coefficients follow
    detr   [N, B, 4 + C]   centre, size, classes (RT-DETR)
    v10    [N, B, 6]       corners, score, label (YOLOv10, exports with NMS)

Or boxes [N, B, 4] or [B, 4] in an output of their own, beside scores of one class each, with labels in a third, or of
all classes (either axis first).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam.image.preprocess import Float
from fastcam.schema import Cotangent
from fastcam.targets.detection_cotangents import SIDES, Double, side_of
from fastcam.targets.spec_parser import File, Outputs, Spec, SpecFunction, SpecResult, index

LAYOUTS = ("v5", "v8", "detr", "v10")


@dataclass(frozen=True)
class Table:
    """The boxes of the images of a run.

    Attributes:
        boxes: [N, B, 4]; None where the outputs have none.
        scores: [N, B, C], or [N, B, 1] where each box has one label.
        labels: [N, B], or None.
        form: what the four numbers are, as :func:`fastcam.targets.detection_cotangents.coordinate` takes it.
    """

    boxes: Double | None
    scores: Double
    labels: NDArray[np.int64] | None
    form: str


@dataclass(frozen=True)
class Dense:
    """Boxes in one output."""

    about: Cotangent
    layout: str
    rows: Double

    def table(self, labels: int | None) -> Table:
        boxes, rest = self.rows[:, :, :4], self.rows[:, :, 4:]
        if self.layout == "v10":
            return Table(boxes, rest[:, :, :1], rest[:, :, 1].astype(np.int64), "corners")
        scores = rest[:, :, :1] * rest[:, :, 1:] if self.layout == "v5" else rest[:, :, :labels]
        return Table(boxes, scores, None, "centre")

    def empty(self, count: int) -> dict[str, Float]:
        """Zeros for ``count`` targets, to be filled by box."""
        return {self.about.output: np.zeros((len(self.rows), count, *self.rows.shape[1:]), np.float32)}

    def fill_side(self, made: dict[str, Float], at: tuple[int, int], box: int, slope: Float) -> None:
        made[self.about.output][(*at, box, slice(4))] = slope

    def fill_score(self, made: dict[str, Float], at: tuple[int, int], box: int, c: int) -> None:
        row, slope = self.rows[at[0], box], made[self.about.output][(*at, box)]
        if self.layout == "v5":  # the score is objectness times class
            slope[4], slope[5 + c] = row[5 + c], row[4]
        else:
            slope[4 + c] = 1

    def finished(self, made: dict[str, Float]) -> dict[str, Float]:
        """In the output's own order of axes."""
        return {name: array.swapaxes(2, 3) if self.layout == "v8" else array for name, array in made.items()}


@dataclass(frozen=True)
class Separate:
    """Boxes in an output of their own.

    Attributes:
        about: which of the two the file explains, by name.
        turned: whether the scores of all classes have the axis of boxes last.
    """

    about: dict[str, Cotangent]
    box: tuple[str, Double | None]
    score: tuple[str, Double]
    labels: NDArray[np.int64] | None
    form: str
    turned: bool

    def table(self, labels: int | None) -> Table:
        scores = self.score[1].swapaxes(1, 2) if self.turned else self.score[1]
        return Table(self.box[1], scores if scores.ndim == 3 else scores[:, :, None], self.labels, self.form)

    def empty(self, count: int) -> dict[str, Float]:
        pairs = (self.box, self.score)
        return {
            name: np.zeros((len(y), count, *y.shape[1:]), np.float32)
            for name, y in pairs
            if name in self.about and y is not None
        }

    def fill_side(self, made: dict[str, Float], at: tuple[int, int], box: int, slope: Float) -> None:
        made[self.box[0]][(*at, box)] = slope

    def fill_score(self, made: dict[str, Float], at: tuple[int, int], box: int, c: int) -> None:
        if self.score[1].ndim == 2:
            made[self.score[0]][(*at, box)] = 1
        else:
            made[self.score[0]][(*at, c, box) if self.turned else (*at, box, c)] = 1

    def finished(self, made: dict[str, Float]) -> dict[str, Float]:
        return made


# ---- the spec


def box(spec: Spec, file: File) -> SpecFunction:
    """The best box, or the best of a class: its score, or sides of it, one target each."""
    parts = [word for word in spec.words if word in (*SIDES, "score")] or ["score"]
    named = [word for word in spec.words if word not in (*SIDES, "score")]
    if len(named) > 1:
        raise spec.wrong(f"one class at a time, got {', '.join(named)}; repeat --cotangent for others")
    wanted = index(spec, named[0], file.classes(spec, None)) if named else None
    which = int(spec.number("box", -1))
    form = spec.choice("form", ("", "corners", "centre"))
    _refuse_unexplained(spec, file, parts)

    def made(outputs: Outputs) -> SpecResult:
        source = _source(spec, file, outputs, parts, wanted)
        table = source.table(len(file.labels) if file.labels is not None else None)
        _check_form(spec, table, form or table.form, parts)
        arrays, names, values = source.empty(len(parts)), [], []
        for n, (k, c, label) in enumerate(_picked(spec, file, table, which, wanted)):
            for t, part in enumerate(parts):
                if part == "score":
                    source.fill_score(arrays, (n, t), k, c)
                else:
                    source.fill_side(arrays, (n, t), k, side_of(part, form or table.form))
            names.append(tuple(f"{part} of {label}" if part != "score" else label for part in parts))
            values.append([_value(table, n, k, c, part, form or table.form) for part in parts])
        return SpecResult(source.finished(arrays), tuple(names), np.array(values))

    return made


def _picked(spec: Spec, file: File, table: Table, which: int, wanted: int | None) -> Iterator[tuple[int, int, str]]:
    """Of each image the box, the column of its score, and what it is called."""
    for n, scores in enumerate(table.scores):
        if not len(scores):
            raise spec.wrong(f"the model finds no box in picture {n + 1} of its run")
        labels = None if table.labels is None else table.labels[n]
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


def _value(table: Table, n: int, k: int, c: int, part: str, form: str) -> float:
    if part == "score":
        return float(table.scores[n, k, c])
    assert table.boxes is not None
    return float(side_of(part, form).astype(np.float64) @ table.boxes[n, k])


def _check_form(spec: Spec, table: Table, form: str, parts: list[str]) -> None:
    """Raise where the boxes' numbers contradict what they are taken for."""
    if table.boxes is None or parts == ["score"]:
        return
    sizes = table.boxes[..., 2:] - table.boxes[..., :2] if form == "corners" else table.boxes[..., 2:]
    span = float(np.abs(table.boxes).max(initial=0)) or 1.0
    if (sizes < -1e-4 * span).any():
        other = "centre" if form == "corners" else "corners"
        raise spec.wrong(f"taken as {form}, some boxes have a negative size; add form={other}")


# ---- where things are


def _refuse_unexplained(spec: Spec, file: File, parts: list[str]) -> None:
    """Raise where the file can have no boxes."""
    if not any(len(one.shape) in (1, 2, 3) and _may_be_boxes(one) for one in file.about):
        have = ", ".join(f"{one.output} {list(one.shape)}" for one in file.about)
        raise spec.wrong(f"{file.name} explains {have}, which are no boxes or scores of boxes")


def _may_be_boxes(about: Cotangent) -> bool:
    return len(about.shape) == 2 or not about.batched or any(isinstance(d, str) for d in about.shape)


def _source(spec: Spec, file: File, outputs: Outputs, parts: list[str], wanted: int | None) -> Dense | Separate:
    """Where the boxes are, and the outputs that they are in."""
    arrays = {name: np.asarray(value) for name, value in outputs.items() if hasattr(value, "shape")}
    boxes = _boxes(spec, arrays)
    if boxes:
        found = _separate(spec, file, arrays, boxes[0])
        if found.score[1].ndim == 3 and wanted is None:
            raise spec.wrong(f"{found.score[0]} has a score for each class; name one, as in box:0")
        for name, asked in ((found.score[0], "score" in parts), (boxes[0], parts != ["score"])):
            if asked and name not in found.about:
                raise spec.wrong(f"{file.name} does not explain {name}; export again with --output-name {name} as well")
        return found
    about = file.output(spec, (2,))
    y = np.asarray(arrays[about.output], np.float64)
    y = y if about.batched else y[None]
    layout = spec.choice("layout", ("", *LAYOUTS)) or _layout(spec, file, y)
    return Dense(about, layout, y.swapaxes(1, 2) if layout == "v8" else y)


def _boxes(spec: Spec, arrays: dict[str, NDArray[Any]]) -> list[str]:
    """The output with nothing but boxes; none where there is none."""
    boxes = [name for name, y in arrays.items() if y.dtype.kind == "f" and y.ndim in (2, 3) and y.shape[-1] == 4]
    named = [name for name in boxes if "box" in name.lower()]
    if "boxes" in spec.options:
        boxes = [name for name in boxes if name == spec.options["boxes"]]
        if not boxes:
            raise spec.wrong(f"{spec.options['boxes']!r} is no output of boxes, [..., 4]")
    elif len(boxes) > 1 and len(named) == 1:
        boxes = named
    if len(boxes) > 1:
        raise spec.wrong(f"which output has the boxes? add boxes=NAME, one of {', '.join(boxes)}")
    return boxes


def _separate(spec: Spec, file: File, arrays: dict[str, NDArray[Any]], boxes: str) -> Separate:
    about = {one.output: one for one in file.about}
    y = arrays[boxes]
    lead = y.shape[:-1]
    scores = [
        name
        for name, array in arrays.items()
        if name != boxes
        and array.dtype.kind == "f"
        and spec.options.get("scores", name) == name
        and (array.shape == lead or _per_class(array, lead))
    ]
    likely = [name for name, a in arrays.items() if name != boxes and a.shape == lead and (a == np.rint(a)).all()]
    scores = [name for name in scores if name not in likely] or scores  # labels may be floats
    if len(scores) != 1:
        found = f"one of {', '.join(scores)}" if scores else f"none has the shape {list(lead)} of the boxes"
        raise spec.wrong(f"which output has the scores of {boxes}? add scores=NAME ({found})")
    score = np.asarray(arrays[scores[0]], np.float64)
    turned = score.ndim > len(lead) and score.shape[:-1] != lead
    labels = next((arrays[name].astype(np.int64) for name in likely if name != scores[0]), None)
    y = y.astype(np.float64)
    if len(lead) == 1:  # boxes of one image
        y, score, labels = y[None], score[None], None if labels is None else labels[None]
    return Separate(about, (boxes, y), (scores[0], score), labels, "corners", turned)


def _per_class(array: NDArray[Any], lead: tuple[int, ...]) -> bool:
    """Whether scores have one more axis than boxes are counted by, the last or the one before."""
    return array.ndim == len(lead) + 1 and lead in (array.shape[:-1], (*array.shape[:-2], array.shape[-1]))


def _layout(spec: Spec, file: File, y: Double) -> str:
    """The layout of an output [N, a, b], by its shape, the number of class names, and the values.

    Raises:
        FastcamError: it may be several, or none.
    """
    a, b = y.shape[1:]
    names = len(file.labels) if file.labels is not None else None
    found = []
    if b == 6 and _is_end_to_end(y):
        found.append("v10")
    elif names is not None:
        found += ["v5"] * (b == 5 + names) + ["detr"] * (b == 4 + names) + ["v8"] * (a >= 4 + names and a < b)
    elif a < b and a > 4 and _are_scores(y[:, 4:]):
        found.append("v8")
    if len(found) == 1:
        return found[0]
    why = f"with {names} class names" if names is not None else "without class names"
    raise spec.wrong(
        f"the boxes of an output {[a, b]} {why} may lie in several ways; say layout=v5 ([boxes, 5 + classes]), "
        "v8 ([4 + classes, boxes]), detr ([boxes, 4 + classes]) or v10 ([boxes, 6]: corners, score, label)"
    )


def _is_end_to_end(y: Double) -> bool:
    """Whether rows are corners, score and label."""
    ordered = (y[:, :, 2] >= y[:, :, 0]).all() and (y[:, :, 3] >= y[:, :, 1]).all()
    return bool(ordered and _are_scores(y[:, :, 4]) and (y[:, :, 5] == np.rint(y[:, :, 5])).all())


def _are_scores(values: Double) -> bool:
    return bool((values >= 0).all() and (values <= 1).all())
