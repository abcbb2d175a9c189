"""What the user of an export says of pictures and classes, completed with what the model says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from fastcam import schema
from fastcam.schema import FastcamError, Preprocessing
from fastcam_export.layers.axis_tracing import image_order


def preprocessing(given: str | Preprocessing | None, resize: schema.Resize, image: ir.Value) -> Preprocessing | None:
    if given is None:
        return None
    dims = [d if isinstance(d, int) else None for d in image.shape or ()]
    last = image_order(image).endswith("C")
    channels, (height, width) = (dims[-1], dims[-3:-1]) if last else (dims[1], dims[-2:])
    size = (height, width) if height is not None and width is not None else None
    known = schema.preset(given, resize=resize) if isinstance(given, str) else given
    color = "GRAY" if channels == 1 else known.color
    return replace(known, size=size or known.size, color=color, layout="NHWC" if last else "NCHW")


def labels(given: str | Path | Sequence[str] | None, classes: int | None) -> tuple[str, ...] | None:
    if given is None:
        return None
    if isinstance(given, (str, Path)):
        try:
            names = [line.strip() for line in Path(given).read_text(encoding="utf-8-sig").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise FastcamError(f"cannot read the labels file {given} ({why}); give one class name per line") from error
        names = names[: max((i + 1 for i, name in enumerate(names) if name), default=0)]
    else:
        names = [str(name) for name in given]
    if classes is not None and len(names) != classes:
        raise FastcamError(f"{len(names)} labels were given, but the score has {classes} classes; one name per class")
    return tuple(names)
