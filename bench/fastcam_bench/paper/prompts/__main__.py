"""Prompts that name objects light them up: a dual encoder trained on scenes, measured on other scenes.

``python -m fastcam_bench.paper.prompts`` trains a CNN and a bag of words by SigLIP's loss on pictures of one to five
objects and prompts that name them ("a red striped square on the left"), exports both sides, and asks the file for
prompts in words, as a user does. The share of a map's heat inside the mask of the named objects stands beside the
share of the picture that they cover, which is chance, and beside the same network with random weights.

Needs torch and tokenizers; ten minutes on one core.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fastcam import Explainer
from fastcam.evaluation.scenes import Scene, scenes
from fastcam.evaluation.statistics import Ratios, weights_of
from fastcam.render import drawing
from fastcam_bench.oracles.machine import machine, versions
from fastcam_bench.oracles.torch_oracle import difference
from fastcam_bench.paper.figures import figures_table
from fastcam_bench.paper.prompts.grammar import Prompt, attributes, prompt_of, true_of
from fastcam_bench.paper.prompts.networks import DualEncoder
from fastcam_bench.paper.prompts.training import SIZE, draw, objects_of, prepared, tokenizer, train, write
from fastcam_bench.paper.results import write_results
from fastcam_bench.paths import RESULTS
from fastcam_export import export_model

COMMAND = "python -m fastcam_bench.paper.prompts"
TRAINED, HELD_OUT, EPOCHS, SECONDS, SHOWN = 7000, 600, 12, 540.0, 6


@dataclass(frozen=True, eq=False)
class Case:
    """A held out scene, a prompt that names some of its objects and no others, and the mask of those."""

    scene: Scene
    prompt: Prompt
    mask: npt.NDArray[np.bool_]
    others: npt.NDArray[np.bool_]


def drawn_cases(count: int, seed: int) -> list[Case]:
    """Scenes of two objects or more, each with a prompt of one of them that is not true of all."""
    rng = np.random.default_rng(seed)
    found: list[Case] = []
    for scene in scenes(3 * count, seed, SIZE):
        rows = objects_of(scene)
        there = rows[rows[:, 0] >= 0]
        if len(there) < 2 or len(found) == count:
            continue
        prompt = prompt_of(there[rng.integers(len(there))], rng)
        named = [bool(true_of(np.array([prompt.row]), np.array([[attributes(one, SIZE)]]))) for one in scene.objects]
        if all(named):
            continue
        masks = [np.zeros((SIZE, SIZE), np.bool_), np.zeros((SIZE, SIZE), np.bool_)]
        for one, yes in zip(scene.objects, named, strict=True):
            masks[0 if yes else 1] |= one.mask
        found.append(Case(scene, prompt, *masks))
    return found


def exported(net: DualEncoder, folder: Path) -> Explainer:
    """The picture's side with the text encoder beside it, as an exported file."""
    write(net, folder)
    export_model(
        folder / "picture.onnx", folder / "picture.cam.onnx", targets="cotangent", output_name="image_embeds",
        preprocess="unit", tokenizer=folder / "tokenizer.json", text_encoder=folder / "text.onnx",
        logit_scale=float(net.scale), logit_bias=float(net.bias), emit="weights",
    )  # fmt: skip
    return Explainer(folder / "picture.cam.onnx")


def measure(explainer: Explainer, cases: list[Case]) -> dict[str, Any]:
    """Shares of heat inside the named objects, and how often the peak lies on them rather than on the others."""
    ratios = Ratios()
    for number, one in enumerate(cases):
        found = explainer(one.scene.image, f"text: {one.prompt.text}")
        heat = found.heatmaps[0, 0].astype(np.float64)
        weights = weights_of(str(number))
        if heat.sum() > 0:
            ratios.add("heat on the named objects", heat[one.mask].sum() / heat.sum(), weights)
            ratios.add("heat on the other objects", heat[one.others].sum() / heat.sum(), weights)
            y, x = np.unravel_index(heat.argmax(), heat.shape)
            if one.mask[y, x] or one.others[y, x]:
                ratios.add("peaks on an object that lie on a named one", float(one.mask[y, x]), weights, share=True)
        ratios.add("pictures with heat", heat.sum() > 0, weights, share=True)
        ratios.add("named objects' share of the picture (chance)", one.mask.mean(), weights)
        objects = one.mask.sum() + one.others.sum()
        ratios.add("named objects' share of all objects (chance)", one.mask.sum() / max(objects, 1), weights)
    return {name: figure.to_dict() for name, figure in ratios.figures().items()}


def agreement(net: DualEncoder, explainer: Explainer, cases: list[Case]) -> float:
    """The largest difference from Grad-CAM by autograd, as a share of a map's maximum."""
    worst = 0.0
    words = tokenizer()
    for one in cases[:20]:
        encoded = words.encode([one.prompt.text], 8)
        texts = net.text(torch.from_numpy(encoded.ids), torch.from_numpy(encoded.mask))
        maps = net.picture.trunk(prepared(one.scene.image[None])).detach().requires_grad_()
        cosine = torch.nn.functional.cosine_similarity(net.picture.head(maps.mean((2, 3))), texts)
        (slope,) = torch.autograd.grad((net.scale * cosine).sum(), maps)
        wanted = (slope.mean((2, 3), keepdim=True) * maps).sum(1).relu().detach().numpy()
        found = np.maximum(explainer(one.scene.image, f"text: {one.prompt.text}").maps[:, 0], 0)
        if wanted.max() > 0:
            worst = max(worst, difference(found, wanted))
    return worst


def run(trained: int, held_out: int, epochs: int, seconds: float) -> tuple[dict[str, Any], Any]:
    """The report and its picture."""
    net, random = train(draw(trained, 21), epochs, seconds), DualEncoder(1).eval()
    cases = drawn_cases(held_out, 22)
    report: dict[str, Any] = {"command": COMMAND, "machine": machine()}
    report |= {"versions": versions("fastcam", "torch", "onnxruntime"), "networks": {}}
    report["settings"] = {"trained": trained, "held out": len(cases), "epochs": epochs, "seconds": seconds}
    shown: list[tuple[Any, str]] = []
    for name, one in (("trained", net), ("random weights", random)):
        with tempfile.TemporaryDirectory() as folder:
            explainer = exported(one, Path(folder))
            report["networks"][name] = measure(explainer, cases)
            report["networks"][name]["difference from autograd"] = agreement(one, explainer, cases)
            for case in cases[:SHOWN]:
                found = explainer(case.scene.image, f"text: {case.prompt.text}")
                shown.append((found.overlay(min_side=192, annotate=False), f"{name}: {case.prompt.text}"))
    return report, drawing.contact_sheet(shown, SHOWN, 192)


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    lines = ["# Prompts", "", f"Made by `{report['command']}`.", "", *figures_table(report["networks"])]
    return "\n".join([*lines, ""])


def main() -> None:
    """Train, measure, print the table, write JSON, table and picture."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS / "paper", help="folder for the results")
    for option, value in (("--trained", TRAINED), ("--held-out", HELD_OUT), ("--epochs", EPOCHS)):
        parser.add_argument(option, type=int, default=value)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of training, at most")
    options = parser.parse_args()
    report, sheet = run(options.trained, options.held_out, options.epochs, options.seconds)
    write_results(report, options.out, "prompts", table, {"prompts": sheet})
    print(table(report))


if __name__ == "__main__":
    main()
