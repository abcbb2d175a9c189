"""Where a detector's outputs keep boxes, scores and labels.

Layouts of one output, as their exporters write them (B boxes, C classes):

    v5     [N, B, 5 + C]   centre, size, objectness, classes; the score is their product (YOLOv5, v7, YOLOX)
    v8     [N, 4 + C, B]   centre, size, classes (YOLOv8 to v12); of segmenters mask coefficients follow
    detr   [N, B, 4 + C]   centre, size, classes (RT-DETR)
    v10    [N, B, 6]       corners, score, label (YOLOv10, exports with NMS)

Or boxes [N, B, 4] or [B, 4] in an output of their own, beside scores of one class each, with labels in a third, or of
all classes (either axis first).
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fastcam.errors import FastcamError
from fastcam.image.preprocess import Float
from fastcam.schema import Cotangent
from fastcam.targets.arrays import Double
from fastcam.targets.spec_parser import File, Outputs, Spec

LAYOUTS = ("v5", "v8", "detr", "v10")
Side = Literal["x0", "y0", "x1", "y1"]
SIDES: tuple[Side, ...] = ("x0", "y0", "x1", "y1")


def side_slope(name: str, form: str) -> Float:
    """How a side follows from a box's four numbers, float32 [4]."""
    if name not in SIDES or form not in ("corners", "centre"):
        raise FastcamError(f"a side is one of {', '.join(SIDES)}, form corners or centre; got {name!r}, {form!r}")
    if form == "corners":
        return np.asarray(np.eye(4, dtype=np.float32)[SIDES.index(name)])
    slope: Float = np.zeros(4, np.float32)
    slope["xy".index(name[0])] = 1
    slope["xy".index(name[0]) + 2] = 0.5 if name[1] == "1" else -0.5
    return slope


@dataclass(frozen=True)
class Parts:
    """Boxes and scores as views of outputs [N, ...], or of their cotangents [N, T, ...]; None where they are not there.

    Attributes:
        boxes: [..., B, 4].
        classes: [..., B, C], or [..., B, 1] where each box has one label.
        objectness: [..., B]: a factor of the scores of all classes.
    """

    boxes: NDArray[Any] | None
    classes: NDArray[Any] | None
    objectness: NDArray[Any] | None = None


@dataclass(frozen=True)
class Layout:
    """Where the boxes of a run are.

    Attributes:
        outputs: those that hold boxes and scores, float64 [N, ...].
        boxes, scores: their names, the same where one output holds both.
        labels: [N, B], or None.
        form: what a box's four numbers are, as :func:`fastcam.targets.boxes.coordinate` takes it.
        objectness: whether a fifth number of a row is a factor of all its classes' scores.
        turned: whether the scores (and boxes in the same output) have the axis of boxes last.
        count: how many columns behind these numbers are scores; None: all.
    """

    outputs: Mapping[str, Double]
    boxes: str
    scores: str
    labels: NDArray[np.int64] | None = None
    form: str = "centre"
    objectness: bool = False
    turned: bool = False
    count: int | None = None

    def parts(self, arrays: Mapping[str, NDArray[Any]]) -> Parts:
        """Boxes and scores in the outputs, or in cotangents of some of them."""
        scores = arrays.get(self.scores)
        if scores is not None and self.turned:
            scores = scores.swapaxes(-1, -2)
        if self.boxes != self.scores or scores is None:
            if scores is not None and self.outputs[self.scores].ndim == 2:
                scores = scores[..., None]
            return Parts(arrays.get(self.boxes), scores)
        first = 5 if self.objectness else 4
        classes = scores[..., first : None if self.count is None else first + self.count]
        return Parts(scores[..., :4], classes, scores[..., 4] if self.objectness else None)

    def values(self) -> tuple[Double | None, Double]:
        """The boxes [N, B, 4], or None, and the scores [N, B, C]."""
        parts = self.parts(self.outputs)
        assert parts.classes is not None
        return parts.boxes, parts.classes if parts.objectness is None else parts.objectness[..., None] * parts.classes

    def zeros(self, count: int, explained: Container[str]) -> dict[str, Float]:
        """Cotangents of ``count`` targets, of those outputs that are explained."""
        return {
            name: np.zeros((len(y), count, *y.shape[1:]), np.float32)
            for name, y in self.outputs.items()
            if name in explained
        }

    def fill(self, cotangents: Parts, at: tuple[int, int], box: int, part: int | str, form: str) -> None:
        """Set the cotangent of image and target ``at``: of a box's score of a class, or of a side."""
        n, t = at
        if isinstance(part, str):
            assert cotangents.boxes is not None
            cotangents.boxes[n, t, box] = side_slope(part, form)
            return
        own = self.parts(self.outputs)
        assert cotangents.classes is not None
        cotangents.classes[n, t, box, part] = 1 if own.objectness is None else own.objectness[n, box]
        if cotangents.objectness is not None and own.classes is not None:
            cotangents.objectness[n, t, box] = own.classes[n, box, part]


# ---- where things are


def refuse_unexplained(spec: Spec, file: File) -> None:
    """Raise where the file can have no boxes."""
    if not any(len(one.shape) in (1, 2, 3) and _may_be_boxes(one) for one in file.about):
        have = ", ".join(f"{one.output} {list(one.shape)}" for one in file.about)
        raise spec.wrong(f"{file.name} explains {have}, which are no boxes or scores of boxes")


def _may_be_boxes(about: Cotangent) -> bool:
    return len(about.shape) == 2 or not about.batched or any(isinstance(d, str) for d in about.shape)


def layout_of(spec: Spec, file: File, outputs: Outputs, parts: list[str], wanted: int | None) -> Layout:
    """Where the boxes are, and the outputs that they are in."""
    arrays = {name: np.asarray(value) for name, value in outputs.items() if hasattr(value, "shape")}
    boxes = _boxes(spec, arrays)
    if boxes:
        separate = _separate(spec, arrays, boxes[0])
        if separate.outputs[separate.scores].ndim == 3 and wanted is None:
            raise spec.wrong(f"{separate.scores} has a score for each class; name one, as in box:0")
        for name, explained in ((separate.scores, "score" in parts), (boxes[0], parts != ["score"])):
            if explained and name not in [one.output for one in file.about]:
                raise spec.wrong(f"{file.name} does not explain {name}; export again with --output-name {name} as well")
        return separate
    about = file.output(spec, (2,))
    y = np.asarray(arrays[about.output], np.float64)
    y = y if about.batched else y[None]
    layout = spec.choice("layout", ("", *LAYOUTS)) or _layout(spec, file, y)
    own = {about.output: y}
    if layout == "v10":
        return Layout(own, about.output, about.output, y[:, :, 5].astype(np.int64), "corners", count=1)
    count = len(file.labels) if file.labels is not None and layout != "v5" else None
    return Layout(own, about.output, about.output, objectness=layout == "v5", turned=layout == "v8", count=count)


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


def _separate(spec: Spec, arrays: dict[str, NDArray[Any]], boxes: str) -> Layout:
    """Boxes in an output of their own, and the scores and labels that fit them."""
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
        have = f"one of {', '.join(scores)}" if scores else f"none has the shape {list(lead)} of the boxes"
        raise spec.wrong(f"which output has the scores of {boxes}? add scores=NAME ({have})")
    score = np.asarray(arrays[scores[0]], np.float64)
    turned = score.ndim > len(lead) and score.shape[:-1] != lead
    labels = next((arrays[name].astype(np.int64) for name in likely if name != scores[0]), None)
    y = y.astype(np.float64)
    if len(lead) == 1:  # boxes of one image
        y, score, labels = y[None], score[None], None if labels is None else labels[None]
    return Layout({boxes: y, scores[0]: score}, boxes, scores[0], labels, "corners", turned=turned)


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
    fitting = []
    if b == 6 and _is_end_to_end(y):
        fitting.append("v10")
    elif names is not None:
        fitting += ["v5"] * (b == 5 + names) + ["detr"] * (b == 4 + names) + ["v8"] * (a >= 4 + names and a < b)
    elif a < b and a > 4 and _are_scores(y[:, 4:]):
        fitting.append("v8")
    if len(fitting) == 1:
        return fitting[0]
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
