"""Targets in words of one's own: how well a text fits the picture, of embeddings that a dual encoder compares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastcam.errors import FastcamError
from fastcam.image.preprocess import Float
from fastcam.schema import Cotangent
from fastcam.targets.arrays import Double
from fastcam.targets.classes import Targets, combined_name, expression, whole_number
from fastcam.targets.embeddings import scaled_cosines
from fastcam.targets.spec_parser import Explained, File, Kind, Spec, SpecFunction, array_of, of_output

Terms = list[tuple[str | int, float]]
"""A combination of prompts: (name or text, or a rank, and its coefficient)."""


@dataclass(frozen=True, eq=False)
class TextSide:
    """What compares a picture's embedding with texts.

    Attributes:
        embed: texts -> their embeddings, float64 [T, D].
        scale, bias: the score of a text is scale * cosine + bias.
        prompts: texts by name, which are the classes; empty where there are none.
    """

    embed: Callable[[Sequence[str]], Double]
    scale: float = 1.0
    bias: float = 0.0
    prompts: Mapping[str, str] = field(default_factory=dict)

    def scores(self, about: Cotangent, outputs: Mapping[str, Any]) -> Float:
        """float32 [N, P]: the score of each prompt."""
        values = self.explain(array_of(outputs, about), list(self.prompts.values()))[1]
        return values.astype(np.float32)

    def explain(self, y: Double, texts: Sequence[str]) -> tuple[Double, Double]:
        """Of embeddings [N, D] the slopes [N, T, D] and the scores [N, T] of texts.

        Raises:
            FastcamError: the texts' embeddings have another length.
        """
        references = self.embed(texts)
        width = y.reshape(len(y), -1).shape[1]
        if references.shape[1] != width:
            raise FastcamError(
                f"the text encoder gives {references.shape[1]} numbers, and the picture's embedding has {width}; give "
                "the text encoder of the same model (--text-encoder)"
            )
        return scaled_cosines(y, references, self.scale, self.bias)

    def classes(self) -> Targets:
        """What resolves names of prompts."""
        return Targets(len(self.prompts), list(self.prompts)) if self.prompts else Targets(None, None)


def terms_of(text: str, classes: Targets) -> Terms:
    """A target in words as a combination of prompts: "a dog", "a dog - a cat", "not a dog".

    Args:
        text: what stands behind "text:".
        classes: the prompts that have names; a text that is none of them stands for itself.
    """
    if classes.knows(text):
        return [(text, 1.0)]
    combination = expression(text) or [(text, 1.0)]
    return [(_one(name, classes), factor) for name, factor in combination]


def _one(name: str, classes: Targets) -> str | int:
    number = whole_number(name) if classes.labels is not None and not classes.knows(name) else None
    return name if number is None else classes.one(number)


def literal(terms: Terms, classes: Targets) -> list[str]:
    """The texts among the terms that are no prompts with a name."""
    return [name for name, _ in terms if isinstance(name, str) and not classes.knows(name)]


def text_of_spec(spec: str) -> str | None:
    """What stands behind "text:"; None of another target."""
    kind, colon, rest = spec.partition(":")
    return rest.strip() if colon and kind.strip().casefold() == "text" else None


def _spec(spec: Spec, file: File) -> SpecFunction:
    about = file.output(spec, (1,))
    side = file.texts
    if side is None:
        raise spec.wrong(f"{file.name} compares no texts")
    if not spec.words:
        raise spec.wrong("give a text, like text: a red square")
    classes = side.classes()
    terms = terms_of(spec.words[0], classes)
    texts = dict(side.prompts) if any(isinstance(name, int) for name, _ in terms) else {}
    for name, _ in terms:
        if isinstance(name, str):
            known = list(side.prompts)[classes.one(name)] if classes.knows(name) else name
            texts[known] = side.prompts.get(known, name)
    names = list(texts)
    try:
        side.embed(list(texts.values()))
    except FastcamError as error:
        raise spec.wrong(str(error)) from error
    columns = [
        name if isinstance(name, int) else names.index(list(side.prompts)[classes.one(name)])
        if classes.knows(name) else names.index(name) for name, _ in terms
    ]  # fmt: skip

    def explain(y: Double) -> Explained:
        try:
            slopes, values = side.explain(y, list(texts.values()))
        except FastcamError as error:
            raise spec.wrong(str(error)) from error
        order = np.argsort(-values[:, : len(side.prompts)], axis=1, kind="stable") if side.prompts else None
        cotangents, scores, called = [], [], []
        for n, (slope, value) in enumerate(zip(slopes, values, strict=True)):
            row = [int(order[n, -c - 1]) if c < 0 and order is not None else c for c in columns]
            factors = [factor for _, factor in terms]
            cotangents.append(sum(a * slope[c] for c, a in zip(row, factors, strict=True)))
            scores.append(sum(a * value[c] for c, a in zip(row, factors, strict=True)))
            called.append((combined_name(tuple(zip(row, factors, strict=True)), names, whole=True),))
        shape = len(y), 1, *y.shape[1:]
        return np.stack(cotangents).reshape(shape).astype(np.float32), np.array(scores)[:, None], tuple(called)

    return of_output(about, explain)


KINDS = {
    "text": Kind(
        "text: a red square", "how well a text fits, by the text encoder; text: a square - a star", (1,), (), _spec
    ),
}
