"""What an explanation of texts gives beside its numbers: each word with its heat, as JSON, HTML and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam.atomic_files import write
from fastcam.image.preprocess import Float, Geometry, Uint8
from fastcam.render import overlays, peer_styles, words


def own(heatmap: Float, geometry: Geometry) -> Float:
    """Of the heat of all ids, [L], that of the text's own words."""
    first, _, past, _ = geometry.target
    return np.ascontiguousarray(heatmap[first:past])


def said(pieces: NDArray[Any]) -> dict[str, Any]:
    """The text and its words, for JSON."""
    return {"text": "".join(map(str, pieces)).strip(), "words": [str(piece).strip() for piece in pieces]}


def rounded(heat: Float) -> list[float | None]:
    """Heat for JSON, to four places."""
    return [round(float(one), 4) if np.isfinite(one) else None for one in heat]


def background_colours(heat: Float, style: str, colors: str) -> Uint8:
    """The colour behind each word, uint8 [n, 3]."""
    places = overlays.shown(style, heat)
    return words.colours(places, overlays.table(style, colors), peer_styles.signed(style))


def picture(pieces: NDArray[Any], heat: Float | None, style: str, colors: str) -> Uint8:
    """The text as a picture, over its heat where there is any."""
    return words.picture(
        [str(piece) for piece in pieces], None if heat is None else background_colours(heat, style, colors)
    )


def save(pieces: NDArray[Any], heat: Float, style: str, colors: str, title: str, path: Path) -> list[str]:
    """Write the text as HTML beside its picture; the name of the file.

    Args:
        path: of the picture, without its ending.
    """
    page = words.html([str(piece) for piece in pieces], background_colours(heat, style, colors), heat, title)
    name = f"{path.name}.html"
    write(path.with_name(name), page.encode())
    return [name]
