"""Kinds of maps in a report: whether they show a second reason that was built into a network, without being told.

``python -m fastcam_bench.paper.second_reason`` gives the bundled network's star a second reason: its score is that of
the star plus that of the ring. A ring stands in one of three pictures of a star. ``fastcam report`` is to find these
pictures by the maps alone. Beside it stand what chance gives, the same network without the second reason, pictures
without a ring, and the network with random weights. Needs onnx; a minute on two cores.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

import fastcam
from fastcam import Explainer
from fastcam.evaluation.protocols.faithfulness.randomised_copy import drawn, layers, opened, randomised
from fastcam.evaluation.report import Report, write_report
from fastcam.evaluation.samples import Annotation, LeftOut, Sample
from fastcam.evaluation.scenes import CLASSES, Spec, scene, scene_seeds
from fastcam.evaluation.statistics import REPLICATES, figure, weights_of
from fastcam.render import drawing
from fastcam_bench.oracles.machine import machine, versions
from fastcam_bench.paper.results import write_results
from fastcam_bench.paths import RESULTS
from fastcam_export import export_model

COMMAND = "python -m fastcam_bench.paper.second_reason"
COUNT, SIZE = 240, 128
STAR, RING = CLASSES.index("star"), CLASSES.index("ring")
Bools = npt.NDArray[np.bool_]


class Stars:
    """Scenes of a star, of which every third or so has a ring too: above it, or anywhere. See ``Dataset``.

    Attributes:
        has: bool [COUNT], which have a ring.
    """

    exif, labels = False, CLASSES

    def __init__(self, name: str, place: str, share: float, seed: int) -> None:
        self.name, self.place, self.seed, self.left_out = name, place, seed, LeftOut()
        self.has: Bools = np.random.default_rng(seed).random(COUNT) < share

    def __len__(self) -> int:
        return COUNT

    def samples(self, skip: Collection[str] = ()) -> Iterator[Sample]:
        """The scenes, one after the other."""
        for i, each in enumerate(scene_seeds(COUNT, self.seed)):
            rng = np.random.default_rng(each % 2**32)
            if self.place == "above":
                star, ring = rng.uniform((0.25, 0.66), (0.75, 0.76)), rng.uniform((0.2, 0.2), (0.8, 0.28))
            else:
                cells = rng.permutation([(0.28, 0.28), (0.72, 0.28), (0.28, 0.72), (0.72, 0.72)])
                star, ring = cells[:2] + rng.uniform(-0.06, 0.06, (2, 2))
            specs = [Spec("star", radius=0.2, center=(float(star[0]), float(star[1])))]
            if self.has[i]:
                specs.append(Spec("ring", radius=0.18, center=(float(ring[0]), float(ring[1]))))
            made = scene(each, SIZE, specs)
            boxes = [one.box for one in made.objects if one.class_name == "star"]
            stars = tuple(Annotation("star", (float(a), float(b), float(c), float(d))) for a, b, c, d in boxes)
            yield Sample(f"scene {i}", made.image, stars)


def network(second: bool) -> bytes:
    """The bundled network as an exported file; with a second reason for the star."""
    folder = Path(fastcam.__file__).parent / "data"
    model = onnx.load(folder / "scenes.onnx")
    head = [node for node in model.graph.node if node.op_type == "Gemm"][-1]
    for tensor in model.graph.initializer:
        if second and tensor.name in head.input[1:]:
            values = numpy_helper.to_array(tensor).copy()  # [classes, channels], or [classes]
            values[STAR] += values[RING]
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    made = export_model(model, preprocess="imagenet", labels=folder / "scenes.labels.txt", check=False)
    file: bytes = made.model.SerializeToString()
    return file


def measure(report: Report, has: Bools) -> dict[str, Any]:
    """How pure the kinds are, beside chance: the mean purity where the rings stand in other pictures."""
    kinds = [np.array(kind.places) for kind in report.kinds if kind.label == "star"]
    labels = np.zeros(len(has), np.int64)
    for number, places in enumerate(kinds):
        labels[places] = number
    weights = np.stack([weights_of(f"scene {i}") for i in range(len(has))])
    rng = np.random.default_rng(0)
    chance = [purity(labels, rng.permutation(has), weights[:, :1])[0] for _ in range(REPLICATES)]
    said: dict[str, Any] = {
        "pictures": len(has),
        "with a ring": int(has.sum()),
        "kinds": max(1, len(kinds)),
        "purity": figure(purity(labels, has, weights), len(has), len(has)).to_dict(),
        "purity by chance": round(float(np.mean(chance)), 3),
    }
    if kinds:
        odd = labels == 0
        said["in the odd kind"] = int(odd.sum())
        said["of these with a ring"] = int(has[odd].sum())
        said["heat in the star's box, odd kind"] = round(report.kinds[0].share or 0.0, 3)
        said["heat in the star's box, the others"] = round(report.kinds[0].other or 0.0, 3)
    return said


def purity(labels: npt.NDArray[np.int64], has: Bools, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The share of pictures that are like most of their kind: [replicates]."""
    like = np.zeros(weights.shape[1])
    for number in range(labels.max() + 1):
        like += np.maximum(weights[(labels == number) & has].sum(0), weights[(labels == number) & ~has].sum(0))
    shares: npt.NDArray[np.float64] = like / weights.sum(0)
    return shares


def run() -> tuple[dict[str, Any], Any]:
    """The report and its picture."""
    above, anywhere = Stars("rings above", "above", 1 / 3, 31), Stars("rings anywhere", "anywhere", 1 / 3, 32)
    second, plain = network(True), network(False)
    model = opened(second)
    random = randomised(model, layers(model), drawn("normal", 0))
    rows: dict[str, Any] = {}
    shown: list[tuple[Any, str]] = []
    with TemporaryDirectory() as folder:
        for name, file, data in (
            ("second reason, rings above", second, above),
            ("second reason, rings anywhere", second, anywhere),
            ("second reason, no rings", second, Stars("no rings", "above", 0.0, 33)),
            ("one reason, rings above", plain, above),
            ("random weights, rings above", random, above),
        ):
            explainer = Explainer(file, exif=False, threads=1)
            report = write_report(explainer, data, Path(folder) / "page.html", {"star": frozenset([STAR])})
            rows[name] = measure(report, data.has)
            print(name, rows[name], flush=True)
            if data is above and file is second:
                samples = list(data.samples())
                for kind in report.kinds[:2]:
                    for place in kind.places[:4]:
                        found = explainer(samples[place].picture, targets=[STAR])
                        shown.append((found.overlay(0, min_side=192, annotate=False), f"kind {kind.number}"))
    about = {"command": COMMAND, "machine": machine(), "versions": versions("fastcam", "onnxruntime")}
    return about | {"rows": rows}, drawing.contact_sheet(shown, 4, 192) if shown else None


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    lines = ["# Kinds of maps", "", f"Made by `{report['command']}`.", ""]
    for name, row in report["rows"].items():
        lines += [f"## {name}", "", *(f"- {key}: {value}" for key, value in row.items()), ""]
    return "\n".join(lines)


def main() -> None:
    """Measure, print, write JSON, Markdown and picture."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS / "paper", help="folder for the results")
    options = parser.parse_args()
    report, sheet = run()
    write_results(report, options.out, "second_reason", table, {} if sheet is None else {"second_reason": sheet})


if __name__ == "__main__":
    main()
