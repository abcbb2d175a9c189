"""Sections about what runs a file: a call from picture to boxes, the browser, a C++ program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastcam_bench.models.networks import NETWORKS
from fastcam_bench.report.markdown import table
from fastcam_bench.report.results import read


def _said(report: dict[str, Any]) -> str:
    return f"`{report['command']}`, {report['machine']['cpu']}, {report['machine']['cores']} cores."


def picture_to_box() -> str:
    """A call of an Explainer beside the plain pass, and beside a host that prepares pictures itself."""
    report = read("speed/picture_to_box.json")
    titles = "network", "pictures", "plain, ms", "explained / plain", "explained / prepared and plain"
    rows = (
        (
            NETWORKS[name].title,
            batch,
            f"{one['plain']['median_ms']:.1f}",
            f"{one['explained']['ratio']:.2f}",
            f"{one['explained over prepared']:.2f}",
        )
        for name, batches in report["networks"].items()
        for batch, one in batches.items()
    )
    return "\n".join([*table(titles, rows), "", _said(report)])


def browser() -> str:
    """Explained beside plain in onnxruntime-web, and the time to the first map."""
    report = read("web/browser.json")
    titles = "network", "plain run, ms", "explained / plain", "first map, s", "a second time, s"
    rows = (
        (
            name,
            f"{one['median_ms']['plain_run']:.0f}",
            f"{one['explained_over_plain_run']:.2f}",
            *(f"{one[f'first_map_{visit}_ms'] / 1000:.1f}" for visit in ("cold", "warm")),
        )
        for name, one in report["networks"].items()
    )
    size = f"One thread; the kernels have {report['kernel_bytes'] / 1000:.0f} kB. {_said(report)}"
    return "\n".join([*table(titles, rows), "", size])


def native_host() -> str:
    """Explained beside plain in a C++ program, and its start."""
    report = read("web/native_host.json")
    titles = "network", "plain, ms", "explained / plain", "start to first box, s", "the same of `--slim`, s"
    rows = (
        (
            name,
            f"{one['plain_ms']:.1f}",
            f"{one['ratio']:.3f}",
            *(f"{one[kind] / 1000:.2f}" for kind in ("first_box_ms", "slim_first_box_ms")),
        )
        for name, one in report["networks"].items()
    )
    return "\n".join([*table(titles, rows), "", _said(report)])


SECTIONS: dict[str, Callable[[], str]] = {
    "picture_to_box": picture_to_box,
    "browser": browser,
    "native_host": native_host,
}
