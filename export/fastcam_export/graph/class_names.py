"""Class names that a model brings with it: in its metadata, in its last node, or in a config.json beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import onnx

from fastcam.input_files import read_text
from fastcam.labels import names_by_index, names_in
from fastcam_export.graph.load import Loaded

KEYS = ("names", "classes", "class_names", "classnames", "labels", "label_names", "id2label", "character", "characters")
"""Keys of a model's metadata that hold class names: Ultralytics, Paddle and others."""
CONFIG = "config.json"
PLACEHOLDER = re.compile(r"LABEL_\d+")
"""What Hugging Face calls classes that have no names."""
BLANK = "<blank>"
"""The name of the class of a CTC output that stands for no character."""


def carried(loaded: Loaded, classes: int | None) -> tuple[tuple[str, ...] | None, str]:
    """The names that a model brings, and where they stand; None and "" where there are none for so many classes.

    Args:
        loaded: the model.
        classes: how many names there must be; None takes any number.
    """
    for names, where in _found(loaded):
        if names and classes in (None, len(names)) and not all(map(PLACEHOLDER.fullmatch, names)):
            return names, where
    return None, ""


def characters(loaded: Loaded, classes: int) -> tuple[tuple[str, ...] | None, str]:
    """The characters of a text output, whose classes have a blank besides, and at Paddle's models a space.

    Paddle's rule: the blank comes first, and a space, if it is not among the characters, last.
    """
    for names, where in _found(loaded):
        whole = with_blank(names, classes) if names else None
        if whole is not None:
            return whole, where
    return None, ""


def with_blank(names: tuple[str, ...], classes: int) -> tuple[str, ...] | None:
    """Names of as many classes: as they are, or by Paddle's rule with its blank, and its space; None: neither fits."""
    if len(names) == classes:
        return names
    if len(names) + 1 == classes:
        return (BLANK, *names)
    return (BLANK, *names, " ") if len(names) + 2 == classes else None


def _found(loaded: Loaded) -> Iterator[tuple[tuple[str, ...] | None, str]]:
    said = {entry.key: entry.value for entry in loaded.proto.metadata_props}
    for key in KEYS:
        if key in said:
            yield names_in(said[key]), f"the file's metadata ({key})"
    for node in loaded.proto.graph.node:
        if node.op_type == "ZipMap":
            yield _of_node(node), f"the node ZipMap {node.name!r}"
    for folder in (loaded.folder, loaded.folder.parent) if loaded.folder is not None else ():
        yield _of_config(folder / CONFIG), str(CONFIG if folder == loaded.folder else f"../{CONFIG}")


def _of_node(node: onnx.NodeProto) -> tuple[str, ...] | None:
    for attribute in node.attribute:
        if attribute.name == "classlabels_strings":
            return tuple(name.decode(errors="replace") for name in attribute.strings)
    return None


def _of_config(path: Path) -> tuple[str, ...] | None:
    """``id2label`` of a configuration of Hugging Face; None where there is none."""
    try:
        names = json.loads(read_text(path, "give JSON"))["id2label"]
        return names_by_index(names, CONFIG)
    except (ValueError, KeyError, TypeError, RecursionError):  # FastcamError is a ValueError
        return None
