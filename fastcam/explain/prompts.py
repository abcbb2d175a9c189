"""Prompts of a call: a file of embeddings or of pairs, with texts in place of classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from fastcam.errors import FastcamError
from fastcam.explain.postprocess import View, embedding_of
from fastcam.results.explanation import Explanation
from fastcam.runtime.inputs.text_inputs import Written
from fastcam.schema import Metadata
from fastcam.targets.classes import Targets
from fastcam.targets.prompts import TextSide, literal, terms_of, text_of_spec


def with_prompts(view: View, side: TextSide, file: str) -> View:
    """A view whose classes are the prompts of ``side``.

    Raises:
        FastcamError: the file compares no picture with texts, or takes another number of them.
    """
    names = tuple(side.prompts)
    metadata, prompts = view.metadata, view.inputs.texts.prompts
    if metadata.cotangents:
        about = embedding_of(metadata)
        asked = tuple(replace(one, answer="text" if one is about else one.answer) for one in metadata.cotangents)
        side.embed(list(side.prompts.values()))
        return replace(view, metadata=replace(metadata, labels=names, labels_from="", cotangents=asked), texts=side)
    if prompts is None:
        raise FastcamError(
            f"{file} compares no picture with texts, so prompts (--prompts, -t 'text: ...') are of no use; give it "
            "classes (-t NAME), or export an embedding with --targets cotangent and --text-encoder"
        )
    if metadata.score.classes not in (None, len(names)):
        raise FastcamError(
            f"{file} takes {metadata.score.classes} texts, and got {len(names)}; give so many, or export the model "
            "with a free number of them"
        )
    inputs = view.inputs.giving({prompts: Written(side.prompts.values())})
    return replace(view, metadata=replace(metadata, labels=names, labels_from=""), inputs=inputs)


def as_classes(explanation: Explanation, view: View) -> Explanation:
    """An explanation by an embedding whose targets are the prompts of its file: with the scores of all prompts.

    Its scores are then [N, prompts], its classes the prompts' numbers, as of a file of classes. Another explanation,
    and one of combinations, of further texts or of rows of several lengths, stays as it is.
    """
    if view.texts is None:
        return explanation
    numbers = {name: number for number, name in enumerate(view.texts.prompts)}
    rows = [[numbers.get(one.name, -1) for one in row] for row in explanation.targets]
    if not numbers or not rows or len(set(map(len, rows))) > 1 or min(map(min, rows)) < 0:
        return explanation
    return replace(
        explanation,
        scores=view.scores(dict(explanation.outputs), len(explanation)),
        classes=np.array(rows, np.int64),
        targets=(),
        layers=tuple(as_classes(one, view) for one in explanation.layers),
    )


def texts_in(targets: Any, metadata: Metadata, prompts: Mapping[str, str]) -> tuple[Any, dict[str, str]]:
    """Targets of a file of pairs, without "text:", and the prompts that they need, those that have names first.

    Args:
        targets: as a caller gives them.
        prompts: those that have names.
    """
    found = dict(prompts)
    classes = Targets(None, list(prompts) or None)

    def plain(target: Any) -> Any:
        if isinstance(target, list | tuple):
            return [plain(one) for one in target]
        if isinstance(target, Mapping):
            return {plain(name): factor for name, factor in target.items()}
        rest = text_of_spec(target) if isinstance(target, str) else None
        if rest is None:
            return target
        if not rest:
            raise FastcamError(f"{target!r}: give a text, like text: a red square")
        terms = terms_of(rest, classes)
        found.update({text: text for text in literal(terms, classes)})
        summed: dict[str | int, float] = {}
        for name, factor in terms:
            summed[name] = summed.get(name, 0) + factor
        return next(iter(summed)) if list(summed.values()) == [1.0] else summed

    return plain(targets), found
