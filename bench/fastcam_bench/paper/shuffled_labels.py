"""Shuffled labels (Adebayo et al. 2018, section 3.2), of the head alone: do maps follow what a class was learnt from?

``python -m fastcam_bench.paper.shuffled_labels`` fits the bundled network's last layer, by least squares, to few enough
pictures that it knows all of them by heart, once with their labels and once with the labels shuffled. Maps of new
pictures by both networks are compared, for each method. A map that stays as it was says nothing of what the class was
learnt from. Beside it stand a head that was fitted to other pictures with their labels, which is how alike maps of
equal knowledge are; copies whose weights are random from the head down (cascading randomisation); and the map of
another picture, which is chance.

The layers below the head keep their weights, which were trained on true labels: a network that is trained from its
first layer on shuffled labels may do worse. Needs onnx; minutes on two cores.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import helper, numpy_helper

import fastcam
from fastcam import Explainer
from fastcam.evaluation.faithfulness import spearman, ssim
from fastcam.evaluation.protocols.faithfulness.randomised_copy import drawn, layers, opened, randomised
from fastcam.evaluation.scenes import CLASSES, Spec, scene, scene_seeds
from fastcam.evaluation.statistics import Ratios, weights_of
from fastcam.render import drawing
from fastcam_bench.models.train_bundled import normalise
from fastcam_bench.oracles.machine import machine, versions
from fastcam_bench.paper.results import write_results
from fastcam_bench.paths import RESULTS
from fastcam_export import export_model

COMMAND = "python -m fastcam_bench.paper.shuffled_labels"
FITTED, TESTED, MEASURED, SIZE = 40, 200, 40, 128
Mode = Literal["gradient", "guided"]
MODES: dict[Mode, tuple[str, ...]] = {
    "gradient": ("gradcam", "gradcam++", "layercam", "gradient", "input-x-gradient"),
    "guided": ("guided", "guided-gradcam"),
}
"""Methods by what the file brings back to the input."""
REFERENCE, OTHER, SHUFFLED, CHANCE = "true labels", "true labels, other pictures", "shuffled labels", "another picture"
Floats = npt.NDArray[np.float64]
Maps = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures of one object each: uint8 [n, 128, 128, 3], and its class, int64 [n]."""

    images: npt.NDArray[np.uint8]
    classes: npt.NDArray[np.int64]


def draw(count: int, seed: int) -> Pictures:
    """Of each class as many."""
    classes = np.arange(count) % len(CLASSES)
    images = [
        scene(each, SIZE, [Spec(CLASSES[c], radius=0.25)]).image
        for each, c in zip(scene_seeds(count, seed), classes, strict=True)
    ]
    return Pictures(np.stack(images), classes)


def bundled() -> onnx.ModelProto:
    """The bundled network."""
    return onnx.load(Path(fastcam.__file__).parent / "data" / "scenes.onnx")


def features(images: npt.NDArray[np.uint8]) -> Floats:
    """What the last layer is given, [n, channels]."""
    model = bundled()
    model.graph.output.append(helper.make_tensor_value_info(_head(model).input[0], onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    runs = [session.run(None, {name: normalise(images[i : i + 20])})[-1] for i in range(0, len(images), 20)]
    return np.concatenate(runs).astype(np.float64)


def _head(model: onnx.ModelProto) -> onnx.NodeProto:
    head: onnx.NodeProto = [node for node in model.graph.node if node.op_type == "Gemm"][-1]
    return head


def fitted(x: Floats, classes: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Weights [classes, channels] and bias [classes] of least norm that give 1 for a picture's class, 0 for others."""
    middle, wanted = x.mean(0), np.eye(len(CLASSES))[classes]
    bias = wanted.mean(0)
    weights = (np.linalg.pinv(x - middle) @ (wanted - bias)).T
    return weights, bias - weights @ middle


def with_head(weights: Floats, bias: Floats) -> onnx.ModelProto:
    """The bundled network with another last layer."""
    model = bundled()
    for tensor in model.graph.initializer:
        for name, values in zip(_head(model).input[1:], (weights, bias), strict=True):
            if tensor.name == name:
                tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), name))
    return model


def networks(head: tuple[Floats, Floats], mode: Mode, cascade: bool) -> Iterator[tuple[str, Explainer]]:
    """The exported network; with ``cascade`` also copies of random weights, by how much of it is random."""
    made = export_model(
        with_head(*head),
        preprocess="imagenet",
        labels=list(CLASSES),
        emit="gradients",
        input_gradient=mode,
        check=False,
    )
    file = made.model.SerializeToString()
    yield "", Explainer(file, threads=1)
    if cascade:
        model = opened(file)
        names = layers(model)
        for share in (0.5, 1.0):
            some = names[: round(share * len(names))]
            copy = randomised(model, some, drawn("normal", 0))
            yield f"random weights, {share:.0%} of the layers", Explainer(copy, threads=1)


def maps(explainer: Explainer, pictures: Pictures, method: str) -> Maps:
    """Heatmaps of each picture's class, [n, 128, 128]; zeros without a map."""
    targets = [[int(c)] for c in pictures.classes]
    return explainer(list(pictures.images), targets=targets, method=method).heatmaps[:, 0]


def likeness(a: Maps, b: Maps) -> dict[str, Any]:
    """Spearman's coefficient (0 of a map without differences) and SSIM of maps, pair by pair."""
    ratios = Ratios()
    for i, (one, other) in enumerate(zip(a, b, strict=True)):
        weights = weights_of(f"picture {i}")
        coefficient = spearman(one, other)
        ratios.add("rank correlation", coefficient if np.isfinite(coefficient) else 0.0, weights)
        ratios.add("SSIM", ssim(one, other), weights)
    return {name: figure.to_dict() for name, figure in ratios.figures().items()}


def run() -> tuple[dict[str, Any], Any]:
    """The report and its picture."""
    first, second, test = draw(FITTED, 41), draw(FITTED, 42), draw(TESTED, 43)
    x, other, new = (features(one.images) for one in (first, second, test))
    shuffled = np.random.default_rng(0).permutation(first.classes)
    fits = {
        REFERENCE: (x, first.classes),
        OTHER: (other, second.classes),
        SHUFFLED: (x, shuffled),
    }
    heads = {name: fitted(*fit) for name, fit in fits.items()}
    accuracy = {
        name: {
            "pictures it was fitted to": round(float((_best(heads[name], fit[0]) == fit[1]).mean()), 3),
            "new pictures": round(float((_best(heads[name], new) == test.classes).mean()), 3),
        }
        for name, fit in fits.items()
    }
    print(accuracy, flush=True)
    measured = Pictures(test.images[:MEASURED], test.classes[:MEASURED])
    rows: dict[str, Any] = {}
    shown: list[tuple[Any, str]] = []
    for mode, methods in MODES.items():
        made = {
            after or name: explainer
            for name, head in heads.items()
            for after, explainer in networks(head, mode, name == REFERENCE)
        }
        for method in methods:
            found = {name: maps(explainer, measured, method) for name, explainer in made.items()}
            found[CHANCE] = np.roll(found[REFERENCE], 1, axis=0)
            rows[method] = {name: likeness(found[REFERENCE], one) for name, one in found.items() if name != REFERENCE}
            print(
                method,
                {name: round(one["rank correlation"]["value"], 2) for name, one in rows[method].items()},
                flush=True,
            )
            if method in ("gradcam", "guided"):
                for name in (REFERENCE, SHUFFLED):
                    of = made[name](
                        [*measured.images[:4]], targets=[[int(c)] for c in measured.classes[:4]], method=method
                    )
                    shown += [(of.overlay(i, 0, min_side=160, annotate=False), f"{method}, {name}") for i in range(4)]
    about = {"command": COMMAND, "machine": machine(), "versions": versions("fastcam", "onnxruntime")}
    settings = {"fitted to": FITTED, "measured": MEASURED}
    return about | {"settings": settings, "accuracy": accuracy, "rows": rows}, drawing.contact_sheet(shown, 4, 160)


def _best(head: tuple[Floats, Floats], x: Floats) -> npt.NDArray[np.int64]:
    best: npt.NDArray[np.int64] = (x @ head[0].T + head[1]).argmax(1)
    return best


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    names = list(next(iter(report["rows"].values())))
    lines = ["# Shuffled labels", "", f"Made by `{report['command']}`.", ""]
    lines += ["| rank correlation, SSIM | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    for method, row in report["rows"].items():
        cells = [f"{row[name]['rank correlation']['value']:.2f}, {row[name]['SSIM']['value']:.2f}" for name in names]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Fit, measure, print, write JSON, Markdown and picture."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS / "paper", help="folder for the results")
    options = parser.parse_args()
    report, sheet = run()
    write_results(report, options.out, "shuffled_labels", table, {"shuffled_labels": sheet})
    print(table(report))


if __name__ == "__main__":
    main()
