"""``vjp``: the vector-Jacobian product of any ONNX graph, as an ONNX graph of standard operators."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

import onnx
import onnx_ir as ir

from fastcam import schema
from fastcam.schema import FastcamError
from fastcam_export.autodiff.core.builder import FLOATS, Builder
from fastcam_export.autodiff.core.stopped import stop
from fastcam_export.autodiff.reverse import backward
from fastcam_export.graph import cleanup, square_weights
from fastcam_export.graph.load import Loaded, Source, load
from fastcam_export.graph.query import is_added
from fastcam_export.verify.unexpected import as_fastcam_error

COTANGENT, GRADIENT = "cotangent.", "grad."
"""Prefixes of the names of the inputs and outputs that are added."""


def vjp(
    model: Source,
    wrt: Sequence[str] | None = None,
    of: Sequence[str] | None = None,
    stop_gradient: str | Sequence[str] = (),
) -> onnx.ModelProto:
    """Add reverse-mode derivatives to a model: ``grad.x = sum_y (dy/dx)^T cotangent.y``.

    Args:
        model: path, bytes or ModelProto; opset 7 or later (below 18 it is converted to 18).
        wrt: names of the float values to differentiate with respect to: graph inputs, intermediate values and
            initializers alike. Default: all float inputs.
        of: names of the float outputs that are differentiated. Default: all float outputs.
        stop_gradient: names of values that no gradient passes.

    Returns:
        The model with its own inputs and outputs, then the inputs ``cotangent.<output>`` (type and shape of that
        output; required) and the outputs ``grad.<value>`` (type and shape of that value), in the order of the
        arguments. Free dimensions stay free. Each gradient is the total derivative: of two values in ``wrt``, one
        computed from the other, both get what reaches them. A value that no output in ``of`` depends on, or only
        through derivatives that are zero almost everywhere, gets zeros of its shape. Weights that old exporters list
        among the inputs are initializers in the result. At kinks, PyTorch's conventions.

    Raises:
        FastcamError: the model cannot be read, a name is unknown, is given twice or is no float value, or nothing is
            left to differentiate.
        UnsupportedOperator: (a FastcamError) an operator between a value and an output has no gradient rule.

    >>> from fastcam_export import vjp
    >>> with_gradient = vjp("model.onnx", wrt=["image", "conv1.weight"], of=["logits"])  # doctest: +SKIP
    """
    with as_fastcam_error(model, "differentiated"):
        loaded = load(model)
        stop(loaded.model.graph, stop_gradient)
        return _differentiated(loaded, wrt, of)


def _differentiated(loaded: Loaded, wrt: Sequence[str] | None, of: Sequence[str] | None) -> onnx.ModelProto:
    graph = loaded.model.graph
    _refuse_differentiated(graph)
    values = _values(graph)
    outputs = {value.name or "": value for value in graph.outputs}
    sources = _chosen("wrt", wrt, values, [value for value in graph.inputs if _is_float(value)])
    sinks = _chosen("of", of, outputs, [value for value in outputs.values() if _is_float(value)])
    for name in (*(COTANGENT + name for name in sinks), *(GRADIENT + name for name in sources)):
        if name in values:
            raise FastcamError(f"the model already has a value named {name!r}; rename it, or give the original model")
    op = Builder(graph)
    seeds = {value: _seed(graph, COTANGENT + name, value) for name, value in sinks.items()}
    gradients = backward(op, seeds, list(sources.values()))
    for name, value in sources.items():
        graph.outputs.append(_output(op, GRADIENT + name, value, gradients[value]))
    cleanup.tidy(graph)
    square_weights.keep_apart(graph)
    loaded.model.producer_name, loaded.model.producer_version = "fastcam", schema.__version__
    return ir.to_proto(loaded.model)


def _refuse_differentiated(graph: ir.Graph) -> None:
    """What FastCAM adds is numbered from one: a second pass would give two values one name."""
    if any(map(is_added, _values(graph).values())):
        raise FastcamError("the model was already differentiated by FastCAM; give the original model")


def _values(graph: ir.Graph) -> dict[str, ir.Value]:
    """All values of the graph (not of its subgraphs) by name."""
    made = (output for node in graph for output in node.outputs)
    return {value.name: value for value in (*graph.inputs, *graph.initializers.values(), *made) if value.name}


def _is_float(value: ir.Value) -> bool:
    return value.dtype in FLOATS


def _chosen(
    argument: str, names: Sequence[str] | None, known: Mapping[str, ir.Value], default: Sequence[ir.Value]
) -> dict[str, ir.Value]:
    """The values of ``names``, or the default ones, by name."""
    if names is None:
        found = {value.name or "": value for value in default}
        if not found:
            raise FastcamError(f"the model has no float {'input' if argument == 'wrt' else 'output'}; name {argument}")
        return found
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise FastcamError(f"{argument} is empty; name at least one value, or leave it out")
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), 1, 0)
            what = "value" if argument == "wrt" else "output"
            raise FastcamError(f"{argument}: the model has no {what} {name!r}; the nearest is {near[0]!r}")
        if not _is_float(known[name]):
            raise FastcamError(f"{argument}: {name!r} is {known[name].dtype}, not a floating point value")
        if names.count(name) > 1:
            raise FastcamError(f"{argument}: {name!r} is given twice; name each value once")
    return {name: known[name] for name in names}


def _seed(graph: ir.Graph, name: str, like: ir.Value) -> ir.Value:
    """A new graph input in the type and shape of ``like``."""
    seed = ir.Value(name=name, type=like.type, shape=like.shape)
    graph.inputs.append(seed)
    return seed


def _output(op: Builder, name: str, value: ir.Value, gradient: ir.Value | None) -> ir.Value:
    """The gradient of ``value`` under its public name; zeros where it is structurally zero."""
    if gradient is None:
        gradient = _zeros(op, value)
    (output,) = op.append("Identity", [gradient], {}, [(value.dtype or ir.DataType.FLOAT, None)])
    output.name, output.shape = name, value.shape
    return output


def _zeros(op: Builder, value: ir.Value) -> ir.Value:
    """Zeros in the shape and type of ``value``, made at run time: no block of zeros weighs the file down."""
    (shape,) = op.append("Shape", [value], {}, [(ir.DataType.INT64, None)])
    (zeros,) = op.append("ConstantOfShape", [shape], {}, [(ir.DataType.FLOAT, None)])
    return zeros if value.dtype == ir.DataType.FLOAT else op.Cast(zeros, to=int(value.dtype or 0))
