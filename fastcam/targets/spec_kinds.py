"""Cotangents in words: "region:person", "box:dog,x0" -> the cotangents of a file's outputs; and what a file answers."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from fastcam.errors import FastcamError, shown
from fastcam.image.reading import DEFAULT, Reading
from fastcam.schema import Cotangent, Metadata
from fastcam.targets import boxes, class_scores, embeddings, maps, points, prompts, texts
from fastcam.targets.resolved import CotangentSource
from fastcam.targets.spec_parser import (
    File,
    Kind,
    Outputs,
    PerImageSpecs,
    Spec,
    SpecFunction,
    SpecResult,
    Texts,
    joined,
    parse,
    sizes,
)

CotangentLike: TypeAlias = "CotangentSource | str | Sequence[str] | Sequence[Sequence[str]]"
"""What a caller may give as cotangent."""


KINDS: dict[str, Kind] = {
    **class_scores.KINDS,
    **maps.KINDS,
    **points.KINDS,
    **boxes.KINDS,
    **embeddings.KINDS,
    **prompts.KINDS,
    **texts.KINDS,
}
"""What can be explained of an output, by the word in front of the colon."""


def spec(text: str) -> Spec:
    """A spec, whose kind there is.

    Raises:
        FastcamError: no such kind, or an option that it does not know.
    """
    parsed = parse(text, {name: kind.options for name, kind in KINDS.items()})
    if parsed.kind not in KINDS:
        near = difflib.get_close_matches(parsed.kind, KINDS, 1, 0.6)
        nearest = f"did you mean {near[0]}?" if near else f"there are {', '.join(KINDS)}; a class is class:NAME"
        raise FastcamError(f"{shown(repr(text))}: no kind of target {shown(repr(parsed.kind))}; {nearest}")
    return parsed


@dataclass(frozen=True)
class BoundSpecs:
    """Specs, ready for the outputs of a run; ``place``: whether one has a place in the picture."""

    about: tuple[Cotangent, ...]
    functions: tuple[SpecFunction, ...]
    place: bool = False

    def of_run(self, start: int, outputs: Outputs, images: int) -> SpecResult:
        """The same for the images of a run, whatever their number."""
        return self(outputs)

    def __call__(self, outputs: Outputs) -> SpecResult:
        """The cotangents of all specs, in order, with names and values."""
        return joined([function(outputs) for function in self.functions], outputs, self.about)


def bind(
    cotangent: CotangentLike,
    metadata: Metadata,
    name: str,
    outputs_of: Callable[[Any], Outputs],
    reading: Reading = DEFAULT,
    side: Texts | None = None,
) -> CotangentSource:
    """Specs as a function of the outputs, :class:`BoundSpecs`; what is no words as it is.

    Args:
        cotangent: a spec or several, see :data:`KINDS`, or such a list for each image; or anything else.
        metadata: of the file.
        name: how messages call it.
        outputs_of: a picture's path -> the model's outputs; for references of similarities.
        reading: how files of masks are read.
        side: what compares embeddings with texts.

    Raises:
        FastcamError: a spec that is none, or that the file does not answer; the message says what it answers.
    """
    said = [cotangent] if isinstance(cotangent, str) else cotangent
    if not isinstance(said, list | tuple) or not said:
        return cotangent  # type: ignore[return-value]
    if all(isinstance(row, list | tuple) for row in said):
        rows = [bind(row, metadata, name, outputs_of, reading, side) for row in said]
        if all(isinstance(row, BoundSpecs) for row in rows):
            return PerImageSpecs(tuple(row for row in rows if isinstance(row, BoundSpecs)))
    if not all(isinstance(one, str) for one in said):
        return cotangent  # type: ignore[return-value]
    file = File(name, metadata.cotangents, metadata.labels, metadata.preprocessing, outputs_of, reading, side)
    specs = [spec(str(one)) for one in said]
    functions = tuple(_resolve(one, file, metadata) for one in specs)
    text = any(map(texts.is_text, metadata.cotangents))  # a character is where it is read
    place = any(KINDS[one.kind].place(one) or (text and one.kind in texts.KINDS) for one in specs)
    return BoundSpecs(metadata.cotangents, functions, place)


def _resolve(one: Spec, file: File, metadata: Metadata) -> SpecFunction:
    try:
        return KINDS[one.kind].resolve(one, file)
    except FastcamError as error:
        if any(one.kind in kinds_for(about) for about in metadata.cotangents):
            raise
        raise FastcamError(f"{error}; it answers {supported_forms(metadata)}") from error


def supported_forms(metadata: Metadata) -> str:
    """What a file answers, for a message: the forms of the kinds that fit its outputs."""
    kinds: list[str] = []
    for about in metadata.cotangents:
        kinds += kinds_for(about, len(metadata.labels) if metadata.labels is not None else None)
    return ", ".join(KINDS[kind].form for kind in dict.fromkeys(kinds))


def kinds_for(about: Cotangent, names: int | None = None) -> list[str]:
    """The kinds that an output is likely to be asked by; ``names``: how many class names there are."""
    shape = sizes(about)
    if texts.is_text(about):
        return ["words", "caption", "element"]
    if about.answer == "point":
        return ["point", "element"]
    if not about.batched or (len(shape) == 2 and (shape[-1] in (4, 6) or "box" in about.output.lower())):
        return ["box", "element"]
    fitting = [name for name, kind in KINDS.items() if len(shape) in kind.axes]
    left_out: tuple[str, ...] = ()
    if len(shape) == 1:
        left_out = ("box",)
    elif len(shape) == 2 and names is not None:
        boxes = {names + 4, names + 5} & {*shape}
        left_out = ("caption", "words") if boxes else ("box",) if shape[1] == names else ()
    if len(shape) == 2:
        left_out = (*left_out, "point", *(() if about.answer == "region" else ("region",)))
    return [name for name in fitting if name not in left_out]
