"""By which kind of target an output is asked, "box" of a detector, "region" of a segmenter, and what is then explained.

A layer over what outputs mean (:mod:`fastcam_export.layers.output_meaning`): tables of boxes are told from maps of
classes by their company, their numbers and how they were put together.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import onnx_ir as ir

from fastcam.schema import Answer
from fastcam_export.autodiff.core.builder import FLOATS
from fastcam_export.graph.query import dims_of
from fastcam_export.layers.axis_semantics import is_spatial
from fastcam_export.layers.axis_tracing import Known, trace
from fastcam_export.layers.image_order import image_order
from fastcam_export.layers.output_evidence import ELEMENTS
from fastcam_export.layers.output_meaning import DETECTED, Kind, Meaning, output_meanings
from fastcam_export.outputs.cotangent_targets import Functional

BY_KIND: dict[Kind, Answer] = {
    "scores": "class",
    "one score": "element",
    "box scores": "box",
    "sequence": "words",
    "embedding": "similarity",
    "indices": "",
}
COARSE, GRIDS = 16, frozenset(anchors * (5 + classes) for anchors in (3, 5) for classes in (20, 80))
"""Pixels of a cell from which a map is a grid, and the numbers of a cell: of 3 or 5 anchors of 20 or 80 classes."""
BINS = (8, 16, 17, 32, 33)
POINTS = re.compile("(heat_?maps?|joints?|keypoints?|kpts?|landmarks?|points?|pose|simcc)([_.:\\d].*)?")
"""Names of outputs that score key points position by position."""
Names = int | None


def target_kind(one: Meaning, each: Sequence[Meaning], names: Names, known: Known) -> Answer:
    """The kind of target that an output is asked by.

    Args:
        one: what the output means.
        each: what all outputs of the model mean, itself among them.
        names: how many class names are known.
        known: the axes of the graph's values.
    """
    if _counts_positions(one, known):
        return "box"
    if len(dims_of(one.value)) == 3 and all(map(is_spatial, known.get(one.value, ((), (), ()))[1:])):
        return "region"  # a map of one class, without an axis of classes
    if _are_rows_of_points(one, each, next(iter(known))):
        return "point"
    if one.kind == "map":
        picture = not {*"DLT"} & {*image_order(next(iter(known)))}
        if picture and (_is_map_of_boxes(one, each, names) or _is_known_grid(one, each, names, next(iter(known)))):
            return "box"
        return "point" if picture and _is_map_of_points(one, each) else "region"
    if one.kind in ("unknown", "boxes"):
        listed = len(dims_of(one.value)) == 2 and one.reason == DETECTED
        return "box" if len(dims_of(one.value)) in (3, 4) or listed else ""
    return BY_KIND[one.kind]


def _counts_positions(one: Meaning, known: Known) -> bool:
    """Whether the first axis of [B, k] counts positions of the image: a detector's rows without an axis of images."""
    axes = known.get(one.value)
    return len(dims_of(one.value)) == 2 and bool(axes) and axes is not None and is_spatial(axes[0])


def _is_map_of_points(one: Meaning, each: Sequence[Meaning]) -> bool:
    """Whether a map scores a key point for each channel: its name says so, and no softmax or neighbour speaks against.

    A detector of points by their heatmaps (CenterNet) has maps of sizes and offsets beside them.
    """
    alone = all(other.kind != "map" for other in each if other.output != one.output)
    named = POINTS.fullmatch(one.output.casefold()) is not None
    return named and alone and len(dims_of(one.value)) == 4 and one.activation in ("", "Sigmoid")


def _are_rows_of_points(one: Meaning, each: Sequence[Meaning], image: ir.Value) -> bool:
    """Whether it is one of the two outputs of SimCC: a row of scores for each point, as long as a multiple of a side of
    the picture, the same of both."""
    rows = [other for other in each if len(dims_of(other.value)) == 3 and other.kind in ("unknown", "sequence")]
    if len(rows) != 2 or len(rows) != len(each) or one not in rows or image_order(image) != "NCHW":
        return False
    (_, points, first), (_, others, second) = (dims_of(other.value) for other in rows)
    height, width = dims_of(image)[2:]
    if points != others or all("simcc" in other.output.casefold() for other in rows):
        return points == others
    sides = [(a, b) for a, b in ((first, width), (second, height)) if isinstance(a, int) and isinstance(b, int)]
    return len(sides) == 2 and sides[0][0] % sides[0][1] == 0 and sides[0][0] * sides[1][1] == sides[1][0] * sides[0][1]


def _is_map_of_boxes(one: Meaning, each: Sequence[Meaning], names: Names) -> bool:
    """Whether a map holds a detector's numbers: of anchors, of several resolutions, or joined of 1, 4 and more."""
    dims = dims_of(one.value)
    if len(dims) == 5 or one.named == "boxes":
        return True
    channels = _channels(one)
    beside = [other for other in each if _has_grid_of(other, one)]
    if any(other.named == "boxes" for other in beside) or _are_centres([one, *beside]):
        return True
    if names is not None and channels == names:
        return any(_channels(other) in (4, *(4 * bins for bins in BINS)) for other in beside)
    if names is not None and isinstance(channels, int):
        counted = any(channels == count * (5 + names) for count in (1, 2, 3, 5, 9))
        if counted or any(channels == 4 * bins + names for bins in BINS):
            return True
    maps = [other for other in each if other.kind == "map"]
    sizes = {tuple(d for i, d in enumerate(dims_of(other.value)) if i not in (0, other.axis)) for other in maps}
    numbers = all(isinstance(side, int) for size in sizes for side in size)
    if numbers and len(sizes) > 1:
        return True
    return {1, 4} <= _pieces(one)


def _is_known_grid(one: Meaning, each: Sequence[Meaning], names: Names, image: ir.Value) -> bool:
    """Whether a map alone is the coarse grid of a detector of PASCAL VOC or COCO: A (5 + classes) numbers a cell, as of
    Tiny YOLOv2, of which a sixteenth of the picture or less is left. Segmenters have as many classes hardly ever."""
    grid = [d for i, d in enumerate(dims_of(one.value)) if i not in (0, one.axis)]
    sides = [side for side in dims_of(image)[1:] if isinstance(side, int)][-2:]
    numbers = [side for side in grid if isinstance(side, int)]
    if names is not None or len(each) > 1 or one.activation or one.axis is None or len(numbers) != 2 or len(sides) != 2:
        return False
    coarse = all(COARSE * cells <= side for cells, side in zip(sorted(numbers), sorted(sides)))
    return coarse and _channels(one) in GRIDS


def _are_centres(maps: Sequence[Meaning]) -> bool:
    """Whether these are heatmaps of centres behind a sigmoid, offsets and sizes, under names that say nothing."""
    heat = [one for one in maps if one.activation == "Sigmoid"]
    pairs = [one for one in maps if _channels(one) == 2 and not one.activation]
    return len(maps) == 3 and len(heat) == 1 and len(pairs) == 2


def _has_grid_of(other: Meaning, one: Meaning) -> bool:
    """Whether another output is a map of the same positions."""
    if other.output == one.output or other.kind != "map" or other.axis is None or one.axis is None:
        return False
    grids = [[d for i, d in enumerate(dims_of(each.value)) if i not in (0, each.axis)] for each in (other, one)]
    return grids[0] == grids[1]


def _channels(one: Meaning) -> int | str | None:
    return dims_of(one.value)[one.axis] if one.axis is not None else None


def _pieces(one: Meaning) -> set[int | str | None]:
    """The channels of the values that a map is put together of."""
    value = one.value
    while (node := value.producer()) is not None:
        if node.op_type == "Concat" and one.axis is not None:
            return {dims_of(x)[one.axis] for x in node.inputs if x is not None and len(dims_of(x)) > one.axis}
        if node.op_type not in ELEMENTS or node.inputs[0] is None:
            break
        value = node.inputs[0]
    return set()


def _meanings(graph: ir.Graph, image: ir.Value) -> list[Meaning]:
    """What the outputs mean; the best scores of a TopK, where another output has the boxes for them, as such scores."""
    each = output_meanings(graph, image)
    outputs = {value.name: value for value in graph.outputs}
    leads = {dims_of(one.value)[:-1] for one in each if one.kind == "boxes"}

    def seen(one: Meaning) -> Meaning:
        own = outputs[one.output]
        best = one.decided == "TopK" and own.dtype in FLOATS and dims_of(own) in leads
        return replace(one, kind="box scores", value=own, decided="", axis=None) if best else one

    return [seen(one) for one in each]


def with_target_kinds(functional: Functional, graph: ir.Graph, image: ir.Value, names: Names) -> Functional:
    """Outputs that say by which kind of target they are asked, and what their values have passed last."""
    each, known = _meanings(graph, image), trace(graph, image)
    found = {one.output: one for one in each}
    about = (
        replace(one, answer=target_kind(found[one.output], each, names, known), activation=found[one.output].activation)
        for one in functional.about
    )
    return replace(functional, about=tuple(about))


def to_explain(graph: ir.Graph, image: ir.Value, wanted: str | Sequence[str] | None, names: Names) -> list[str] | None:
    """The outputs that are explained by cotangents where the user says nothing of them; None where classes are.

    A model with class scores is asked by classes, also one whose named output is a map of them. Beside a detector's
    rows its maps, which are masks or the same boxes undecoded, are left out.

    Args:
        wanted: the outputs that the user names, if any.
        names: how many class names are known.
    """
    each, known = _meanings(graph, image), trace(graph, image)
    named = [wanted] if isinstance(wanted, str) else list(wanted or ())
    chosen = [one for one in each if one.output in named] if named else list(each)
    of_images = [one for one in chosen if not _counts_positions(one, known)]
    if len(chosen) < len(named) or any(one.kind in ("scores", "one score") for one in of_images):
        return None
    if named and len(chosen) == 1 and chosen[0].kind == "map" and len(dims_of(chosen[0].value)) > 3:
        return None
    usable = [one for one in chosen if one.value.dtype in FLOATS and not one.decided and one.value.is_graph_output()]
    answers = {one.output: target_kind(one, each, names, known) for one in usable}
    first: Answer = next((kind for kind in ("box", "point", "region", "words") if kind in answers.values()), "")
    if not first:
        return None
    kept = [one for one in usable if answers[one.output] == first]
    rows = [one for one in kept if one.kind != "map"]
    return [one.output for one in (rows if first == "box" and rows else kept)]
