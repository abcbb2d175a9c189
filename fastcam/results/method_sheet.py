"""One picture sheet per image: methods across, targets down, the picture first, and what the colours mean."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastcam.errors import FastcamError, checked, typed
from fastcam.image.preprocess import Uint8, resize
from fastcam.labels import short_label
from fastcam.methods import METHODS
from fastcam.render import drawing
from fastcam.results.explanation import OK, Explanation
from fastcam.runtime.thread_limit import limited

GROUND = 24
SCALE = 0.5  # of the letters
TALL, MARGIN = 11, 7  # of the letters, and around them
NARROWEST = 150  # a column, so that its title can be read
STRIP = TALL + 2 * MARGIN

STATUS = {
    "all_negative": "nothing speaks for it",
    "no_positive": "nothing speaks for it",
    "zero_gradient": "the score does not depend on the layer",
    "constant": "the map is the same everywhere",
    "non_finite": "NaN or infinity in the model",
    "not_asked": "",
}


@dataclass(frozen=True, eq=False)
class Column:
    """What one column shows: its title, one picture per target, and what its colours mean."""

    title: str
    pictures: list[Uint8]
    legend: tuple[str, drawing.Legend] | None


@checked
@limited
def methods_sheet(found: Sequence[Explanation], i: int = 0, colors: str = "jet", tile: int = 280) -> Uint8:
    """The explanations of one image by several methods beside each other.

    Args:
        found: one per method, of the same images and targets.
        i: which image.
        colors: a name from :data:`fastcam.render.drawing.COLORMAPS`.
        tile: pixels of a picture's longer side.

    Returns:
        uint8 RGB: a title, a strip with name and score above each target's row, and a legend of each kind of colours.

    Raises:
        FastcamError: no explanations, or of different targets.
    """
    typed("found", found, list | tuple, "explanations, one for each method")
    for one in found:
        typed("found", one, Explanation, "explanations, one for each method")
    if not found:
        raise FastcamError("a sheet needs at least one explanation")
    first = found[0]
    rows = first.asked(i)
    if any(e.asked(i) != rows or [e.label(i, t) for t in range(rows)] != _labels(first, i) for e in found):
        raise FastcamError("the explanations are of different targets; explain the same ones by each method")
    size = _cell(first.image(i), tile)
    columns = [Column("picture", [_fitted(first.image(i), size)] * rows, None)]
    columns += [
        _pixel_column(e, i, size) if e.attributions is not None and _is_picture(e) else _heat_column(e, i, size, colors)
        for e in found
    ]
    columns += _mode_columns(first, i, size, colors, {e.method for e in found})
    return _drawn(columns, first, i, size)


def _labels(e: Explanation, i: int) -> list[str]:
    return [e.label(i, t) for t in range(e.asked(i))]


def _cell(image: Uint8, tile: int) -> tuple[int, int]:
    """(height, width) of the cells, in the picture's shape: the longer side ``tile``, of long pictures up to 2.5 times
    that, so that the shorter one is a third of ``tile`` if it can be."""
    height, width = image.shape[:2]
    longest, shortest = max(height, width), min(height, width)
    scale = min(max(tile / longest, tile / 3 / shortest), 2.5 * tile / longest)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _fitted(image: Uint8, size: tuple[int, int]) -> Uint8:
    """``image`` at ``size``; small ones are magnified in whole pixels first, so that they stay sharp."""
    large, _ = drawing.enlarge(np.ascontiguousarray(image), min(size))
    return np.ascontiguousarray(resize(large, size))


def _heat_column(e: Explanation, i: int, size: tuple[int, int], colors: str) -> Column:
    """Overlays of a method, with their boxes drawn at the cell's size."""
    height, width = e.image(i).shape[:2]
    scale = np.array([size[1] / width, size[0] / height] * 2)
    pictures = []
    for t in range(e.asked(i)):
        mixed = _fitted(e.overlay(i, t, colors=colors, min_side=min(size), annotate=False), size)
        if _is_picture(e) and e.boxes[i, t].any():
            mixed = drawing.draw_box(mixed, e.boxes[i, t] * scale)
        if e.status[i][t] != OK and STATUS.get(e.status[i][t], e.status[i][t]):
            mixed = drawing.caption(mixed, STATUS.get(e.status[i][t], e.status[i][t]))
        pictures.append(mixed)
    known = METHODS.get(e.method)
    legend = e.legend(colors)
    words = _words(legend)
    if e.style != "fastcam" and legend.low == "0":
        words = f"heat, as {e.style} scales it"
    return Column(known.title if known else e.method, pictures, (words, legend))


def _is_picture(e: Explanation) -> bool:
    """Whether its samples have pixels, and boxes that are still to be drawn."""
    return e.metadata.kind not in ("signal", "volume", "text")


def _pixel_column(e: Explanation, i: int, size: tuple[int, int]) -> Column:
    """What a method gives each pixel, around grey or from blue to red."""
    pictures = [_fitted(e.attribution_image(i, t), size) for t in range(e.asked(i))]
    title, legend = e.attribution_legend()
    return Column(title, pictures, (_words(legend), legend))


def _words(legend: drawing.Legend) -> str:
    """What a legend's colours mean."""
    if legend is drawing.GREY:
        return "in each colour of the picture, grey: 0"
    return "heat, each map divided by its maximum" if legend.low == "0" else "against and for the class, white: 0"


def _mode_columns(
    e: Explanation, i: int, size: tuple[int, int], colors: str, shown: Collection[str]
) -> Iterator[Column]:
    """What the file's backward mode brought back, and with guided backpropagation Guided Grad-CAM; once each."""
    mode = e.metadata.input_gradient
    if not _is_picture(e) or mode is None or (e.input_gradients is None and e.relevance is None):
        return
    targets = range(e.asked(i))

    def pictures(cam: bool) -> list[Uint8]:
        return [_fitted(e.gradient_image(i, t, cam=cam, colors=colors), size) for t in targets]

    for cam in (False, True)[: 2 if mode == "guided" else 1]:
        if ("guided-gradcam" if cam else mode) not in shown:
            title, legend = e.gradient_legend(cam, colors)
            yield Column(title, pictures(cam), (_words(legend), legend))


def _drawn(columns: Sequence[Column], e: Explanation, i: int, size: tuple[int, int]) -> Uint8:
    """The sheet: title, column titles, and for each target a strip and a row of cells; the legends below."""
    (height, width), rows = size, e.asked(i)
    legends = _legends(columns, e)
    pitch = max(width, NARROWEST) + MARGIN
    wide = MARGIN + len(columns) * pitch
    head = 2 * STRIP
    tall = head + rows * (STRIP + height) + MARGIN + len(legends) * STRIP
    sheet = np.full((tall, wide, 3), GROUND, np.uint8)
    _line(sheet, _title(e, i), MARGIN, 0, wide - 2 * MARGIN)
    for c, column in enumerate(columns):
        x = MARGIN + c * pitch
        _line(sheet, column.title, x, STRIP, pitch - MARGIN)
        for t, picture in enumerate(column.pictures):
            y = head + t * (STRIP + height) + STRIP
            sheet[y : y + height, x : x + width] = picture
    for t in range(rows):
        _line(
            sheet, f"{e.label(i, t)}, score {e.score(i, t):.4g}", MARGIN, head + t * (STRIP + height), wide - 2 * MARGIN
        )
    for n, (words, legend) in enumerate(legends):
        y = tall - (len(legends) - n) * STRIP
        x = MARGIN
        if legend is not None:
            legend.draw(sheet, (x, y + MARGIN), TALL, SCALE)
            x += legend.width(TALL, SCALE) + 2 * MARGIN
        _line(sheet, words, x, y, wide - x - MARGIN)
    return sheet


def _title(e: Explanation, i: int) -> str:
    """The picture's file, the model's, and the layer."""
    file = Path(e.files[i] or "picture").name
    model = e.metadata.source.get("file") or "model"
    best = int(np.argmax(e.scores[i])) if e.scores.shape[1] and not e.metadata.cotangents else None
    said = ""
    if best is not None and e.labels is not None and best < len(e.labels):
        said = f", predicted: {short_label(e.labels[best])}"
    return f"{file}: {model}, layer {e.metadata.layer.value}{said}"


def _legends(columns: Sequence[Column], e: Explanation) -> list[tuple[str, drawing.Legend | None]]:
    """Each kind of colours once, and what the box is."""
    kinds = {column.legend[0]: column.legend for column in columns if column.legend is not None}
    box = f"white box: the largest region of at least {e.threshold:.0%} of the heatmap's maximum"
    return [*kinds.values(), (box, None)]


def _line(sheet: Uint8, text: str, x: int, y: int, room: int) -> None:
    """A line of text in the strip that begins at ``y``, cut with "..." where it is too long."""
    while len(text) > 4 and drawing.text_width(text, SCALE) > room:
        text = text.removesuffix("...")[:-1].rstrip() + "..."
    drawing.write(sheet, text, (x, y + MARGIN + TALL), SCALE)
