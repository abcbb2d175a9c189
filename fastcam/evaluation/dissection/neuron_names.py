"""Tables of neurons and their names, in the form in which Network Dissection publishes them: a line a unit, from 1.

``unit,category,label,score`` come first; of each category its best concept follows, with the sizes behind the score.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastcam.errors import FastcamError, listed, shown
from fastcam.evaluation.dissection.dissect import DETECTOR, Dissection
from fastcam.input_files import read_text
from fastcam.schema import __version__

COLUMNS = ("unit", "category", "label", "score")
WANTED = "give a table of fastcam dissect or Network Dissection: CSV with unit, category, label and score"
MOST = 1 << 16
"""Units that a layer may have."""


@dataclass(frozen=True)
class Name:
    """What a channel answers to.

    Attributes:
        label: the concept.
        category: its kind, such as "object" or "texture".
        score: intersection over union with it.
    """

    label: str
    category: str
    score: float


def read_names(path: str | Path) -> dict[int, Name]:
    """Names by channel, from 0 on; the table counts from 1.

    Raises:
        FastcamError: the file cannot be read, or is no such table.
    """
    path = Path(path)
    reader = csv.reader(io.StringIO(read_text(path, WANTED)))
    try:
        lines = [line for line in reader if line]
    except csv.Error as error:
        raise FastcamError(f"{shown(path)}: no CSV that can be read ({error}); {WANTED}") from error
    head = [name.strip() for name in lines[0]] if lines else []
    missing = [name for name in COLUMNS if name not in head]
    if missing:
        raise FastcamError(f"{shown(path)}: no column {listed(missing)}; {WANTED}")
    places = [head.index(name) for name in COLUMNS]
    found: dict[int, Name] = {}
    for number, line in enumerate(lines[1:], 2):
        if len(line) != len(head):
            raise FastcamError(f"{shown(path)}: line {number} has {len(line)} columns and not {len(head)}; {WANTED}")
        unit, category, label, score = (line[place].strip() for place in places)
        value = _number(score)
        if not unit.isascii() or not unit.isdigit() or not 1 <= int(unit[:9]) <= MOST or value is None:
            raise FastcamError(f"{shown(path)}: line {number} is of unit {unit!r}, score {score!r}; {WANTED}")
        if int(unit) - 1 in found:
            raise FastcamError(f"{shown(path)}: line {number} names unit {unit} again; {WANTED}")
        found[int(unit) - 1] = Name(label, category, value)
    if not found:
        raise FastcamError(f"{shown(path)}: no unit in it; {WANTED}")
    return found


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def names_of(dissection: Dissection) -> list[tuple[int, Name]]:
    """Each channel, from 0, with its best concept; the best first, of equals the lower channel."""
    iou = dissection.iou
    best = iou.argmax(1)
    named = [
        (unit, Name(dissection.labels[c], dissection.categories[c], float(iou[unit, c]))) for unit, c in enumerate(best)
    ]
    return sorted(named, key=lambda one: (-one[1].score, one[0]))


def table(dissection: Dissection) -> str:
    """The table as CSV, the best channels first."""
    categories = list(dict.fromkeys(dissection.categories))
    parts = ("label", "truth", "activation", "intersect", "iou")
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*COLUMNS, *(f"{each}-{part}" for each in categories for part in parts)])
    of_category = [np.array([kind == each for kind in dissection.categories]) for each in categories]
    iou = dissection.iou
    for unit, name in names_of(dissection):
        row: list[Any] = [unit + 1, name.category, name.label, name.score]
        for inside in of_category:
            c = int(np.where(inside, iou[unit], -1).argmax())
            sizes = (dissection.truth[c], dissection.active[unit], dissection.both[unit, c])
            row += [dissection.labels[c], *map(int, sizes), float(iou[unit, c])]
        writer.writerow(row)
    return out.getvalue()


def to_dict(dissection: Dissection, data: str, share: float, grid: int) -> Mapping[str, Any]:
    """The same for JSON, with every channel's best three concepts and its threshold."""
    iou = dissection.iou
    best = np.argsort(-iou, axis=1, kind="stable")[:, :3]
    left_out = dissection.left_out
    return {
        "fastcam": __version__,
        "data": data,
        "layer": dissection.layer,
        "pictures": dissection.pictures,
        "share": share,
        "grid": grid,
        "detectors": dissection.detectors,
        "detector from": DETECTOR,
        "left out": {why: {"count": n, "first": left_out.names[why]} for why, n in left_out.counts.items()},
        "units": [
            {
                "unit": unit + 1,
                "threshold": float(dissection.thresholds[unit]),
                "concepts": [
                    {"label": dissection.labels[c], "category": dissection.categories[c], "iou": float(iou[unit, c])}
                    for c in best[unit]
                ],
            }
            for unit in range(len(iou))
        ],
    }
