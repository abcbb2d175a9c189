"""Texts in words: "words", "caption:4,8,15", "words:A,B": the words of a caption, the characters of a text (CTC)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastcam.labels import short_label
from fastcam.schema import Cotangent
from fastcam.targets import ctc
from fastcam.targets.arrays import Double
from fastcam.targets.sequences import WORD_SCORES, word_scores
from fastcam.targets.spec_parser import Explained, File, Kind, Spec, SpecFunction, index, of_output, sizes

BLANK = ("auto", "first", "last", "none")


def _spec(spec: Spec, file: File) -> SpecFunction:
    """One target a word or character; of a caption their sum. Without words those that the model says."""
    about = file.text(spec)
    kind = spec.choice("kind", WORD_SCORES)
    named = spec.choice("blank", BLANK)
    length, vocabulary = sizes(about)[0], sizes(about)[-1]
    count = vocabulary if isinstance(vocabulary, int) else None
    if not about.axes and named in ("auto", "none"):  # nobody knows that it is a text: the words of a caption
        return of_output(about, lambda y: _caption(spec, file, about, y, kind))
    if count is not None and isinstance(length, int) and file.labels is None:
        _tokens(spec, file, None, count)  # numbers, refused before anything runs

    def explain(y: Double) -> Explained:
        y = y[:, :, 0] if about.axes == "LNC" else y
        blank = _blank(named, file, y)
        if blank is None:
            cotangent, values, names = _caption(spec, file, about, y, kind)
        else:
            cotangent, values, names = _read(spec, file, about, y, blank, kind)
        return cotangent[:, :, :, None] if about.axes == "LNC" else cotangent, values, names

    return of_output(about, explain)


def _blank(named: str, file: File, y: Double) -> int | None:
    """The class of the blank, of an output [N, L, V]; None: there is none."""
    if named in ("first", "last"):
        return 0 if named == "first" else y.shape[2] - 1
    return ctc.find_blank(y.argmax(2), y.shape[2], file.labels) if named == "auto" else None


def _alphabet(file: File, blank: int | None, count: int) -> tuple[str, ...] | None:
    """A name for each class; of names for all but the blank with it in its place; None: they do not fit."""
    labels = file.labels
    if labels is not None and blank is not None and len(labels) == count - 1:
        labels = (*labels[:blank], "<blank>", *labels[blank:])
    return labels if labels is not None and len(labels) == count else None


def _tokens(spec: Spec, file: File, alphabet: Sequence[str] | None, count: int) -> list[int]:
    """The words of a spec as classes: numbers, names, or one word of several letters, each a character."""
    words = spec.words
    if alphabet is not None and len(words) == 1 and words[0] not in alphabet and all(c in alphabet for c in words[0]):
        words = tuple(words[0])
    if alphabet is not None:
        return [
            alphabet.index(word) if word in alphabet else index(spec, word, file.classes(spec, count)) for word in words
        ]
    return [index(spec, word, file.classes(spec, count)) for word in words]


def _caption(spec: Spec, file: File, about: Cotangent, y: Double, kind: str) -> Explained:
    """A word at each position."""
    tokens = _tokens(spec, file, None, y.shape[2])
    if len(tokens) > y.shape[1]:
        raise spec.wrong(f"{len(tokens)} words were given, the output has {y.shape[1]} positions; give fewer")
    said = y.argmax(2) if not tokens else np.full(y.shape[:2], -1)
    said[:, : len(tokens)] = tokens or said[:, :0]
    cotangent, values = word_scores(y, said, kind, _passed(about))
    spoken = [[file.label(int(k), y.shape[2]).removeprefix("class ") for k in row if k >= 0] for row in said]
    if spec.kind == "caption":
        whole = tuple((f"caption {' '.join(row)}",) for row in spoken)
        return cotangent.sum(1, keepdims=True), values.sum(1, keepdims=True), whole
    count = len(tokens) or y.shape[1]
    names = tuple(tuple(f"word {i + 1}: {word}" for i, word in enumerate(row)) for row in spoken)
    return cotangent[:, :count], values[:, :count], names


def _read(spec: Spec, file: File, about: Cotangent, y: Double, blank: int, kind: str) -> Explained:
    """The characters of a text that was read."""
    alphabet = _alphabet(file, blank, y.shape[2])
    tokens = _tokens(spec, file, alphabet, y.shape[2]) or None
    cotangent, values, asked = ctc.characters(y, blank, tokens, kind, _passed(about))
    texts = [[_shown(alphabet[k]) if alphabet else str(k) for k in row] for row in asked]
    if spec.kind == "caption":
        said = [[alphabet[k] if alphabet else str(k) for k in row] for row in asked]
        between = "" if alphabet and all(len(one) == 1 for row in said for one in row) else " "
        whole = tuple((f"text {between.join(row).strip()}",) for row in said)
        return cotangent.sum(1, keepdims=True), values.sum(1, keepdims=True), whole
    names = tuple(tuple(f"character {i + 1}: {one}" for i, one in enumerate(row)) for row in texts)
    return cotangent, values, names


def _passed(about: Cotangent) -> bool | None:
    """Whether the graph says that scores are probabilities, which those of integers need not sum to one; else None."""
    return about.activation in ("Softmax", "Sigmoid") or None


def _shown(name: str) -> str:
    """A character or word for people."""
    return short_label(name) or ("space" if name == " " else name)


def is_text(about: Cotangent) -> bool:
    """Whether the graph tells that an output is a text."""
    return about.axes in ("LC", "LNC")


KINDS = {
    "caption": Kind(
        "caption:4,8,15", "the log-probability of a text or caption, by its tokens; without them of the likeliest",
        (2,), ("output", "kind", "blank"), _spec,
    ),
    "words": Kind(
        "words:4,8,15", "the same word by word; of a text in the picture character by character", (2,),
        ("output", "kind", "blank"), _spec,
    ),
}  # fmt: skip
