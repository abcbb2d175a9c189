"""Sections of what is right: maps on pictures, gradients beside other tools, what the tests reach; of bench/results."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Callable
from typing import Any

from fastcam_bench.report.markdown import table
from fastcam_bench.report.results import read


def photos() -> str:
    """Localization on real photos, a line per model."""
    measured = read("pictures/photos.json")
    lines = [
        f"On photos with hand-drawn boxes, the box at {measured['threshold']:.0%} of the map's maximum, as in the",
        f"paper (`{measured['command']}`; each photo in [photos.md](bench/results/pictures/photos.md)):",
        "",
    ]
    titles = ("model", "layer", "photos", "top-1 right", "mean IoU of the boxes", "maximum inside the box")
    rows = []
    for model in measured["models"]:
        found = model["summary"]
        count, iou = found["photos_with_box"], found["mean_iou_by_threshold"][str(measured["threshold"])]
        figures = [count, found["predicted_is_true"], f"{iou:.2f}", f"{found['pointing_hits']} of {count}"]
        rows.append([model["name"], f"`{model['layer']}`", *figures])
    return "\n".join(lines + table(titles, rows, words=(0, 1)))


def two_objects() -> str:
    """Whose map lies on its own object, a line per method."""
    measured = read("pictures/two_objects.json")
    models = measured["models"]
    lines = [
        f"And where two objects share a photo ({measured['pairs']} pairs; `{measured['command']}`): in how many maps",
        "the object that was asked for is the warmer one, and, in brackets, in how many it is warmer than in the other",
        "object's map. Half is chance; Eigen-CAM knows no class. More methods, and pictures of the answers:",
        "[two_objects.md](bench/results/pictures/two_objects.md).",
        "",
    ]
    rows = []
    for name in ("gradcam", "layercam", "guided-gradcam", "contrastive-excitation", "lrp-composite", "eigencam"):
        counts = [model["counts"][name] for model in models]
        rows.append([name, *(f"{one['energy']} of {one['maps']} ({one['moves']})" for one in counts)])
    return "\n".join(lines + table(["method", *(model["name"] for model in models)], rows))


def places() -> str:
    """Whether the map of a box lies in the box, a line per method and layers."""
    measured = read("pictures/places.json")
    detectors = measured["detectors"]
    counts = "; ".join(
        f"{one['name']} {one['boxes']} boxes from score {one['from score']}, which cover {one['of the picture']:.3f}"
        for one in detectors
    )
    lines = [
        f"The best boxes (`{measured['asked']}`) of {measured['photos']} photos of COCO, each explained, by",
        f"`{measured['command']}`: in how many the maximum of the map lies in the box that the detector predicts,",
        "and, in brackets, which share of the heat lies there. Chance is what the boxes cover of the picture:",
        "",
        *(f"- {line}" for line in counts.split("; ")),
        "",
    ]
    rows = []
    ways: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for one in detectors:
        for way in one["ways"]:
            ways.setdefault((way["method"], way["where"]), {})[one["name"]] = way
    for (method, where), found in ways.items():
        cells = []
        for one in detectors:
            way = found.get(one["name"])
            hit = f"{way['maximum inside']} of {one['boxes']} ({way['share inside']:.2f})" if way is not None else ""
            cells.append(f"**{hit}**" if method == "default" else hit)
        title = "**HiResCAM, the default**" if method == "default" else method
        rows.append([title, where, *cells])
    return "\n".join(lines + table(["method", "at", *(one["name"] for one in detectors)], rows, words=(0, 1)))


def quantised() -> str:
    """Quantised networks beside their float twins, a line for each form that the quantiser writes."""
    measured = read("gradients/quantised.json")
    exports = measured["results"]
    done = [row for row in exports if row["exports"]]
    same = sum(row["bit_identical"] for row in done)
    lines = [
        "Every form that ONNX Runtime's quantiser writes, of trained networks and, in italics, of such with random",
        f"weights (`{measured['command']}`). Of {len(exports)} exports {len(done)} are made,",
        f"{same} with outputs of the same bits.",
        "Scores: correlation of the quantised network's with the float one's. Maps: Spearman's rank correlation of the",
        "Grad-CAM map with the float network's for the same class, mean over the photos, and in brackets the least.",
        "",
    ]
    titles = ("network", "form", "scores", "map at the default layer", "map in the middle")
    rows = []
    for network, setting in dict.fromkeys((row["network"], row["setting"]) for row in exports):
        of = {row["place"]: row for row in exports if (row["network"], row["setting"]) == (network, setting)}
        name = network if of["default"]["trained"] else f"*{network}*"
        scores = next((f"{row['scores']:.3f}" for row in of.values() if row["exports"]), "")
        rows.append([name, setting, scores, *(_rank(of[place]) for place in ("default", "middle"))])
    return "\n".join(lines + table(titles, rows, words=(0, 1)))


def _rank(row: dict[str, Any]) -> str:
    if not row["exports"]:
        return "the quantiser's file does not run" if "cannot run the model itself" in row["why"] else "refused"
    return f"{row['rank_mean']:.2f} ({row['rank_least']:.2f})"


def characters() -> str:
    """Whether the map of a character lies on it, a line per method."""
    measured = read("pictures/characters.json")
    captchas = measured["captchas"]
    lines = [
        f"Lines of text that were drawn at known columns and read by PP-OCR (`{measured['command']}`): the highest",
        "column of a character's map lies on the character, and the share of the heat between its sides. Chance is",
        f"{measured['chance']:.2f}. {measured['read']} of {measured['lines']} lines are read as they were drawn, and "
        f"{captchas['right']} of {captchas['pictures']} captchas by another",
        "recogniser; some of them: [characters.jpg](bench/results/pictures/characters.jpg).",
        "",
    ]
    rows = (
        (name, f"{found['hit']} of {found['characters']}", f"{found['inside']:.2f}")
        for name, found in measured["methods"].items()
    )
    return "\n".join(lines + table(("method", "maximum on the character", "heat inside"), rows))


def planted() -> str:
    """Whether the map of what was planted into noise lies on it, a line per kind of input."""
    measured = read("pictures/planted.json")
    lines = [
        f"Small networks learned in seconds to see what was planted into noise (`{measured['command']}`): a bump in a",
        "signal, a ball in a volume, a disk in a picture, in one picture of a sequence, in the second of two pictures.",
        f"Of {measured['tested']} new samples each, by Grad-CAM: the map's maximum lies in what was planted, or at",
        "most three positions beside it (a network sees seven at once); the share of the heat that lies in it, and the",
        "share of the sample that it takes. One of each: [planted.jpg](bench/results/pictures/planted.jpg).",
        "",
    ]
    titles = ("input", "accuracy", "maximum inside", "inside or near", "heat inside", "share of the sample")
    rows = []
    for name, kind in measured["kinds"].items():
        found = kind["methods"]["gradcam"]
        figures = (kind["accuracy"], found["maximum"], found["near"], found["heat"])
        rows.append([name, *(f"{figure:.2f}" for figure in figures), f"{kind['share']:.3f}"])
    return "\n".join(lines + table(titles, rows))


def key_points() -> str:
    """Whether the map of a key point lies on what the point marks, a line per form and method."""
    measured = read("pictures/key_points.json")
    share = measured["forms"]["maps"]["share"]
    lines = [
        "A small network learns in seconds to find the middle of a disk and of a square in noise, by a map for each",
        f"point or by rows along both sides (`{measured['command']}`).",
        f"Of {2 * measured['tested']} points: the map's maximum lies in the figure that is asked, or three pixels",
        f"beside it; in the other one; and the share of the heat around the figure, which takes {share:.2f} of the",
        "picture.",
        "",
    ]
    titles = ("points by", "found", "method", "maximum inside", "in the other", "heat inside")
    rows = []
    for name, form in measured["forms"].items():
        for method, found in form["methods"].items():
            figures = [f"{found[key]:.2f}" for key in ("inside", "other", "heat")]
            rows.append([name, f"{form['found']:.2f}", method, *figures])
    return "\n".join(lines + table(titles, rows, words=(0, 2)))


def agreement() -> str:
    """Exactness beside PyTorch autograd, a line per model."""
    measured = read("gradients/agreement.json")
    lines = [
        "Largest difference to PyTorch autograd on the same (seeded random) weights, as a share of the largest value",
        f"(`{measured['command']}`, PyTorch {measured['versions']['torch']}). In float32 a layer in the middle can",
        "differ more on a picture with a value within rounding of a kink; so can PyTorch from itself in float64:",
        "",
    ]
    titles = ("model", "default layer: gradient", "weights", "map", "middle, float64: gradient", "map")
    rows = []
    for result in measured["results"]:
        default, middle = result["default"], result["middle"]
        figures = [
            *(default[key] for key in ("gradients", "weights", "maps")),
            middle["float64"],
            middle["float64_maps"],
        ]
        rows.append([result["model"], *(f"{figure:.0e}" for figure in figures)])
    return "\n".join(lines + table(titles, rows))


def coverage() -> str:
    """How far differentiation goes, counted by oracles that are not ours."""
    cases = read("gradients/conformance.json")
    status = Counter(row["status"] for row in cases["cases"])
    judged = status["passed"] + status["failed"] + status["refused"]
    models = read("gradients/architectures.json")
    found = [row for row in models["results"] if "exporter" in row]
    equal = sum(row["status"] == "passed" for row in found)
    versions, limit = models["versions"], models["tolerance"]
    lines = [
        f"- ONNX's own conformance cases, {len(cases['cases'])} of onnx {cases['versions']['onnx']}: {judged} have",
        f"  a derivative, and `vjp` equals central differences in {status['passed']}; {status['zero']} more are zero",
        "  almost everywhere, confirmed. Operator by operator, with a reason for each case left out:",
        f"  [conformance.md](bench/results/gradients/conformance.md), `{cases['command']}`.",
        f"- Architectures of torchvision {versions['torchvision']}, timm {versions['timm']}, pytorchcv "
        f"{versions['pytorchcv']} and transformers {versions['transformers']}:",
        f"  torch exports {len(found)}; in {equal} of them gradient and map at the default layer equal PyTorch",
        f"  autograd within {limit:g} of their maximum. Model by model, each miss named:",
        f"  [architectures.md](bench/results/gradients/architectures.md), `{models['command']}`.",
    ]
    return "\n".join(lines)


def reached() -> str:
    """How much of the two packages the tests reach."""
    measured = read("coverage.json")
    lowest = min(measured["modules"], key=measured["modules"].get)
    whole, packages = measured["all"], {name: measured[name] for name in ("fastcam", "fastcam_export")}
    each = " and ".join(f"{one['lines']} % and {one['branches']} % in {name}" for name, one in packages.items())
    text = (
        f"The tests reach {whole['lines']} % of the lines and {whole['branches']} % of the branches ({each}; "
        f"`{measured['command']}`). The module with the lowest share of both together is `{lowest}`, "
        f"{measured['modules'][lowest]} %; below 85 % the command fails. What only a GPU runs is left out."
    )
    return textwrap.fill(text, 120, break_on_hyphens=False, break_long_words=False)


def deployed() -> str:
    """What the three verbs make of other people's files, a line per file."""
    measured = read("pictures/deployed.json")
    titles = ("file", "what", "asked for", "inspect", "export", "explain", "method", "targets", "hit", "heat", "area")
    lines = [
        "Files of other people, as they are, through `fastcam inspect`, `fastcam export` with its defaults and the",
        f"preprocessing, and `fastcam explain` (`{measured['command']}`). *Hit*: of how many targets the map",
        "is highest on what was asked for. *Heat*: the share of the heat that lies there. *Area*: the share of the",
        "picture that it covers, which is the heat that an even map would have there.",
        "",
    ]
    rows = []
    for row in measured["files"]:
        cells = [f"`{row['file']}`", row["kind"], row["asked"]]
        cells += [{0: "works", None: ""}.get(row.get(verb), "fails") for verb in ("inspect", "export", "explain")]
        cells += [row.get("method", row.get("said", "")), str(row.get("targets", ""))]
        if "pointing_hit" in row:
            hits = round(row["pointing_hit"] * (row["targets"] - row["without_map"]))
            cells += [str(hits), f"{row['energy_inside']:.2f}", f"{row['box_area']:.2f}"]
        rows.append(cells + [""] * (len(titles) - len(cells)))
    return "\n".join(lines + table(titles, rows, words=range(7)))


def parity() -> str:
    """How the methods compare with their peers' on the same weights."""
    measured = read("methods/parity.json")
    text = (
        "Sources, who else has each method, and the tests that prove it: "
        "[methods.md](bench/results/methods/methods.md). "
        "Beside pytorch-grad-cam, torch-cam and Captum on the same weights, in "
        "[parity.md](bench/results/methods/parity.md) "
        f"(`{measured['command']}`): {measured['summary']}"
    )
    return "\n".join(textwrap.wrap(text, 118, break_long_words=False, break_on_hyphens=False))


SECTIONS: dict[str, Callable[[], str]] = {
    "parity": parity,
    "agreement": agreement,
    "coverage": coverage,
    "reached": reached,
    "deployed": deployed,
    "photos": photos,
    "two_objects": two_objects,
    "places": places,
    "characters": characters,
    "planted": planted,
    "key_points": key_points,
    "quantised": quantised,
}
