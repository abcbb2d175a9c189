"""Texts over the heat of their words: pictures uint8 RGB, HTML without scripts, and colours for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastcam.image.preprocess import Float, Uint8
from fastcam.render import web
from fastcam.render.text import width, write

WIDTH, TALL, LINE, MARGIN = 960, 14, 40, 16
"""Of a text's picture: its width, the height of a capital letter, of a line, and of the margin."""
MOST_LINES = 40
BAND = 12
"""The part of the width, one in so many, that a caption takes on top."""
FULL = 0.8
"""How much of a colour the hottest word has; the rest is white, so that letters can be read."""


def colours(heat: Float, table: Uint8, signed: bool = False) -> Uint8:
    """The colour behind each word, uint8 [n, 3]: white where there is no heat.

    Args:
        heat: float32 [n], places in the colour map, 0..1.
        table: the colour map, uint8 [256, 3].
        signed: whether there is no heat at 0.5, not at 0.
    """
    shown = np.clip(heat, 0, 1)
    strength = FULL * (np.abs(2 * shown - 1) if signed else shown)[:, None]
    own = table[np.rint(shown * 255).astype(int)].astype(np.float32)
    return np.asarray(np.rint((1 - strength) * 255 + strength * own), np.uint8)


def hexadecimal(colour: Sequence[int] | Uint8) -> str:
    """A colour as HTML and terminals write it: #ff8800."""
    return "#" + "".join(f"{int(one):02x}" for one in colour)


def html(pieces: Sequence[str], backgrounds: Uint8, heat: Float, title: str) -> str:
    """A page with the text, each word over its colour; a pointer on a word shows its heat.

    Args:
        pieces: the words, each with the blanks behind it.
        backgrounds: see :func:`colours`.
        heat: float32 [n], 0..1.
    """
    spans = []
    for piece, colour, one in zip(pieces, backgrounds, heat, strict=True):
        word = piece.rstrip()
        style = f"background:{hexadecimal(colour)};padding:2px 0;border-radius:3px"
        blank = web.escaped(piece[len(word) :])
        spans.append(f'<span style="{style}" title="{one:.3f}">{web.escaped(word)}</span>{blank}')
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{web.escaped(title)}</title></head>'
        f'<body style="font-family:sans-serif;max-width:48em;margin:2em auto;color:#111;background:#fff">'
        f'<h1 style="font-size:1.1em">{web.escaped(title)}</h1>'
        f'<p style="line-height:2;white-space:pre-wrap">{"".join(spans)}</p></body></html>\n'
    )


def picture(pieces: Sequence[str], backgrounds: Uint8 | None) -> Uint8:
    """The text in black, each word over its colour, below a band for a caption. Long texts are cut."""
    lines = _broken(pieces)
    cut = len(lines) > MOST_LINES
    lines = lines[:MOST_LINES]
    top = WIDTH // BAND
    image = np.full((top + max(4, len(lines) + cut) * LINE + MARGIN, WIDTH, 3), 255, np.uint8)
    letters = np.zeros_like(image)
    for row, line in enumerate(lines):
        x, base = MARGIN, top + row * LINE + LINE * 3 // 4
        for k in line:
            word = pieces[k].rstrip()
            wide = width(word, TALL)
            if backgrounds is not None and word:
                image[base - TALL - 7 : base + 9, max(0, x - 2) : x + wide + 2] = backgrounds[k]
            write(letters, word, (x, base), TALL)
            x += width(pieces[k] if pieces[k].endswith(" ") else word, TALL)
    if cut:
        write(letters, "...", (MARGIN, top + len(lines) * LINE + LINE * 3 // 4), TALL)
    ink = letters.astype(np.float32) / 255  # written in white on black, wanted in black on colours
    return np.asarray(np.rint(image * (1 - ink)), np.uint8)


def _broken(pieces: Sequence[str]) -> list[list[int]]:
    """The numbers of the words of each line."""
    lines: list[list[int]] = [[]]
    x = MARGIN
    for k, piece in enumerate(pieces):
        wide = width(piece.rstrip(), TALL)
        if lines[-1] and x + wide > WIDTH - MARGIN:
            lines.append([])
            x = MARGIN
        lines[-1].append(k)
        x += width(piece if piece.endswith(" ") else piece.rstrip(), TALL)
    return lines
