"""Adversarial noise (Grad-CAM paper, section 6.2): do maps still show what is there when the model no longer sees it?

``python -m fastcam_bench.paper.adversarial`` gives pictures noise of at most 2 of 255 (the bundled network's 16) with
which a model is sure (> 0.9999) of a class that is not there and gives those that are next to nothing (< 0.0001), by
FastCAM's own gradient in ONNX Runtime alone. Then it compares the maps of the classes that are there before and after:
the overlap of their masks, the rank correlation of their values, the pointing game. Noise of the same size without an
aim stands beside it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastcam import Explainer, Explanation, FastcamError
from fastcam.evaluation.class_map import class_map
from fastcam.evaluation.data import open_data
from fastcam.evaluation.faithfulness import spearman
from fastcam.evaluation.protocols.pointing import near
from fastcam.evaluation.protocols.regions import pixels
from fastcam.evaluation.samples import Sample
from fastcam.evaluation.statistics import Ratios, weights_of
from fastcam.image.preprocess import decode, resize
from fastcam.preprocessing import preset
from fastcam.render import drawing
from fastcam_bench.oracles.machine import machine, versions
from fastcam_bench.paper.attack import Attack, Attacked, Uint8
from fastcam_bench.paper.figures import interval
from fastcam_bench.paper.results import write_results
from fastcam_bench.paths import RESULTS, ROOT, default_assets
from fastcam_export import export_model

COMMAND = "python -m fastcam_bench.paper.adversarial"


@dataclass(frozen=True)
class Subject:
    """A model and its data: names relative to the assets' folder, or to the repository."""

    name: str
    model: str
    logits: str
    preprocess: str
    labels: str
    data: str
    size: int
    epsilon: int = 2
    single: bool = False
    layer: str = "auto"


SUBJECTS = (
    Subject("SqueezeNet 1.1", "models/squeezenet1.1.onnx", "squeezenet0_flatten0_reshape0", "imagenet",
            "models/synset_words.txt", "coco", 224),
    Subject("MobileNetV2", "models/mobilenet_v2_1.0_224_quant.float.onnx", "logits", "tf128",
            "models/imagenet_labels_1001.txt", "coco", 224),
    Subject("bundled network", "fastcam/data/scenes.onnx", "head/linear", "imagenet",
            "fastcam/data/scenes.labels.txt", "scenes:100,seed=62,size=128", 128, epsilon=16, single=True),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Trial:
    """A picture before and after, and its maps.

    Attributes:
        sample: as the data set gives it.
        clean: at the network's size.
        attacked: after the attack.
        absent: the class that the model is made to see.
        labels, targets: what is there, in the data set's and in the model's words.
        seen: which of them are among the model's five best on the clean picture.
        before, after, noisy: explanations of the targets; of the clean picture, the attacked one, one with noise of the
            same size without an aim.
    """

    sample: Sample
    clean: Uint8
    attacked: Attacked
    absent: int
    labels: list[str]
    targets: list[int]
    seen: list[bool]
    before: Explanation
    after: Explanation
    noisy: Explanation


def trials(subject: Subject, assets: Path, most: int) -> Iterator[Trial]:
    """Every picture that shows classes that the model knows."""
    own = subject.single
    model = (ROOT if own else assets) / subject.model
    labels = (ROOT if own else assets) / subject.labels
    folder = assets / "coco"
    data = (
        open_data(subject.data) if own else open_data(f"coco:{folder / 'instances.json'}", pictures=folder / "images")
    )
    made = export_model(model, preprocess=subject.preprocess, labels=labels, check=False, layer=subject.layer)
    explainer = Explainer(made.model.SerializeToString())
    known = class_map(data.labels, explainer.metadata, None if own else folder / "coco_to_imagenet.json")
    attack = Attack(model, subject.logits, preset(subject.preprocess, size=(subject.size, subject.size)), own)
    for number, sample in enumerate(data.samples()):
        if number >= most:
            return
        there = [label for label in sample.labels if label in known.by_label]
        if there:
            yield _trial(subject, sample, there, explainer, known.by_label, attack)


def _trial(
    subject: Subject, sample: Sample, there: list[str], explainer: Explainer, known: Any, attack: Attack
) -> Trial:
    rng = np.random.default_rng(int(weights_of(sample.name)[1:64].sum()))
    picture = sample.picture if isinstance(sample.picture, np.ndarray) else decode(sample.picture)
    clean = np.ascontiguousarray(resize(picture, (subject.size, subject.size)))
    scores = explainer(clean).scores[0]
    targets = [max(known[label], key=lambda index: scores[index]) for label in there]
    present = sorted({index for label in there for index in known[label]})
    low = np.argsort(scores)[: len(scores) // 2]  # of what is not there, and does not seem so
    absent = int(rng.choice([index for index in low if index not in present]))
    attacked = attack(clean, absent, present, subject.epsilon)
    size = np.abs(attacked.picture.astype(int) - clean)
    noise = np.where(rng.random(clean.shape) < 0.5, -1, 1) * size
    noisy = np.clip(clean.astype(int) + noise, 0, 255).astype(np.uint8)
    best = np.argsort(-scores)[:5]
    seen = [bool(set(best.tolist()) & set(known[label])) for label in there]
    before, after, other = (explainer(one, targets=targets) for one in (clean, attacked.picture, noisy))
    return Trial(sample, clean, attacked, absent, there, targets, seen, before, after, other)


def measure(made: list[Trial]) -> dict[str, Any]:
    """What the maps of the classes that are there have in common before and after, with intervals over pictures."""
    ratios = Ratios()
    for at, trial in enumerate(made):
        weights = weights_of(trial.sample.name)
        stranger = made[at - 1]
        ratios.add("attack succeeds", trial.attacked.done, weights, share=True)
        for column, seen in enumerate(trial.seen):
            values = {
                "IoU of masks, before and after": _overlap(trial.before, trial.after, column),
                "IoU of masks, noise without an aim": _overlap(trial.before, trial.noisy, column),
                "IoU of masks, another picture": _overlap(trial.before, stranger.before, column, 0),
                "rank correlation, before and after": _correlation(trial.before, trial.after, column),
                "rank correlation, noise without an aim": _correlation(trial.before, trial.noisy, column),
                "rank correlation, another picture": _correlation(trial.before, stranger.before, column, 0),
                "a map is left": float(trial.after.status[0][column] == "ok"),
                "pointing game, before": _points(trial, trial.before, column),
                "pointing game, after": _points(trial, trial.after, column),
            }
            for name, value in values.items():
                ratios.add(name, value, weights)
                if seen:
                    ratios.add(f"{name} (seen)", value, weights)
    return {name: figure.to_dict() for name, figure in ratios.figures().items()}


def _mask(explanation: Explanation, column: int) -> Any:
    heat = explanation.heatmaps[0, column]
    return heat >= max(0.15 * heat.max(), 1e-12)


def _overlap(a: Explanation, b: Explanation, column: int, other: int | None = None) -> float:
    one, two = _mask(a, column), _mask(b, column if other is None else other)
    return float((one & two).sum() / max(1, (one | two).sum()))


def _correlation(a: Explanation, b: Explanation, column: int, other: int | None = None) -> float:
    value = spearman(a.maps[0, column].ravel(), b.maps[0, column if other is None else other].ravel())
    return float(value) if np.isfinite(value) else 0.0  # one of them is the same everywhere


def _points(trial: Trial, explanation: Explanation, column: int) -> float:
    """Whether a map's peak lies within 15 pixels of the object, in the picture as the data set has it."""
    found = explanation.peak(0, column)
    if found is None:
        return 0.0
    height, width = _size(trial.sample)
    x, y = found[0] * width / trial.clean.shape[1], found[1] * height / trial.clean.shape[0]
    return float(near(pixels(trial.sample.of(trial.labels[column]), (height, width)), x, y))


def _size(sample: Sample) -> tuple[int, int]:
    picture = sample.picture if isinstance(sample.picture, np.ndarray) else decode(sample.picture)
    return picture.shape[0], picture.shape[1]


def summary(subject: Subject, made: list[Trial]) -> dict[str, Any]:
    """One model's part of the report."""
    done = [trial.attacked for trial in made if trial.attacked.done]
    changes = [np.abs(trial.attacked.picture.astype(int) - trial.clean) for trial in made]
    return {
        "model": subject.name,
        "data": "45 COCO photos" if subject.data == "coco" else subject.data,
        "layer": made[0].before.metadata.layer.value,
        "pictures": len(made),
        "classes": sum(len(trial.labels) for trial in made),
        "classes seen": sum(sum(trial.seen) for trial in made),
        "epsilon": subject.epsilon,
        "largest change of a pixel": int(max(change.max() for change in changes)),
        "mean change of a pixel": round(float(np.mean([change.mean() for change in changes])), 2),
        "attacks done": len(done),
        "median steps": float(np.median([one.steps for one in done])) if done else None,
        "least probability of the absent class": min((one.absent for one in done), default=None),
        "largest probability of a present class": max((one.present for one in done), default=None),
        "figures": measure(made),
    }


def sheet(made: list[Trial]) -> Uint8:
    """Four of the pictures, one a row: clean, noise sixteen times as large, attacked; maps before and after."""
    cells: list[tuple[Uint8, str]] = []
    for trial in made:
        column = trial.seen.index(True)
        noise = (trial.attacked.picture.astype(int) - trial.clean) * 16 + 128
        said = trial.after
        absent = said.labels[trial.absent].split(",")[0].split(" ", 1)[-1] if said.labels else str(trial.absent)
        cells += [
            (trial.clean, trial.labels[column]),
            (np.clip(noise, 0, 255).astype(np.uint8), "noise x 16"),
            (trial.attacked.picture, f"{absent[:16]} {trial.attacked.absent:.5f}"),
            (trial.before.overlay(0, column, annotate=False), f"{trial.labels[column]}: before"),
            (trial.after.overlay(0, column, annotate=False), f"{trial.labels[column]}: after"),
        ]
    return drawing.contact_sheet(cells, columns=5, tile=224)


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    models = report["models"]
    lines = [
        "# Adversarial noise",
        "",
        f"Made by `{report['command']}`.",
        "",
        "| | " + " | ".join(one["model"] for one in models) + " |",
        "|---|" + "---:|" * len(models),
        "| pictures, classes | " + " | ".join(f"{one['pictures']}, {one['classes']}" for one in models) + " |",
        "| mean change of a pixel | " + " | ".join(f"{one['mean change of a pixel']} of 255" for one in models) + " |",
    ]
    for name in models[0]["figures"]:
        cells = [one["figures"].get(name) for one in models]
        lines.append(f"| {name} | " + " | ".join(map(_cell, cells)) + " |")
    return "\n".join([*lines, ""])


def _cell(figure: dict[str, Any] | None) -> str:
    said = interval(figure)
    return said if figure is None or said == "-" else f"{said}, n {figure['n']}"


def main() -> None:
    """Attack, compare, print the table, write JSON, table and picture."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--assets", type=Path, default=default_assets(), help="folder with models/ and coco/")
    parser.add_argument("--out", type=Path, default=RESULTS / "paper", help="folder for the results")
    parser.add_argument("--most", type=int, default=1000, help="pictures of each model")
    options = parser.parse_args()
    if not (options.assets / "coco" / "instances.json").is_file():
        sys.exit(f"no models and photos in {options.assets}; set FASTCAM_ASSETS or give --assets DIR; nothing measured")
    models, shown = [], []
    try:
        for subject in SUBJECTS:
            made = list(trials(subject, options.assets, options.most))
            models.append(summary(subject, made))
            good = [one for one in made if one.attacked.done and any(one.seen)]
            shown += good[: 2 if subject.data == "coco" else 1]
            print(subject.name, models[-1])
    except FastcamError as error:
        sys.exit(str(error))
    about = {"command": COMMAND, "machine": machine(), "versions": versions("fastcam", "numpy", "onnxruntime")}
    report = about | {"models": models}
    write_results(report, options.out, "adversarial", table, {"adversarial": sheet(shown)})
    print(table(report))


if __name__ == "__main__":
    main()
