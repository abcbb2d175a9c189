"""Which input of a model is the one that is explained."""

from __future__ import annotations

import difflib

import onnx_ir as ir

from fastcam.schema import FastcamError
from fastcam_export.autodiff.core.builder import FLOATS
from fastcam_export.graph.query import known_dims
from fastcam_export.layers.layout import shape_text

TYPES = (*FLOATS, ir.DataType.UINT8)


def find_image(graph: ir.Graph, name: str | None = None) -> ir.Value:
    """The input that is explained: the one called ``name``, else the first that holds pictures.

    Pictures are a float (or uint8) input of four axes that something reads, else of five, a video. Of several the first
    of three channels is taken, a picture beside a depth map or a mask.

    Raises:
        FastcamError: there is none; or none of this name, or it is no such input.
    """
    if name is not None:
        return _named(graph, name)
    for rank in (4, 5):
        fits = [value for value in graph.inputs if value.dtype in TYPES and value.shape is not None]
        fits = [value for value in fits if len(value.shape or ()) == rank]
        read = [value for value in fits if value.uses()] or fits
        of_three = [value for value in read if 3 in (known_dims(value) or [])[1:]]
        if read:
            return (of_three or read)[0]
    raise FastcamError(
        f"the model has no image input, a tensor of four axes (inputs: {_listed(graph)}); nothing to draw a map on"
    )


def _named(graph: ir.Graph, name: str) -> ir.Value:
    """The input of this name."""
    inputs = {value.name or "": value for value in graph.inputs if value.name not in graph.initializers}
    if name not in inputs:
        near = difflib.get_close_matches(name, inputs, 1, 0)
        nearest = f"; the nearest is {near[0]!r}" if near else ""
        raise FastcamError(f"the model has no input {name!r}{nearest} (inputs: {_listed(graph)})")
    value = inputs[name]
    if value.dtype not in TYPES or value.shape is None or len(value.shape) not in (4, 5):
        raise FastcamError(
            f"input {name!r} is {value.dtype} {shape_text(value)}, which holds no pictures; name another with "
            f"input_name (--input) (inputs: {_listed(graph)})"
        )
    return value


def _listed(graph: ir.Graph) -> str:
    own = [value for value in graph.inputs if value.name not in graph.initializers]
    return ", ".join(f"{value.name} {shape_text(value)}" for value in own) or "none"
