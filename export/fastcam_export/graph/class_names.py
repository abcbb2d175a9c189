"""Class names that a model brings with it: in its metadata, in its last node, or in a file beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import onnx

from fastcam.errors import FastcamError
from fastcam.input_files import read_text
from fastcam.labels import names_by_index, names_in, read_labels
from fastcam_export.graph.load import Loaded

KEYS = ("names", "classes", "class_names", "classnames", "labels", "label_names", "id2label", "character", "characters")
"""Keys of a model's metadata that hold class names: Ultralytics, Paddle and others."""
CONFIG = "config.json"
BESIDE = ("names.txt", "classes.txt", "labels.txt")
"""Files beside a model that hold one name a line; they count where there are as many as the model has classes."""
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
    for names, where in (*_in_model(loaded), *(_in_text_files(loaded) if classes is not None else ())):
        if names and classes in (None, len(names)) and not all(map(PLACEHOLDER.fullmatch, names)):
            return names, where
    return None, ""


def characters(loaded: Loaded, classes: int) -> tuple[tuple[str, ...] | None, str]:
    """The characters of a text output, whose classes have a blank besides, and at Paddle's models a space.

    Paddle's rule: the blank comes first, and a space, if it is not among the characters, last. Names of all classes but
    one stay as they are: which class is the blank, the first or the last, is seen where the text is read.
    """
    for names, where in (*_in_model(loaded), *_in_text_files(loaded)):
        whole = with_blank(names, classes) if names else None
        if whole is not None:
            return whole, where
    return None, ""


def with_blank(names: tuple[str, ...], classes: int) -> tuple[str, ...] | None:
    """Names of as many classes, or of all but the blank, which a run tells; two fewer are Paddle's. None: no fit."""
    if len(names) in (classes, classes - 1):
        return names
    return (BLANK, *names, " ") if len(names) + 2 == classes else None


def _in_model(loaded: Loaded) -> Iterator[tuple[tuple[str, ...] | None, str]]:
    said = {entry.key: entry.value for entry in loaded.proto.metadata_props}
    for key in KEYS:
        if key in said:
            yield names_in(said[key]), f"the file's metadata ({key})"
    for node in loaded.proto.graph.node:
        if node.op_type == "ZipMap":
            yield _of_node(node), f"the node ZipMap {node.name!r}"
    for folder in (loaded.folder, loaded.folder.parent) if loaded.folder is not None else ():
        yield _of_config(folder / CONFIG), str(CONFIG if folder == loaded.folder else f"../{CONFIG}")


def _in_text_files(loaded: Loaded) -> Iterator[tuple[tuple[str, ...] | None, str]]:
    """The names in text files beside the model."""
    if loaded.folder is None:
        return
    for name in BESIDE:
        try:
            yield read_labels(loaded.folder / name, None), name
        except FastcamError:  # there is none, or it holds something else
            continue


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
