"""Sections about what runs a file: a call from picture to boxes, the browser, a C++ program."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastcam_bench.models.networks import NETWORKS
from fastcam_bench.paths import RESULTS


def _read(name: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((RESULTS / Path(name)).read_text(encoding="utf-8"))
    return result


def _said(report: dict[str, Any]) -> str:
    return f"`{report['command']}`, {report['machine']['cpu']}, {report['machine']['cores']} cores."


def picture_to_box() -> str:
    """A call of an Explainer beside the plain pass, and beside a host that prepares pictures itself."""
    report = _read("speed/picture_to_box.json")
    lines = [
        "| network | pictures | plain, ms | explained / plain | explained / prepared and plain |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, batches in report["networks"].items():
        for batch, one in batches.items():
            cells = [f"{one['plain']['median_ms']:.1f}", f"{one['explained']['ratio']:.2f}"]
            cells.append(f"{one['explained over prepared']:.2f}")
            lines.append(f"| {NETWORKS[name].title} | {batch} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", _said(report)])


def browser() -> str:
    """Explained beside plain in onnxruntime-web, and the time to the first map."""
    report = _read("web/browser.json")
    lines = [
        "| network | plain run, ms | explained / plain | first map, s | a second time, s |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, one in report["networks"].items():
        cells = [f"{one['median_ms']['plain_run']:.0f}", f"{one['explained_over_plain_run']:.2f}"]
        cells += [f"{one[f'first_map_{visit}_ms'] / 1000:.1f}" for visit in ("cold", "warm")]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    size = f"One thread; the kernels have {report['kernel_bytes'] / 1000:.0f} kB. {_said(report)}"
    return "\n".join([*lines, "", size])


def native_host() -> str:
    """Explained beside plain in a C++ program, and its start."""
    report = _read("web/native_host.json")
    lines = [
        "| network | plain, ms | explained / plain | start to first box, s | the same of `--slim`, s |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, one in report["networks"].items():
        cells = [f"{one['plain_ms']:.1f}", f"{one['ratio']:.3f}"]
        cells += [f"{one[kind] / 1000:.2f}" for kind in ("first_box_ms", "slim_first_box_ms")]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", _said(report)])


SECTIONS: dict[str, Callable[[], str]] = {
    "picture_to_box": picture_to_box,
    "browser": browser,
    "native_host": native_host,
}
