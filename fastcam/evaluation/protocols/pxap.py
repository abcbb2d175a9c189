"""PxAP: the average precision of a map's pixels against masks, at every threshold."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam.evaluation.protocols.base import Case, Present, Protocol, Row
from fastcam.evaluation.protocols.options import check
from fastcam.evaluation.protocols.regions import counted, ignored_pixels, mask_pixels
from fastcam.evaluation.protocols.sweep import scaled
from fastcam.evaluation.samples import Mask
from fastcam.evaluation.statistics import REPLICATES, Figure, Floats, Tally, Weights, figure
from fastcam.image.preprocess import Float, Geometry
from fastcam.image.resampling import opencv

Counts = NDArray[np.int64]
FLUSH = 64
"""How many rows are added to the replicates at once."""


@dataclass(frozen=True)
class PxAP(Protocol):
    """Pixel average precision of the true class's map: the area under precision and recall of all pictures' pixels.

    The arithmetic is wsolevaluation's: maps between 0 and 1, their minimum at 0, at the network's input, to which masks
    are brought by the nearest pixel; steps of 0.001; and precision times gain in recall, summed. Pixels of crowds, of
    "difficult" objects and those that the data set ignores do not count, unless they are the object's. FastCAM's maps
    are above 0 alone, so that all that spoke against a class is one step; the authors' maps are signed.

    Source: Choe et al., "Evaluating Weakly Supervised Object Localization Methods Right", CVPR 2020, section 3.2.

    Attributes:
        steps: how many thresholds, i / steps from 0 on.
    """

    name = "pxap"
    title = "PxAP: average precision of pixels against masks (wsolevaluation)"

    steps: int = 1000

    def __post_init__(self) -> None:
        check(self)

    def measure(self, case: Case) -> Row | None:
        """Of each marked class with masks how many of its pixels, and of the others, have each value, as text."""
        row: Row = {}
        for each in case.present:
            inside = mask_pixels(counted(each.annotations), case.size)
            if inside is not None:
                row[each.label] = [pack(counts) for counts in self._histograms(case, each, inside)]
        return row or None

    def _histograms(self, case: Case, present: Present, inside: Mask) -> tuple[Counts, Counts]:
        geometry = case.explanation.geometry[0]
        heatmap = case.explanation.heatmaps[0, case.columns[present.target]]
        x0, y0, x1, y1 = geometry.target
        values = scaled(heatmap[y0:y1, x0:x1])
        truth = nearest(inside, geometry)
        ignored = ignored_pixels(case.sample, present.annotations, case.size)
        others = ~truth if ignored is None else ~truth & ~nearest(ignored, geometry)
        step = _step_of(values.ravel(), self.steps)
        flat = truth.ravel(), others.ravel()
        inner, outer = (np.bincount(step[mask], minlength=self.steps + 1) for mask in flat)
        return inner, outer

    def tally(self) -> Tally:
        """PxAP of all pixels."""
        return _Pixels(self.steps)


def _step_of(values: Float, steps: int) -> Counts:
    """Between which of the edges 0, 1 / steps, ..., 1 each value lies; one on an edge belongs above it."""
    edges = np.append(np.arange(steps) * (1 / steps), [1, np.inf])
    step = np.minimum((values * np.float32(steps)).astype(np.int64), steps)
    step -= values < edges[step]  # the product is rounded, the edges are not
    step += values >= edges[step + 1]
    return step


def nearest(mask: Mask, geometry: Geometry) -> Mask:
    """A mask of the picture, in pixels of the network's input that show the picture, by the nearest pixel."""
    left, top, right, bottom = geometry.source
    x0, y0, x1, y1 = geometry.target
    seen = np.ascontiguousarray(mask[top:bottom, left:right]).view(np.uint8)
    cv2 = opencv()
    resized: Mask = cv2.resize(seen, (x1 - x0, y1 - y0), interpolation=cv2.INTER_NEAREST).astype(np.bool_)
    return resized


def pack(counts: Counts) -> str:
    """Counts as a short text: base64 of zlib of little-endian uint32."""
    return base64.b64encode(zlib.compress(counts.astype("<u4").tobytes())).decode("ascii")


def unpack(text: str) -> Counts:
    """What :func:`pack` wrote."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), "<u4").astype(np.int64)


class _Pixels:
    """Pixels by value, of objects and of the rest, in each replicate."""

    def __init__(self, steps: int) -> None:
        self.sums = np.zeros((1 + REPLICATES, 2, steps + 1))
        self.waiting: list[tuple[Weights, Floats]] = []
        self.n = 0

    def add(self, row: Mapping[str, Any], weights: Weights) -> None:
        for texts in row.values():
            self.waiting.append((weights, np.stack([unpack(text) for text in texts]).astype(np.float64)))
            self.n += 1
        if len(self.waiting) >= FLUSH:
            self._flush()

    def _flush(self) -> None:
        if self.waiting:
            weights, counts = (np.stack(part) for part in zip(*self.waiting, strict=True))
            self.sums += np.tensordot(weights.astype(np.float64), counts, axes=(0, 0))
            self.waiting = []

    def figures(self) -> dict[str, Figure]:
        self._flush()
        true, false = np.moveaxis(np.cumsum(self.sums[..., ::-1], axis=2), 1, 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            precision, recall = true / (true + false), true / true[:, -1:]
        gain = np.diff(recall, prepend=0, axis=1)
        area = np.where(true + false > 0, precision * gain, 0).sum(1)
        area[true[:, -1] == 0] = np.nan  # nothing counts
        return {"PxAP": figure(area, self.n)}
