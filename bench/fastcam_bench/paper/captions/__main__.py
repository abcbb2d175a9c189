"""Captioning (Grad-CAM paper, section 8.1): a captioner is trained on scenes, and its maps are measured.

``python -m fastcam_bench.paper.captions`` draws scenes with captions by a grammar, trains a CNN and LSTM without
attention (the form of NeuralTalk2), and measures it on scenes that it has not seen: how many of its captions are true,
beside a caption that is the same for all; and where the heat of a caption of one object lies, beside the same network
with random weights. A training that is stopped goes on where it was when the command is run again.

Needs torch; half an hour of one core, most of it training.
"""

from __future__ import annotations

import argparse
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastcam.captions import Captioner
from fastcam_bench.oracles.machine import machine, versions
from fastcam_bench.paper.captions import dense, grammar, network, quality
from fastcam_bench.paper.captions.grammar import END, PAD, START, VOCABULARY
from fastcam_bench.paper.captions.training import TEST_SEED, TRAIN_SEED, Scenes, draw, train
from fastcam_bench.paper.figures import interval
from fastcam_bench.paper.results import write_results
from fastcam_bench.paper.trunk import normalised
from fastcam_bench.paths import CACHE, RESULTS
from fastcam_export import export_captioner

COMMAND = "python -m fastcam_bench.paper.captions"
TRAINED, HELD_OUT, STEPS, SHOWN = 15000, 1000, 5000, 6


def exported(net: network.Captioner, guided: bool) -> Captioner:
    """The network as a file that explains itself, opened; with guided backpropagation, or on demand."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of batches of an LSTM
        model = network.one_file(net)
    how: dict[str, Any] = {"input_gradient": "guided", "on_demand": False} if guided else {}
    export = export_captioner(
        model, start=START, end=END, pad=PAD, vocabulary=list(VOCABULARY), preprocess="imagenet",
        **how,
    )  # fmt: skip
    part = None if export.explanation is None else export.explanation.SerializeToString()
    return Captioner(export.model.SerializeToString(), threads=1, explanation=part)


def measured(net: network.Captioner, known: Scenes, held: Scenes) -> dict[str, Any]:
    """The figures of a captioner on scenes that it has not seen."""
    texts = said(net, held)
    rng = np.random.default_rng(0)
    drawn = [[grammar.draw(data.things(i), rng) for i in range(len(data))] for data in (held, known)]
    return {
        "captions": quality.of_captions(texts, held),
        "words": dict(quality.words_right(net, held, *drawn)),
        "captions of single objects": dense.compare(exported(net, guided=True), held),
    }


@torch.no_grad()
def said(net: network.Captioner, data: Scenes) -> list[str]:
    """The caption of each scene, the likeliest word at each step; the file says the same, which a test holds."""
    features = torch.cat([net.encoder(normalised(data.images[i : i + 50])) for i in range(0, len(data), 50)])
    ids = torch.full((len(data), 1), START)
    for _ in range(grammar.LONGEST):
        scores = net.decoder(features, ids)[:, -1]
        scores[:, [PAD, START]] = -torch.inf
        ids = torch.cat([ids, scores.argmax(1, keepdim=True)], 1)
    return [grammar.words(row[1:]) for row in ids.tolist()]


def run(
    steps: int, trained: int, held_out: int, cache: Path, seconds: float
) -> tuple[dict[str, Any], Any, bytes] | None:
    """The report, its picture and the trained file; None where the training is to go on."""
    known, held = draw(trained, TRAIN_SEED, cache), draw(held_out, TEST_SEED, cache)
    net, done = train(known, steps, kept=cache / f"captioner-{steps}-{trained}.pt", seconds=seconds)
    if not done:
        return None
    torch.manual_seed(1)
    report: dict[str, Any] = {}
    report["trained"] = measured(net, known, held)
    report["random weights"] = measured(network.Captioner().eval(), known, held)
    same = quality.majority(known)
    report["one caption for all"] = {"caption": same, "captions": quality.of_captions([same] * len(held), held)}
    captioner = exported(net, guided=False)
    strips = [captioner(image)[0].strip(tile=128) for image in held.images[:SHOWN]]
    wide = max(strip.shape[1] for strip in strips)
    sheet = np.concatenate([np.pad(one, ((0, 6), (0, wide - one.shape[1]), (0, 0))) for one in strips])
    about = {"command": COMMAND, "machine": machine(), "versions": versions("fastcam", "torch", "onnxruntime")}
    settings = {"trained": trained, "held out": held_out, "steps": steps, "seeds": [TRAIN_SEED, TEST_SEED]}
    return about | {"settings": settings, "paper": dense.PAPER, "networks": report}, sheet, network.one_file(net)


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    lines = ["# Captions", "", f"Made by `{report['command']}`.", ""]
    networks = report["networks"]
    for part, title in (("captions", "What is said"), ("words", "Words"), ("captions of single objects", "Heat")):
        columns = [name for name, figures in networks.items() if part in figures]
        lines += [f"| {title} | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
        for figure in networks[columns[0]][part]:
            cells = [_cell(networks[name][part].get(figure)) for name in columns]
            lines.append(f"| {figure} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, dict) and "value" in value:
        return f"{interval(value)}, n {value['n']}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {count}" for name, count in value.items())
    return "" if value is None else f"{value}"


def main() -> None:
    """Train, measure, print the table, write JSON, table and picture, and the trained file where it is asked for."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS / "paper", help="folder for the results")
    parser.add_argument(
        "--cache", type=Path, default=CACHE / "captions", help="folder for scenes and the training so far"
    )
    parser.add_argument("--bundle", type=Path, help="folder for the trained file and its words; fastcam/data")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--train", type=int, default=TRAINED, help="scenes to train on")
    parser.add_argument("--test", type=int, default=HELD_OUT, help="scenes to measure on")
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="stop the training after this; run again to go on"
    )
    options = parser.parse_args()
    found = run(options.steps, options.train, options.test, options.cache, options.seconds)
    if found is None:
        raise SystemExit(f"the training stopped after {options.seconds:.0f} s; run the command again to go on")
    report, sheet, model = found
    write_results(report, options.out, "captions", table, {"captions": sheet})
    if options.bundle is not None:
        (options.bundle / "captions.onnx").write_bytes(model)
        (options.bundle / "captions.words.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    print(table(report))


if __name__ == "__main__":
    main()
