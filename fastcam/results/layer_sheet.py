"""The strip: a map moving through the network, layers across, targets down, as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastcam import kernels
from fastcam.atomic_files import write
from fastcam.errors import FastcamError, checked
from fastcam.image.preprocess import Uint8
from fastcam.render import drawing
from fastcam.results.explanation import OK, Explanation
from fastcam.runtime.thread_limit import limited

_GAP = 4
_GROUND = 24


@checked
@limited
def strip(explanation: Explanation, i: int = 0, tile: int = 224, colors: str = "jet") -> Uint8:
    """Image ``i`` at each of its layers: the picture first, then a column for each layer, and one for the fused map.

    Above each column stand the layer's name and the size of its map; on the picture in each row, the target and its
    score. Each map is shown as a heatmap of its own maximum: colours compare positions, not layers.

    Args:
        explanation: of several layers.
        tile: width of a column in pixels; its height follows from the picture.
        colors: a name from :data:`fastcam.render.drawing.COLORMAPS`.

    Returns:
        uint8 RGB.

    Raises:
        FastcamError: the explanation is of one layer only.
    """
    if not explanation.layers:
        raise FastcamError("the explanation is of one layer; ask for several: layers='all'")
    shown = [*explanation.layers, *([explanation] if explanation.fuse else [])]
    picture = drawing.scaled(explanation.image(i), tile)
    titles = [("picture", ""), *(_title(one, i) for one in explanation.layers)]
    if explanation.fuse:
        titles.append((f"fused: {explanation.fuse}", _size(explanation)))
    rows = [_row([np.concatenate([drawing.label(text, tile) for text in title]) for title in titles])]
    for t in range(explanation.asked(i)):
        first = drawing.caption(picture, f"{explanation.label(i, t)} {explanation.score(i, t):.3g}")
        rows.append(_row([first, *(_tile(one, i, t, tile, colors) for one in shown)]))
    return np.concatenate(rows)


def _title(layer: Explanation, i: int) -> tuple[str, str]:
    return layer.metadata.layer.scope or layer.metadata.layer.value, _size(layer)


def _size(layer: Explanation) -> str:
    return " x ".join(map(str, layer.maps.shape[2:]))


def _tile(layer: Explanation, i: int, t: int, width: int, colors: str) -> Uint8:
    """The picture under one layer's heatmap; what is wrong with a map that is none stands on it."""
    if layer.metadata.kind in ("signal", "volume", "text"):
        mixed = layer.overlay(i, t, colors=colors, annotate=False)
    else:
        heat = np.clip(layer.geometry[i].heatmap_to_original(layer.heatmaps[i, t]), 0, 1)
        mixed = kernels.get().overlay(layer.image(i), np.ascontiguousarray(heat), drawing.colormap(colors), 0.5)
    status = layer.status[i][t]
    small = drawing.scaled(mixed, width)
    return small if status == OK else drawing.caption(small, status.replace("_", " "))


def _row(cells: Sequence[Uint8]) -> Uint8:
    """Cells of one height side by side, with gaps."""
    height = cells[0].shape[0]
    gap = np.full((height, _GAP, 3), _GROUND, np.uint8)
    row = np.concatenate([part for cell in cells for part in (gap, cell)] + [gap], axis=1)
    return np.concatenate([np.full((_GAP, row.shape[1], 3), _GROUND, np.uint8), row])


def write_strips(explanation: Explanation, folder: Path, stems: Sequence[str], colors: str = "jet") -> list[str]:
    """Write ``STEM-layers.png`` for each image of an explanation of several layers; the names."""
    names = [f"{stem}-layers.png" for stem in stems] if explanation.layers else []
    for i, name in enumerate(names):
        write(folder / name, drawing.encode_png(strip(explanation, i, colors=colors)))
    return names
