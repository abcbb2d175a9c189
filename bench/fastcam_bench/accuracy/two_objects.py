"""Two objects in one photo, two questions: whose map lies on its own?

    python -m fastcam_bench.accuracy.two_objects [--pairs N] [--assets DIR] [--out DIR]

Photos with objects of two ImageNet classes (COCO's annotations, and pets.jpg with two dogs); of each object the class
that the model scores highest is explained, by every mode, and by every method that reads one pass of the picture. A
method that answers the question puts the heat of each class on that class's object. Counted, for each of the two maps,
over what lies in the boxes of one object and not of the other:

    maximum   the map is higher somewhere on its own object than anywhere on the other one
    energy    its mean is higher on its own object
    moves     of its energy on the two, more lies on its own object than of the other class's map

Methods that know no class give both classes one map: at most one of two can be right, and nothing moves. Writes
``two_objects.json``, ``.md`` and ``.jpg`` (a contact sheet) to ``--out``. Models, photos and annotations come from a
folder that is no part of the project: ``--assets``, FASTCAM_ASSETS or ../shared/assets. All 65 pairs take a few
minutes; ``--pairs`` measures the first of them. How far it is goes to the terminal.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from fastcam import Explainer, Explanation, FastcamError
from fastcam.image.preprocess import decode
from fastcam.methods import METHODS
from fastcam.render import drawing, overlays
from fastcam.schema import Mode
from fastcam_bench.accuracy.photos import SUBJECTS, Subject
from fastcam_bench.oracles.machine import versions
from fastcam_bench.paths import RESULTS, default_assets
from fastcam_export import export_model

COMMAND = "python -m fastcam_bench.accuracy.two_objects"
OUT = RESULTS / "pictures"
USED: tuple[Mode, ...] = (
    "gradient",
    "guided",
    "deconvolution",
    "excitation",
    "contrastive-excitation",
    "lrp-composite",
)
SMALLEST, OWN = 0.015, 0.4  # share of the picture, and of an object's boxes, that must belong to one object alone
KNOWN = 50  # a class that the model ranks behind this is one that it does not see
SHORT = {"Attribution License": "CC BY 2.0", "Attribution-ShareAlike License": "CC BY-SA 2.0"}  # COCO's words
FREE = ("CC BY 2.0", "No known copyright restrictions")
DRAWN = {
    "Boston bull": ([195], [(343.0, 170.0, 504.0, 366.0)]),
    "other dog": ([171, 172], [(100.0, 38.0, 262.0, 296.0)]),
}
"""pets.jpg: classes of ImageNet (Italian greyhound and whippet are all but one) and boxes, drawn by hand."""

Box = tuple[float, float, float, float]
Bools = npt.NDArray[np.bool_]
Array = npt.NDArray[Any]
Row = dict[str, Any]


@dataclass(frozen=True)
class Pair:
    """A photo and two kinds of objects in it.

    Attributes:
        path, licence, address: the photo, under what it is published, and where.
        names: of the two objects.
        classes: ILSVRC indices that each may be.
        boxes: of each, in pixels of the photo.
        people: whether somebody is in it.
        regions: bool [height, width] of each: in its boxes and in none of the other's.
    """

    path: Path
    licence: str
    address: str
    names: tuple[str, str]
    classes: tuple[list[int], list[int]]
    boxes: tuple[list[Box], list[Box]]
    regions: tuple[Bools, Bools]
    people: bool = False


def pairs(assets: Path) -> Iterator[Pair]:
    """All pairs of objects that are large enough and far enough apart."""
    pets = assets / "photos" / "pets.jpg"
    yield from _pairs_of(pets, "CC BY 2.0", "Open Images V5, 82270c27bacdcaa4", DRAWN)
    data = json.loads((assets / "coco" / "instances.json").read_text(encoding="utf-8"))
    known = json.loads((assets / "coco" / "coco_to_imagenet.json").read_text(encoding="utf-8"))
    names = {each["id"]: each["name"] for each in data["categories"]}
    licences = {each["id"]: SHORT.get(each["name"], each["name"]) for each in data["licenses"]}
    for image in data["images"]:
        objects: dict[str, tuple[list[int], list[Box]]] = {}
        people = any(
            names[each["category_id"]] == "person" for each in data["annotations"] if each["image_id"] == image["id"]
        )
        for each in data["annotations"]:
            name = names[each["category_id"]]
            if each["image_id"] == image["id"] and name in known:
                x, y, w, h = each["bbox"]
                objects.setdefault(name, (known[name], []))[1].append((x, y, x + w, y + h))
        path = assets / "coco" / "images" / image["file_name"]
        yield from _pairs_of(path, licences[image["license"]], image["flickr_url"], objects, people)


def _pairs_of(
    path: Path, licence: str, address: str, objects: dict[str, tuple[list[int], list[Box]]], people: bool = False
) -> Iterator[Pair]:
    shape = decode(path).shape[:2]
    for a, b in combinations(sorted(objects), 2):
        boxes = (objects[a][1], objects[b][1])
        covered = [region(each, shape) for each in boxes]
        own = (covered[0] & ~covered[1], covered[1] & ~covered[0])
        if all(one.mean() >= SMALLEST and one.sum() >= OWN * all_.sum() for one, all_ in zip(own, covered)):
            yield Pair(path, licence, address, (a, b), (objects[a][0], objects[b][0]), boxes, own, people)


def region(boxes: Sequence[Box], shape: Sequence[int]) -> Bools:
    """The pixels inside any of the boxes, bool [height, width]."""
    inside = np.zeros(tuple(shape), bool)
    for x0, y0, x1, y1 in boxes:
        inside[round(y0) : round(y1), round(x0) : round(x1)] = True
    return inside


def judge(maps: Sequence[Array], regions: Sequence[Bools]) -> list[dict[str, bool]]:
    """For the map of each of the two classes [height, width], not negative: see the module's docstring."""
    shares = []
    for heat in maps:
        on = [float(heat[each].sum(dtype=np.float64)) for each in regions]
        shares.append([one / max(sum(on), 1e-30) for one in on])
    found = []
    for own, heat in enumerate(maps):
        other = 1 - own
        means = [float(heat[each].mean(dtype=np.float64)) for each in regions]
        highest = [float(heat[each].max()) for each in regions]
        found.append(
            {
                "maximum": highest[own] > highest[other],
                "energy": means[own] > means[other],
                "moves": shares[own][own] > shares[other][own],
            }
        )
    return found


def classes_of(explainer: Explainer, pair: Pair, offset: int) -> tuple[list[int], list[int]]:
    """The best class of each object, and its rank among all classes (1 is the predicted one)."""
    scores = explainer.predict(pair.path).scores[0]
    best = [max((c + offset for c in group), key=lambda c: scores[c]) for group in pair.classes]
    return best, [int((scores > scores[c]).sum()) + 1 for c in best]


def image_maps(found: Explanation) -> dict[str, list[Array]]:
    """What a file brought back, per target as a map of the picture: sizes, or of relevance its positive part."""
    mode, geometry = str(found.metadata.input_gradient), found.geometry[0]
    if found.relevance is not None:
        return {mode: [overlays.enlarged(np.maximum(each, 0), geometry) for each in found.relevance[0]]}
    assert found.input_gradients is not None
    signed = mode.startswith("lrp")
    values = {mode: found.input_gradients[0]}
    if mode == "guided":
        values["guided-gradcam"] = found.guided_gradcam[0]
    return {
        name: [
            geometry.heatmap_to_original(
                np.ascontiguousarray(np.maximum(each.sum(0), 0) if signed else np.abs(each).sum(0), np.float32)
            )
            for each in both
        ]
        for name, both in values.items()
    }


def methods() -> list[str]:
    """Those that read one pass of the picture: what runs the network again takes hundreds of passes for each map."""
    return [name for name, one in METHODS.items() if one.per_image is None]


def measure(subject: Subject, assets: Path, most: int | None = None) -> tuple[Row, list[tuple[Pair, Explanation, Row]]]:
    """The first pairs, or all, by all methods and modes of one model, and what the contact sheet shows."""
    folder = assets / "models"
    how: dict[str, Any] = {"preprocess": subject.preprocess, "labels": folder / subject.labels, "check": False}
    explainer = Explainer(export_model(folder / subject.file, emit="gradients", **how).model.SerializeToString())
    rows: list[Row] = []
    shown = []
    chosen = list(islice(pairs(assets), most))
    for pair in told(chosen, f"{subject.name}, methods"):
        row, found = by_methods(explainer, pair, subject.offset)
        rows.append(row)
        shown.append((pair, found, row))
    for mode in USED:
        try:
            made = export_model(folder / subject.file, input_gradient=mode, **how).model.SerializeToString()
        except FastcamError as error:
            print(f"{subject.name}, {mode}: {error}", file=sys.stderr)
            continue
        explainer = Explainer(made)
        for pair, row in zip(told(chosen, f"{subject.name}, {mode}"), rows):
            for name, maps in image_maps(explainer(pair.path, targets=row["classes"])).items():
                row["found"][name] = judge(maps, pair.regions)
    return {"name": subject.name, "pairs": rows, "counts": counts(rows), "counts_known": counts(known(rows))}, shown


def by_methods(explainer: Explainer, pair: Pair, offset: int) -> tuple[Row, Explanation]:
    """A pair by all methods, and what Grad-CAM found."""
    classes, ranks = classes_of(explainer, pair, offset)
    row: Row = {"file": pair.path.name, "objects": list(pair.names), "classes": classes, "ranks": ranks, "found": {}}
    explained = {}
    for name in methods():
        try:
            found = explained[name] = explainer(pair.path, targets=classes, method=name)
        except FastcamError:  # CAM itself, where the head is more than a mean and one matrix
            continue
        row["found"][name] = judge(
            [found.geometry[0].heatmap_to_original(heat) for heat in found.heatmaps[0]], pair.regions
        )
    found = explained["gradcam"]
    row["labels"] = [found.label(0, t) for t in (0, 1)]
    return row, found


def told(chosen: Sequence[Pair], what: str) -> Iterator[Pair]:
    """The pairs, while a line says after every ten of them how far this is."""
    began = time.perf_counter()
    for count, pair in enumerate(chosen, 1):
        yield pair
        if count % 10 == 0 or count == len(chosen):
            print(f"{what}: {count} of {len(chosen)}, {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)


def known(rows: Sequence[Row]) -> list[Row]:
    """The pairs of which the model sees both objects."""
    return [row for row in rows if max(row["ranks"]) <= KNOWN]


def counts(rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """Per method: of how many maps each statement is true, and how many there are."""
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        for method, verdicts in row["found"].items():
            one = found.setdefault(method, {"maximum": 0, "energy": 0, "moves": 0, "both": 0, "maps": 0})
            for verdict in verdicts:
                for key, value in verdict.items():
                    one[key] += value
                one["maps"] += 1
            one["both"] += all(verdict["energy"] for verdict in verdicts)
    return found


def table(report: Row) -> str:
    """The report as Markdown."""
    lines = [
        "# Two objects, two questions",
        "",
        f"Made by `{report['command']}`. {report['pairs']} pairs of objects in photos; of each object the class of "
        "ImageNet that the model scores highest is explained. In the boxes of one object alone: maximum: the map is "
        "higher on its own object than on the other; energy: its mean is; both: energy, for both classes of a pair; "
        "moves: the map of a class has a larger share on its object than the map of the other class has there. Chance "
        "is one half (one quarter of both); a method that knows no class gives both classes one map, so it has one of "
        f"two and nothing moves. First of the pairs of which the model ranks both classes among its first {KNOWN}, "
        "then of all.",
        "",
    ]
    for model in report["models"]:
        for title, key in ((f"both classes among the first {KNOWN}", "counts_known"), ("all pairs", "counts")):
            lines += [
                f"## {model['name']}, {title}",
                "",
                "| method | maximum | energy | moves | both |",
                "|---|---:|---:|---:|---:|",
            ]
            for method, one in model[key].items():
                n = one["maps"]
                figures = " | ".join(f"{one[k]} of {n}" for k in ("maximum", "energy", "moves"))
                lines.append(f"| {method} | {figures} | {one['both']} of {n // 2} |")
            lines.append("")
    halves = ", below ".join(model["name"] for model in report["models"])
    lines += ["## Some of them", "", f"Grad-CAM of each class; {halves}:", ""]
    lines += ["![Two questions to each photo](two_objects.jpg)", ""]
    lines += ["The photos, here reduced and with boxes and heatmaps drawn on them:", ""]
    lines += [f"- {each['file']}: {each['licence']}, {each['address']}" for each in report["shown"]]
    return "\n".join([*lines, ""])


def sheet(shown: Sequence[tuple[Pair, Explanation, Row]]) -> npt.NDArray[np.uint8]:
    """Each photo with the boxes of both objects, and Grad-CAM of each class."""
    tiles = []
    for pair, found, row in shown:
        picture = found.image(0).copy()
        for boxes, color in zip(pair.boxes, ((0, 255, 0), (255, 200, 0))):
            for box in boxes:
                x0, y0, x1, y1 = map(round, box)
                cv2.rectangle(picture, (x0, y0), (x1 - 1, y1 - 1), color, max(2, round(max(picture.shape[:2]) / 150)))
        tiles.append((picture, f"{pair.names[0]} (green), {pair.names[1]} (yellow)"))
        for t, verdict in enumerate(row["found"]["gradcam"]):
            said = "on its own" if verdict["energy"] else "on the other"
            tiles.append((found.overlay(0, t, annotate=False), f"{row['labels'][t]}: {said}"))
    return drawing.contact_sheet(tiles, columns=6, tile=220)


def _for_the_sheet(shown: Sequence[tuple[Pair, Explanation, Row]]) -> list[tuple[Pair, Explanation, Row]]:
    """Of photos that may be shown, and without people, one pair each, those that the model knows best."""
    free = [one for one in shown if one[0].licence in FREE and not one[0].people]
    free.sort(key=lambda one: max(one[2]["ranks"]))
    files: set[str] = set()
    chosen = []
    for pair, found, row in free:
        if pair.path.name not in files:
            files.add(pair.path.name)
            chosen.append((pair, found, row))
    return chosen[:8]


def main() -> None:
    """Measure, print the table, write the three files."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Two objects in one photo, two questions.")
    parser.add_argument("--assets", type=Path, default=default_assets(), help="folder with models/, photos/ and coco/")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the results")
    parser.add_argument("--pairs", type=int, metavar="N", help="the first N pairs only; by default all")
    options = parser.parse_args()
    if options.pairs is not None and options.pairs < 1:
        parser.error(f"--pairs is {options.pairs}; give a number of at least 1")
    if not (options.assets / "coco" / "instances.json").is_file():
        sys.exit(f"no photos in {options.assets}; set FASTCAM_ASSETS or give --assets DIR; nothing measured")
    models, tiles = [], []
    for subject in SUBJECTS:
        found, shown = measure(subject, options.assets, options.pairs)
        models.append(found)
        tiles += _for_the_sheet(shown)
    report = {
        "command": COMMAND if options.pairs is None else f"{COMMAND} --pairs {options.pairs}",
        "versions": versions("fastcam", "onnxruntime", "numpy"),
        "found": "maximum, energy and moves of the map of each of the two classes, a digit each",
        "pairs": len(models[0]["pairs"]),
        "models": models,
        "shown": _credits(tiles),
    }
    picture = np.ascontiguousarray(sheet(tiles)[..., ::-1])
    for model in models:
        for row in model["pairs"]:
            row["found"] = {method: " ".join(map(_digits, both)) for method, both in row["found"].items()}
    text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
    (options.out / "two_objects.json").write_text(text, encoding="utf-8")
    (options.out / "two_objects.md").write_text(table(report), encoding="utf-8")
    cv2.imwrite(str(options.out / "two_objects.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 80])
    print(table(report))


def _digits(verdict: dict[str, bool]) -> str:
    """Maximum, energy and moves of one map, a digit each."""
    return "".join(str(int(verdict[key])) for key in ("maximum", "energy", "moves"))


def _credits(tiles: Sequence[tuple[Pair, Explanation, Row]]) -> list[dict[str, str]]:
    """Where the photos of the sheet are from."""
    found = {pair.path.name: pair for pair, _, _ in tiles}
    return [{"file": name, "licence": pair.licence, "address": pair.address} for name, pair in sorted(found.items())]


if __name__ == "__main__":
    main()
