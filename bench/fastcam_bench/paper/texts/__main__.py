"""Heat for each word of real texts: a text CNN trained on rated snippets, beside words that people rated one by one.

``python -m fastcam_bench.paper.texts --archive vaderSentiment-0.5.zip`` trains Kim's network to tell positive from
negative snippets of films, products, editorials and tweets, and asks the exported file for the heat of each word. It
measures, on texts that were held out, the share of the heat on words that people rated like the class that is
explained, beside the share of such words in the text; and how far the class's probability falls without the hottest
words, beside others. Both stand beside the same network with random weights.

The archive comes by ``pip download vaderSentiment==0.5 --no-deps --no-binary :all:``. Needs torch and tokenizers;
minutes on one core.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fastcam import Explainer
from fastcam.errors import FastcamError
from fastcam.evaluation.statistics import Ratios, weights_of
from fastcam.language.tokenizer import Tokenizer
from fastcam_bench.oracles.machine import machine, versions
from fastcam_bench.oracles.torch_oracle import difference
from fastcam_bench.paper.figures import figures_table
from fastcam_bench.paper.results import write_results
from fastcam_bench.paper.texts.archive import SOURCES, Archive, Snippet, read
from fastcam_bench.paper.texts.network import TextCnn
from fastcam_bench.paper.texts.training import EPOCHS, UNKNOWN, tokenizer_of, train, write
from fastcam_bench.paths import RESULTS

COMMAND = "python -m fastcam_bench.paper.texts"
MEASURED, EXACT, SHOWN, DRAWS, HIDDEN = 1000, 60, 6, 10, 5
"""Texts whose heat is measured, compared with autograd, and shown; random choices of words; one word in so many is
hidden."""
METHODS = ("gradcam", "hirescam")
Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Words:
    """A text's words: heat for each class, [2, L], and ratings by the lexicon, [L], 0 of words without."""

    heat: Numbers
    ratings: Numbers
    predicted: int


def explained(explainer: Explainer, text: str, lexicon: dict[str, float], method: str) -> Words:
    """The heat of a text's words for both classes."""
    found = explainer(text, targets=[0, 1], method=method)
    pairs = [found.word_heat(0, t) for t in (0, 1)]
    ratings = [lexicon.get(word.lower(), 0.0) for word, _ in pairs[0]]
    heat = np.array([[one for _, one in row] for row in pairs], np.float64)
    return Words(np.nan_to_num(heat), np.array(ratings), int(np.argmax(found.scores[0])))


def add_ratings(ratios: Ratios, words: Words, weights: Any) -> None:
    """Where the heat lies among the rated words."""
    for target, heat in enumerate(words.heat):
        signed = words.ratings * (1 if target else -1)
        like, against = signed > 0, signed < 0
        if target == words.predicted:
            ratios.add("maps of the predicted class with heat", heat.sum() > 0, weights, share=True)
        if heat.sum() <= 0:
            continue
        if target == words.predicted and like.any():
            ratios.add("heat on words rated like the class", heat[like].sum() / heat.sum(), weights)
            ratios.add("words rated like the class (chance)", like.mean(), weights)
            ratios.add("hottest word is rated like the class", like[heat.argmax()], weights, share=True)
        if target == words.predicted and against.any():
            ratios.add("heat on words rated against the class", heat[against].sum() / heat.sum(), weights)
            ratios.add("words rated against the class (chance)", against.mean(), weights)
        rated = heat[like | against].sum()
        if like.any() and against.any() and rated > 0:
            ratios.add("either class, of the heat on rated words: on those like it", heat[like].sum() / rated, weights)
            ratios.add("either class, of the rated words: those like it (chance)", like.sum() / (like | against).sum(),
                       weights)  # fmt: skip


def add_deletion(
    ratios: Ratios, explainer: Explainer, ids: npt.NDArray[np.int64], words: Words, weights: Any, seed: int
) -> None:
    """How far the class's probability falls where the hottest words are hidden, and where others are."""
    count = max(1, len(ids) // HIDDEN)
    heat, rng = words.heat[words.predicted], np.random.default_rng(seed)
    chosen = [np.argsort(-heat, kind="stable")[:count]]
    chosen += [rng.choice(len(ids), count, replace=False) for _ in range(DRAWS)]
    rows = np.repeat(ids[None], 1 + len(chosen), 0)
    for row, places in zip(rows[1:], chosen, strict=True):
        row[places] = UNKNOWN
    scores = np.asarray(explainer.predict(rows).scores, np.float64)
    likely = torch.softmax(torch.from_numpy(scores), 1).numpy()[:, words.predicted]
    falls, flips = likely[0] - likely[1:], scores[1:].argmax(1) != words.predicted
    ratios.add("fall of the probability without the hottest words", falls[0], weights)
    ratios.add("fall of the probability without random words", falls[1:].mean(), weights)
    ratios.add("another class without the hottest words", flips[0], weights, share=True)
    ratios.add("another class without random words", flips[1:].mean(), weights, share=True)


def measure(
    explainer: Explainer, tokenizer: Tokenizer, texts: Sequence[Snippet], lexicon: dict[str, float], method: str
) -> dict[str, Any]:
    """The figures of one network and method."""
    ratios = Ratios()
    for number, one in enumerate(texts):
        words, weights = explained(explainer, one.text, lexicon, method), weights_of(str(number))
        add_ratings(ratios, words, weights)
        if words.heat[words.predicted].sum() > 0:
            add_deletion(ratios, explainer, tokenizer.encode([one.text]).ids[0], words, weights, number)
    return {name: figure.to_dict() for name, figure in ratios.figures().items()}


def accuracy(
    net: TextCnn, tokenizer: Tokenizer, training: Sequence[Snippet], held: Sequence[Snippet]
) -> dict[str, Any]:
    """The share of the held out texts that are classified right, of all and by source; and that of the majority."""
    majority = int(np.mean([one.label for one in training]) >= 0.5)
    ratios = Ratios()
    for number, one in enumerate(held):
        with torch.no_grad():
            right = int(net(torch.from_numpy(tokenizer.encode([one.text]).ids)).argmax()) == one.label
        for name, value in (("all", right), (one.source, right), ("the majority's class", one.label == majority)):
            ratios.add(name, value, weights_of(str(number)), share=True)
    figures = ratios.figures()
    return {name: figures[name].to_dict() for name in ("all", "the majority's class", *SOURCES) if name in figures}


def agreement(net: TextCnn, explainer: Explainer, tokenizer: Tokenizer, texts: Sequence[Snippet]) -> float:
    """The largest difference from Grad-CAM by autograd, as a share of a map's maximum."""
    worst = 0.0
    for one in texts:
        found = explainer(one.text, targets=[0, 1]).maps[0]
        maps = net.maps(torch.from_numpy(tokenizer.encode([one.text]).ids)).detach().requires_grad_()
        logits = net.classify(maps)[0]
        for target in (0, 1):
            (slope,) = torch.autograd.grad(logits[target], maps, retain_graph=True)
            wanted = (slope.mean(2, keepdim=True) * maps).sum(1).relu().detach().numpy()[0]
            if wanted.max() > 0:
                worst = max(worst, difference(np.maximum(found[target], 0), wanted))
    return worst


def sheet(explainers: Sequence[Explainer], texts: Sequence[Snippet]) -> Any:
    """Texts one below the other, a column for each network: the class that it predicts, over the heat of the words."""
    columns = [[explainer(one.text).overlay(0, 0) for one in texts] for explainer in explainers]
    rows = []
    for pictures in zip(*columns, strict=True):
        height = max(len(picture) for picture in pictures)
        rows.append(np.hstack([_tall(picture, height) for picture in pictures]))
    return np.vstack(rows)


def _tall(picture: Any, height: int) -> Any:
    return np.pad(picture, ((0, height - len(picture)), (0, 8), (0, 0)), constant_values=255)


def shown(held: Sequence[Snippet]) -> list[Snippet]:
    """Short texts from all sources, half of them of each class."""
    found: list[Snippet] = []
    for k in range(SHOWN):
        source = list(SOURCES)[k % len(SOURCES)]
        fits = (one for one in held if one.source == source and one.label == k // 2 % 2 and one not in found)
        found += [one for one in fits if 60 <= len(one.text) <= 200][:1]
    return found


def run(archive: Archive, epochs: int, measured: int) -> tuple[dict[str, Any], Any]:
    """The report and its picture."""
    warnings.filterwarnings("ignore", message=".*words that the tokenizer does not know")  # rare ones, expected here
    training, held = archive.split()
    tokenizer = tokenizer_of(training)
    networks = {"trained": train(training, tokenizer, epochs), "random weights": TextCnn(tokenizer.size, 1).eval()}
    order = np.random.default_rng(0).permutation(len(held))
    texts = [held[k] for k in order[:measured]]
    report: dict[str, Any] = {"command": COMMAND, "machine": machine()}
    report |= {"versions": versions("fastcam", "torch", "onnxruntime", "tokenizers"), "networks": {}}
    report["settings"] = {"trained": len(training), "held out": len(held), "measured": len(texts), "epochs": epochs,
                          "words": tokenizer.size, "rated words": len(archive.lexicon)}  # fmt: skip
    report["accuracy"] = {name: accuracy(net, tokenizer, training, held) for name, net in networks.items()}
    with tempfile.TemporaryDirectory() as folder:
        explainers = {name: Explainer(write(net, tokenizer, Path(folder) / name)) for name, net in networks.items()}
        report["difference from autograd"] = max(
            agreement(networks[name], one, tokenizer, texts[:EXACT]) for name, one in explainers.items()
        )
        for name, one in explainers.items():
            for method in METHODS:
                report["networks"][f"{name}, {method}"] = measure(one, tokenizer, texts, archive.lexicon, method)
        return report, sheet(list(explainers.values()), shown(texts))


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    lines = ["# Texts", "", f"Made by `{report['command']}`.", ""]
    for name, one in report["accuracy"].items():
        said = ", ".join(f"{source} {figure['value']:.3f} (n {figure['n']})" for source, figure in one.items())
        lines.append(f"- accuracy, {name}: {said}")
    return "\n".join([*lines, "", *figures_table(report["networks"]), ""])


def main() -> None:
    """Train, measure, print the table, write JSON, table and picture."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--archive", type=Path, required=True, help="vaderSentiment-0.5.zip, which pip downloads")
    parser.add_argument("--out", type=Path, default=RESULTS / "paper", help="folder for the results")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="passes over the texts to train on")
    parser.add_argument("--measured", type=int, default=MEASURED, help="held out texts whose heat is measured")
    options = parser.parse_args()
    try:
        archive = read(options.archive)
    except FastcamError as error:
        parser.error(str(error))
    report, picture = run(archive, options.epochs, options.measured)
    write_results(report, options.out, "texts", table, {"texts": picture})
    print(table(report))


if __name__ == "__main__":
    main()
