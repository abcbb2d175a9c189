"""Cotangents in words: "region:person", "box:dog,x0" -> the cotangents of a file's outputs; and what a file answers."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from fastcam.errors import FastcamError
from fastcam.schema import Cotangent, Metadata
from fastcam.targets import spec_boxes, spec_scores
from fastcam.targets.resolved import CotangentSource
from fastcam.targets.spec_parser import (
    File,
    Outputs,
    PerImageSpecs,
    Spec,
    SpecFunction,
    SpecResult,
    joined,
    parse,
    sizes,
)

CotangentLike: TypeAlias = "CotangentSource | str | Sequence[str] | Sequence[Sequence[str]]"
"""What a caller may give as cotangent."""


@dataclass(frozen=True)
class Kind:
    """A kind of spec.

    Attributes:
        form: how it is written.
        says: what is explained.
        axes: of one image's output that it is about.
        options: those it knows.
        made: what becomes of a spec.
    """

    form: str
    says: str
    axes: tuple[int, ...]
    options: tuple[str, ...]
    made: Callable[[Spec, File], SpecFunction]


KINDS: dict[str, Kind] = {
    "class": Kind(
        "class:NAME", "a class score, or a combination: class:'a - b'", (1,), ("output",), spec_scores.class_score
    ),
    "probability": Kind("probability:NAME", "its probability", (1,), ("output",), spec_scores.probability),
    "log-probability": Kind("log-probability:NAME", "and its logarithm", (1,), ("output",), spec_scores.probability),
    "finer": Kind(
        "finer:-1,-2,-3,-4", "weighted Finer-CAM: the first class against the others", (1,), ("output", "strength"),
        spec_scores.finer,
    ),
    "labels": Kind(
        "labels:NAME,NAME", "the sum of several labels; without names of those above threshold=0", (1,),
        ("output", "threshold"), spec_scores.labels,
    ),
    "element": Kind(
        "element:INDEX", "one number of an output: element:3, or of a map element:3,0,7", (1, 2, 3, 4), ("output",),
        spec_scores.element,
    ),
    "region": Kind(
        "region:NAME", "segmentation: a class where it is predicted, or within mask=FILE; axis=last of maps [h, w, C]",
        (3,), ("output", "mask", "axis"),
        spec_scores.region,
    ),
    "box": Kind(
        "box:NAME,x0", "detection: the best box (of a class), its score or sides x0 y0 x1 y1; box=-2 is the second",
        (1, 2), ("box", "layout", "form", "boxes", "scores", "output"), spec_boxes.box,
    ),
    "similarity": Kind(
        "similarity:other.jpg", "the cosine of embeddings, of a picture or a .npy file; kind=dot", (1,),
        ("output", "kind"), spec_scores.similarity,
    ),
    "pair": Kind("pair", "the same of pictures 1 and 2, 3 and 4, ...", (1,), ("output", "kind"), spec_scores.pair),
    "caption": Kind(
        "caption:4,8,15", "the log-probability of a caption, by its tokens; without them of the likeliest", (2,),
        ("output", "kind"), spec_scores.words,
    ),
    "words": Kind("words:4,8,15", "the same word by word", (2,), ("output", "kind"), spec_scores.words),
}  # fmt: skip
"""What can be asked of an output, by the word in front of the colon."""


def spec(text: str) -> Spec:
    """A spec, whose kind there is.

    Raises:
        FastcamError: no such kind, or an option that it does not know.
    """
    found = parse(text, {name: kind.options for name, kind in KINDS.items()})
    if found.kind not in KINDS:
        near = difflib.get_close_matches(found.kind, KINDS, 1, 0.6)
        nearest = f"did you mean {near[0]}?" if near else f"there are {', '.join(KINDS)}; a class is class:NAME"
        raise FastcamError(f"{text!r}: no kind of target {found.kind!r}; {nearest}")
    return found


@dataclass(frozen=True)
class BoundSpecs:
    """Specs, ready for the outputs of a run."""

    about: tuple[Cotangent, ...]
    makers: tuple[SpecFunction, ...]

    def __call__(self, outputs: Outputs) -> SpecResult:
        """The cotangents of all specs, in order, with names and values."""
        return joined([made(outputs) for made in self.makers], outputs, self.about)


def bind(
    cotangent: CotangentLike, metadata: Metadata, name: str, outputs_of: Callable[[Any], Outputs]
) -> CotangentSource:
    """Specs as a function of the outputs, :class:`BoundSpecs`; what is no words as it is.

    Args:
        cotangent: a spec or several, see :data:`KINDS`, or such a list for each image; or anything else.
        metadata: of the file.
        name: how messages call it.
        outputs_of: a picture's path -> the model's outputs; for references of similarities.

    Raises:
        FastcamError: a spec that is none, or that the file does not answer; the message says what it answers.
    """
    texts = [cotangent] if isinstance(cotangent, str) else cotangent
    if not isinstance(texts, list | tuple) or not texts:
        return cotangent  # type: ignore[return-value]
    if all(isinstance(row, list | tuple) for row in texts):
        rows = [bind(row, metadata, name, outputs_of) for row in texts]
        if all(isinstance(row, BoundSpecs) for row in rows):
            return PerImageSpecs(tuple(row for row in rows if isinstance(row, BoundSpecs)))
    if not all(isinstance(one, str) for one in texts):
        return cotangent  # type: ignore[return-value]
    file = File(name, metadata.cotangents, metadata.labels, metadata.preprocessing, outputs_of)
    return BoundSpecs(metadata.cotangents, tuple(_made(spec(str(one)), file, metadata) for one in texts))


def _made(one: Spec, file: File, metadata: Metadata) -> SpecFunction:
    try:
        return KINDS[one.kind].made(one, file)
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
    if not about.batched or (len(shape) == 2 and (shape[-1] in (4, 6) or "box" in about.output.lower())):
        return ["box", "element"]
    fitting = [name for name, kind in KINDS.items() if len(shape) in kind.axes]
    left_out: tuple[str, ...] = ()
    if len(shape) == 1:
        left_out = ("box",)
    elif len(shape) == 2 and names is not None:
        boxes = {names + 4, names + 5} & {*shape}
        left_out = ("caption", "words") if boxes else ("box",) if shape[1] == names else ()
    return [name for name in fitting if name not in left_out]
