"""How captions fit scenes: whether what they say is true, BLEU-4, and the share of right words, beside a baseline."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from fastcam.evaluation.statistics import Ratios, weights_of
from fastcam_bench.paper.captions import grammar
from fastcam_bench.paper.captions.grammar import PAD
from fastcam_bench.paper.captions.network import Captioner
from fastcam_bench.paper.captions.training import Scenes, padded
from fastcam_bench.paper.trunk import normalised


def bleu(texts: Sequence[str], of: Sequence[Sequence[str]]) -> float:
    """BLEU-4 of a corpus with several references each, without smoothing.

    Source: Papineni et al., "BLEU: a method for automatic evaluation of machine translation", ACL 2002.
    """
    hits, counts, said, nearest = [0] * 4, [0] * 4, 0, 0
    for text, references in zip(texts, of, strict=True):
        words, others = text.split(), [one.split() for one in references]
        said += len(words)
        nearest += min((abs(len(one) - len(words)), len(one)) for one in others)[1]
        for n in range(1, 5):
            grams = _grams(words, n)
            most: Counter[tuple[str, ...]] = Counter()
            for one in others:
                most |= _grams(one, n)
            hits[n - 1] += sum((grams & most).values())
            counts[n - 1] += sum(grams.values())
    if not all(hits):
        return 0.0
    brevity = min(1.0, math.exp(1 - nearest / said))
    return brevity * math.exp(sum(math.log(h / c) for h, c in zip(hits, counts, strict=True)) / 4)


def _grams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def of_captions(texts: Sequence[str], data: Scenes) -> dict[str, Any]:
    """Shares, with intervals: captions that are sentences, and true; objects of theirs that are in the picture."""
    ratios = Ratios()
    for i, text in enumerate(texts):
        things, parsed, weights = data.things(i), grammar.parse(text), weights_of(f"{i}")
        ratios.add("captions that are sentences", parsed is not None, weights)
        ratios.add("captions that are true", grammar.true_of(text, things), weights)
        for phrase in parsed[0] if parsed else ():
            pairs = [(one.class_name, one.color) for one in things]
            ratios.add("objects that are there", (phrase.class_name, phrase.color) in pairs, weights)
    found: dict[str, Any] = {name: figure.to_dict() for name, figure in ratios.figures().items()}
    return found | {"bleu-4": round(bleu(texts, [grammar.references(data.things(i)) for i in range(len(texts))]), 4)}


def majority(data: Scenes) -> str:
    """The caption that is true of most scenes."""
    counts = Counter(text for i in range(len(data)) for text in set(grammar.references(data.things(i))))
    return counts.most_common(1)[0][0]


@torch.no_grad()
def words_right(net: Captioner, data: Scenes, texts: Sequence[str], known: Sequence[str]) -> Mapping[str, Any]:
    """The share of words that are the likeliest ones behind the words before; and of those that are most common there.

    Args:
        texts: a caption of each scene.
        known: captions that tell which words are common.
    """
    ids, before = padded(texts), padded(known)[:, 1:]
    common = torch.tensor(
        [Counter(column[column != PAD].tolist() or [PAD]).most_common(1)[0][0] for column in before.T]
    )
    ratios = Ratios()
    for i, row in enumerate(ids):
        says = net(normalised(data.images[i : i + 1]), row[None, :-1])[0].argmax(-1)
        counts, weights = row[1:] != PAD, weights_of(f"{i}")
        for name, guess in (("words right", says), ("words right, the most common ones", common)):
            right = int((guess == row[1:])[counts].sum())
            ratios.add(name, right, weights, float(counts.sum()))
    return {name: figure.to_dict() for name, figure in ratios.figures().items()}
