"""The XML that PASCAL VOC and ILSVRC keep their boxes in, read without what makes XML dangerous.

A document type, which can define entities that grow without end or name other files, is refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from fastcam.errors import FastcamError, shown
from fastcam.evaluation.data.listed import inclusive_box
from fastcam.evaluation.samples import Box
from fastcam.image.preprocess import Size
from fastcam.input_files import read_bytes

LARGEST, DEEPEST = 4 << 20, 32
"""Of a file of one picture: bytes, and elements in each other."""
WANTED = "give an annotation of PASCAL VOC's format"


@dataclass(frozen=True)
class MarkedObject:
    """An ``object`` of an annotation.

    Attributes:
        label: its name.
        box: half-open from 0; None where the file has none that is a box.
        difficult: as the file says.
    """

    label: str
    box: Box | None
    difficult: bool


@dataclass(frozen=True)
class MarkedPicture:
    """What a file says.

    Attributes:
        size: height and width of the picture; None where the file has none.
        objects: in the file's order.
    """

    size: Size | None
    objects: tuple[MarkedObject, ...]


def read_annotation(path: Path) -> MarkedPicture:
    """The annotation in a file.

    Raises:
        FastcamError: it cannot be read, is no XML or no annotation, or has a document type.
    """
    root = _tree(path)
    if root.tag != "annotation":
        raise FastcamError(f"{shown(path)}: begins with <{root.tag[:40]}> and not with <annotation>; {WANTED}")
    height, width = (_number(_text(root, f"size/{name}")) for name in ("height", "width"))
    size = (int(height), int(width)) if 0 < height < 1e9 and 0 < width < 1e9 else None
    return MarkedPicture(size, tuple(map(_object, root.findall("object"))))


def _tree(path: Path) -> Element:
    data = read_bytes(path, WANTED, LARGEST)
    builder, depth = TreeBuilder(), 0
    parser = expat.ParserCreate()

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > DEEPEST:
            raise FastcamError(f"{shown(path)}: XML nested deeper than {DEEPEST} elements; {WANTED}")
        builder.start(name, attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(name)

    def refuse(*_: object) -> None:
        raise FastcamError(f"{shown(path)}: XML with a document type, which is not read; {WANTED}")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(data, True)
        return builder.close()
    except (expat.ExpatError, LookupError, ValueError) as error:
        if isinstance(error, FastcamError):
            raise
        raise FastcamError(f"{shown(path)}: no XML that can be read ({error}); {WANTED}") from error


def _object(element: Element) -> MarkedObject:
    corners = [_number(_text(element, f"bndbox/{name}")) for name in ("xmin", "ymin", "xmax", "ymax")]
    return MarkedObject(_text(element, "name"), inclusive_box(*corners), _text(element, "difficult") == "1")


def _text(element: Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
