"""Sections about faithfulness, from bench/results/evaluation: known bad maps, cost, and agreement with Quantus."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastcam_bench.report.results import read

SHOWN = {
    "occlusion-correlation": ("rank correlation", "higher"),
    "insertion": ("insertion", "higher"),
    "deletion": ("deletion", "lower"),
    "average-drop": ("average drop", "lower"),
    "road": ("accuracy, difference", "higher"),
    "pixel-flipping": ("difference", "higher"),
    "sensitivity-n": ("mean correlation", "higher"),
    "infidelity": ("unexplained share", "lower"),
    "max-sensitivity": ("max-sensitivity", "lower"),
    "randomisation": ("cascading 100 %, rank correlation", "lower"),
}
"""The figure of each protocol that stands for it, and what is better."""
TITLES = {"gradcam": "Grad-CAM", "random": "random map", "centre": "the picture's centre"}


def known_bad_maps() -> str:
    """Each protocol's figure for real maps and for two that know nothing of the model."""
    measured = read("evaluation/faithfulness.json")
    maps = list(next(iter(measured["protocols"].values()))["maps"])
    lines = [
        f"{measured['model']}'s predicted class on {measured['photos']} COCO photos, with 95 % intervals"
        f" (`{measured['command']}`).",
        "",
        f"| protocol | figure | better | {' | '.join(TITLES.get(one, one) for one in maps)} | cost |",
        f"|---|---|---|{'---|' * len(maps)}---:|",
    ]
    for protocol, row in measured["protocols"].items():
        figure, better = SHOWN[protocol]
        cells = [_cell(row["maps"].get(one, {}).get(figure)) for one in maps]
        lines.append(f"| `{protocol}` | {figure} | {better} | {' | '.join(cells)} | {row['cost']:g} |")
    return "\n".join(lines)


def _cell(figure: dict[str, Any] | None) -> str:
    return "" if figure is None else f"{figure['value']:.2f} ({figure['low']:.2f} to {figure['high']:.2f})"


def quantus() -> str:
    """The largest difference to Quantus by metric, and how definitions differ."""
    measured = read("evaluation/quantus_agreement.json")
    lines = [
        f"Beside Quantus {measured['versions']['quantus']}, `{measured['command']}`:",
        "",
        "| metric | largest difference | how the definitions differ |",
        "|---|---:|---|",
    ]
    for name, row in measured["metrics"].items():
        lines.append(f"| {name} | {row['difference']:.0e} | {row['definitions']} |")
    return "\n".join(lines)


SECTIONS: dict[str, Callable[[], str]] = {"faithfulness": known_bad_maps, "quantus": quantus}
"""By the names that pages have."""
