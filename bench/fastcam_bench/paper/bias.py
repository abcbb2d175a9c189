"""Bias in data (Grad-CAM paper, section 6.3), and clusters of maps that show it without being asked.

``python -m fastcam_bench.paper.bias`` trains a small network on scenes of two shapes. A ring stands in each, and its
colour goes with the shape in 78 and 93 % of the pictures, as men and women went with doctors and nurses in the paper's
search results. Validation, drawn alike, does not notice; a balanced test does, and the share of the heat on the ring
tells why. Trained on balanced pictures, accuracy and heat return.

A third network sees a ring in one of three pictures of one class. Clusters of that class's maps (spectral relevance
analysis: Lapuschkin et al., "Unmasking Clever Hans predictors", 2019) find these pictures, although nobody marked them.

Needs torch; minutes on two cores.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.cluster.vq import kmeans2
from scipy.linalg import eigh

from fastcam import Explainer, Explanation
from fastcam.evaluation.statistics import Ratios, weights_of
from fastcam.render import drawing
from fastcam_bench.oracles.machine import machine, versions
from fastcam_bench.paper.figures import interval
from fastcam_bench.paper.results import write_results
from fastcam_bench.paper.scenes_with_context import BALANCED, CLASSES, SHARES, SIZE, Pictures, draw, draw_tagged
from fastcam_bench.paths import RESULTS
from fastcam_export import export_model

COMMAND = "python -m fastcam_bench.paper.bias"
TRAINED, HELD_OUT, EPOCHS, BATCH = 1200, 500, 10, 48
TAGS = (1 / 3, 0.0)
Floats = npt.NDArray[np.float64]


def train(pictures: Pictures, epochs: int = EPOCHS) -> bytes:
    """A small network as an ONNX file: four convolutions, a mean over positions, one matrix."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    torch.set_num_threads(1)

    def stage(before: int, after: int, stride: int) -> list[Any]:
        return [nn.Conv2d(before, after, 3, stride, 1), nn.BatchNorm2d(after), nn.ReLU()]

    layers = [*stage(3, 16, 2), *stage(16, 32, 2), *stage(32, 48, 1), *stage(48, 48, 1)]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 2))
    x = torch.from_numpy(pictures.images.transpose(0, 3, 1, 2).astype(np.float32) / 255)
    y = torch.from_numpy(pictures.classes)
    steps = epochs * (len(x) // BATCH)
    optimiser = torch.optim.AdamW(net.parameters(), 4e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    order = np.random.default_rng(0)
    for _ in range(epochs):
        for part in np.array_split(order.permutation(len(x))[: len(x) // BATCH * BATCH], len(x) // BATCH):
            loss = nn.functional.cross_entropy(net(x[part]), y[part])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    net.eval()
    file = io.BytesIO()
    named: dict[str, Any] = {"input_names": ["image"], "output_names": ["y"], "dynamic_axes": {"image": {0: "N"}}}
    torch.onnx.export(net, (x[:1],), file, dynamo=False, opset_version=17, **named)  # type: ignore[arg-type]
    return file.getvalue()


def explained(model: bytes, pictures: Pictures) -> Explanation:
    """All pictures, explained for the predicted class."""
    made = export_model(model, preprocess="unit", labels=list(CLASSES), check=False)
    return Explainer(made.model.SerializeToString())(list(pictures.images))


def measure(found: Explanation, pictures: Pictures) -> dict[str, Any]:
    """Accuracy, on pictures whose ring goes with their class and on the others; heat on ring and object."""
    ratios = Ratios()
    right = found.classes[:, 0] == pictures.classes
    heat = found.heatmaps[:, 0]
    for i in range(len(found)):
        weights = weights_of(f"{i}")
        usual = pictures.contexts[i] == pictures.classes[i]
        ratios.add("accuracy", right[i], weights, share=True)
        ratios.add(f"accuracy, {'usual' if usual else 'unusual'} context", right[i], weights, share=True)
        total = float(heat[i].sum())
        if total > 0:
            ratios.add("heat on the context", float(heat[i][_around(pictures.rings[i])].sum()) / total, weights)
            ratios.add("heat on the object", float(heat[i][_around(pictures.objects[i])].sum()) / total, weights)
    return {name: figure.to_dict() for name, figure in ratios.figures().items()}


def _around(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The box of a mask, four pixels, a cell of the map, larger on each side."""
    box = np.zeros_like(mask)
    y, x = np.nonzero(mask)
    if len(x):
        box[max(0, y.min() - 4) : y.max() + 5, max(0, x.min() - 4) : x.max() + 5] = True
    return box


def clusters(maps: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Two clusters of maps [n, h, w], by spectral clustering.

    The distance of two maps is how far heat has to be moved up or down to make one of the other (Wasserstein's, of the
    sums over rows): it tells what looks above from what looks below, wherever that is from left to right.
    """
    rows = maps.sum(2).astype(np.float64)
    below = np.cumsum(rows / np.maximum(rows.sum(1, keepdims=True), 1e-12), axis=1)
    distance = np.abs(below[:, None] - below[None]).sum(2)
    graph = np.exp(-((distance / np.median(distance)) ** 2))
    root = 1 / np.sqrt(graph.sum(1))
    _, vectors = eigh(np.eye(len(graph)) - root[:, None] * graph * root[None])
    # the first vectors of the Laplacian, by k-means; several starts, as it may end in a bad place
    points = vectors[:, :2] / np.maximum(np.linalg.norm(vectors[:, :2], axis=1, keepdims=True), 1e-12)
    tries = [kmeans2(points, 2, minit="++", seed=seed) for seed in range(8)]
    spread = [float(((points - centres[labels]) ** 2).sum()) for centres, labels in tries]
    return np.asarray(tries[int(np.argmin(spread))][1], np.int64)


def tagged(pictures: Pictures, found: Explanation) -> tuple[dict[str, Any], npt.NDArray[np.int64]]:
    """What clusters of the first class's maps have to do with the ring that some of its pictures have."""
    of_class = np.flatnonzero((pictures.classes == 0) & (found.classes[:, 0] == 0))
    labels = clusters(found.heatmaps[of_class, 0, ::4, ::4])
    has = pictures.contexts[of_class] == 0
    up = int(np.mean(has[labels == 1]) > np.mean(has[labels == 0]))  # the cluster with more rings
    agrees = (labels == up) == has
    heat = found.heatmaps[of_class, 0]
    upper = heat[:, : SIZE // 2].sum((1, 2)) / np.maximum(heat.sum((1, 2)), 1e-9)
    said = {
        "pictures": len(of_class),
        "with a ring": int(has.sum()),
        "in the cluster": int((labels == up).sum()),
        "of these with a ring": int(has[labels == up].sum()),
        "cluster and ring agree": round(float(agrees.mean()), 3),
        "heat in the upper half, in the cluster": round(float(upper[labels == up].mean()), 3),
        "heat in the upper half, outside of it": round(float(upper[labels != up].mean()), 3),
    }
    return said, of_class[np.argsort(labels != up, kind="stable")]


def run() -> tuple[dict[str, Any], Any]:
    """The report and its picture."""
    held = {"validation, biased": draw(HELD_OUT, 11, SHARES), "test, balanced": draw(HELD_OUT, 12, BALANCED)}
    models: dict[str, Any] = {}
    shown: list[tuple[Any, str]] = []
    for name, shares in (("trained on biased pictures", SHARES), ("trained on balanced pictures", BALANCED)):
        model = train(draw(TRAINED, 10, shares))
        models[name] = {}
        for split, pictures in held.items():
            found = explained(model, pictures)
            models[name][split] = measure(found, pictures)
            print(name, split, models[name][split])
        unusual = np.flatnonzero(pictures.contexts != pictures.classes)[:4]
        shown += [
            (found.overlay(int(i), min_side=192, annotate=False), name.removesuffix(" pictures")) for i in unusual
        ]
    model = train(draw_tagged(TRAINED, 13, TAGS))
    pictures = draw_tagged(HELD_OUT, 14, TAGS)
    found = explained(model, pictures)
    said, order = tagged(pictures, found)
    other = draw_tagged(HELD_OUT, 15, (0.0, 1.0))
    with_ring = explained(model, other)
    flowers = other.classes == 1
    said["accuracy"] = round(float((found.classes[:, 0] == pictures.classes).mean()), 3)
    said["flowers with a ring taken for stars"] = round(float((with_ring.classes[flowers, 0] == 0).mean()), 3)
    print(said)
    for title, picked in (("cluster 1", order[:4]), ("cluster 2", order[-4:])):
        shown += [(found.overlay(int(i), min_side=192, annotate=False), title) for i in picked]
    about = {"command": COMMAND, "machine": machine(), "versions": versions("fastcam", "torch", "onnxruntime")}
    settings = {"trained": TRAINED, "held out": HELD_OUT, "epochs": EPOCHS, "shares": SHARES, "tags": TAGS}
    return about | {"settings": settings, "models": models, "clusters": said}, drawing.contact_sheet(shown, 4, 192)


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    lines = ["# Bias", "", f"Made by `{report['command']}`.", ""]
    columns = [(name, split) for name, splits in report["models"].items() for split in splits]
    lines += [
        "| | " + " | ".join(f"{name}: {split}" for name, split in columns) + " |",
        "|---|" + "---:|" * len(columns),
    ]
    first = report["models"][columns[0][0]][columns[0][1]]
    for figure in first:
        cells = [report["models"][name][split][figure] for name, split in columns]
        lines.append(f"| {figure} | {' | '.join(map(interval, cells))} |")
    lines += ["", "Clusters of one class's maps, of which one in three pictures has a ring:", ""]
    return "\n".join([*lines, *(f"- {name}: {value}" for name, value in report["clusters"].items()), ""])


def main() -> None:
    """Train, measure, print the table, write JSON, table and picture."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS / "paper", help="folder for the results")
    options = parser.parse_args()
    report, sheet = run()
    write_results(report, options.out, "bias", table, {"bias": sheet})
    print(table(report))


if __name__ == "__main__":
    main()
