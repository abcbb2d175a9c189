"""What the user of an export says of pictures and classes, completed with what the model says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from fastcam import schema
from fastcam.labels import read_labels
from fastcam.schema import Preprocessing
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


def labels(wanted: str | Path | Sequence[str] | None, classes: int | None) -> tuple[str, ...] | None:
    """Class names by index; see :func:`fastcam.labels.read_labels`."""
    return None if wanted is None else read_labels(wanted, classes)
