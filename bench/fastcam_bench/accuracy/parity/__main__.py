"""Equality with the peers: every method that pytorch-grad-cam, torch-cam or Captum share with us, on the same weights.

    python -m fastcam_bench.accuracy.parity [--out bench/results] [NETWORK ...]

Run it in the peers' environment: .venv/bench/torch/bin/python, which ``make bench`` makes. Networks of torchvision with
seeded random weights, real photos (``FASTCAM_ASSETS``), two classes each; every network and every export in a process
of its own, which never holds PyTorch's module and our session at the same time. A figure is the largest difference as
a share of the largest value. Where a tool's formula differs, that formula is computed from our activations and
gradients, and its figure stands beside. Gradients that reach the image pass many kinks, where two float32
implementations may round to different sides, so they are compared in float64 as well. Where networks are named, the
others keep their figures.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from fastcam import Explainer, Explanation
from fastcam.image.preprocess import decode, prepare
from fastcam.methods import METHODS
from fastcam.render import peer_styles
from fastcam.schema import ACTIVATIONS, GRADIENTS, INPUT_GRADIENT, MODES, TARGETS, preset
from fastcam_bench.accuracy.method_evidence import ROWS
from fastcam_bench.accuracy.parity import peers
from fastcam_bench.accuracy.parity.peers import Case
from fastcam_bench.oracles import double_runtime, isolated
from fastcam_bench.oracles import torch_oracle as oracle
from fastcam_bench.oracles.machine import machine, versions, write_report
from fastcam_bench.oracles.torch_oracle import Array
from fastcam_bench.paths import RESULTS, default_assets
from fastcam_export import export_model
from fastcam_export.verify.session import quiet_session

COMMAND = "python -m fastcam_bench.accuracy.parity"
OUT = RESULTS / "methods"
TOLERANCE = 1e-3
PHOTOS = ("cat_720p.jpg", "pets.jpg")
AT_THE_IMAGE = ("gradient", "guided", "deconvolution")
LRP = ("lrp-epsilon", "lrp-composite", "lrp-gamma")
Row = dict[str, Any]


@dataclass(frozen=True)
class Network:
    """What is compared on a network.

    Attributes:
        title: in the table.
        layer: the target layer as a module path.
        source: the network of torchvision that it is made of.
        change: applied to it.
        tokens: whether the layer is a sequence.
        maps: whether methods of activations and gradients are compared.
        modes: the backward modes that are.
        double: whether there is memory for these in float64.
    """

    title: str
    layer: str
    source: str
    change: Callable[[nn.Module], nn.Module] | None = None
    tokens: bool = False
    maps: bool = True
    modes: tuple[str, ...] = AT_THE_IMAGE
    double: bool = True


NETWORKS = {
    "vgg16": Network("VGG-16", "features.29", "vgg16", modes=(), double=False),
    "vgg16_narrow": Network(
        "VGG-16, classifier of 256 in place of 4096",
        "features.29",
        "vgg16",
        peers.narrow_classifier,
        maps=False,
        modes=(*AT_THE_IMAGE, *LRP),
    ),
    "resnet50": Network("ResNet-50", "layer4", "resnet50"),
    "mobilenet_v2": Network("MobileNetV2", "features", "mobilenet_v2"),
    "mobilenet_v2_relu": Network(
        "MobileNetV2, ReLU for ReLU6", "features", "mobilenet_v2", peers.relu_for_relu6, maps=False
    ),
    "vit_b_16": Network(
        "ViT-B/16", "encoder.layers.encoder_layer_11.ln_1", "vit_b_16", tokens=True, modes=("gradient",)
    ),
}


def images() -> Array:
    """The photos as networks take them, float32 [N, 3, 224, 224]."""
    folder = default_assets() / "photos"
    how = preset("imagenet", size=(224, 224))
    return np.concatenate([prepare(decode(folder / name), how)[0] for name in PHOTOS])


def non_negative(x: Array) -> Array:
    """For LRP: Captum's rules of W+ are the papers' for inputs that are not negative alone."""
    return np.abs(x)


def measure(name: str) -> Row:
    """All comparisons of one network."""
    network, x = NETWORKS[name], images()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        theirs, classes = _theirs(network, x, file)
        gc.collect()
        found = {"title": network.title, "layer": network.layer, "classes": classes.tolist(), "rows": []}
        if network.maps:
            found["rows"] += _maps(network, file, x, classes, theirs)
        for mode in network.modes:
            found["rows"] += _mode(network, file, mode, x, classes, theirs)
    return found


def _theirs(network: Network, x: Array, file: Path) -> tuple[dict[tuple[str, ...], Any], Array]:
    """What every peer gives, by (method, tool), and the classes; the module is written to ``file`` and let go."""
    module = oracle.build(network.source)
    if network.change is not None:
        module = network.change(module)
    module = peers.no_relu_in_place(module)
    file.write_bytes(oracle.to_onnx(module).SerializeToString())
    with torch.no_grad():
        best = module(torch.from_numpy(x)).argmax(1).numpy()
    classes = np.stack([best, (best + 281) % 1000], axis=1)
    wanted: dict[str, dict[str, peers.Peer]] = dict(peers.MAPS) if network.maps else {}
    modes = [*network.modes, *(("input-x-gradient",) if "gradient" in network.modes else ())]
    wanted |= {mode: peers.MODES[mode] for mode in modes}
    found: dict[tuple[str, ...], Any] = {}
    for method, tools in wanted.items():
        shown = non_negative(x) if method in LRP else x
        case = Case(module, network.layer, torch.from_numpy(shown), classes, network.tokens)
        for tool, peer in tools.items():
            try:
                found[method, tool] = peer(case)
            except (NotImplementedError, ValueError) as error:
                found[method, tool] = str(error)
    if network.double:
        wide = copy.deepcopy(module).double()
        for mode in modes:
            shown = non_negative(x) if mode in LRP else x
            case = Case(wide, network.layer, torch.from_numpy(shown).double(), classes)
            found[mode, "float64"] = peers.MODES[mode]["captum"](case)
    return found, classes


def _export(file: Path, made: Path, options: dict[str, Any]) -> None:
    export_model(file, made, check=False, **options)


def _explained(file: Path, x: Array, classes: Array, **options: Any) -> tuple[Explainer, Callable[..., Explanation]]:
    made = file.with_name("made.onnx")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:  # what an export holds is gone after it
        pool.submit(_export, file, made, options).result()
    explainer = Explainer(made, threads=1)
    return explainer, lambda **how: explainer(x, classes.tolist(), **how)


def _maps(network: Network, file: Path, x: Array, classes: Array, theirs: dict[tuple[str, ...], Any]) -> list[Row]:
    """A row per method of activations and gradients, and tool."""
    _, explain = _explained(file, x, classes, emit="gradients", layer=network.layer if network.tokens else "auto")
    added = _added(file.with_name("made.onnx"), x, classes)
    rows = []
    for method in METHODS:
        if method not in peers.MAPS:
            continue
        for tool in peers.MAPS[method]:
            given = theirs[method, tool]
            if isinstance(given, str):
                rows.append(dict[str, Any](method=method, tool=tool, refused=given))
                continue
            figure = difference(_ours(explain, method, tool), given)
            rows.append(
                {"method": method, "tool": tool, "difference": figure, **_why(method, tool, figure, added, given)}
            )
    return rows


def _ours(explain: Callable[..., Explanation], method: str, tool: str) -> Array:
    """Our counterpart of what the tool returns."""
    if tool == "torch-cam":
        return np.asarray(explain(method=method).maps)
    return np.asarray(explain(method=method, style=tool).heatmaps)


def _added(file: Path, x: Array, classes: Array) -> tuple[Array, Array]:
    """Activations and gradients of the exported file, float64."""
    session = quiet_session(file)
    feeds = {session.get_inputs()[0].name: x, TARGETS: classes}
    a, g = session.run([ACTIVATIONS, GRADIENTS], feeds)
    return a.astype(np.float64), g.astype(np.float64)


def _why(method: str, tool: str, figure: float, added: tuple[Array, Array], given: Array) -> Row:
    """Of a figure beyond the tolerance, the reason, and how near the tool's own formula comes."""
    if figure <= TOLERANCE:
        return {}
    known = peers.DIFFERENCES.get((method, tool))
    if known is None:
        return {"why": "unexplained"}
    if known.theirs is None:
        return {"why": known.why}
    signed = known.theirs(*added)
    again = np.maximum(signed, 0) if tool == "torch-cam" else peer_styles.heatmaps(tool, signed, given.shape[2:])
    return {"why": known.why, "with_its_formula": difference(again, given)}


def _mode(
    network: Network, file: Path, mode: str, x: Array, classes: Array, theirs: dict[tuple[str, ...], Any]
) -> list[Row]:
    """A row per tool that has the mode, and of the gradient its product with the input."""
    shown = non_negative(x) if mode in LRP else x
    _, explain = _explained(file, shown, classes, input_gradient=mode)
    found = explain()
    assert found.input_gradients is not None
    values: dict[str, Array] = {mode: found.input_gradients}
    if mode == "gradient":
        values["input-x-gradient"] = found.input_x_gradient
    rows = []
    for name, ours in values.items():
        for tool in peers.MODES[name]:
            given, row = theirs[name, tool], dict[str, Any](method=name, tool=tool)
            if isinstance(given, str):
                rows.append(row | {"refused": given})
                continue
            row["difference"] = difference(ours, given)
            if row["difference"] > TOLERANCE:
                row["correlation"] = correlation(ours, given)
                row |= _reason(network, file, name, tool, shown, classes, theirs)
            rows.append(row)
    return rows


def _reason(
    network: Network, file: Path, name: str, tool: str, x: Array, classes: Array, theirs: dict[tuple[str, ...], Any]
) -> Row:
    """Why numbers at the image differ: another formula, or kinks, which float64 has not."""
    if network.source == "mobilenet_v2" and network.change is None and name in ("guided", "deconvolution"):
        return {"why": peers.RELU6.why}
    if (name, tool) in peers.DIFFERENCES:
        return {"why": peers.DIFFERENCES[name, tool].why}
    if not network.double:
        return {"why": "unexplained"}
    made = onnx.load(file.with_name("made.onnx"))
    wide = double_runtime.run(made, {made.graph.input[0].name: x, TARGETS: classes})[INPUT_GRADIENT]
    ours = wide * x[:, None] if name == "input-x-gradient" else wide
    figure = difference(ours, theirs[name, "float64"])
    cause = "quotients by nearly nothing" if name in LRP else "values within rounding of a kink"
    why = f"{cause}: float32 falls to either side" if figure <= TOLERANCE else "unexplained"
    own = difference(theirs[name, "captum"], theirs[name, "float64"])
    return {"in_float64": figure, "captum_float32_to_its_float64": own, "why": why}


def difference(a: Any, b: Any) -> float:
    """Largest difference as a share of the largest absolute value of ``b``."""
    return oracle.difference(np.asarray(a), np.asarray(b))


def correlation(a: Any, b: Any) -> float:
    """Pearson's, over all values."""
    return float(np.corrcoef(np.ravel(a), np.ravel(b))[0, 1])


def without_peer() -> dict[str, list[str]]:
    """Methods and modes that none of the three tools has, and those that other scripts compare."""
    compared = {**peers.MAPS, **peers.MODES}
    names = [name for name in dict.fromkeys((*METHODS, *MODES)) if name not in compared]
    return {
        "nobody": [name for name in names if name not in ROWS or not ROWS[name].peers],
        "elsewhere": [name for name in names if name in ROWS and ROWS[name].peers],
    }


def unexplained(report: dict[str, Any]) -> list[str]:
    """Figures beyond the tolerance for which there is no reason, or whose reason does not account for them."""
    found = []
    for name, entry in report["networks"].items():
        for row in entry.get("rows", []):
            still = row.get("with_its_formula", 0) > TOLERANCE
            if row.get("why") == "unexplained" or still:
                found.append(f"{name} {row['method']} {row['tool']}")
    return found


def summary(report: dict[str, Any]) -> str:
    """How many comparisons are equal, and what the others are."""
    rows = [row for entry in report["networks"].values() for row in entry.get("rows", []) if "refused" not in row]
    limit = report["tolerance"]
    equal = sum(row["difference"] <= limit for row in rows)
    wide = sum(row.get("in_float64", 1) <= limit for row in rows)
    formula = sum(row.get("with_its_formula", 1) <= limit for row in rows)
    named = len(rows) - equal - wide - formula
    return (
        f"{len(rows)} comparisons: {equal} equal within {limit:g}, {wide} in float64 (kinks between), {formula} with "
        f"the tool's own formula in place of ours, {named} different for a reason that is named."
    )


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    lines = [
        "# Equality with the peers",
        "",
        f"Made by `{report['command']}`: {', '.join(f'{k} {v}' for k, v in report['versions'].items())}. "
        "torchvision's networks with seeded random weights, two photos, two classes each. Figures are the largest "
        f"difference as a share of the largest value; up to {report['tolerance']:g} counts as equal. In brackets: the "
        "difference to the tool's own formula, computed from our activations and gradients.",
        "",
        'Each tool is compared in what it returns: pytorch-grad-cam\'s heatmaps beside `style="pytorch-grad-cam"`, '
        "torch-cam's maps before it scales them, Captum's signed maps in its own interpolation beside "
        '`style="captum"`; at the image the numbers themselves (and their correlation where they differ).',
        "",
        report["summary"],
        "",
    ]
    for entry in report["networks"].values():
        lines += [f"## {entry.get('title')}, layer `{entry.get('layer')}`", ""]
        if "reason" in entry:
            lines += [f"Not measured: {entry['reason']}", ""]
            continue
        lines += ["| method | tool | difference | remark |", "|---|---|---:|---|"]
        lines += [_line(row) for row in entry["rows"]] + [""]
    none = report["without_peer"]
    lines += [
        "## Not in these tables",
        "",
        f"No peer has: {', '.join(none['nobody']) or 'nothing'}. Compared by other scripts of bench: "
        f"{', '.join(none['elsewhere']) or 'nothing'}.",
        "",
    ]
    return "\n".join(lines)


def _line(row: Row) -> str:
    if "refused" in row:
        return f"| {row['method']} | {row['tool']} | | {row['refused']} |"
    figure = f"{row['difference']:.0e}"
    if "with_its_formula" in row:
        figure += f" ({row['with_its_formula']:.0e})"
    remark = row.get("why", "equal")
    if "in_float64" in row:
        own = row["captum_float32_to_its_float64"]
        remark += f"; in float64 {row['in_float64']:.0e}, Captum's float32 from its own float64 {own:.0e}"
    elif "correlation" in row:
        remark += f"; correlation {row['correlation']:.4f}"
    return f"| {row['method']} | {row['tool']} | {figure} | {remark} |"


def main() -> None:
    """The command; see the module's docstring."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Equality with the peers.")
    parser.add_argument("networks", nargs="*", default=list(NETWORKS), metavar="NETWORK", help=", ".join(NETWORKS))
    parser.add_argument("--out", type=Path, default=OUT, help="folder for parity.json and parity.md")
    options = parser.parse_args()
    if not (default_assets() / "photos").is_dir():
        sys.exit(f"no photos in {default_assets()}; set FASTCAM_ASSETS; nothing measured")
    file = options.out / "parity.json"
    kept = file.is_file() and set(options.networks) != set(NETWORKS)
    done: dict[str, Row] = json.loads(file.read_text(encoding="utf-8"))["networks"] if kept else {}
    report: dict[str, Any] = {}
    each = (result for name in options.networks for result in isolated.each(measure, [name], limit=7200))
    for name, row in each:  # a process of its own for each: what one held is gone before the next begins
        done[name] = {"title": NETWORKS[name].title, "layer": NETWORKS[name].layer, **row}
        print(f"{name}: {row.get('reason', 'done')}", flush=True)
        for line in row.get("rows", []):
            print("  ", _line(line), flush=True)
        report = {
            "command": COMMAND,
            "machine": machine(),
            "versions": versions("fastcam", "grad-cam", "torchcam", "captum", "torch", "torchvision", "onnxruntime"),
            "tolerance": TOLERANCE,
            "photos": PHOTOS,
            "networks": {key: done[key] for key in NETWORKS if key in done},
            "without_peer": without_peer(),
        }
        report["summary"] = summary(report)
        write_report(report, file, table)
    bad = unexplained(report)
    if bad:
        sys.exit(f"beyond {TOLERANCE:g} and not explained: {', '.join(bad)}")


if __name__ == "__main__":
    main()
