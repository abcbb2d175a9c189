"""The plot: from pictures to boxes, ours beside the peers, every network, as hand-written SVG."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

Row = dict[str, Any]
SERIES = {
    "ours": ("FastCAM", "#0b6bcb"),
    "captum": ("captum", "#2e9d62"),
    "torchcam": ("torch-cam", "#d9822b"),
    "grad-cam": ("pytorch-grad-cam", "#c0392b"),
}
TICKS = (1, 2, 4, 8, 16, 32, 64)
LEFT, PANEL, GAP, ROW, TOP = 150, 350, 30, 24, 92


def svg(result: Row) -> str:
    """Two panels, batch 1 and batch 8: a row a network, a dot a tool, logarithmic."""
    titles = [entry["title"] for entry in result["networks"].values() if _ratios(entry, "1")]
    entries = [entry for entry in result["networks"].values() if _ratios(entry, "1")]
    largest = max((ratio for entry in entries for b in ("1", "8") for ratio in _ratios(entry, b).values()), default=2)
    end = next((tick for tick in TICKS if tick >= largest), TICKS[-1])
    height, width = TOP + ROW * len(entries) + 46, LEFT + 2 * PANEL + GAP + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="12" fill="#24292f">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        '<text x="16" y="24" font-size="15" font-weight="bold">'
        "From picture to box, as a multiple of the plain forward pass (less is better)</text>",
        *_legend(),
    ]
    parts += [_text(LEFT - 10, TOP + ROW * (row + 0.5) + 4, title, "end") for row, title in enumerate(titles)]
    for index, batch in enumerate(("1", "8")):
        parts += _panel(entries, batch, LEFT + index * (PANEL + GAP), end)
    return "\n".join([*parts, "</svg>"]) + "\n"


def write(result: Row, out: Path) -> None:
    """The plot as a file; no half-written one."""
    unfinished = out.with_name(out.name + ".partial")
    unfinished.write_text(svg(result), encoding="utf-8")
    os.replace(unfinished, out)


def _ratios(entry: Row, batch: str) -> dict[str, float]:
    """Series -> multiple of the plain pass; empty for networks without peers."""
    group = entry.get("network", {}).get("batches", {}).get(batch, {}).get("end_to_end", {})
    found = {name: group[name]["ratio"] for name in SERIES if name in group}
    return found if len(found) > 1 else {}


def _legend() -> list[str]:
    parts, x = [], LEFT
    for title, colour in SERIES.values():
        parts += [f'<circle cx="{x}" cy="46" r="5" fill="{colour}"/>', _text(x + 10, 50, title)]
        x += 40 + 7 * len(title)
    return parts


def _panel(entries: list[Row], batch: str, left: float, end: float) -> list[str]:
    bottom = TOP + ROW * len(entries)

    def at(ratio: float) -> float:
        return round(left + 10 + (PANEL - 30) * math.log(max(ratio, 1)) / math.log(end), 1)

    parts = [f'<text x="{left}" y="{TOP - 10}" font-weight="bold">batch {batch}</text>']
    for tick in (tick for tick in TICKS if tick <= end):
        colour = "#8c959f" if tick == 1 else "#d8dee4"
        parts.append(f'<line x1="{at(tick)}" y1="{TOP}" x2="{at(tick)}" y2="{bottom}" stroke="{colour}"/>')
        parts.append(_text(at(tick), bottom + 18, f"{tick}×", "middle"))
    for row, entry in enumerate(entries):
        y = TOP + ROW * (row + 0.5)
        ratios = _ratios(entry, batch)
        if not ratios:
            continue
        low, high = at(min(ratios.values())), at(max(ratios.values()))
        parts.append(f'<line x1="{low}" y1="{y}" x2="{high}" y2="{y}" stroke="#d8dee4" stroke-width="2"/>')
        parts += [
            f'<circle cx="{at(ratios[name])}" cy="{y}" r="5" fill="{SERIES[name][1]}">'
            f"<title>{SERIES[name][0]}: {ratios[name]:.2f}</title></circle>"
            for name in reversed(SERIES)
            if name in ratios
        ]
    return parts


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{text}</text>'
