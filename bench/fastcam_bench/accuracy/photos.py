"""Real photos: ``python -m fastcam_bench.accuracy.photos`` measures how well heatmaps lie on objects with boxes drawn
by hand.

Exports SqueezeNet 1.1 and MobileNetV2, explains every photo for its true class and for the predicted one, and writes
``photos.json``, ``photos.md`` (the same as a table) and ``photos.jpg`` (a contact sheet) to ``--out``. Models, photos
and boxes come from a folder that is no part of the project: ``--assets``, FASTCAM_ASSETS or ../shared/assets.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from fastcam import Explainer, Explanation, FastcamError, __version__
from fastcam.image.preprocess import decode, pictures_in
from fastcam.render import drawing
from fastcam_bench.paths import default_assets
from fastcam_export import export_model

COMMAND = "python -m fastcam_bench.accuracy.photos --out bench/results/pictures"
PAPER = 0.15
THRESHOLDS = (PAPER, 0.25, 0.35, 0.5, 0.65)

Box = tuple[float, float, float, float]
Uint8 = npt.NDArray[np.uint8]
Entry = dict[str, Any]


@dataclass(frozen=True)
class Subject:
    """A classifier of ImageNet classes: file, preset, file of class names, and where ILSVRC class 0 stands in it."""

    name: str
    file: str
    preprocess: str
    labels: str
    offset: int


SUBJECTS = (
    Subject("SqueezeNet 1.1", "squeezenet1.1.onnx", "imagenet", "synset_words.txt", 0),
    Subject("MobileNetV2", "mobilenet_v2_1.0_224_quant.float.onnx", "tf128", "imagenet_labels_1001.txt", 1),
)


@dataclass(frozen=True)
class Photo:
    """A photo and, where somebody drew one, the box [x0, y0, x1, y1) around the object of its ILSVRC class."""

    path: Path
    class_index: int | None = None
    box: Box | None = None


def read_photos(folder: Path) -> list[Photo]:
    """All photos of ``folder``, by name, with what its ``boxes_approx.csv`` says about them."""
    with open(folder / "boxes_approx.csv", newline="", encoding="utf-8") as file:
        drawn = {row["file"]: row for row in csv.DictReader(file)}
    photos = []
    for path in pictures_in(folder):
        row = drawn.get(path.name)
        if row is None:
            photos.append(Photo(path))
        else:
            x0, y0, x1, y1 = (float(row[key]) for key in ("x0", "y0", "x1", "y1"))
            photos.append(Photo(path, int(row["class_index"]), (x0, y0, x1, y1)))
    return photos


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes; 0 where one of them is empty."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    areas = ((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return float(both / (sum(areas) - both))


def measure(heatmap: npt.NDArray[np.float32], box: Box) -> Entry:
    """How a heatmap [height, width] of the picture lies on a drawn box.

    ``energy_inside`` is the share of the heatmap's sum inside the box ("energy-based pointing game", Wang et al.,
    "Score-CAM", 2020), to be read beside ``box_area``, the share that an even heatmap would have there.
    ``pointing_hit`` says whether the maximum lies inside (Zhang et al., "Top-down Neural Attention", 2016).
    """
    height, width = heatmap.shape
    x0, y0, x1, y1 = (round(value) for value in box)
    total = max(float(heatmap.sum(dtype=np.float64)), 1e-30)
    y, x = np.unravel_index(int(heatmap.argmax()), heatmap.shape)
    return {
        "energy_inside": round(float(heatmap[y0:y1, x0:x1].sum(dtype=np.float64)) / total, 3),
        "box_area": round((x1 - x0) * (y1 - y0) / (height * width), 3),
        "pointing_hit": bool(x0 <= x < x1 and y0 <= y < y1),
    }


def shift(explainer: Explainer, photo: Photo) -> list[float]:
    """(x, y) in shares of the sides: half of what the heatmaps of a photo and of its mirror image disagree about.

    A model that treats left and right, top and bottom alike moves its heatmap with the object, so this is 0 on
    average; what remains is a displacement in the model or in our geometry.
    """
    image = decode(photo.path)
    found = explainer(image)
    target = int(found.classes[0, 0])
    mirrored = explainer([np.ascontiguousarray(image[:, ::-1]), np.ascontiguousarray(image[::-1])], targets=target)
    return [(_centre(found, 0, axis) + _centre(mirrored, axis, axis) - 1) / 2 for axis in (0, 1)]


def _centre(found: Explanation, image: int, axis: int) -> float:
    """Centre of mass of a heatmap along x (axis 0) or y (axis 1), in shares of that side."""
    mass = found.heatmaps[image, 0].sum(axis=axis, dtype=np.float64)
    return float((mass * (np.arange(len(mass)) + 0.5)).sum() / max(mass.sum(), 1e-30) / len(mass))


def explain(explainer: Explainer, photo: Photo, offset: int) -> tuple[Entry, Explanation]:
    """One photo's row of the table, and what to draw: the true class where it is known, else the predicted one."""
    true = [] if photo.class_index is None else [photo.class_index + offset]
    found = explainer(photo.path, targets=[*true, -1], threshold=PAPER)
    predicted = len(true)
    entry: Entry = {
        "file": photo.path.name,
        "predicted": {"class": int(found.classes[0, predicted]), **_said(found, predicted)},
    }
    if photo.box is None:
        return entry, found
    heat = found.geometry[0].heatmap_to_original(found.heatmaps[0, 0])
    others = {t: explainer(photo.path, targets=true, threshold=t).boxes[0, 0] for t in THRESHOLDS}
    entry["predicted"]["iou"] = round(iou(found.boxes[0, predicted], photo.box), 3)
    entry["true"] = {
        "class": true[0],
        **_said(found, 0),
        "drawn_box": [round(value) for value in photo.box],
        "iou": round(iou(found.boxes[0, 0], photo.box), 3),
        **measure(heat, photo.box),
        "iou_by_threshold": {str(t): round(iou(box, photo.box), 3) for t, box in others.items()},
    }
    return entry, found


def _said(found: Explanation, target: int) -> Entry:
    """What the model says about a target: its logit, and the probability after a softmax over all classes."""
    logits = found.scores[0].astype(np.float64)
    powers = np.exp(logits - logits.max())
    index = found.classes[0, target]
    return {
        "label": found.label(0, target),
        "score": round(float(logits[index]), 3),
        "probability": round(float(powers[index] / powers.sum()), 4),
        "status": found.status[0][target],
        "box": [round(float(value), 1) for value in found.boxes[0, target]],
    }


def summarise(entries: Sequence[Entry], shifts: Sequence[Sequence[float]]) -> Entry:
    """A model's means over the photos that have a box, and of the shift over all photos."""
    known = [entry["true"] for entry in entries if "true" in entry]
    means = {str(t): float(np.mean([e["iou_by_threshold"][str(t)] for e in known])) for t in THRESHOLDS}
    best = max(means, key=lambda key: means[key])
    return {
        "photos_with_box": len(known),
        "predicted_is_true": sum(e["predicted"]["class"] == e["true"]["class"] for e in entries if "true" in e),
        "pointing_hits": sum(e["pointing_hit"] for e in known),
        "mean_energy_inside": round(float(np.mean([e["energy_inside"] for e in known])), 3),
        "mean_box_area": round(float(np.mean([e["box_area"] for e in known])), 3),
        "mean_iou_by_threshold": {key: round(value, 3) for key, value in means.items()},
        "best_threshold": float(best),
        "mean_shift": [round(float(value), 3) for value in np.mean(shifts, axis=0)],
    }


def tile(found: Explanation, photo: Photo, entry: Entry, name: str) -> tuple[Uint8, str]:
    """A cell of the contact sheet: the overlay with our box (white) and the drawn one (green), and its caption."""
    shown = found.overlay(0)
    if photo.box is None:
        return shown, f"{name}: no box drawn"
    x0, y0, x1, y1 = (round(value) for value in photo.box)
    thick = max(2, round(max(shown.shape[:2]) / 120))
    cv2.rectangle(shown, (x0, y0), (x1 - 1, y1 - 1), (0, 255, 0), thick)
    return shown, f"{name}: IoU {entry['true']['iou']:.2f}"


def table(report: Entry) -> str:
    """The report as Markdown."""
    lines = [
        "# Real photos",
        "",
        f"Made by `{report['command']}`. Boxes: threshold {PAPER}, in pixels; drawn ones are right to 3 % of a side. "
        "Energy: the heatmap's share inside the drawn box (in brackets: the share that an even heatmap would have). "
        "Hit: the heatmap's maximum lies inside. Shift: by how much the heatmaps of a photo and of its mirror image "
        "disagree about the place, of which the model's padding is the cause: SqueezeNet pads evenly; MobileNetV2, as "
        "TensorFlow does, pads its five strided convolutions on the right and at the bottom only, so that its cells "
        "see what lies up to 15 of 224 pixels to the right of and below their place.",
        "",
    ]
    for model in report["models"]:
        total = model["summary"]
        lines += [
            f"## {model['name']}, layer `{model['layer']}`",
            "",
            "| photo | class | probability | box | drawn | IoU | energy | hit | predicted |",
            "|---|---|---:|---|---|---:|---:|---|---|",
            *(_row(entry) for entry in model["photos"]),
            "",
            f"Mean IoU by threshold: {', '.join(f'{k}: {v:.2f}' for k, v in total['mean_iou_by_threshold'].items())}. "
            f"The maximum lies inside the box in {total['pointing_hits']} of {total['photos_with_box']}; energy inside "
            f"{total['mean_energy_inside']:.2f} (even: {total['mean_box_area']:.2f}). Shift in shares of the "
            f"sides: {total['mean_shift'][0]:+.3f}, {total['mean_shift'][1]:+.3f}.",
            "",
        ]
    return "\n".join(lines)


def _row(entry: Entry) -> str:
    predicted = f"{entry['predicted']['label']} ({entry['predicted']['probability']:.2f})"
    if "true" not in entry:
        return f"| {entry['file']} | | | {_box(entry['predicted']['box'])} | | | | | {predicted} |"
    e = entry["true"]
    return (
        f"| {entry['file']} | {e['label']} | {e['probability']:.2f} | {_box(e['box'])} | {_box(e['drawn_box'])} "
        f"| {e['iou']:.2f} | {e['energy_inside']:.2f} ({e['box_area']:.2f}) | {'yes' if e['pointing_hit'] else 'no'} "
        f"| {predicted} |"
    )


def _box(box: Sequence[float]) -> str:
    return " ".join(str(round(value)) for value in box)


def run(assets: Path) -> tuple[Entry, Uint8]:
    """The report and the contact sheet."""
    photos = read_photos(assets / "photos")
    models: list[Entry] = []
    columns: list[list[tuple[Uint8, str]]] = []
    for subject in SUBJECTS:
        folder = assets / "models"
        made = export_model(folder / subject.file, preprocess=subject.preprocess, labels=folder / subject.labels)
        explainer = Explainer(made.model.SerializeToString())
        done = [explain(explainer, photo, subject.offset) for photo in photos]
        entries = [entry for entry, _ in done]
        columns.append([tile(e, p, entry, subject.name) for p, (entry, e) in zip(photos, done, strict=True)])
        models.append(
            {
                "name": subject.name,
                "source": made.metadata.source,
                "layer": made.metadata.layer.value,
                "preprocess": subject.preprocess,
                "class_offset": subject.offset,
                "check": made.check,
                "summary": summarise(entries, [shift(explainer, photo) for photo in photos]),
                "photos": entries,
            }
        )
    packages = ("numpy", "onnx", "onnx-ir", "onnxruntime")
    versions = {"fastcam": __version__, "python": platform.python_version(), "opencv": cv2.__version__}
    versions |= {name: version(name) for name in packages}
    sheet = drawing.contact_sheet([cell for row in zip(*columns, strict=True) for cell in row], columns=6, tile=240)
    return {"command": COMMAND, "versions": versions, "threshold": PAPER, "models": models}, sheet


def main() -> None:
    """Measure, print the table, write the three files."""
    parser = argparse.ArgumentParser(prog="python -m fastcam_bench.accuracy.photos", description=__doc__)
    parser.add_argument("--assets", type=Path, default=default_assets(), help="folder with models/ and photos/")
    parser.add_argument("--out", type=Path, default=Path("bench/results/pictures"), help="folder for the results")
    options = parser.parse_args()
    if not (options.assets / "photos" / "boxes_approx.csv").is_file():
        sys.exit(f"no models and photos in {options.assets}; set FASTCAM_ASSETS or give --assets DIR; nothing measured")
    try:
        report, sheet = run(options.assets)
    except FastcamError as error:
        sys.exit(str(error))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "photos.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (options.out / "photos.md").write_text(table(report), encoding="utf-8")
    quality = [cv2.IMWRITE_JPEG_QUALITY, 82]
    cv2.imwrite(str(options.out / "photos.jpg"), np.ascontiguousarray(sheet[..., ::-1]), quality)
    print(table(report))


if __name__ == "__main__":
    main()
