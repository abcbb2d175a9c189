"""What the user of an export says of pictures and classes, completed with what the model says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import onnx_ir as ir

from fastcam import schema
from fastcam.errors import FastcamError
from fastcam.labels import Labels, read_labels
from fastcam.preprocessing import fitted, named
from fastcam.schema import Preprocessing, Score
from fastcam_export.graph import class_names
from fastcam_export.graph.load import Loaded
from fastcam_export.graph.query import known_dims
from fastcam_export.layers.image_order import image_order


def preprocessing(
    wanted: str | Preprocessing | Mapping[str, Any] | None,
    resize: schema.Resize,
    image: ir.Value,
    size: Sequence[int] | None = None,
) -> tuple[Preprocessing | None, str]:
    """The preprocessing that the file says, and what was changed to fit the model, for people.

    Args:
        wanted: the name of a preset, a Preprocessing, or changes of a preset: ``{"preset": "imagenet", "mean": ...}``.
        resize: the resize rule of a preset.
        image: the input.
        size: its (height, width).

    Raises:
        FastcamError: no such preset, or one that does not fit the input.
    """
    if wanted is None:
        return None, ""
    dims = known_dims(image) or []
    last = image_order(image).endswith("C")
    known = named(wanted, resize=resize, size=None)
    if {*"DL"} & {*image_order(image)} or image_order(image) == "NHW":  # numbers of any kind, not pixels
        known, size = replace(known, color="BANDS", size=None), None
    assert image.dtype is not None
    fits, note = fitted(known, _channels(dims, image_order(image)), image.dtype.numpy().name, image.name or "")
    own = isinstance(wanted, Preprocessing) and wanted.size is None and None in dims
    sides = known.size if size is None or own else (size[0], size[1])
    return replace(fits, size=sides, layout="NHWC" if last else "NCHW"), note


def _channels(dims: Sequence[int | None], order: str) -> int | None:
    """The channels of an input: one, where it has no axis of them."""
    return dims[order.index("C")] if "C" in order else 1


def names_known(wanted: Labels | None, loaded: Loaded) -> int | None:
    """How many class names the user gives; or 2 where the model brings names of two classes; else None."""
    if wanted is not None:
        return len(read_labels(wanted, None))
    return 2 if class_names.carried(loaded, 2)[0] is not None else None


def labels(
    wanted: Labels | None, loaded: Loaded, score: Score, words: int | None = None, map_classes: int | None = None
) -> tuple[tuple[str, ...] | None, str]:
    """Class names by index, see :func:`fastcam.labels.read_labels`, and where they are from if the model brings them.

    Args:
        wanted: what the user gives. Of a model that says one number, one name is the second class's: the first is "not"
            that.
        loaded: the model.
        score: what is explained.
        words: of a text output the number of its words or characters, a blank included.
        map_classes: of a map of classes their number; of one the name of the other may stand in front.
    """
    if wanted is None:
        if words is not None:
            return class_names.characters(loaded, words)
        return class_names.carried(loaded, score.classes or map_classes)
    names = read_labels(wanted, None)
    if score.single and len(names) == 1:
        return (f"not {names[0]}", names[0]), ""
    if words is not None and len(names) + 2 == words:  # Paddle's list of characters
        return class_names.with_blank(names, words), ""
    if words is not None and len(names) not in (words, words - 1):
        raise FastcamError(
            f"{len(names)} labels do not fit a text of {words} classes; give one per class, or for all but the blank"
        )
    if map_classes is not None and not (map_classes == 1 and len(names) == 2):
        return read_labels(names, map_classes), ""
    return read_labels(names, score.classes), ""
