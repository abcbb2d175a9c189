"""What the user of an export says of pictures and classes, completed with what the model says."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from fastcam import schema
from fastcam.labels import Labels, read_labels
from fastcam.schema import Preprocessing
from fastcam_export.graph import class_names
from fastcam_export.graph.load import Loaded
from fastcam_export.graph.query import known_dims
from fastcam_export.layers.axis_tracing import image_order


def preprocessing(wanted: str | Preprocessing | None, resize: schema.Resize, image: ir.Value) -> Preprocessing | None:
    if wanted is None:
        return None
    dims = known_dims(image) or []
    last = image_order(image).endswith("C")
    channels, (height, width) = (dims[-1], dims[-3:-1]) if last else (dims[1], dims[-2:])
    size = (height, width) if height is not None and width is not None else None
    known = schema.preset(wanted, resize=resize) if isinstance(wanted, str) else wanted
    color = "GRAY" if channels == 1 else known.color
    return replace(known, size=size or known.size, color=color, layout="NHWC" if last else "NCHW")


def labels(
    wanted: Labels | None, loaded: Loaded, classes: int | None, words: int | None = None
) -> tuple[tuple[str, ...] | None, str]:
    """Class names by index, see :func:`fastcam.labels.read_labels`, and where they are from if the model brings them.

    Args:
        wanted: what the user gives.
        loaded: the model.
        classes: how many there must be; None takes any number.
        words: of a text output the number of its words or characters, a blank included.
    """
    if wanted is not None:
        names = read_labels(wanted, classes)
        paddle = words is not None and len(names) + 2 == words
        return class_names.with_blank(names, words) if words is not None and paddle else names, ""
    if words is not None:
        return class_names.characters(loaded, words)
    return class_names.carried(loaded, classes)
