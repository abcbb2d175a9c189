"""SEC with Grad-CAM's seeds and with CAM's, as in section 4.2 of the Grad-CAM paper, on generated scenes.

``python -m fastcam_bench.paper.sec`` makes seeds of training scenes by ``fastcam seeds``, trains a segmentation network
on seeds and image-level labels by the three losses, and measures seeds and network on other scenes.

Seeds of the bundled network, whose head is a mean and one matrix, are the same by Grad-CAM and CAM (which is counted);
one network is trained on them. A pair of seeds is of networks that share its layers and whose heads are trained here.
One head has a hidden fully connected layer, as VGG-16, which Grad-CAM explains as it is. CAM cannot; it takes a network
with the other head, a mean and one matrix.

Needs torch; minutes on two cores.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import fastcam
from fastcam.evaluation.class_map import class_map
from fastcam.evaluation.data.generated import open_scenes
from fastcam.evaluation.data.index_masks import read_indices, voc_palette
from fastcam.evaluation.data.listed import Listed
from fastcam.evaluation.protocols.seeds import CUES, SeedQuality
from fastcam.evaluation.runner import Contestant
from fastcam.evaluation.samples import Sample
from fastcam.evaluation.seed_files import MASKS, write_seeds
from fastcam.evaluation.statistics import weights_of
from fastcam.render import drawing
from fastcam_bench.models.train_bundled import average_precision
from fastcam_bench.oracles.machine import machine, versions
from fastcam_bench.paper.figures import interval
from fastcam_bench.paper.results import write_results
from fastcam_bench.paper.sec.networks import GRID, features, read_parameters, with_new_head
from fastcam_bench.paper.sec.training import LOSSES, Inputs, kernels, segment, train
from fastcam_bench.paths import RESULTS
from fastcam_export import export_model

COMMAND = "python -m fastcam_bench.paper.sec"
TRAINED, HELD_OUT, SIZE, EPOCHS, HEAD_EPOCHS = 600, 200, 128, 8, 40
MEASURED = ("mean IoU", "mean precision", "mean recall", "IoU of the background")
SHOWN = 5
BUNDLED, HIDDEN, MATRIX = "bundled network, Grad-CAM", "hidden layer, Grad-CAM", "mean and matrix, CAM"
Uint8 = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Scenes:
    """Scenes in memory: as a data set, their truth uint8 [n, 128, 128] of classes from 1, and the network's inputs."""

    data: Listed
    samples: list[Sample]
    images: Uint8
    truth: Uint8
    inputs: Inputs


def make_scenes(count: int, seed: int, parameters: dict[str, npt.NDArray[np.float32]]) -> Scenes:
    """Scenes of one to five objects."""
    source = open_scenes(count, seed, SIZE)
    samples = list(source.samples())
    data = Listed(source.name, source.labels, source.names, lambda place, _: samples[place])
    images = np.stack([np.asarray(one.picture) for one in samples])
    truth = np.zeros(images.shape[:3], np.uint8)
    present = np.zeros((count, len(source.labels)), np.bool_)
    for i, sample in enumerate(samples):
        for mark in sample.annotations:
            assert mark.mask is not None
            truth[i][mark.mask] = source.labels.index(mark.label) + 1
            present[i, source.labels.index(mark.label)] = True
    fine, coarse = features(parameters, images)
    return Scenes(data, samples, images, truth, Inputs(fine, coarse, kernels(images), torch.from_numpy(present)))


def seeds_of(explainer: fastcam.Explainer, method: str, scenes: Scenes) -> tuple[Uint8, dict[str, Any]]:
    """Seeds uint8 [n, 128, 128] that ``fastcam seeds`` writes, and how good they are."""
    classes = class_map(scenes.data.labels, explainer.metadata)
    with tempfile.TemporaryDirectory() as folder:
        made = write_seeds(Contestant("scenes", explainer, classes, method=method), scenes.data, folder)
        files = [Path(folder) / MASKS / f"{one.name}.png" for one in scenes.samples]
        masks = np.stack([read_indices(file) for file in files]).astype(np.uint8)
    figures = made.figures["seeds"]
    return masks, {name: figures[name].to_dict() for name in MEASURED}


def measure(found: Uint8, scenes: Scenes) -> dict[str, Any]:
    """Mean IoU over classes and background, and the like, of the class of each pixel."""
    tally = SeedQuality().tally()
    for mask, truth, sample in zip(found, scenes.truth, scenes.samples, strict=True):
        row = {}
        for number in np.union1d(mask, truth):
            label = scenes.data.labels[number - 1] if number else ""
            ours, theirs = mask == number, truth == number
            row[label] = [int((ours & theirs).sum()), int(ours.sum()), int(theirs.sum())]
        tally.add({"pixels": row, CUES: [mask.size, mask.size]}, weights_of(sample.name))
    figures = tally.figures()
    return {name: figures[name].to_dict() for name in MEASURED}


def on_grid(masks: Uint8) -> Uint8:
    """Of masks [n, 128, 128] the pixel in the middle of each cell, [n, 24, 24]."""
    middle = ((np.arange(GRID) + 0.5) * SIZE / GRID).astype(int)
    return masks[:, middle[:, None], middle]


class _Experiment:
    """Trains, measures, and keeps what is reported and shown."""

    def __init__(self, training: Scenes, held: Scenes, report: dict[str, Any], out: Path) -> None:
        self.training, self.held, self.report, self.out = training, held, report, out
        self.report["rows"] = []
        self.masks: dict[str, Uint8] = {"truth": held.truth}
        self.began = time.perf_counter()

    def train(self, name: str, seeds: Uint8, used: tuple[str, ...], of_seeds: dict[str, Any] | None = None) -> None:
        net = train(self.training.inputs, on_grid(seeds), used, self.report["settings"]["epochs"])
        self.masks[name] = segment(net, self.held.inputs, SIZE, crf=True)
        row: dict[str, Any] = {"name": name, "losses": list(used), "seeds": of_seeds}
        row["network"] = measure(segment(net, self.held.inputs, SIZE, crf=False), self.held)
        row["network and CRF"] = measure(self.masks[name], self.held)
        self.report["rows"].append(row)
        values = [row[key]["mean IoU"]["value"] for key in ("network", "network and CRF")]
        print(f"{time.perf_counter() - self.began:.0f} s: {name}: {values}", flush=True)
        self.write()

    def write(self) -> None:
        """JSON, table and picture of what is measured so far."""
        write_results(self.report, self.out, "sec", table, {"sec": _picture(self)})


def _classifiers(training: Scenes, held: Scenes, path: Path) -> tuple[dict[str, Any], dict[str, float]]:
    """Exported files, and the mean average precision of the heads that are trained here."""
    parameters, present = read_parameters(path), training.inputs.present.numpy()
    files: dict[str, Any] = {"bundled": path.read_bytes()}
    quality = {}
    for name, hidden in (("hidden layer", True), ("mean and matrix", False)):
        made, head = with_new_head(parameters, training.inputs.coarse, present, hidden, HEAD_EPOCHS)
        with torch.no_grad():
            scores = head(held.inputs.coarse).numpy()
        truth = held.inputs.present.numpy()
        precisions = [average_precision(scores[:, c], truth[:, c]) for c in np.flatnonzero(truth.any(0))]
        files[name], quality[name] = made, round(float(np.mean(precisions)), 4)
    settings: dict[str, Any] = {"preprocess": "imagenet", "layer": "stage4/relu2", "input_gradient": "gradient"}
    exported = {
        name: fastcam.Explainer(
            export_model(file, labels=list(training.data.labels), check=False, **settings).model.SerializeToString(),
            exif=False,
            threads=1,
        )
        for name, file in files.items()
    }
    return exported, quality


def run(trained: int, held_out: int, epochs: int, out: Path, command: str = COMMAND) -> dict[str, Any]:
    """The report, which is written with its table and picture whenever a network is measured."""
    torch.set_num_threads(1)
    path = Path(fastcam.__file__).parent / "data" / "scenes.onnx"
    parameters = read_parameters(path)
    training, held = make_scenes(trained, 21, parameters), make_scenes(held_out, 22, parameters)
    explainers, quality = _classifiers(training, held, path)
    counts = {"training scenes": trained, "held out scenes": held_out, "epochs": epochs, "epochs of heads": HEAD_EPOCHS}
    about = {"command": command, "machine": machine(), "versions": versions("fastcam", "torch", "onnxruntime")}
    report: dict[str, Any] = about | {"settings": counts, "mean average precision of heads": quality}
    experiment = _Experiment(training, held, report, out)
    of_gradcam, quality_of_training = seeds_of(explainers["bundled"], "gradcam", training)
    of_held, quality_of_held = seeds_of(explainers["bundled"], "gradcam", held)
    of_cam, _ = seeds_of(explainers["bundled"], "cam", held)
    report["pixels of held out scenes with the same seed by Grad-CAM and CAM"] = float((of_held == of_cam).mean())
    both = {"training scenes": quality_of_training, "held out scenes": quality_of_held}
    experiment.masks["seeds"] = of_held
    experiment.train(BUNDLED, of_gradcam, LOSSES, both)
    experiment.train("seed alone", of_gradcam, ("seed",))
    for model, method, title in (
        ("hidden layer", "gradcam", HIDDEN),
        ("mean and matrix", "cam", MATRIX),
    ):
        of_training, quality_of_training = seeds_of(explainers[model], method, training)
        of_held, quality_of_held = seeds_of(explainers[model], method, held)
        both = {"training scenes": quality_of_training, "held out scenes": quality_of_held}
        experiment.train(title, of_training, LOSSES, both)
    experiment.train("true masks, seed alone", training.truth, ("seed",))
    for without in LOSSES:
        used = tuple(name for name in LOSSES if name != without)
        experiment.train(f"without {without}", of_gradcam, used)
    return experiment.report


def _picture(experiment: _Experiment) -> Any:
    """A line for each of some held out scenes: picture, truth, seeds, networks."""
    titles = {
        "truth": "truth",
        "seeds": "seeds",
        BUNDLED: "SEC",
        HIDDEN: "hidden, Grad-CAM",
        MATRIX: "matrix, CAM",
        "seed alone": "seed loss alone",
        "true masks, seed alone": "true masks",
    }
    columns = {title: experiment.masks[name] for name, title in titles.items() if name in experiment.masks}
    palette = voc_palette()
    palette[255] = 255
    shown = []
    for i in range(SHOWN):
        shown.append((experiment.held.images[i], "picture"))
        shown += [(palette[masks[i]], title) for title, masks in columns.items()]
    return drawing.contact_sheet(shown, 1 + len(columns), SIZE)


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    lines = ["# Seed, expand and constrain", "", f"Made by `{report['command']}`. Mean IoU on held out scenes.", ""]
    lines += [
        "| | seeds, training scenes | seeds, held out scenes | network | network and CRF |",
        "|---|" + "---:|" * 4,
    ]
    for row in report["rows"]:
        seeds = row["seeds"] or {}
        found = [*(seeds.get(f"{split} scenes") for split in ("training", "held out")), row["network"]]
        cells = [interval(one and one["mean IoU"], 3) for one in (*found, row["network and CRF"])]
        lines.append(f"| {row['name']} | " + " | ".join(cells) + " |")
    heads = ", ".join(f"{name}: {value}" for name, value in report["mean average precision of heads"].items())
    settings = ", ".join(f"{name}: {value}" for name, value in report["settings"].items())
    return "\n".join([*lines, "", f"Mean average precision of heads: {heads}.", "", f"Settings: {settings}.", ""])


def main() -> None:
    """Train, measure, print the table, write JSON, table and picture."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS / "paper", help="folder for the results")
    parser.add_argument("--trained", type=int, default=TRAINED, help="scenes to train on")
    parser.add_argument("--held-out", type=int, default=HELD_OUT, help="scenes to measure on")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="over the scenes to train on")
    options = parser.parse_args()
    given = {"--trained": (options.trained, TRAINED), "--held-out": (options.held_out, HELD_OUT)}
    given["--epochs"] = (options.epochs, EPOCHS)
    command = " ".join([COMMAND, *(f"{name} {value}" for name, (value, usual) in given.items() if value != usual)])
    print(table(run(options.trained, options.held_out, options.epochs, options.out, command)))


if __name__ == "__main__":
    main()
