"""Scalars of sequences of scores [N, L, V]: the words of a caption, one by one or together."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from fastcam.errors import FastcamError
from fastcam.image.preprocess import Float
from fastcam.targets.arrays import Double, Scalars, log_softmax, one_hot, softmax
from fastcam.targets.spec_parser import Explained, File, Kind, Spec, SpecFunction, index, of_output, sizes

WordScore = Literal["log_probability", "logit"]
WORD_SCORES: tuple[WordScore, ...] = ("log_probability", "logit")


def words(logits: ArrayLike, tokens: ArrayLike, kind: WordScore = "log_probability") -> Float:
    """s = log p(token_i) at position i, one target for each word: [N, L, L, V]; see :func:`caption`."""
    return _words(np.asarray(logits, np.float64), tokens, kind)[0]


def caption(logits: ArrayLike, tokens: ArrayLike, kind: WordScore = "log_probability") -> Float:
    """s = sum_i log p(token_i): a caption's log probability, as Selvaraju et al. explain captions (section 8.1).

    Args:
        logits: [N, L, V], each position's scores of all words before the softmax, for the caption's words as input.
        tokens: [L] or [N, L], the caption; -1 where there is no word.
        kind: "logit" sums the words' scores instead.

    Returns:
        [N, 1, L, V].
    """
    return np.asarray(words(logits, tokens, kind).sum(axis=1, keepdims=True))


def _words(y: Double, tokens: ArrayLike, kind: str) -> Scalars:
    if y.ndim != 3:
        raise FastcamError(f"scores of a sequence are [N, positions, words], got {list(y.shape)}")
    wanted = np.broadcast_to(np.asarray(tokens), y.shape[:2]) if np.ndim(tokens) < 2 else np.asarray(tokens)
    if wanted.shape != y.shape[:2] or wanted.max(initial=0) >= y.shape[2]:
        raise FastcamError(f"tokens must be [{y.shape[1]}] or [N, {y.shape[1]}] below {y.shape[2]}, -1 for no word")
    if kind not in WORD_SCORES:
        raise FastcamError(f"a word is explained by its log_probability or its logit, got {kind!r}")
    there, token, is_log = wanted >= 0, np.maximum(wanted, 0), kind == "log_probability"
    slope = one_hot(token, y.shape[2]) - (softmax(y) if is_log else 0)
    cotangent = np.zeros((*y.shape[:2], *y.shape[1:]), np.float32)
    position = np.arange(y.shape[1])
    cotangent[:, position, position] = slope * there[:, :, None]
    scores = log_softmax(y) if is_log else y
    return cotangent, np.take_along_axis(scores, token[:, :, None], 2)[:, :, 0] * there


def _words_spec(spec: Spec, file: File) -> SpecFunction:
    """One target a word; of a caption their sum. Without words the likeliest of each position."""
    about = file.output(spec, (2,))
    kind = spec.choice("kind", WORD_SCORES)
    length, vocabulary = sizes(about)
    classes = file.classes(spec, vocabulary if isinstance(vocabulary, int) else None)
    tokens = [index(spec, word, classes) for word in spec.words]
    if isinstance(length, int) and len(tokens) > length:
        raise spec.wrong(f"{len(tokens)} words were given, output {about.output} has {length} positions; give fewer")

    def explain(y: Double) -> Explained:
        said = y.argmax(2) if not tokens else np.full(y.shape[:2], -1)
        said[:, : len(tokens)] = tokens or said[:, :0]
        cotangent, values = _words(y, said, kind)
        spoken = [[file.label(int(k), y.shape[2]).removeprefix("class ") for k in row if k >= 0] for row in said]
        if spec.kind == "caption":
            whole = tuple((f"caption {' '.join(row)}",) for row in spoken)
            return cotangent.sum(1, keepdims=True), values.sum(1, keepdims=True), whole
        count = len(tokens) or y.shape[1]
        names = tuple(tuple(f"word {i + 1}: {word}" for i, word in enumerate(row)) for row in spoken)
        return cotangent[:, :count], values[:, :count], names

    return of_output(about, explain)


KINDS = {
    "caption": Kind(
        "caption:4,8,15", "the log-probability of a caption, by its tokens; without them of the likeliest", (2,),
        ("output", "kind"), _words_spec,
    ),
    "words": Kind("words:4,8,15", "the same word by word", (2,), ("output", "kind"), _words_spec),
}  # fmt: skip
