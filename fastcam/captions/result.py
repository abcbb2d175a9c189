"""A caption that was explained: its words, how sure the model was of each, and where it looked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastcam.atomic_files import json_bytes, staged, unique_stems, write
from fastcam.errors import FastcamError, checked
from fastcam.image.preprocess import Uint8
from fastcam.render import drawing
from fastcam.results.explanation import OK, Explanation
from fastcam.runtime.thread_limit import limited

WIDEST = 6
"""Tiles in a row of a strip."""


@dataclass(frozen=True, eq=False)
class Caption:
    """A caption of one picture.

    Attributes:
        text: the caption.
        words: each of its words (of a tokenizer its pieces), without the end.
        tokens: the same as numbers; behind them the end, where the caption was ended.
        log_probabilities: of each token, that of the end among them.
        ended: whether the model ended it; else it was cut at the most words that were asked for.
        explanation: of the picture. Target 0 is the whole caption: its log-probability, the end's included. Target i
            is word i, from 1; there is none where words were not asked for.
    """

    text: str
    words: tuple[str, ...]
    tokens: tuple[int, ...]
    log_probabilities: tuple[float, ...]
    ended: bool
    explanation: Explanation

    def __repr__(self) -> str:
        return f"Caption({self.text!r}, log-probability {self.log_probability:.3g})"

    @property
    def file(self) -> str | None:
        """The picture's path, or None."""
        return self.explanation.files[0]

    @property
    def log_probability(self) -> float:
        """Of the whole caption: the sum over its tokens."""
        return math.fsum(self.log_probabilities)

    @checked
    @limited
    def strip(self, tile: int = 192, colors: str = "jet") -> Uint8:
        """The picture, the whole caption's map and each word's, in reading order: uint8 RGB.

        Above each word stands its probability. Every map is shown as a heatmap of its own maximum, so colours compare
        places, not words. What is wrong with a map that is none stands in its place.

        Args:
            tile: pixels of a tile's side.
            colors: a name from :data:`fastcam.render.drawing.COLORMAPS`.

        Raises:
            FastcamError: no such colour map, or no tile.
        """
        if tile < 48:
            raise FastcamError(f"a tile has at least 48 pixels, not {tile}")
        e = self.explanation
        tiles = [(e.image(0), "picture"), (self._tile(0, tile, colors), "the whole caption")]
        for i, word in enumerate(self.words[: e.asked(0) - 1]):
            tiles.append((self._tile(i + 1, tile, colors), f"{word} {math.exp(self.log_probabilities[i]):.2f}"))
        columns = len(tiles) if len(tiles) <= WIDEST else min(WIDEST, -(-len(tiles) // -(-len(tiles) // WIDEST)))
        return drawing.contact_sheet(tiles, columns, tile)

    def _tile(self, target: int, tile: int, colors: str) -> Uint8:
        mixed = self.explanation.overlay(0, target, colors=colors, min_side=tile, annotate=False)
        status = self.explanation.status[0][target]
        return mixed if status == OK else drawing.caption(mixed, status.replace("_", " "))

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pixels, ready for :func:`json.dumps`."""
        found = self.explanation.to_dict()["images"][0]
        targets = found["targets"]
        about = [
            {"token": token, "word": word, "log_probability": _finite(value)}
            for token, word, value in zip(self.tokens, self.words, self.log_probabilities)
        ]
        for one, target in zip(about, targets[1:]):
            one |= {name: target[name] for name in ("status", "box", "peak")}
        return {
            "file": self.file,
            "caption": self.text,
            "log_probability": _finite(self.log_probability),
            "ended": self.ended,
            "method": self.explanation.method,
            "whole": {name: targets[0][name] for name in ("status", "box", "peak")},
            "words": about,
        }

    @checked
    def save(self, folder: str | Path, colors: str = "jet") -> list[Path]:
        """Write the strip and ``captions.json``; the paths.

        Raises:
            FastcamError: the folder cannot be written, or no such colour map.
        """
        name = f"{unique_stems([self.file])[0]}-caption.png"
        with staged(folder) as stage:
            write(stage / name, drawing.encode_png(self.strip(colors=colors)))
            write(stage / "captions.json", json_bytes({"captions": [self.to_dict()]}))
        return [Path(folder) / name, Path(folder) / "captions.json"]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
