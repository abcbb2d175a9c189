"""Trains networks that answer questions about scenes, and measures what their maps have to do with the question.

``python -m fastcam_bench.paper.questions`` writes ``questions.json``, its table, and two pictures: maps of some
questions, and the co-attention network's maps layer by layer. Trained networks are kept under ``build/bench``. easy-VQA
is measured where FASTCAM_ASSETS has it.

Needs torch; half an hour on one core, most of it training.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from random import Random
from typing import Any

import cv2
import numpy as np
import torch

from fastcam.evaluation.scenes import Spec, scene
from fastcam.language.word_level import word_level
from fastcam_bench.oracles.machine import machine, versions
from fastcam_bench.paper.figures import interval
from fastcam_bench.paper.questions import easy_vqa, measure
from fastcam_bench.paper.questions.exported import explainer_of, onnx_of
from fastcam_bench.paper.questions.grammar import ANSWERS, KINDS, LENGTH, WORDS
from fastcam_bench.paper.questions.measure import LAYERS, QuestionSet, question_set
from fastcam_bench.paper.questions.pictures import draw
from fastcam_bench.paper.questions.sheets import Heat, Sheet, of_layers, of_questions
from fastcam_bench.paper.questions.trained import EPOCHS, TRAINED, TRAINED_SEED, random, trained
from fastcam_bench.paper.questions.training import questions
from fastcam_bench.paper.results import write_results
from fastcam_bench.paths import RESULTS, default_assets

COMMAND = "python -m fastcam_bench.paper.questions"
HELD_OUT, HELD_SEED = 600, 42
PICTURE_SEED, PICTURE_SIZE = 6, 256
PICTURE = (
    Spec("star", "red", "striped", 0.2, (0.3, 0.4)),
    Spec("ring", "blue", "plain", 0.19, (0.72, 0.66)),
)
"""The bundled picture: what a caption and an answer speak of."""


def drawn_questions(count: int, seed: int) -> QuestionSet:
    """A question of each kind about each scene, where it has a certain answer."""
    pictures = draw(count, seed)
    return question_set(pictures, questions(pictures, len(KINDS), Random(seed)))


def of_network(name: str, held: QuestionSet, usual: dict[str, int], columns: dict[str, Heat]) -> dict[str, Any]:
    """What is measured of a network; its maps become columns of the picture."""
    net, nothing = trained(name), random(name)
    about = held.with_objects()
    report: dict[str, Any] = {"parameters": sum(each.numel() for each in net.parameters())}
    report["accuracy"] = measure.accuracy(net, held, usual)
    explainer = explainer_of(net)
    report["difference to autograd"] = measure.beside_autograd(net, explainer, about)
    heat, answers = measure.heatmaps(explainer, about)
    report["maps"] = {"Grad-CAM": measure.meaning(heat, about, answers == about.answers)}
    report["maps"]["HiResCAM"] = measure.meaning(measure.heatmaps(explainer, about, "hirescam")[0], about)
    without, _ = measure.heatmaps(explainer_of(nothing), about)
    report["maps"]["Grad-CAM, random weights"] = measure.meaning(without, about)
    columns |= {name: heat, f"{name}, random": without}
    if name == "co-attention":
        looks = measure.attention(net, about)
        for level, cells in zip(("words", "phrases", "whole"), looks.swapaxes(0, 1), strict=True):
            report["maps"][f"own attention, {level}"] = measure.meaning(cells, about)
        columns["own attention"] = looks.mean(1)
        for weights, one in (("layers", net), ("layers, random weights", nothing)):
            report[weights] = measure.between_layers(explainer_of(one, LAYERS), about)
    print(name, {key: report["accuracy"][key]["value"] for key in report["accuracy"]}, flush=True)
    return report


def of_easy_vqa(folder: Path) -> dict[str, Any]:
    """The CNN and LSTM trained on easy-VQA, from the bundled network's trunk and from the one that scenes taught."""
    training, held = easy_vqa.load(folder)
    report: dict[str, Any] = {"questions to train on": len(training), "questions held out": len(held)}
    of_scenes: Any = trained("lstm")
    for name, trunk in (("trunk of the bundled network", None), ("trunk of the scenes", of_scenes.trunk)):
        report[name] = easy_vqa.accuracy(easy_vqa.trained(training, folder, trunk), held, training)
    return report


def run(count: int, assets: Path) -> tuple[dict[str, Any], dict[str, Sheet]]:
    """The report, and pictures by name."""
    torch.set_num_threads(1)
    held = drawn_questions(count, HELD_SEED)
    usual = measure.majority(drawn_questions(TRAINED, TRAINED_SEED))
    about = {"command": COMMAND, "machine": machine(), "versions": versions("fastcam", "torch", "onnxruntime")}
    settings = {"scenes to train on": TRAINED, "epochs": EPOCHS, "scenes held out": count, "questions": len(held)}
    report: dict[str, Any] = about | {"settings": settings, "networks": {}}
    columns: dict[str, Heat] = {}
    for name in EPOCHS:
        report["networks"][name] = of_network(name, held, usual, columns)
    if (assets / "vqa" / "vocab.json").is_file():
        report["easy-VQA"] = of_easy_vqa(assets / "vqa")
    layered = explainer_of(trained("co-attention"), LAYERS)
    return report, {
        "questions": of_questions(held.with_objects(), columns),
        "questions_layers": of_layers(layered, held),
    }


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    lines = ["# Visual questions", "", f"Made by `{report['command']}`.", ""]
    for name, one in report["networks"].items():
        lines += [
            f"## {name}",
            "",
            "| accuracy | network | another picture | majority answer |",
            "|---|---:|---:|---:|",
        ]
        for kind in (*KINDS, "all"):
            cells = [
                interval(one["accuracy"][f"{kind}: {who}"]) for who in ("network", "another picture", "majority answer")
            ]
            lines.append(f"| {kind} | " + " | ".join(cells) + " |")
        lines += ["", "| maps | " + " | ".join(one["maps"]) + " |", "|---|" + "---:|" * len(one["maps"])]
        for figure in dict.fromkeys(figure for maps in one["maps"].values() for figure in maps):
            lines.append(
                f"| {figure} | " + " | ".join(interval(maps.get(figure)) for maps in one["maps"].values()) + " |"
            )
        lines += ["", f"Difference to autograd: {one['difference to autograd']}.", ""]
        for weights in ("layers", "layers, random weights"):
            lines += [f"- {weights}, {where}: {interval(figure)}" for where, figure in one.get(weights, {}).items()]
    for name, found in report.get("easy-VQA", {}).items():
        said = ", ".join(f"{key} {interval(one)}" for key, one in found.items()) if isinstance(found, dict) else found
        lines.append(f"- easy-VQA, {name}: {said}")
    return "\n".join([*lines, ""])


def bundle(folder: Path) -> None:
    """The CNN and LSTM as a file, its answers and its tokenizer, and a picture to ask about."""
    (folder / "questions.onnx").write_bytes(onnx_of(trained("lstm")))
    (folder / "questions.answers.txt").write_text("\n".join(ANSWERS) + "\n", encoding="utf-8")
    (folder / "questions.tokenizer.json").write_text(word_level(WORDS, length=LENGTH), encoding="utf-8")
    shown = np.ascontiguousarray(scene(PICTURE_SEED, PICTURE_SIZE, PICTURE).image[..., ::-1])
    _, coded = cv2.imencode(".jpg", shown, [cv2.IMWRITE_JPEG_QUALITY, 92])
    (folder / "two_objects.jpg").write_bytes(coded.tobytes())


def main() -> None:
    """Train, measure, print the table, write JSON, table and pictures."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS / "paper", help="folder for the results")
    parser.add_argument("--held-out", type=int, default=HELD_OUT, help="scenes to measure on")
    parser.add_argument("--bundle", type=Path, help="folder for the trained CNN and LSTM, and words")
    options = parser.parse_args()
    report, pictures = run(options.held_out, default_assets())
    write_results(report, options.out, "questions", table, pictures)
    if options.bundle is not None:
        bundle(options.bundle)
    print(table(report))


if __name__ == "__main__":
    main()
