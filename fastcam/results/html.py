"""An explanation as HTML for notebooks: its first overlays with name, score and status, in a bounded size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from fastcam.image.preprocess import Float, Geometry, Uint8
from fastcam.render import drawing, web

IMAGES, TARGETS = 6, 3
"""How many images, and targets of each, are shown."""
SIDE, BYTES = 256, 24_000
"""Of an overlay: pixels of its longer side, and bytes of its JPEG. All of them are less than 600 KB of HTML."""
LETTERS = 60
"""Of a name."""


class Shown(Protocol):
    """What is read of an explanation."""

    @property
    def status(self) -> tuple[tuple[str, ...], ...]: ...
    @property
    def files(self) -> tuple[str | None, ...]: ...
    @property
    def boxes(self) -> Float: ...
    @property
    def geometry(self) -> tuple[Geometry, ...]: ...
    def asked(self, i: int = 0) -> int: ...
    def label(self, i: int = 0, target: int = 0) -> str: ...
    def score(self, i: int = 0, target: int = 0) -> float: ...
    def overlay(self, i: int = 0, target: int | None = None, *, annotate: bool = True) -> Any: ...


def notebook(explanation: Shown, title: str, of_pictures: bool) -> str:
    """The first :data:`IMAGES` images and :data:`TARGETS` targets as HTML without scripts; what is left out is said.

    Args:
        title: stands above.
        of_pictures: whether boxes are in pixels of pictures, and drawn.
    """
    count = len(explanation.status)
    figures = [
        _figure(explanation, i, t, of_pictures)
        for i in range(min(count, IMAGES))
        for t in range(min(explanation.asked(i), TARGETS))
    ]
    row = "display:flex;flex-wrap:wrap;gap:12px;align-items:flex-start"
    parts = [f"<div><p>{web.escaped(title)}</p>", f'<div style="{row}">', *figures, "</div>"]
    left = _left_out([explanation.asked(i) for i in range(count)])
    return "".join([*parts, f"<p>{web.escaped(left)}</p>" * bool(left), "</div>"])


def _left_out(asked: Sequence[int]) -> str:
    """What is not shown, in words."""
    images, targets = max(0, len(asked) - IMAGES), sum(max(0, count - TARGETS) for count in asked[:IMAGES])
    said = [f"{images} more image{'s' * (images != 1)}"] if images else []
    said += [f"{targets} more target{'s' * (targets != 1)} of these images"] if targets else []
    return f"Not shown: {' and '.join(said)}. e[{IMAGES}:] and e.save(folder) show the rest." if said else ""


def _figure(explanation: Shown, i: int, t: int, of_pictures: bool) -> str:
    picture = _overlay(explanation, i, t, of_pictures)
    score, status, file = explanation.score(i, t), explanation.status[i][t], explanation.files[i]
    label = _short(explanation.label(i, t))
    said = f"{label} {score:.3g}" if math.isfinite(score) else label
    said += "" if status == "ok" else f" ({status})"
    name = _short(file.replace("\\", "/").rsplit("/", 1)[-1]) if file else f"image {i}"
    alt = web.escaped(f"{name}: heatmap of {said}")
    wide = f"width:{max(96, picture.shape[1])}px"
    return (
        f'<figure style="margin:0;{wide}"><img alt="{alt}" style="{wide};max-width:100%" '
        f'src="{web.jpeg_uri(picture, SIDE, BYTES)}">'
        f'<figcaption style="overflow-wrap:anywhere"><b>{web.escaped(said)}</b><br>'
        f"<small>{web.escaped(name)}</small></figcaption></figure>"
    )


def _overlay(explanation: Shown, i: int, t: int, of_pictures: bool) -> Uint8:
    """The overlay, shrunk, with its box where there is one."""
    whole: Uint8 = explanation.overlay(i, t, annotate=False)
    small = web.thumbnail(whole, SIDE)
    box = explanation.boxes[i, t]
    if not of_pictures or not box.any():
        return small
    height, width = explanation.geometry[i].original
    return drawing.draw_box(small, box * np.array([small.shape[1] / width, small.shape[0] / height] * 2))


def _short(text: str) -> str:
    return text if len(text) <= LETTERS else f"{text[: LETTERS // 2]}...{text[-LETTERS // 2 :]}"
