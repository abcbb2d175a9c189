"""What the user of an export says of pictures and classes, completed with what the model says."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from fastcam import schema
from fastcam.labels import Labels, read_labels
from fastcam.schema import Preprocessing, Score
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


def names_known(wanted: Labels | None, loaded: Loaded) -> int | None:
    """How many class names the user gives; or 2 where the model brings names of two classes; else None."""
    if wanted is not None:
        return len(read_labels(wanted, None))
    return 2 if class_names.carried(loaded, 2)[0] is not None else None


def labels(
    wanted: Labels | None, loaded: Loaded, score: Score, words: int | None = None
) -> tuple[tuple[str, ...] | None, str]:
    """Class names by index, see :func:`fastcam.labels.read_labels`, and where they are from if the model brings them.

    Args:
        wanted: what the user gives. Of a model that says one number, one name is the second class's: the first is "not"
            that.
        loaded: the model.
        score: what is explained.
        words: of a text output the number of its words or characters, a blank included.
    """
    if wanted is None:
        if words is not None:
            return class_names.characters(loaded, words)
        return class_names.carried(loaded, score.classes)
    names = read_labels(wanted, None)
    if score.single and len(names) == 1:
        return (f"not {names[0]}", names[0]), ""
    if words is not None and len(names) + 2 == words:  # Paddle's list of characters
        return class_names.with_blank(names, words), ""
    return read_labels(names, score.classes), ""
