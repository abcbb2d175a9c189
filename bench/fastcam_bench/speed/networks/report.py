"""What was found: a line per result, the table of targets, the tables of all figures, and the JSON file."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]
PEERS = {"grad-cam": "pytorch-grad-cam", "torchcam": "torch-cam", "captum": "captum"}
CONVOLUTIONAL = (
    "alexnet",
    "vgg16",
    "googlenet",
    "squeezenet1_1",
    "resnet50",
    "densenet121",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "efficientnet_b0",
    "convnext_tiny",
)
TRANSFORMERS = ("vit_b_16", "swin_t")
TOP = "weights, 5 targets"
DEEP = 1.1  # what the backward pass of the layers above may cost beside its multiply-adds
SPEEDUPS = {"grad-cam": 4.0, "torchcam": 2.0, "captum": 1.4}


@dataclass(frozen=True)
class Found:
    """One figure and its bound: ``measured`` must not exceed it, or, with ``least``, not fall below it."""

    where: str
    measured: float
    bound: float
    least: bool = False

    @property
    def met(self) -> bool:
        return self.measured >= self.bound if self.least else self.measured <= self.bound

    @property
    def margin(self) -> float:
        """How far on the right side, as a share of the bound."""
        return (self.measured / self.bound - 1) * (1 if self.least else -1)


def targets(result: Row) -> list[tuple[str, str, list[Found]]]:
    """(what, target, figures) of every target; no figures where nothing was measured."""
    forward = (CONVOLUTIONAL, "forward")
    return [
        ("default layer, T = 1, batch 8", "≤ 1.02", list(_ratios(result, *forward, "weights", 1.02, "8"))),
        ("default layer, T = 1, batch 1", "≤ 1.03", list(_ratios(result, *forward, "weights", 1.03, "1"))),
        ("T = 5, batch 1 and 8", "≤ 1.05", list(_ratios(result, *forward, TOP, 1.05))),
        (
            "ViT-B/16 and Swin-T, before the last attention",
            "≤ 1.12",
            list(_ratios(result, TRANSFORMERS, "forward", "weights", 1.12)),
        ),
        ("layer in the middle", "≤ 1.1 (1 + its share of the work above)", list(_middle(result))),
        *(
            (what, "≤ 2.2", list(_ratios(result, CONVOLUTIONAL, "deeper", what, 2.2)))
            for what in ("gradient to the image", "guided Grad-CAM")
        ),
        ("int8 (QDQ), T = 1", "≤ 1.05", list(_ratios(result, ["mobilenet_v2_int8"], "forward", "weights", 1.05))),
        ("OpenVINO on our file", "≤ 1.03", list(_engines(result, "openvino"))),
        ("ONNX Runtime's OpenVINO provider", "≤ 1.03", list(_engines(result, "openvino-ep"))),
        ("OpenVINO 2024.4, beside openvino_xai", "below it", list(_xai(result))),
        *(
            (
                f"picture to boxes, beside {PEERS[peer]}",
                f"≥ {bound:g} times faster",
                list(_speedups(result, peer, bound)),
            )
            for peer, bound in SPEEDUPS.items()
        ),
        ("peak memory beside the plain session", "≤ 1.10", list(_memory(result))),
        ("file size beside the source", "≤ 1.03", list(_sizes(result))),
        ("export of ResNet-50, check included, s", "≤ 5", list(_export(result))),
    ]


def _cells(result: Row, names: Any = None) -> Iterator[tuple[str, str, Row]]:
    """(network's title, batch, cell) of all that was measured on ONNX Runtime."""
    for name, entry in result["networks"].items():
        if names is None or name in names:
            for batch, cell in entry.get("network", {}).get("batches", {}).items():
                yield entry["title"], batch, cell


def _ratios(result: Row, names: Any, group: str, what: str, bound: float, batch: str = "") -> Iterator[Found]:
    for title, size, cell in _cells(result, names):
        found = cell.get(group, {}).get(what)
        if found is not None and batch in ("", size):
            yield Found(f"{title}, batch {size}", found["ratio"], bound)


def _middle(result: Row) -> Iterator[Found]:
    for entry in result["networks"].values():
        for layer, share in entry.get("network", {}).get("work_above", {}).items():
            for batch, cell in entry["network"]["batches"].items():
                ratio = cell["deeper"][f"weights at {layer}"]["ratio"]
                yield Found(f"{entry['title']} {layer}, batch {batch}", ratio, round(DEEP * (1 + share), 3))


def _engines(result: Row, kind: str) -> Iterator[Found]:
    for entry in result["networks"].values():
        for batch, cell in entry.get(kind, {}).items():
            if isinstance(cell, dict) and "forward" in cell:
                yield Found(f"{entry['title']}, batch {batch}", cell["forward"]["weights"]["ratio"], 1.03)


def _xai(result: Row) -> Iterator[Found]:
    for entry in result["networks"].values():
        found = entry.get("openvino-xai", {}).get("1", {}).get("forward", {})
        if "openvino_xai" in found:
            yield Found(f"{entry['title']}, batch 1", found["weights"]["ratio"], found["openvino_xai"]["ratio"])


def _speedups(result: Row, peer: str, bound: float) -> Iterator[Found]:
    for title, batch, cell in _cells(result):
        if peer in cell["end_to_end"]:
            yield Found(f"{title}, batch {batch}", speedup(cell, peer), bound, least=True)


def speedup(cell: Row, peer: str) -> float:
    """Median of the rounds' ratios of a peer's time to ours, from pictures to boxes."""
    ours, theirs = (np.array(cell["end_to_end"][name]["samples_ms"]) for name in ("ours", peer))
    return round(float(np.median(theirs / ours)), 3)


def _memory(result: Row) -> Iterator[Found]:
    for entry in result["networks"].values():
        for batch, found in entry.get("network", {}).get("memory", {}).items():
            yield Found(f"{entry['title']}, batch {batch}", found["ratio"], 1.1)


def _sizes(result: Row) -> Iterator[Found]:
    for entry in result["networks"].values():
        if "file_bytes" in entry.get("network", {}):
            yield Found(entry["title"], entry["network"]["file_bytes"]["ratio"], 1.03)


def _export(result: Row) -> Iterator[Found]:
    found = result["networks"].get("resnet50", {}).get("network", {}).get("export_seconds")
    if found is not None:
        yield Found("ResNet-50", found, 5.0)


def lines(title: str, kind: str, found: Row) -> Iterator[str]:
    """What the terminal shows of one measurement."""
    if ("failed" in found and "end_to_end" not in found) or "left out" in found:
        yield f"{title:22} {kind}: {found.get('failed', found.get('left out'))}"
        return
    cells = found.get("batches", {batch: cell for batch, cell in found.items() if batch in ("1", "8")})
    for batch, cell in (cells or {"1": found}).items():
        for group in ("forward", "deeper", "end_to_end"):
            ratios = {name: one["ratio"] for name, one in cell.get(group, {}).items() if name != "plain"}
            if ratios:
                shown = "  ".join(f"{name} {ratio:.3f}" for name, ratio in ratios.items())
                yield f"{title:22} batch {batch} {kind} {group}: {shown}"
        for name, reason in cell.get("failed", {}).items():
            yield f"{title:22} batch {batch} {kind} {name}: {reason}"


def verdict(result: Row) -> str:
    """How many targets are met."""
    measured = [figures for _, _, figures in targets(result) if figures]
    met = sum(all(found.met for found in figures) for figures in measured)
    return f"{met} of {len(measured)} targets met"


def write(result: Row, out: Path) -> None:
    """The JSON file, with a list of numbers on one line, and the Markdown beside it; no half-written files."""
    text = json.dumps(result, indent=1, ensure_ascii=False)
    text = re.sub(r"\[\s+([^\[\]{}\"]*?)\s+\]", lambda found: f"[{re.sub(chr(10) + ' *', ' ', found[1])}]", text)
    for path, content in ((out, text + "\n"), (out.with_suffix(".md"), markdown(result))):
        unfinished = path.with_name(path.name + ".partial")
        unfinished.write_text(content, encoding="utf-8")
        os.replace(unfinished, path)


def markdown(result: Row) -> str:
    """Targets and all figures as Markdown."""
    made = [
        "# What an explanation costs",
        "",
        f"`{result['command']}`: {result['machine']['cpu']}, {result['machine']['cores']} cores; contestants with",
        f"{result['threads']} threads; load average when they began {_loads(result)}. {_versions(result)}.",
        "",
        "Multiples of the plain forward pass of the same file in the same runtime, medians of",
        "interleaved rounds; raw samples, intervals, p99 and load averages are in [speed.json](speed.json).",
        "",
        "## Targets",
        "",
        "| what | target | measured | met |",
        "|---|---|---|---|",
    ]
    for what, target, figures in targets(result):
        made.append(f"| {what} | {target} | {_measured(figures)} | {_met(figures)} |")
    made += ["", "## One run of the graph", "", *_forward(result)]
    made += ["", "## From pictures to boxes", "", *_end_to_end(result)]
    made += ["", "## OpenVINO", "", *_openvino(result)]
    made += ["", "## torch.compile", "", *_compiled(result)]
    made += ["", "## Memory, files, export", "", *_resources(result)]
    return "\n".join(made) + "\n"


def _loads(result: Row) -> str:
    """From the least to the largest; what came before counts too, so that only a large one tells of a busy machine."""
    parts = [part for entry in result["networks"].values() for part in entry.values() if isinstance(part, dict)]
    found = [part["load_average"][0] for part in parts if part.get("load_average", [None])[0] is not None]
    return f"{min(found):.1f} to {max(found):.1f}" if found else "unknown"


def _versions(result: Row) -> str:
    """All versions that took part, in one line."""
    found: dict[str, list[str]] = {}
    for entry in result["networks"].values():
        for part in entry.values():
            for package, number in part.get("versions", {}).items() if isinstance(part, dict) else ():
                if number not in (known := found.setdefault(package, [])):
                    known.append(number)
    return ", ".join(f"{package} {' and '.join(numbers)}" for package, numbers in found.items())


def _measured(figures: list[Found]) -> str:
    """The figure that is nearest to its bound, or furthest beyond it."""
    if not figures:
        return "not measured"
    worst = min(figures, key=lambda found: found.margin)
    bound = f", bound {worst.bound:.3f}" if len({found.bound for found in figures}) > 1 else ""
    return f"{worst.measured:.3f} ({worst.where}{bound})"


def _met(figures: list[Found]) -> str:
    missed = [found for found in figures if not found.met]
    if not missed:
        return f"{len(figures)} of {len(figures)}" if figures else ""
    named = "; ".join(f"{found.where}: {found.measured:.3f}" for found in missed)
    return f"**{len(figures) - len(missed)} of {len(figures)}**, missed: {named}"


def _forward(result: Row) -> Iterator[str]:
    names = ("weights", TOP, "cam", "gradients")
    yield f"| network | layer | batch | plain ms | {' | '.join(names)} | deeper |"
    yield f"|---|---|---:|---:|{'---:|' * len(names)}---|"
    for entry in result["networks"].values():
        found = entry.get("network", {})
        for batch, cell in found.get("batches", {}).items():
            group = cell["forward"]
            figures = " | ".join(f"{group[name]['ratio']:.3f}" for name in names)
            deeper = ", ".join(f"{k} {v['ratio']:.2f}" for k, v in cell.get("deeper", {}).items() if k != "plain")
            plain = group["plain"]["median_ms"]
            yield f"| {entry['title']} | `{found['layer']}` | {batch} | {plain:.2f} | {figures} | {deeper} |"
        if not found.get("batches"):
            yield f"| {entry['title']} | {found.get('failed', found.get('left out', ''))} | | | | | | | |"


def _end_to_end(result: Row) -> Iterator[str]:
    yield "Pictures of 480 x 640 as uint8 arrays, resized, explained, thresholded at 15 % of the maximum, the largest"
    yield "component boxed. In brackets the peer's own call, without the steps around it. Maps: the largest difference"
    yield "of our maps to theirs, their maximum being 1; box overlap: mean intersection over union with ours. Plain ms:"
    yield "of these rounds, with torch in the process; beyond the table above, its threads disturb the others."
    yield ""
    yield f"| network | batch | plain ms | ours | {' | '.join(PEERS.values())} | maps | box overlap |"
    yield f"|---|---:|---:|---:|{'---:|' * len(PEERS)}---|---|"
    for title, batch, cell in _cells(result):
        group = cell["end_to_end"]
        ours = f"{group['plain']['median_ms']:.2f} | {group['ours']['ratio']:.2f}"
        others = [_peer(group, peer) for peer in PEERS]
        maps = ", ".join(f"{gap:.0e}" for gap in cell.get("map_difference", {}).values())
        overlap = ", ".join(f"{share:.2f}" for share in cell.get("box_overlap", {}).values())
        yield f"| {title} | {batch} | {ours} | {' | '.join(others)} | {maps} | {overlap} |"
    reasons = {
        (title, peer): why for title, _, cell in _cells(result) for peer, why in cell.get("left out", {}).items()
    }
    for (title, peer), why in reasons.items():
        yield ""
        yield f"{title}, {PEERS[peer]}: {why}."


def _peer(group: Row, peer: str) -> str:
    if peer not in group:
        return ""
    return f"{group[peer]['ratio']:.2f} ({group[f'{peer}, map alone']['ratio']:.2f})"


def _openvino(result: Row) -> Iterator[str]:
    yield "float32, latency hint, as multiples of the plain file on the same OpenVINO."
    yield ""
    yield "| network | batch | runtime | plain ms | ours | openvino_xai | outputs differ by |"
    yield "|---|---:|---|---:|---:|---:|---:|"
    for entry in result["networks"].values():
        for kind in ("openvino", "openvino-ep", "openvino-xai"):
            found = entry.get(kind, {})
            if "failed" in found:
                yield f"| {entry['title']} | | {kind} | {found['failed']} | | | |"
            runtime = " ".join(f"{package} {number}" for package, number in found.get("versions", {}).items())
            for batch in ("1", "8"):
                if batch in found:
                    group, gap = found[batch]["forward"], found[batch]["output_difference"]["weights"]
                    xai = f"{group['openvino_xai']['ratio']:.3f}" if "openvino_xai" in group else ""
                    xai = xai or found[batch].get("failed", {}).get("openvino_xai", "")
                    plain, ours = group["plain"]["median_ms"], group["weights"]["ratio"]
                    yield f"| {entry['title']} | {batch} | {runtime} | {plain:.2f} | {ours:.3f} | {xai} | {gap:.0e} |"


def _compiled(result: Row) -> Iterator[str]:
    for entry in result["networks"].values():
        found = entry.get("compiled")
        if found is None:
            continue
        if "end_to_end" not in found:
            yield f"- {entry['title']}: {found['failed']}"
            continue
        for peer in PEERS:
            if peer in found["failed"]:
                yield f"- {entry['title']}, {PEERS[peer]}: does not work: {found['failed'][peer]}"
            elif peer in found["end_to_end"]:
                plain, fast = (found["end_to_end"][name]["ratio"] for name in (peer, f"{peer}, compiled"))
                gap = found["map_difference"][f"{peer}, compiled"]
                ratios = f"{plain:.2f} as it is, {fast:.2f} compiled"
                yield f"- {entry['title']}, {PEERS[peer]}: {ratios} (maps differ by {gap:.0e})"


def _resources(result: Row) -> Iterator[str]:
    yield "Memory: the largest resident size of a fresh process that loads the file and runs it once, less what it has"
    yield "after its imports, beside the same of the plain file."
    yield ""
    yield "Weights read: bytes of weights that a run reads, beside the same of the plain file. A matrix that takes"
    yield "scores forth and gradients back is read twice, and ONNX Runtime keeps it twice, arranged for each. Where a"
    yield "network is weights above all, its memory tends to that, and so does its time at batch 1."
    yield ""
    yield "| network | memory, batch 1 | batch 8 | weights read | file | export s | nodes added |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for entry in result["networks"].values():
        found = entry.get("network", {})
        if "file_bytes" in found:
            memory = " | ".join(f"{one['ratio']:.3f}" for one in found["memory"].values())
            read = f"{found['weights_read']:.3f}" if "weights_read" in found else ""
            file, seconds = f"{found['file_bytes']['ratio']:.4f}", f"{found['export_seconds']:.1f}"
            yield f"| {entry['title']} | {memory} | {read} | {file} | {seconds} | {found['nodes_added']} |"
