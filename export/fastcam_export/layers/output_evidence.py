"""Evidence of what an output means: its final activation, the decision that it is, its axes, the words of its name."""

from __future__ import annotations

import re
from typing import Literal

import onnx_ir as ir

from fastcam_export.autodiff.core.builder import FLOATS
from fastcam_export.autodiff.core.straight_through import unquantised
from fastcam_export.graph.constants import constant_array
from fastcam_export.graph.query import ELEMENTS_KEPT, VIEWS, dims_of, input_at
from fastcam_export.layers.axis_semantics import IMAGE, is_spatial
from fastcam_export.layers.axis_tracing import Known, reduced_axes
from fastcam_export.layers.image_order import image_order

Activation = Literal["", "Softmax", "LogSoftmax", "Sigmoid"]
ACTIVATIONS = ("Softmax", "LogSoftmax", "Sigmoid")
ELEMENTS = VIEWS | ELEMENTS_KEPT
"""Operators that hand on the values of their first input, at most in another shape or type."""
COMPARISONS = frozenset({"Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal"})
DECISIONS = frozenset({"ArgMax", "ArgMin", "Hardmax", "Round", "TopK"}) | COMPARISONS
Named = Literal["", "scores", "boxes", "embedding", "sequence"]
WORDS: dict[Named, re.Pattern[str]] = {
    "scores": re.compile(
        "class(es)?|cls|classification|conf(idence)?|labels?|logits?|pred(iction)?s?|prob(abilit(y|ies)|s)?|scores?|softmax"
    ),
    "boxes": re.compile(
        "anchors?|(b?box|bounding)(es)?|coord(inate)?s?|deltas?|keypoints?|k?pts?|kps|landmarks?|loc(ation)?s?|offsets?|pose|"
        "reg(ression)?|sizes?|wh"
    ),
    "embedding": re.compile("descriptors?|embed(ding|s)?s?|feat(ure)?s?|hidden|latents?|pool(ed|er)"),
    "sequence": re.compile("captions?|char(acter)?s?|ctc|sequences?|text|tokens?|words?"),
}
"""What the words of a name speak for. They count where nothing of the graph says more."""


def in_front(output: ir.Value) -> tuple[ir.Value, str]:
    """What is decided about in an output: the input of its first TopK, ArgMax, comparison; and the decision's name.

    The output itself and "" where it is no decision.
    """
    front, decided, value = output, "", output
    while (node := value.producer()) is not None:
        source = _decided_about(node, value)
        if source is not None:
            decided = decided or node.op_type
            front = value = source
        elif node.op_type in ELEMENTS or (node.op_type == "Gather" and input_at(node, 1) is not None):
            looked_up = node.op_type == "Gather"  # a table of labels by index
            if looked_up and constant_array(node.inputs[0]) is None:
                break
            source = node.inputs[1 if looked_up else 0]
            if source is None:
                break
            value = source
        else:
            break
    return front, decided


def _decided_about(node: ir.Node, value: ir.Value) -> ir.Value | None:
    """The values that a decision is about; None of another operator."""
    if node.op_type in COMPARISONS:
        open_inputs = [x for x in node.inputs if x is not None and constant_array(x) is None]
        return open_inputs[0] if len(open_inputs) == 1 and open_inputs[0].dtype in FLOATS else None
    if node.op_type in DECISIONS:
        return node.inputs[0]
    if node.op_type == "ReduceMax" and value.dtype in FLOATS:
        return node.inputs[0] if _is_best_class(node) else None
    if node.op_type == "NonMaxSuppression":
        return input_at(node, 1)
    return None


def _is_best_class(node: ir.Node) -> bool:
    """Whether a ReduceMax gives the probability of the best class; the best place of each class is another thing."""
    source = node.inputs[0]
    if source is None:
        return False
    rank = len(dims_of(source))
    activation, axis = final_activation(source)
    reduced = reduced_axes(node, rank)
    if not activation or reduced is None or len(reduced) != 1:
        return False
    return reduced[0] == axis if axis is not None else reduced[0] == 1 or reduced[0] == rank - 1 < 3


def final_activation(value: ir.Value) -> tuple[Activation, int | None]:
    """The softmax, log-softmax or sigmoid that ``value`` is the result of, and the axis of a softmax in ``value``.

    Views, transposes, casts and a quantisation may lie between; the axis is None where a view hides it.
    """
    moves: list[ir.Node] = []
    value = unquantised(value)
    while (node := value.producer()) is not None and node.inputs and node.inputs[0] is not None:
        if node.op_type in ACTIVATIONS:
            rank = len(dims_of(value))
            axis = node.attributes.get_int("axis", -1) % rank if rank and node.op_type != "Sigmoid" else None
            for move in reversed(moves):
                axis = _moved(axis, move)
            activation: Activation = node.op_type  # type: ignore[assignment]
            return activation, axis
        if not hands_on(node) and node.op_type != "Transpose":
            break
        moves.append(node)
        value = unquantised(node.inputs[0])
    return "", None


def hands_on(node: ir.Node) -> bool:
    """Whether a node gives the values of its first input, at most in another shape or type: also x[0] of a single x."""
    index = input_at(node, 1) if node.op_type == "Gather" else None
    if index is None or node.inputs[0] is None:
        return node.op_type in ELEMENTS
    dims, picked = dims_of(node.inputs[0]), constant_array(index)
    axis = node.attributes.get_int("axis", 0)
    return picked is not None and picked.ndim == 0 and -len(dims) <= axis < len(dims) and dims[axis] == 1


def _moved(axis: int | None, node: ir.Node) -> int | None:
    """Where an axis lies behind a view or transpose."""
    before, after = dims_of(node.inputs[0]), dims_of(node.outputs[0])
    if axis is None or node.op_type in ELEMENTS_KEPT:
        return axis
    if node.op_type == "Transpose":
        perm = list(node.attributes.get_ints("perm", ()))
        perm = perm or list(range(len(before)))[::-1]
        return perm.index(axis)
    if axis == len(before) - 1 and after and after[-1] == before[-1]:
        return len(after) - 1
    if axis == 1 and len(after) > 1 and after[1] == before[1]:
        return 1
    return None


def is_one_number(value: ir.Value) -> bool:
    """Whether a value [N] is [N, 1] without its last axis."""
    while len(dims_of(value)) == 1 and (node := value.producer()) is not None:
        if node.op_type not in ELEMENTS and node.op_type not in ACTIVATIONS:
            return False
        if node.inputs[0] is None:
            return False
        value = node.inputs[0]
        dims = dims_of(value)
        if len(dims) > 1 and all(d == 1 for d in dims[1:]):
            return True
    return False


def is_list_of_boxes(value: ir.Value, known: Known, image: ir.Value) -> bool:
    """Whether the first axis counts detections: behind a selection, with another name than the images'."""
    first, images = dims_of(value)[0], dims_of(image)[0]
    if isinstance(first, int) or first == images:
        return False
    axes = known.get(value)
    if axes and any(atom.kind == IMAGE for atom in axes[0]):
        return False
    return _comes_from(value, {"NonMaxSuppression", "NonZero"}, 40)


def is_list_of_detections(value: ir.Value, known: Known) -> bool:
    """Whether it is the list that Caffe and OpenVINO end a detector in, [1, 1, rows, 7], and no map of one class."""
    dims, axes = dims_of(value), known.get(value)
    if len(dims) != 4 or dims[:2] != (1, 1) or dims[3] != 7:
        return False
    return axes is None or not any(map(is_spatial, axes[3:]))


def _comes_from(value: ir.Value, op_types: set[str], limit: int) -> bool:
    """Whether one of the last ``limit`` nodes in front of a value is one of these operators."""
    waiting, seen = [value], {value}
    while waiting and limit:
        node = waiting.pop(0).producer()
        if node is None:
            continue
        if node.op_type in op_types:
            return True
        limit -= 1
        new = [x for x in node.inputs if x is not None and x not in seen]
        seen.update(new)
        waiting += new
    return False


def was_table(value: ir.Value) -> bool:
    """Whether [N, k] is a view of [N, a, b], with neither a nor b one: the scores of several boxes side by side."""
    while (node := value.producer()) is not None and node.op_type in ELEMENTS | set(ACTIVATIONS):
        if node.inputs[0] is None:
            return False
        value = node.inputs[0]
        if len(dims_of(value)) == 3 and 1 not in dims_of(value)[1:]:
            return True
    return False


def has_unit_length(value: ir.Value) -> bool:
    """Whether a vector was divided by its own length."""
    node = value.producer()
    while node is not None and node.op_type in ELEMENTS and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    if node is None:
        return False
    if node.op_type == "LpNormalization":
        return True
    if node.op_type not in ("Div", "Mul") or len(node.inputs) != 2:
        return False
    lengths = [x for x in node.inputs if x is not None and _comes_from(x, {"ReduceL2", "ReduceSumSquare"}, 6)]
    return len(lengths) == 1


def from_recurrent(value: ir.Value) -> bool:
    """Whether a recurrent layer lies right in front of the last matrix product."""
    return _comes_from(value, {"LSTM", "GRU", "RNN"}, 12)


def images_second(value: ir.Value, known: Known, image: ir.Value) -> bool:
    """Whether the images of [steps, N, words] lie along axis 1."""
    axes = known.get(value)
    if axes is not None and len(axes) == 3:
        along = [any(atom.kind == IMAGE for atom in axis) for axis in axes[:2]]
        if along.count(True) == 1:
            return along[1]
    first, second, images = *dims_of(value)[:2], dims_of(image)[0]
    return second == images and first != images


def named_kind(name: str) -> Named:
    """Which kind the words of a name speak for."""
    split = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    own = set(re.split(r"[^a-z]+", split.casefold()))
    speaks = [kind for kind, words in WORDS.items() if any(map(words.fullmatch, own))]
    return speaks[0] if len(speaks) == 1 else ""


def channels_by_size(value: ir.Value, image: ir.Value) -> int | None:
    """The axis of classes where one side of a map alone has the form of the picture."""
    dims, sizes = list(dims_of(value)), [d for d in dims_of(image)[1:] if isinstance(d, int)]
    height, width = sorted(sizes)[-2:] if len(sizes) == 3 else (None, None)
    if len(dims) != 4 or not isinstance(height, int) or not isinstance(width, int):
        return None

    def is_grid(first: object, second: object) -> bool:
        if not isinstance(first, int) or not isinstance(second, int) or 1 in (first, second):
            return False
        return first * width == second * height or first * height == second * width

    first, last = is_grid(dims[2], dims[3]), is_grid(dims[1], dims[2])
    return 1 if first and not last else 3 if last and not first else None


def samples_axis(value: ir.Value, known: Known, image: ir.Value) -> int | None:
    """The axis of [N, a, b] along which the samples of a signal lie, whose classes lie along the other.

    A softmax over the classes of fewer steps than samples is a text that is read off the signal, and no such map.
    """
    order, axes, dims = image_order(image), known.get(value), dims_of(value)
    if "L" not in order:
        return None
    samples = dims_of(image)[order.index("L")]
    activation, over = final_activation(value)
    along = [i for i in (1, 2) if axes is not None and is_spatial(axes[i])] or [i for i in (1, 2) if dims[i] == samples]
    text = from_recurrent(value) or (activation in ("Softmax", "LogSoftmax") and over == 2)
    if len(along) != 1 or (text and dims[along[0]] != samples):
        return None
    return along[0]


def made_by_layer(before: ir.Value, after: ir.Value) -> bool:
    """Whether ``after`` is computed of ``before`` by a matrix product or a convolution, and little else."""
    linear, value = False, after
    for _ in range(12):
        node = value.producer()
        if value is before:
            return linear
        if node is None or not node.inputs or node.inputs[0] is None:
            return False
        linear |= node.op_type in ("MatMul", "Gemm", "Conv")
        sources = [x for x in node.inputs if x is not None and x.producer() is not None and constant_array(x) is None]
        value = before if before in node.inputs else sources[0] if sources else node.inputs[0]
    return False
