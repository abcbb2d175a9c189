"""Finds the score that is explained: the class scores before the final softmax or sigmoid."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal, get_args

import onnx_ir as ir

from fastcam.schema import PREFIX, FastcamError, Score
from fastcam_export.autodiff.core.builder import FLOATS
from fastcam_export.autodiff.core.straight_through import unquantised
from fastcam_export.layers.output_evidence import ACTIVATIONS, ELEMENTS
from fastcam_export.layers.output_meaning import output_meanings
from fastcam_export.layers.score_choice import choose_scores, named_output

Want = Literal["logit", "probability", "log-probability"]
WANTS: tuple[Want, ...] = get_args(Want)


def find_score(
    graph: ir.Graph,
    image: ir.Value,
    output_name: str | None = None,
    want: Want = "logit",
    any_output: bool = False,
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

    Returns:
        The score's description and its value, of shape [N, classes], [N, classes, 1, ...] or, to be summed over the
        positions, [N, classes, h, w].

    Raises:
        FastcamError: no such output, or it is not one number per class and image.
    """
    output, why = _choose_output(graph, image, output_name, any_output)
    if any_output and not (_is_class_scores(output) or _is_class_map(output)):
        return Score(output.name or "", output.name or "", "raw", None), output
    score, value = _explained(graph, output, want)
    return replace(score, reason=why), value


def _explained(graph: ir.Graph, output: ir.Value, want: Want) -> tuple[Score, ir.Value]:
    """What is explained of an output of class scores."""
    value, kind = _before_activation(output)
    if want == "log-probability":
        made = _logarithm(graph, value, "Softplus" if kind == "Sigmoid" else "LogSoftmax")
        return Score(output.name or "", made.name or "", "log-probability", classes(value)), made
    if kind is None and want == "probability":
        raise FastcamError(
            f"output {output.name!r} does not come from a Softmax or Sigmoid, so it is no probability; "
            "export without --score probability to explain it as it is"
        )
    if kind is None:
        return Score(output.name or "", output.name or "", "raw", classes(output)), output
    if want == "probability":
        return Score(output.name or "", output.name or "", "probability", classes(output)), output
    return Score(output.name or "", value.name or "", "logit", classes(value)), value


def _logarithm(graph: ir.Graph, logits: ir.Value, how: str) -> ir.Value:
    """log softmax over the classes, or log sigmoid(x) = -log(1 + exp(-x)), in nodes of its own."""
    chain = [("LogSoftmax", {"axis": 1})] if how == "LogSoftmax" else [("Neg", {}), ("Softplus", {}), ("Neg", {})]
    value = logits
    for number, (op_type, attributes) in enumerate(chain):
        made = ir.Value(name=f"{PREFIX}log_probability_{number}", type=logits.type, shape=logits.shape)
        attrs = ir.convenience.convert_attributes(attributes)
        graph.append(ir.Node("", op_type, [value], attrs, outputs=[made], name=f"{made.name}_node"))
        value = made
    return value


def classes(value: ir.Value) -> int | None:
    """Number of classes of a [N, classes, 1, ...] or [N, classes, h, w] value; None where the file does not say."""
    if value.shape is None:
        return None
    if _is_class_map(value):
        return value.shape[1] if isinstance(value.shape[1], int) else None
    rest = [d for d in value.shape[1:] if isinstance(d, int)]
    return math.prod(rest) if len(rest) == len(value.shape) - 1 else None


def _choose_output(graph: ir.Graph, image: ir.Value, name: str | None, any_output: bool) -> tuple[ir.Value, str]:
    """The output that is explained, and why that one; "" where there was no choice."""
    meanings = output_meanings(graph, image)
    if name is not None:
        output = graph.outputs[meanings.index(named_output(meanings, name))]
        if any_output and output.dtype in FLOATS:
            return output, ""
        if not _is_class_scores(output) and not _is_class_map(output):
            raise FastcamError(
                f"output {name!r} ({_describe(output)}) is not one number per class and image, [N, classes], nor a map "
                "of them, [N, classes, h, w]; differentiate it with fastcam_export.vjp"
            )
        return output, ""
    choice = choose_scores(meanings)
    if choice is not None and _is_class_scores(choice.meaning.value):
        return _as_output(graph, choice.meaning.value), choice.reason
    raise FastcamError(
        f"no output of the model has one number per class and image, [N, classes]; it has: "
        f"{', '.join(map(str, meanings))}; export it with its class scores as an output"
    )


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
        if node.op_type not in ELEMENTS:
            break
        value = unquantised(node.inputs[0])
    return output, None


def _through_views(value: ir.Value) -> ir.Value:
    """The first [N, classes, 1...] value upwards: what Flatten and Reshape of converted softmaxes only wrap."""
    while not _is_class_scores(value) and not _is_class_map(value):
        node = value.producer()
        if node is None or node.op_type not in ELEMENTS or node.inputs[0] is None:
            raise FastcamError(f"the scores before the final activation ({value.name!r}) are not one number per class")
        value = node.inputs[0]
    return value
