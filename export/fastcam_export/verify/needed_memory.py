"""What a run needs at least, held against the memory that there is, before anything is run."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from fastcam.memory import refuse_more
from fastcam_export.graph.query import known_dims, readable_dims

DRAWN = 8 + 4
"""Bytes of a number of the check's pictures: as it is drawn, and as the model takes it."""


def refuse_values(graph: ir.Graph) -> None:
    """Raise where a value of a model is larger than the memory, whatever it is fed.

    Raises:
        FastcamError: one is.
    """
    for value in (*graph.inputs, *(value for node in graph for value in node.outputs)):
        sizes, dtype = known_dims(value), value.dtype
        if not sizes or dtype is None or dtype in (ir.DataType.STRING, ir.DataType.UNDEFINED):
            continue
        about = f"{value.name!r} [{', '.join(map(str, readable_dims(value)))}] of the model"
        refuse_more(about, [size or 1 for size in sizes], max(1, int(dtype.itemsize)), "give a model that fits")


def refuse_pictures(image: ir.Value, sizes: Sequence[int]) -> None:
    """Raise where the check's pictures would take more than the memory.

    Args:
        image: the explained input.
        sizes: the shape of the pictures.

    Raises:
        FastcamError: they would.
    """
    about = f"the check's pictures, {image.name!r} {list(sizes)},"
    refuse_more(about, sizes, DRAWN, "choose a smaller size (--size), or export with --no-check")
