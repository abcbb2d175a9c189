"""Which input of a model is the one that is explained."""

from __future__ import annotations

import difflib

import onnx_ir as ir

from fastcam.errors import listed
from fastcam.schema import FastcamError
from fastcam_export.autodiff.core.builder import FLOATS
from fastcam_export.graph.query import known_dims
from fastcam_export.layers.input_roles import rows_of
from fastcam_export.layers.layout import shape_text

TYPES = (*FLOATS, ir.DataType.UINT8)
CONVOLUTIONS = frozenset({"Conv", "FusedConv", "QLinearConv", "ConvInteger", "ConvTranspose"})

SAMPLES = 16
"""A row of numbers is a signal of at least so many samples."""


def find_image(graph: ir.Graph, name: str | None = None) -> ir.Value:
    """The input that is explained: the one called ``name``, else the first that holds pictures.

    Pictures are a float (or uint8) input of four axes that something reads, else of five, a video or a volume. Of
    several the first of three channels is taken, a picture beside a depth map or a mask. Where there are none, a signal
    is: a float input of three axes, or of two that a convolution reads. Else a text: ids of words, see
    :func:`vocabulary`.

    Raises:
        FastcamError: there is none; or none of this name, or it is no such input, or one of size 0.
    """
    image = _named(graph, name) if name is not None else _first(graph)
    if 0 in (known_dims(image) or ()):
        raise FastcamError(
            f"input {image.name!r} {shape_text(image)} has a size of 0, so that it holds nothing; export the model "
            "with the sizes that it takes"
        )
    return image


def _first(graph: ir.Graph) -> ir.Value:
    """The first input that holds pictures."""
    for rank in (4, 5, 3, 2):
        fits = [value for value in graph.inputs if _holds_numbers(value) and value.shape is not None]
        fits = [value for value in fits if len(value.shape or ()) == rank and _is_image(graph, value, rank)]
        read = [value for value in fits if value.uses()] or fits
        of_three = [value for value in read if 3 in (known_dims(value) or [])[1:]]
        if read:
            return (of_three or read)[0]
    texts = [value for value in graph.inputs if vocabulary(graph, value) is not None]
    if texts:
        return texts[0]
    alone = any(len(dims) == 3 and {*dims} & {1, 3, 4} for dims in map(known_dims, graph.inputs) if dims)
    way = "of a picture without an axis of images put one in front" if alone else "nothing to draw a map on"
    raise FastcamError(
        "the model has no image input, a tensor of four axes (a video or volume has five, a signal three) "
        f"(inputs: {_listed(graph)}); {way}"
    )


def _is_image(graph: ir.Graph, value: ir.Value, rank: int) -> bool:
    """Whether an input of so many axes may be what a map is drawn on."""
    if rank >= 4:
        return True
    if value.dtype not in FLOATS or value.name in graph.initializers:
        return False
    dims = known_dims(value) or []
    if rank == 2 and (dims[1] or SAMPLES) < SAMPLES:
        return False
    unbatched = rank == 3 and dims[0] == 3 and min((dims[1] or 9, dims[2] or 9)) > 8  # a picture without a batch
    convolved = any(node.op_type in CONVOLUTIONS for node in graph)
    return not unbatched and convolved


def _named(graph: ir.Graph, name: str) -> ir.Value:
    """The input of this name."""
    inputs = {value.name or "": value for value in graph.inputs if value.name not in graph.initializers}
    if name not in inputs:
        near = difflib.get_close_matches(name, inputs, 1, 0)
        nearest = f"; the nearest is {near[0]!r}" if near else ""
        raise FastcamError(f"the model has no input {name!r}{nearest} (inputs: {_listed(graph)})")
    value = inputs[name]
    dims = known_dims(value)
    few = dims is not None and len(dims) == 2 and (dims[1] or SAMPLES) < SAMPLES  # numbers beside a picture
    if vocabulary(graph, value) is not None:
        return value
    if not _holds_numbers(value) or dims is None or len(dims) not in (2, 3, 4, 5) or few:
        raise FastcamError(
            f"input {name!r} is {value.dtype} {shape_text(value)}, which holds no pictures; name another with "
            f"input_name (--input) (inputs: {_listed(graph)})"
        )
    return value


def vocabulary(graph: ir.Graph, value: ir.Value) -> int | None:
    """How many words there are, where an input [N, L] holds the ids of a text's words, each looked up in a table, and
    convolutions read what was looked up; None of all other inputs."""
    whole = value.dtype in (ir.DataType.INT64, ir.DataType.INT32) and isinstance(value.type, ir.TensorType)
    if not whole or len(known_dims(value) or []) != 2 or value.name in graph.initializers:
        return None
    return rows_of(value) if any(node.op_type in CONVOLUTIONS for node in graph) else None


def _holds_numbers(value: ir.Value) -> bool:
    """Whether it is a tensor of a type that pictures have; a list or an optional tensor is none."""
    return value.dtype in TYPES and isinstance(value.type, ir.TensorType)


def _listed(graph: ir.Graph) -> str:
    own = [value for value in graph.inputs if value.name not in graph.initializers]
    return listed(f"{value.name} {shape_text(value)}" for value in own) or "none"
