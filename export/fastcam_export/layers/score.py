"""Finds the score that is explained: the class scores before the final softmax or sigmoid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import onnx_ir as ir

from fastcam.errors import listed
from fastcam.schema import PREFIX, FastcamError, Score
from fastcam_export.autodiff.core.builder import FLOATS
from fastcam_export.autodiff.core.straight_through import unquantised
from fastcam_export.graph.query import ELEMENTS_KEPT, dims_of
from fastcam_export.layers.axis_semantics import IMAGE
from fastcam_export.layers.axis_tracing import trace
from fastcam_export.layers.output_evidence import ACTIVATIONS, ELEMENTS, hands_on
from fastcam_export.layers.output_meaning import Meaning, output_meanings
from fastcam_export.layers.score_choice import choose_scores, named_output

Want = Literal["logit", "probability", "log-probability"]
WANTS: tuple[Want, ...] = get_args(Want)
OutputLayout = Literal["NCHW", "NHWC"]
OUTPUT_LAYOUTS: tuple[OutputLayout, ...] = get_args(OutputLayout)
"""Where the classes of an output of maps lie: in front of the positions, or behind them."""


def find_score(
    graph: ir.Graph,
    image: ir.Value,
    output_name: str | None = None,
    want: Want = "logit",
    any_output: bool = False,
    names: int | None = None,
    layout: OutputLayout | None = None,
) -> tuple[Score, ir.Value]:
    """The score of ``output_name`` (default: the output that reads as class scores, see
    :func:`fastcam_export.layers.score_choice.choose_scores`).

    Args:
        graph: of a loaded model.
        image: its image input.
        output_name: a model output; may also be one of class scores at positions, [N, classes, h, w].
        want: "logit" looks through a final Softmax, LogSoftmax or Sigmoid, as the paper does; "probability" does not.
            "log-probability" is the logarithm of what such an activation gives, or a Softmax would: nodes that are
            appended to the graph.
        any_output: take the named output whatever its shape is, as a detector's boxes; for looking, not for exporting.
        names: how many class names are known. One number an image with two names is the second class against the first.
        layout: where the classes of a map lie; None: as the graph tells.

    Returns:
        The score's description and its value, of shape [N, classes], [N, classes, 1, ...] or, to be summed over the
        positions, [N, classes, h, w].

    Raises:
        FastcamError: no such output, or it is not one number per class and image.
    """
    meaning, why = _choose_output(graph, image, output_name, any_output)
    if not any_output:
        meaning = _images_first(graph, image, meaning)
    output = meaning.value
    if any_output and meaning.kind not in ("one score", "map") and not _is_class_scores(output):
        return Score(output.name or "", output.name or "", "raw", None), output
    if meaning.kind == "one score" and (meaning.activation == "Sigmoid" or names == 2):
        score, value = _two_classes(graph, meaning, want)
    elif meaning.kind == "one score":
        score, value = _explained(graph, output, want)
    elif meaning.kind == "map":
        score, value = _class_map(graph, meaning, want, layout)
    else:
        score, value = _explained(graph, output, want)
    return replace(score, reason="; ".join(filter(None, (score.reason, why)))), value


def _explained(graph: ir.Graph, output: ir.Value, want: Want) -> tuple[Score, ir.Value]:
    """What is explained of an output of class scores."""
    value, kind = _before_activation(output)
    name = output.name or ""
    if want == "log-probability":
        made = _logarithm(graph, value, "Softplus" if kind == "Sigmoid" else "LogSoftmax")
        return Score(name, made.name or "", "log-probability", classes(value)), made
    if kind is None and want == "probability":
        raise FastcamError(
            f"output {output.name!r} does not come from a Softmax or Sigmoid, so it is no probability; "
            "export without --score probability to explain it as it is"
        )
    if kind is None:
        value = output if len(dims_of(output)) > 1 else _through_views(output)
        return Score(name, value.name or "", "raw", classes(value)), value
    if want == "probability":
        return Score(name, name, "probability", classes(output)), output
    return Score(name, value.name or "", "logit", classes(value)), value


def _two_classes(graph: ir.Graph, meaning: Meaning, want: Want) -> tuple[Score, ir.Value]:
    """The scores (-s, s) of two classes, of which the output says one number: s itself, or its sigmoid.

    Where s < 0, and the sigmoid below 0.5, the first class is predicted, and its gradient is that of s with the other
    sign. Its probability is 1 - sigmoid(s) = sigmoid(-s).
    """
    output = meaning.value
    logit, activation = _before_activation(output)
    logit = logit if activation is not None else _through_views(output)
    shape = ir.Shape([2 if axis == 1 else dim for axis, dim in enumerate(dims_of(logit))])
    negative = _append(graph, "Neg", [logit], "other_class", logit.shape)
    value = _append(graph, "Concat", [negative, logit], "two_classes", shape, axis=1)
    kind: Literal["logit", "probability", "log-probability", "raw"] = "logit" if activation is not None else "raw"
    if want == "probability":
        value, kind = _append(graph, "Sigmoid", [value], "two_probabilities", shape), "probability"
    elif want == "log-probability":
        value, kind = _logarithm(graph, value, "Softplus"), "log-probability"
    behind = f"one number behind the sigmoid {output.name!r}" if activation else f"the one number {output.name!r}"
    border = "0.5" if activation is not None else "0"
    about = Score(output.name or "", value.name or "", kind, 2, f"{behind}: class 1 above {border}, class 0 below")
    return replace(about, single="probability" if activation is not None else "logit"), value


def _class_map(graph: ir.Graph, meaning: Meaning, want: Want, layout: OutputLayout | None) -> tuple[Score, ir.Value]:
    """What is explained of class scores at positions, [N, classes, h, w], or with the classes last."""
    output = meaning.value
    last = classes_last(meaning, layout)
    node, moves = _activation_and_moves(output)
    if not last and all(move.op_type in ELEMENTS_KEPT for move in moves):
        return _explained(graph, output, want)
    value, kind = output, "raw" if node is None else "probability"
    if want == "probability" and node is None:
        raise FastcamError(f"output {output.name!r} does not come from a Softmax or Sigmoid, so it is no probability")
    if node is not None and want != "probability" and node.inputs[0] is not None:
        value, kind = _moved_too(graph, node.inputs[0], moves), "logit"
    value = _classes_first(graph, value) if last else value
    if want == "log-probability":
        sigmoid = node is not None and node.op_type == "Sigmoid"
        value, kind = _logarithm(graph, value, "Softplus" if sigmoid else "LogSoftmax"), "log-probability"
    axis = len(dims_of(output)) - 1 if last else 1
    return Score(output.name or "", value.name or "", kind, classes(value), axis=axis), value  # type: ignore[arg-type]


def classes_last(meaning: Meaning, layout: OutputLayout | None = None) -> bool:
    """Whether the classes of a map are its last axis.

    Raises:
        FastcamError: neither the graph nor ``layout`` tells.
    """
    dims = dims_of(meaning.value)
    if layout is not None or meaning.axis is not None:
        return layout == "NHWC" if layout is not None else meaning.axis == len(dims) - 1
    sizes = [dim for dim in dims[1:] if isinstance(dim, int)]
    if len(sizes) == len(dims) - 1 and sizes[-1] < min(sizes[:-1]):
        raise FastcamError(
            f"the layout of output {meaning.output!r} {list(dims)} is not clear: classes may come first or last; say "
            "which with --output-layout NCHW or NHWC"
        )
    return False


def _classes_first(graph: ir.Graph, value: ir.Value) -> ir.Value:
    """[N, classes, h, w] of [N, h, w, classes]: what was transposed to it, or a transpose of it."""
    rank = len(dims_of(value))
    node, behind = value.producer(), [0, *range(2, rank), 1]
    if node is not None and node.op_type == "Transpose" and list(node.attributes.get_ints("perm", ())) == behind:
        assert node.inputs[0] is not None
        return node.inputs[0]
    perm = [0, rank - 1, *range(1, rank - 1)]
    shape = ir.Shape([dims_of(value)[axis] for axis in perm])
    return _append(graph, "Transpose", [value], "classes_first", shape, perm=perm)


def _activation_and_moves(output: ir.Value) -> tuple[ir.Node | None, list[ir.Node]]:
    """The final activation, and the nodes behind it that only move its values; None and nothing where there is none."""
    value = unquantised(output)
    moves: list[ir.Node] = []
    while (node := value.producer()) is not None and node.inputs and node.inputs[0] is not None:
        if node.op_type in ACTIVATIONS:
            return node, moves[::-1]
        if node.op_type not in ELEMENTS and node.op_type != "Transpose":
            break
        moves.append(node)
        value = unquantised(node.inputs[0])
    return None, []


def _moved_too(graph: ir.Graph, value: ir.Value, moves: Sequence[ir.Node]) -> ir.Value:
    """What goes into an activation, moved as its result is."""
    for number, node in enumerate(moves):
        made = ir.Value(name=f"{PREFIX}logits_{number}", type=value.type, shape=node.outputs[0].shape)
        inputs = [value, *node.inputs[1:]]
        attributes = [ir.Attr(a.name, a.type, a.value) for a in node.attributes.values()]
        if node.op_type != "Cast":
            graph.append(ir.Node("", node.op_type, inputs, attributes, outputs=[made], name=f"{made.name}_node"))
            value = made
    return value


def _append(
    graph: ir.Graph, op_type: str, inputs: Sequence[ir.Value], name: str, shape: ir.Shape | None, **attributes: Any
) -> ir.Value:
    """The result of a node at the end of the graph."""
    made = ir.Value(name=f"{PREFIX}{name}", type=inputs[0].type, shape=shape)
    attrs = ir.convenience.convert_attributes(attributes)
    graph.append(ir.Node("", op_type, inputs, attrs, outputs=[made], name=f"{made.name}_node"))
    return made


def _logarithm(graph: ir.Graph, logits: ir.Value, how: str) -> ir.Value:
    """log softmax over the classes, or log sigmoid(x) = -log(1 + exp(-x)), in nodes of its own."""
    chain = [("LogSoftmax", {"axis": 1})] if how == "LogSoftmax" else [("Neg", {}), ("Softplus", {}), ("Neg", {})]
    value = logits
    for number, (op_type, attributes) in enumerate(chain):
        value = _append(graph, op_type, [value], f"log_probability_{number}", logits.shape, **attributes)
    return value


def classes(value: ir.Value) -> int | None:
    """Number of classes of a [N, classes, 1, ...] or [N, classes, h, w] value; None where the file does not say."""
    if value.shape is None:
        return None
    if _is_class_map(value):
        return value.shape[1] if isinstance(value.shape[1], int) else None
    rest = [d for d in value.shape[1:] if isinstance(d, int)]
    return math.prod(rest) if len(rest) == len(value.shape) - 1 else None


def _choose_output(graph: ir.Graph, image: ir.Value, name: str | None, any_output: bool) -> tuple[Meaning, str]:
    """The output that is explained, and why that one; "" where there was no choice."""
    meanings = output_meanings(graph, image)
    if name is not None:
        meaning = named_output(meanings, name)
        value = meaning.value
        if not any_output and not (_is_class_scores(value) or _is_class_map(value) or meaning.kind == "one score"):
            if meaning.decided:
                raise FastcamError(_decision(meaning, meanings))
            raise FastcamError(
                f"output {name!r} ({_describe(value)}) is not one number per class and image, [N, classes], nor a map "
                "of them, [N, classes, h, w]; differentiate it with fastcam_export.vjp"
            )
        decided = f"{value.name!r} in front of {meaning.decided}" if meaning.decided else ""
        return replace(meaning, value=_as_output(graph, value)), decided
    choice = choose_scores(meanings)
    if choice is not None:
        return replace(choice.meaning, value=_as_output(graph, choice.meaning.value)), choice.reason
    raise FastcamError(
        f"no output of the model has one number per class and image, [N, classes]; it has: "
        f"{listed(meanings)}; {_way_on(meanings)}"
    )


def _way_on(meanings: Sequence[Meaning]) -> str:
    """What to type of a model without class scores."""
    maps = [one.output for one in meanings if one.kind == "map" and one.decided]
    if maps:
        return f"--output-name {maps[0]} explains a class of the map in front, summed over the picture"
    vectors = [one.output for one in meanings if one.kind == "embedding" and not one.decided]
    if vectors:
        return f"--targets cotangent --output-name {vectors[0]} explains numbers of the embedding"
    return "export it with its class scores as an output"


def _decision(meaning: Meaning, meanings: Sequence[Meaning]) -> str:
    """That an output has no gradient, and what is to be named in its place."""
    others = [one.output for one in meanings if one.value.dtype in FLOATS and not one.decided]
    instead = (
        f"name {' or '.join(others)} (--targets cotangent), or leave --output-name out"
        if others
        else f"the scores in front, {meaning.value.name!r}, have to be an output"
    )
    return f"output {meaning.output!r} is what {meaning.decided} decided, which has no gradient; {instead}"


def _images_first(graph: ir.Graph, image: ir.Value, meaning: Meaning) -> Meaning:
    """Scores [N, classes] of an output [classes, N], as of each text and image; they become an output as well."""
    output = meaning.value
    kinds = [{atom.kind for atom in axis} for axis in trace(graph, image).get(output) or ()]
    traced = len(kinds) == 2 and kinds[1] == {IMAGE} and IMAGE not in kinds[0]
    if output.shape is None or not (traced or (not kinds and _named_second(output, image))):
        return meaning
    made = ir.Value(name=f"{output.name}.per_image", type=output.type, shape=ir.Shape(list(output.shape)[::-1]))
    graph.append(ir.Node("", "Transpose", [output], outputs=[made], name=f"{made.name}_node"))
    return replace(meaning, value=_as_output(graph, made))


def _named_second(output: ir.Value, image: ir.Value) -> bool:
    """Whether the second axis of an output [classes, N] alone has the free axis of the images."""
    dims, images = dims_of(output), dims_of(image)[0]
    return len(dims) == 2 and isinstance(images, str) and dims[1] == images and isinstance(dims[0], int)


def _as_output(graph: ir.Graph, value: ir.Value) -> ir.Value:
    """``value``, which becomes an output where it lies in front of one: a run then says the scores as well."""
    if not value.is_graph_output():
        graph.outputs.append(value)
    return value


def _is_class_scores(value: ir.Value) -> bool:
    if value.dtype not in FLOATS or value.shape is None or len(value.shape) < 2:
        return False
    return all(dim == 1 for dim in value.shape[2:])


def _is_class_map(value: ir.Value) -> bool:
    """[N, classes, h, w], as segmenters give."""
    if value.dtype not in FLOATS or value.shape is None or len(value.shape) not in (4, 5):
        return False
    return not _is_class_scores(value)


def _describe(value: ir.Value) -> str:
    shape = (
        "of unknown shape" if value.shape is None else str([d if isinstance(d, int) else str(d) for d in value.shape])
    )
    return f"{value.dtype} {shape}"


def _before_activation(output: ir.Value) -> tuple[ir.Value, str | None]:
    """The input of the activation that ``output`` is a view of, and the activation's name; else output and None."""
    value = unquantised(output)
    while (node := value.producer()) is not None and node.inputs and node.inputs[0] is not None:
        if node.op_type in ACTIVATIONS:
            return _through_views(node.inputs[0]), node.op_type
        if not hands_on(node):
            break
        value = unquantised(node.inputs[0])
    return output, None


def _through_views(value: ir.Value) -> ir.Value:
    """The first [N, classes, 1...] value upwards: what Flatten and Reshape of converted softmaxes only wrap."""
    while not _is_class_scores(value) and not _is_class_map(value):
        node = value.producer()
        if node is None or not hands_on(node) or node.inputs[0] is None:
            raise FastcamError(f"the scores before the final activation ({value.name!r}) are not one number per class")
        value = node.inputs[0]
    return value
