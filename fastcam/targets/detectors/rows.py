"""Detectors whose boxes are rows of one output, or of one output for boxes and one for scores.

Layouts of one output, as their exporters write them (B boxes, C classes):

    v5        [N, B, 5 + C]   centre, size, objectness, classes; the score is their product (YOLOv5, v7, YOLOX)
    v8        [N, 4 + C, B]   centre, size, classes (YOLOv8 to v12); behind them a segmenter's mask coefficients, key
                              points, or the angle of turned boxes
    detr      [N, B, 4 + C]   centre, size, classes (RT-DETR)
    v10       [N, B, 6]       corners, score, label (YOLOv10, exports with NMS); behind them as of v8
    nanodet   [N, B, C + 4 bins]   classes, and distributions over the distances of the sides (NanoDet)
    v7        [B, 7]          image, corners, label, score (YOLOv7 with NMS)
    paddle    [B, 6]          label, score, corners (PaddleDetection with NMS)
    caffe     [1, 1, B, 7]    image, label, score, corners; the list ends at an image of -1 (SSD of Caffe and OpenVINO)

Or boxes [N, B, 4] or [B, 4] in an output of their own, beside scores of one class each, with labels in a third, or of
all classes, either axis first: SSD, DETR, R-CNN, and what is left behind NonMaxSuppression.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam.errors import FastcamError, listed
from fastcam.input_files import read_array
from fastcam.targets.arrays import Double, are_probabilities, softmax
from fastcam.targets.detectors import decoding
from fastcam.targets.detectors.decoding import Decode
from fastcam.targets.detectors.forms import Detections, Index, Level, Numbers
from fastcam.targets.detectors.levels import BINS, Size
from fastcam.targets.detectors.tables import meant, pyramid
from fastcam.targets.spec_parser import File, Spec

LAYOUTS = ("v5", "v8", "detr", "v10", "nanodet", "v7", "paddle", "caffe")
DECODES: dict[str, Decode] = {
    "corners": decoding.corners, "centre": decoding.centre, "rows-first": decoding.rows_first,
    "exponential": decoding.exponential, "ssd": decoding.ssd,
}  # fmt: skip
"""What ``form=`` may say of four numbers; the last two count from priors."""
QUERIES = 1000
"""The most boxes of a transformer, which are round numbers: 100, 300, 900."""
RELATIVE = 2.0
"""Corners up to here are shares of the picture's sides."""


# ---- one output


def one_output(spec: Spec, file: File, arrays: Mapping[str, NDArray[Any]], size: Size) -> Detections:
    """The form of the only explained output with rows.

    Raises:
        FastcamError: there are several, or its layout cannot be told.
    """
    whole = [one for one in file.about if is_caffe(one.shape)]
    about = whole[0] if len(whole) == 1 else file.output(spec, (2,))
    y = np.asarray(arrays[about.output], np.float64)
    y = y if about.batched else y[None]
    y = y[:, 0] if whole else y
    layout = spec.choice("layout", ("", *LAYOUTS))
    layout = layout or ("caffe" if whole else _layout(spec, file, y, about.batched, size))
    if layout == "caffe":
        return _caffe(spec, about.output, y, size)
    index: Index = np.arange(math.prod(y.shape[1:]), dtype=np.int64).reshape(y.shape[1], y.shape[2])
    rows = index.T if layout == "v8" else index
    values = y.swapaxes(1, 2) if layout == "v8" else y
    made = _columns(layout, rows.shape[1], len(file.labels) if file.labels is not None else None, values)
    boxes = Numbers(about.output, rows[:, made.boxes])
    numbers = values[..., made.boxes]
    decode, priors, scale = _absolute(made.decode, numbers, size)
    if layout == "v5" and _raw(spec, numbers):
        where = pyramid(len(rows), size)
        decode, priors, scale = decoding.exponential, where, (1.0, 1.0)
    elif layout == "nanodet":
        priors, scale = pyramid(len(rows), size, 0.0), (1.0, 1.0)
    level = Level(
        Numbers(about.output, rows[:, made.classes]),
        () if made.factor is None else (Numbers(about.output, rows[:, [made.factor]]),),
        boxes,
        DECODES[spec.options["form"]] if "form" in spec.options else decode,
        priors,
    )
    labels = None if made.label is None else values[..., made.label].astype(np.int64)
    scores = values[..., made.classes]
    return Detections(layout, {about.output: y}, (level,), labels, _outside(scores), scale=scale)


def is_caffe(shape: Sequence[int | str]) -> bool:
    """Whether this is the shape of a list of detections, for one image."""
    return len(shape) == 3 and shape[0] == 1 and shape[2] == 7


def _caffe(spec: Spec, output: str, y: Double, size: Size) -> Detections:
    """A list that ends where the number of the image is -1."""
    if y.shape[2] != 7 or len(y) != 1:
        raise spec.wrong(f"a list of caffe is [1, 1, boxes, 7] of one image, got {list(y.shape)}")
    ends = (y[0, :, 0] < 0).argmax() if (y[0, :, 0] < 0).any() else y.shape[1]
    index: Index = np.arange(math.prod(y.shape[1:]), dtype=np.int64).reshape(y.shape[1], 7)[:ends]
    rows = y[:, :ends]
    decode, priors, scale = _absolute(decoding.corners, rows[..., 3:], size)
    level = Level(Numbers(output, index[:, 2:3]), (), Numbers(output, index[:, 3:]), decode, priors)
    return Detections("caffe", {output: y}, (level,), rows[..., 1].astype(np.int64), scale=scale)


class _Columns:
    """Where the numbers of a row stand."""

    def __init__(
        self,
        classes: slice,
        boxes: Sequence[int],
        decode: Decode,
        factor: int | None = None,
        label: int | None = None,
    ) -> None:
        self.classes, self.boxes, self.decode = classes, list(boxes), decode
        self.factor, self.label = factor, label


def _columns(layout: str, width: int, names: int | None, values: Double) -> _Columns:
    """Of each layout, for rows of ``width`` numbers."""
    first = range(4)
    if layout == "v5":
        return _Columns(slice(5, None), first, decoding.centre, factor=4)
    if layout == "v10":
        is_turned = width == 7 and not _ordered(values[..., :4])
        boxes = [*first, 6] if is_turned else first
        return _Columns(slice(4, 5), boxes, decoding.turned if is_turned else decoding.corners, label=5)
    if layout == "v7":
        return _Columns(slice(6, 7), range(1, 5), decoding.corners, label=5)
    if layout == "paddle":
        return _Columns(slice(1, 2), range(2, 6), decoding.corners, label=0)
    if layout == "nanodet":
        classes = names if names is not None else width - 4 * BINS[0]
        return _Columns(slice(0, classes), range(classes, width), decoding.bins)
    end = 4 + (names if names is not None else _probabilities(values) if layout == "v8" else width)
    is_turned = layout == "v8" and width == end + 1
    return _Columns(
        slice(4, end), [*first, end] if is_turned else first, decoding.turned if is_turned else decoding.centre
    )


def _probabilities(rows: Double) -> int:
    """How many columns behind a box's four numbers are probabilities; key points, angles, coefficients are none."""
    columns = rows[..., 4:].reshape(-1, rows.shape[2] - 4)
    outside = np.asarray((columns < 0).any(0) | (columns > 1).any(0))
    return int(outside.argmax()) if outside.any() else columns.shape[1]


def _layout(spec: Spec, file: File, y: Double, batched: bool, size: Size) -> str:
    """The layout of an output [N, a, b], by its shape, the number of class names, and the values.

    Raises:
        FastcamError: it may be several, or none.
    """
    a, b = y.shape[1:]
    names = len(file.labels) if file.labels is not None else None
    fitting = []
    listed = _listed(y, batched)
    if listed:
        fitting.append(listed)
    elif names is not None:
        fitting += ["v5"] * (b == 5 + names) + ["detr"] * (b == 4 + names) + ["v8"] * (a >= 4 + names and a < b)
        fitting += ["nanodet"] * any(b == names + 4 * bins for bins in BINS)
    elif b > a > 4 and _probabilities(y.swapaxes(1, 2)):
        fitting.append("v8")
    elif a > b > 5 and not _outside(y[..., 4:]):  # each cell of a pyramid has an objectness, a query has none
        fitting += ["v5"] * (pyramid(a, size) is not None) or ["detr"] * (a <= QUERIES and a % 50 == 0)
    if len(fitting) == 1:
        return fitting[0]
    why = f"with {names} class names" if names is not None else "without class names"
    raise spec.wrong(
        f"the boxes of an output {[a, b]} {why} may lie in several ways; say layout=v5 ([boxes, 5 + classes]), "
        "v8 ([4 + classes, boxes]), detr ([boxes, 4 + classes]), v10 ([boxes, 6]: corners, score, label) or caffe "
        "([boxes, 7]: image, label, score, corners)"
    )


def _listed(y: Double, batched: bool) -> str:
    """The layout of a list of boxes with a score and a label each; "" where it is none."""
    width = y.shape[2]
    if not batched and width == 7 and _labels(y[..., 5]) and _ordered(y[..., 1:5]) and not _outside(y[..., 6]):
        return "v7"
    if (
        width == 7
        and _labels(y[..., 0] + 1)
        and _labels(y[..., 1])
        and not _outside(y[..., 2])
        and _ordered(y[..., 3:])
    ):
        return "caffe"
    listed = width >= 6 and y.shape[1] >= width and _labels(y[..., 5]) and not _outside(y[..., 4])
    if listed and (width == 7 or _ordered(y[..., :4])):
        return "v10"
    if width == 6 and _labels(y[..., 0]) and not _outside(y[..., 1]) and _ordered(y[..., 2:6]):
        return "paddle"
    return ""


def _raw(spec: Spec, numbers: Double) -> bool:
    """Whether centre and size are still to be decoded, as YOLOX gives them: sizes are logarithms."""
    return "form" not in spec.options and bool((numbers[..., 2:4] < 0).any())


# ---- boxes and scores apart


def apart(spec: Spec, file: File, arrays: Mapping[str, NDArray[Any]], boxes: str, size: Size) -> Detections:
    """Boxes in an output of their own, and the scores and labels that fit them.

    Raises:
        FastcamError: it cannot be told which they are.
    """
    y = arrays[boxes]
    lead = y.shape[:-1]
    scores, labels = _scores_of(spec, arrays, boxes)
    score = np.asarray(arrays[scores], np.float64)
    y = np.asarray(y, np.float64)
    if len(lead) == 1:  # boxes of one image
        y, score, labels = y[None], score[None], None if labels is None else labels[None]
    if score.ndim == y.ndim - 1:
        rows = np.arange(math.prod(score.shape[1:]), dtype=np.int64)[:, None]
    else:
        rows = np.arange(math.prod(score.shape[1:]), dtype=np.int64).reshape(score.shape[1:])
        if score.shape[1] != y.shape[1]:
            rows, score = rows.T, score
    of_boxes = np.arange(math.prod(y.shape[1:]), dtype=np.int64).reshape(y.shape[1:])
    columns = score.reshape(len(score), -1)[:, rows]
    logits = _outside(columns)
    names = len(file.labels) if file.labels is not None else None
    background = _background(columns, logits, names)
    decode, priors, scale = _four(spec, boxes, y, size)
    level = Level(Numbers(scores, rows), (), Numbers(boxes, of_boxes), decode, priors)
    return Detections(
        "boxes and scores",
        {boxes: y, scores: np.asarray(arrays[scores], np.float64).reshape(score.shape)},
        (level,),
        labels,
        logits,
        background,
        counted_from=int(background == 0 and names is not None and names < columns.shape[2]),
        scale=scale,
    )


def boxes_of(spec: Spec, arrays: Mapping[str, NDArray[Any]], softmaxes: Container[str] = ()) -> str | None:
    """The output with nothing but boxes; None where there is none. ``softmaxes``: outputs that are none.

    Raises:
        FastcamError: there are several.
    """
    boxes = [name for name, y in arrays.items() if y.dtype.kind == "f" and y.ndim in (2, 3) and y.shape[-1] == 4]
    named = [name for name in boxes if meant(name) == "box"]
    if "boxes" in spec.options:
        boxes = [name for name in boxes if name == spec.options["boxes"]]
        if not boxes:
            raise spec.wrong(f"{spec.options['boxes']!r} is no output of boxes, [..., 4]")
    elif len(boxes) > 1:
        boxes = named if len(named) == 1 else [name for name in boxes if name not in softmaxes]
    if len(boxes) > 1:
        raise spec.wrong(f"which output has the boxes? add boxes=NAME, one of {listed(boxes)}")
    return boxes[0] if boxes else None


def _scores_of(spec: Spec, arrays: Mapping[str, NDArray[Any]], boxes: str) -> tuple[str, NDArray[np.int64] | None]:
    """The output with the scores of boxes, and the labels in another, if there are any."""
    lead = arrays[boxes].shape[:-1]
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
    named = [name for name in scores if any(word in name.lower() for word in ("score", "logit", "conf", "cls"))]
    scores = named if len(named) == 1 else scores
    if len(scores) != 1:
        have = f"one of {listed(scores)}" if scores else f"none has the shape {list(lead)} of the boxes"
        raise spec.wrong(f"which output has the scores of {boxes}? add scores=NAME ({have})")
    labels = next((arrays[name].astype(np.int64) for name in likely if name != scores[0]), None)
    return scores[0], labels if arrays[scores[0]].ndim == len(lead) else None


def _per_class(array: NDArray[Any], lead: tuple[int, ...]) -> bool:
    """Whether scores have one more axis than boxes are counted by, the last or the one before."""
    return array.ndim == len(lead) + 1 and lead in (array.shape[:-1], (*array.shape[:-2], array.shape[-1]))


def _background(columns: Double, logits: bool, names: int | None) -> int | None:
    """The column that says that there is no object: of those behind a softmax the first or last, the likelier one."""
    count = columns.shape[2]
    if count < 2 or not columns.shape[1]:
        return None
    rows = columns.reshape(-1, count)
    if not logits and not are_probabilities(rows):
        return None
    if names is not None and count not in (names, names + 1):
        return None
    mean = (softmax(rows) if logits else rows).mean(0)
    likelier = 0 if mean[0] >= mean[-1] else count - 1
    if names is not None and count == names + 1:
        return likelier
    return likelier if mean[likelier] > 0.5 else None


def _four(spec: Spec, name: str, numbers: Double, size: Size) -> tuple[Decode | None, Double | None, Any]:
    """How four numbers are a box, as the option says or the values tell."""
    option = spec.options.get("form", "")
    path = spec.options.get("priors")
    if path is not None:
        priors = _priors(spec, path, numbers.shape[1])
        return DECODES[option or "ssd"], priors, (1.0, 1.0) if np.abs(priors).max() > RELATIVE else _pixels(size)
    if option in ("exponential", "ssd"):
        raise spec.wrong(
            f"form={option} counts from anchors; give them as priors=FILE.npy, [boxes, 4]: centre and size"
        )
    if not option and "detection_boxes" in name.lower():
        return _absolute(decoding.rows_first, numbers, size)
    if option or _ordered(numbers):
        return _absolute(DECODES[option or "corners"], numbers, size)
    if (numbers[..., 2:] >= 0).all():
        return _absolute(decoding.centre, numbers, size)
    return None, None, None  # they count from anchors that nobody told


def _priors(spec: Spec, path: str, count: int) -> Double:
    try:
        priors = np.asarray(read_array(path, "give a .npy file of anchors, [boxes, 4]"), np.float64)
    except (FastcamError, TypeError, ValueError) as error:
        raise spec.wrong(str(error)) from error
    if priors.shape != (count, 4):
        raise spec.wrong(f"{path} holds {list(priors.shape)}, the boxes are [{count}, 4]; give centre and size of each")
    return priors


def _absolute(decode: Decode | None, numbers: Double, size: Size) -> tuple[Decode | None, Double | None, Any]:
    """Numbers that count from the picture's corner, in pixels or as shares of its sides; pixels in a unit."""
    priors = np.tile(np.array([0.0, 0, 1, 1]), (numbers.shape[1], 1))
    finite = np.abs(numbers[..., :4]).max(initial=0)
    return decode, priors, _pixels(size) if finite <= RELATIVE else (1.0, 1.0)


def _pixels(size: Size) -> tuple[float, float] | None:
    return None if size is None else (float(size[1]), float(size[0]))


def _ordered(boxes: Double) -> bool:
    """Whether these are corners, but for rounding."""
    span = float(np.abs(boxes).max(initial=0)) or 1.0
    return bool((boxes[..., 2:4] - boxes[..., :2] >= -1e-4 * span).all())


def _labels(values: Double) -> bool:
    return bool((values == np.rint(values)).all() and (values >= 0).all())


def _outside(values: Double) -> bool:
    """Whether they are no scores from 0 to 1."""
    return bool(values.size and (values.min() < 0 or values.max() > 1))
