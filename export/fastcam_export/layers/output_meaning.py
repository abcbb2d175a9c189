"""What each output of a model means, as far as the graph tells: class scores, indices, boxes, maps, sequences.

The evidence, strongest first: a final softmax, log-softmax or sigmoid and its axis; operators that decide (TopK,
ArgMax, a comparison), of which what lies in front is explained; the axes of the image, followed through the graph
(:mod:`fastcam_export.layers.axis_tracing`); what one output makes of another; shapes; last the words in a name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import onnx_ir as ir

from fastcam_export.autodiff.core.builder import FLOATS
from fastcam_export.graph.query import dims_of, readable_dims
from fastcam_export.layers.axis_semantics import is_spatial
from fastcam_export.layers.axis_tracing import Known, trace
from fastcam_export.layers.output_evidence import (
    Activation,
    Named,
    channels_by_size,
    final_activation,
    from_recurrent,
    has_unit_length,
    images_second,
    in_front,
    is_list_of_boxes,
    is_list_of_detections,
    is_one_number,
    made_by_layer,
    named_kind,
    samples_axis,
    was_table,
)

Kind = Literal["scores", "one score", "indices", "boxes", "box scores", "map", "sequence", "embedding", "unknown"]
"""What an output holds.

scores      one number for each class and image: [N, classes], [N, classes, 1, ...]
one score   one number for each image, [N] or [N, 1]: behind a sigmoid one class against another, else any number
indices     what a decision left: labels, indices and values of TopK, ArgMax, a comparison, NonMaxSuppression
boxes       boxes, offsets, key points, anchors
box scores  one number, or one for each class, for each box of another output
map         numbers at every position of the image: [N, classes, h, w] or [N, h, w, classes]
sequence    one number for each word or character at each step: [N, steps, words], or [steps, N, words]
embedding   a vector that is no class scores: what a classifier's last layer reads, or of length one
unknown     none of these, as far as the graph tells
"""


@dataclass(frozen=True)
class Meaning:
    """What one output of a model is.

    Attributes:
        output: its name.
        kind: see :data:`Kind`.
        value: what carries the meaning: the output itself, or what lies in front of the decision that it is, as the
            softmax in front of a TopK.
        reason: how that was found out, a clause for people.
        axis: the axis of the classes (words) in ``value``; None where there is none, or the graph does not tell.
        activation: of which ``value`` is the result, at most viewed, transposed or rounded since; "" for none.
        decided: the operator that decides behind ``value``, "TopK"; "" where ``value`` is the output itself.
        named: which kind the words of its name speak for; "" where they speak for none, or for several.
        steps: of a sequence the axis of its steps in ``value``: 1, or 0 where the images lie along axis 1.
    """

    output: str
    kind: Kind
    value: ir.Value
    reason: str
    axis: int | None = None
    activation: Activation = ""
    decided: str = ""
    named: Named = ""
    steps: int | None = None

    @property
    def probabilities(self) -> bool:
        """Whether the values have passed a softmax or sigmoid."""
        return self.activation in ("Softmax", "Sigmoid")

    @property
    def shape(self) -> tuple[int | str, ...]:
        """Of ``value``; free dimensions by name, or "?"."""
        return readable_dims(self.value)

    def __str__(self) -> str:
        shape = " x ".join(map(str, self.shape)) or "of unknown shape"
        front = f" in front of {self.decided}" if self.decided else ""
        value = f"{self.value.name}{front}, " if self.value.name != self.output else ""
        return f"{self.output} ({value}{shape}: {SAYS[self.kind]})"


DETECTED = "its first axis counts what was detected, not images"
SAYS: dict[Kind, str] = {
    "scores": "class scores",
    "one score": "one number",
    "indices": "indices or decisions",
    "boxes": "boxes or coordinates",
    "box scores": "scores of boxes",
    "map": "a map",
    "sequence": "a sequence",
    "embedding": "an embedding",
    "unknown": "of unknown meaning",
}


def output_meanings(graph: ir.Graph, image: ir.Value) -> list[Meaning]:
    """What each output of a loaded model is, in their order.

    Args:
        graph: a loaded model's.
        image: its image input.
    """
    known = trace(graph, image)
    each = [_alone(output, known, image) for output in graph.outputs]
    return [_among(meaning, each) for meaning in each]


# ---- one output


def _alone(output: ir.Value, known: Known, image: ir.Value) -> Meaning:
    """What an output is by itself."""
    value, decided = in_front(output)
    name = output.name or ""
    named = named_kind(name)
    if value.dtype not in FLOATS or value.shape is None:
        what = f"it holds {value.dtype}" if value.dtype not in (None, *FLOATS) else "the file does not tell its shape"
        return Meaning(name, "indices" if value.dtype not in (None, *FLOATS) else "unknown", output, what, named=named)
    if 0 in dims_of(value):
        return Meaning(name, "unknown", output, "it is empty", named=named)
    activation, axis = final_activation(value)
    about = Meaning(name, "unknown", value, "", axis, activation, decided, named)
    about = _by_shape(about, known, image)
    if decided:
        about = replace(about, reason=f"{about.reason}, in front of {decided}" if about.reason else f"before {decided}")
    return about


def _by_shape(about: Meaning, known: Known, image: ir.Value) -> Meaning:
    value = about.value
    dims = dims_of(value)
    ends = f"it ends in the {about.activation.lower()} {value.name!r}" if about.activation else ""
    if (len(dims) > 1 and all(d == 1 for d in dims[1:])) or is_one_number(value):
        return replace(about, kind="one score", axis=None, reason=ends or "one number for each image")
    if len(dims) >= 2 and all(d == 1 for d in dims[2:]):
        return _vector(about, known, image, ends)
    if is_list_of_detections(value, known):
        return replace(about, kind="boxes", axis=None, reason="a list of seven numbers a row: image, label, score, box")
    if len(dims) in (4, 5):
        return _map(about, known, image, ends)
    if len(dims) == 3:
        return _rows(about, known, image, ends)
    return replace(about, reason=ends or f"{len(dims)} axes")


def _vector(about: Meaning, known: Known, image: ir.Value, ends: str) -> Meaning:
    """[N, k]."""
    value = about.value
    if is_list_of_boxes(value, known, image):
        kind: Kind = "boxes" if dims_of(value)[1] == 4 else "unknown"
        return replace(about, kind=kind, axis=None, reason=DETECTED)
    if was_table(value):
        return replace(about, kind="box scores", axis=None, reason=f"{value.name!r} is a table of scores in one row")
    if has_unit_length(value):
        return replace(about, kind="embedding", axis=None, reason="it was divided by its own length")
    if about.named in ("boxes", "embedding") and about.activation not in ("Softmax", "LogSoftmax"):
        return replace(about, kind="boxes" if about.named == "boxes" else "embedding", reason="its name says so")
    return replace(about, kind="scores", axis=1, reason=ends or "one number for each class and image")


def _map(about: Meaning, known: Known, image: ir.Value, ends: str) -> Meaning:
    """[N, C, h, w] or [N, h, w, C], and videos."""
    axis = about.axis if about.activation in ("Softmax", "LogSoftmax") else None
    axes = known.get(about.value)
    rank = len(dims_of(about.value))
    if axis is not None:
        return replace(about, kind="map", axis=axis, reason=f"{ends} over axis {axis}")
    if axes is not None and len(axes) == rank:
        channels = [i for i, each in enumerate(axes) if i and not is_spatial(each)]
        if len(channels) == 1 and channels[0] in (1, rank - 1):
            where = "its axes follow those of the image"
            return replace(about, kind="map", axis=channels[0], reason=f"{ends}; {where}" if ends else where)
    axis = channels_by_size(about.value, image)
    return replace(about, kind="map", axis=axis, reason=ends or "a map by its shape")


def _rows(about: Meaning, known: Known, image: ir.Value, ends: str) -> Meaning:
    """[N, a, b]: boxes, a sequence, or a table of which more is said elsewhere."""
    dims = dims_of(about.value)
    along = samples_axis(about.value, known, image)
    if along is not None:
        return replace(about, kind="map", axis=3 - along, reason="one of its axes follows the samples")
    whole = about.activation in ("Softmax", "LogSoftmax") and about.axis == 2
    if not whole and (about.named == "boxes" or (dims[-1] == 4 and about.named != "sequence")):
        what = "four numbers a row" if dims[-1] == 4 else "its name says so"
        return replace(about, kind="boxes", axis=None, reason=what)
    second = images_second(about.value, known, image)
    by_steps = second and isinstance(dims[1], str)  # [steps, N, words], as PyTorch's loss for texts takes them
    if whole or by_steps or from_recurrent(about.value) or about.named == "sequence":
        steps = 0 if second else 1
        what = "the images lie along its second axis" if by_steps else "its name says so"
        what = "it comes from a recurrent layer" if from_recurrent(about.value) else what
        what = f"{ends} over each of its steps" if whole else what
        return replace(about, kind="sequence", axis=2, steps=steps, reason=what)
    return replace(about, reason=ends or "three axes, which may be boxes, words or positions")


# ---- several outputs


def _among(one: Meaning, each: Sequence[Meaning]) -> Meaning:
    """The same, with what the other outputs tell."""
    others = [other for other in each if other.output != one.output]
    for other in others:
        if other.kind == "boxes" and one.kind not in ("boxes", "indices", "map") and _one_for_each(one, other):
            return replace(one, kind="box scores", steps=None, reason=f"one row for each box of {other.output!r}")
    if one.kind == "scores" and not one.activation and one.named != "scores":
        for other in others:
            if other.kind == "scores" and made_by_layer(one.value, other.value):
                return replace(one, kind="embedding", axis=None, reason=f"{other.output!r} is made of it by a layer")
    return one


def _one_for_each(one: Meaning, boxes: Meaning) -> bool:
    """Whether an output has the axes by which the boxes of another are counted."""
    lead, dims = dims_of(boxes.value)[:-1], dims_of(one.value)
    listed = len(lead) > 1 or boxes.reason == DETECTED
    return listed and bool(lead) and dims[: len(lead)] == lead
