"""Targets in words, names of layers and values of options: what a person types behind -t, --layer and the like."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from fastcam import Explainer
from fastcam.cli.shared.options import class_targets, sides
from fastcam_bench.fuzz import WrongAnswer
from fastcam_bench.fuzz.graphs.seeds import model
from fastcam_bench.fuzz.models import refused
from fastcam_export import export_model

NAME = "Target words"
LABELS = ("tabby", "tiger cat", "dog", "box", "3", "a, b")
DOORS = ("classifier", "detector", "segmenter", "vector")
"""Files that are asked; then names and options of an export, see :data:`OPTIONS`."""
OPTIONS = (
    "layer",
    "output_name",
    "input_name",
    "preprocess",
    "order",
    "score",
    "emit",
    "size",
    "grid",
    "stop_gradient",
)
GOOD = (
    "tabby", "class:tabby", "-1", "2", "tabby - 0.5*tiger cat", "not tabby", "box:dog", "box:best", "box:most=5",
    "box:dog,x0", "region:1", "region", "element:3", "element:3,4,1", "probability:dog", "labels:threshold=0.5",
    "similarity:none.png", "words", "class:-2,output=z", "region:dog,mask=none.png", "finer:tabby,dog",
)  # fmt: skip
PIECES = (
    ":", ",", "=", "-", "+", "*", " ", "\n", "\t", "\0", "not ", "box", "region", "element", "class", "threshold=",
    "most=", "box=", "output=", "mask=", "x0", "9" * 25, "9" * 5000, "-" * 40, "1e999", "nan", "inf", "0x10", "1_000",
    "²", "٣", "Ⅳ", "ß", "İ", "é", "e\u0301", "\u202e", "\ud800", "😀" * 20, "{}", "%s", "\\", "'", '"', "../", "(a+)+$",
)  # fmt: skip


def seeds() -> list[bytes]:
    """Targets for each file, and values for each option: a byte that says which, and the text."""
    words = [bytes([door]) + text.encode() for door in range(len(DOORS)) for text in GOOD]
    options = ("feat", "y", "x", "imagenet", "NCHW", "logit", "weights", "8x8", "2x2", "c")
    return words + [bytes([len(DOORS) + i]) + text.encode() for i, text in enumerate(options)]


def mutate(data: bytes, random: np.random.Generator) -> bytes:
    """Pieces of the grammar, numbers without end and letters of all kinds, put in, doubled or taken out."""
    text = data[1:].decode(errors="replace")
    for _ in range(int(random.integers(1, 5))):
        at, how = int(random.integers(len(text) + 1)), random.integers(5)
        piece = PIECES[int(random.integers(len(PIECES)))]
        if how == 0:
            text = text[:at] + text[at + int(random.integers(1, 5)) :]
        elif how == 1:
            text = text[:at] + GOOD[int(random.integers(len(GOOD)))] + text[at:]
        elif how == 2:
            text = text[:at] + text[at : at + 6] * int(random.choice([2, 3, 400])) + text[at:]
        else:
            text = text[:at] + piece + text[at:]
    door = bytes([int(random.integers(len(DOORS) + len(OPTIONS)))]) if random.random() < 0.2 else data[:1]
    return door + text.encode("utf-8", "surrogatepass")


@functools.cache
def _explainer(door: str) -> Explainer:
    how: dict[str, Any] = {"preprocess": "unit", "check": False}
    if door == "vector":
        made = export_model(model("classifier"), targets="cotangent", **how)
    else:
        made = export_model(model(door), labels=LABELS[: 4 if door == "classifier" else 6], **how)
    return Explainer(made.model.SerializeToString())


def attempt(data: bytes) -> str:
    """Explain a picture by what the text asks, or export with it as the value of an option.

    Raises:
        WrongAnswer: a map has what is no finite number.
        AssertionError: an error has more than a line, or is told as a defect of FastCAM.
        Exception: any that is not a FastcamError.
    """
    which, text = (data[:1] or b"\0")[0], _text(data[1:])
    which %= len(DOORS) + len(OPTIONS)
    if which >= len(DOORS):
        return "refused" if refused(lambda: _exported(OPTIONS[which - len(DOORS)], text)) else "accepted"
    return "refused" if refused(lambda: _explained(_explainer(DOORS[which]), text)) else "accepted"


def _text(data: bytes) -> str:
    """With halves of characters, as words of a command line may have them."""
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("utf-8", "replace")


def _exported(option: str, text: str) -> None:
    value: Any = sides(option, text) if option in ("size", "grid") else text
    export_model(model("free"), check=False, **{option: value})


def _explained(explainer: Explainer, text: str) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    found = explainer(picture, targets=class_targets([text], None))
    if not np.isfinite(found.maps).all():
        raise WrongAnswer(f"a map of {text[:50]!r} is not finite")
