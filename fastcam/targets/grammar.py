"""One grammar for targets, whatever a file answers: "tabby", "box:dog", "region:person", "element:3", "words".

A file of class scores takes classes, and what says the same as a class; a file of cotangents takes every kind of
:data:`fastcam.targets.spec_kinds.KINDS`, and a name or number without a kind is of the kind that its outputs are asked
by.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastcam.errors import FastcamError
from fastcam.schema import Answer, Cotangent, Metadata
from fastcam.targets.classes import Targets, whole_number
from fastcam.targets.spec_kinds import KINDS, kinds_for, spec, supported_forms
from fastcam.targets.spec_parser import Spec, sizes

BEST = "box:most=5"
"""What a detector is asked where nobody says what: its best boxes that do not overlap."""
ORDER: tuple[Answer, ...] = ("text", "box", "point", "region", "words", "class", "element", "similarity")
PREDICTED = -1


# ---- files of cotangents


def in_words(targets: Any, metadata: Metadata, file: str) -> Any:
    """Targets as specs, of the same nesting: a text, a list of them, or such a list for each image.

    Args:
        targets: as a caller gives them; -1, the default, is what the file is most likely asked.
        metadata: of a file whose targets are cotangents.
        file: its name.

    Raises:
        FastcamError: a target that is none, or nothing to ask by default.
    """
    if isinstance(targets, np.ndarray):
        targets = targets.tolist()
    if isinstance(targets, list | tuple):
        return [in_words(one, metadata, file) for one in targets]
    kind = own_kind(metadata)
    if isinstance(targets, str):
        text, classes = targets.strip(), Targets(None, metadata.labels)
        named = _kind_of(text)
        if not kind or (named in KINDS and (named == kind or not classes.knows(text))):
            return text
        number = whole_number(text)
        target = text if number is None else number
        if kind == "text":
            classes.terms(target)  # a name that no prompt has is no text of its own
        hidden = isinstance(target, str) and classes.knows(text) and set(text) & {",", "="}
        return _spec(kind, classes.one(text) if hidden else target)
    if isinstance(targets, Mapping):
        return f"{'text' if kind == 'text' else 'class'}:{_summed(targets)}"
    if isinstance(targets, bool) or not isinstance(targets, int | np.integer):
        raise FastcamError(f"a target is a word, a number or a combination of classes, got {targets!r}")
    if not kind:
        raise FastcamError(
            f"{file} explains {', '.join(one.output for one in metadata.cotangents)}: say what to explain of it with a "
            f"target (-t), one of: {supported_forms(metadata)}"
        )
    return _spec(kind, int(targets))


def _spec(kind: Answer, target: int | str) -> str:
    """A name, number or rank in the words of a kind."""
    if target == PREDICTED:
        return {"box": BEST, "class": "class:-1", "text": "text:-1"}.get(kind, kind)
    if kind == "box" and isinstance(target, int) and target < 0:
        return f"box:box={target}"
    return f"{kind}:{target}"


def own_kind(metadata: Metadata) -> Answer:
    """The kind that a file is asked by where no kind is named; "" where nothing tells.

    Files of former versions do not say it; their outputs' shapes do, where there is only one kind that fits.
    """
    names = len(metadata.labels) if metadata.labels is not None else None
    answers = [one.answer or _by_shape(one, names) for one in metadata.cotangents]
    return next((kind for kind in ORDER if kind in answers and kind != "similarity"), "")


def _by_shape(about: Cotangent, names: int | None) -> Answer:
    shape, kinds = sizes(about), kinds_for(about, names)
    if about.axes in ("LC", "LNC"):
        return "words"
    if len(shape) == 3:
        return "region"
    if len(shape) < 2:
        return "element" if shape in ((), (1,)) else "class"
    return "box" if "box" in kinds and "words" not in kinds else "words" if "box" not in kinds else ""


# ---- files of classes


def as_classes(targets: Any, metadata: Metadata, file: str, known: Any) -> Any:
    """Targets of a file of class scores, without words that say the same: "class:tabby" is "tabby".

    Args:
        known: whether a text is a class by itself; a class called "box" stays one.

    Raises:
        FastcamError: a kind that needs another export; the message says which.
    """
    if isinstance(targets, list | tuple):
        return [as_classes(one, metadata, file, known) for one in targets]
    if not isinstance(targets, str) or known(targets) or _kind_of(targets) not in KINDS:
        return targets
    one = spec(targets)
    kind = metadata.score.kind
    if {"class": kind, "element": "raw"}.get(one.kind, one.kind) == kind and len(one.words) == 1 and not one.options:
        number = whole_number(one.words[0])
        return one.words[0] if number is None else number
    model = metadata.source.get("file") or "MODEL.onnx"
    raise FastcamError(
        f"{file} answers targets of one class or a combination, and no {targets!r}; export it for that: fastcam export "
        f"{model} --targets cotangent{_output(one, metadata)}"
    )


def _output(one: Spec, metadata: Metadata) -> str:
    """Which output the other export has to explain, where that is the same one."""
    scores = one.kind in ("class", "probability", "log-probability", "finer", "labels", "element")
    return f" --output-name {metadata.score.output}" if scores else " (name its output with --output-name)"


# ---- words


def are_words(targets: Any) -> bool:
    """Whether these are texts, or lists of them."""
    if isinstance(targets, list | tuple):
        return bool(targets) and all(map(are_words, targets))
    return isinstance(targets, str)


def _kind_of(text: str) -> str:
    return "-".join(text.partition(":")[0].casefold().replace("_", " ").replace("-", " ").split())


def _summed(target: Mapping[Any, Any]) -> str:
    """{"tabby": 1, "tiger cat": -0.5} as "1*tabby - 0.5*tiger cat"."""
    for name, a in target.items():
        if isinstance(a, bool) or not isinstance(a, int | float | np.number) or not np.isfinite(a) or not a:
            raise FastcamError(f"the coefficient of class {name!r} must be a number other than zero, got {a!r}")
    ordered = sorted(target.items(), key=lambda item: item[1] < 0)
    if len(ordered) == 1 and ordered[0][1] < 0:
        return f"not {-float(ordered[0][1]):.12g}*{ordered[0][0]}"
    if not ordered or ordered[0][1] < 0:
        raise FastcamError("a combination needs a class with a positive coefficient; give {class: coefficient}")
    (name, a), *others = ordered
    rest = (f" {'-' if b < 0 else '+'} {abs(float(b)):.12g}*{other}" for other, b in others)
    return f"{float(a):.12g}*{name}{''.join(rest)}"
