"""Network dissection: which concepts the channels of a layer answer to.

Source: Bau et al., "Network Dissection: Quantifying Interpretability of Deep Visual Representations", CVPR 2017: of
each channel the threshold that 0.5 % of its activations exceed over all pictures; where the bilinearly enlarged
activation exceeds it, the channel is active; its concept is the one whose masks have the largest intersection over
union with that, counted over all pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam.errors import FastcamError, listed, typed
from fastcam.evaluation.dissection.largest import Largest
from fastcam.evaluation.samples import Dataset, LeftOut, Mask, Sample
from fastcam.evaluation.scenes import COLORS, TEXTURES
from fastcam.explainer import Explainer
from fastcam.image.preprocess import Float, Geometry
from fastcam.schema import ACTIVATIONS

SHARE, DETECTOR, GRID = 0.005, 0.04, 112
"""Bau et al.'s: of activations above the threshold, IoU from which a channel is a detector, side of the masks."""
Told = Callable[[int, int], None]
"""Called as ``told(pictures done, of how many)``, over both passes."""
Counts = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Dissection:
    """How far the channels of a layer fit concepts, in cells of a grid of :data:`GRID` x GRID over each picture.

    Attributes:
        layer: the layer's name.
        labels: the concepts.
        categories: of each concept: "object", "color", "texture".
        thresholds: float32 [K], above which a channel is active.
        active: int64 [K], cells where it is.
        truth: int64 [C], cells of each concept.
        both: int64 [K, C].
        pictures: that were measured.
        left_out: pictures that could not be used, by reason.
    """

    layer: str
    labels: tuple[str, ...]
    categories: tuple[str, ...]
    thresholds: NDArray[np.float32]
    active: Counts
    truth: Counts
    both: Counts
    pictures: int
    left_out: LeftOut

    @property
    def iou(self) -> NDArray[np.float64]:
        """float64 [K, C]: intersection over union of each channel with each concept."""
        union = self.active[:, None] + self.truth[None] - self.both
        shares: NDArray[np.float64] = np.divide(self.both, union, out=np.zeros(union.shape), where=union > 0)
        return shares

    @property
    def detectors(self) -> int:
        """How many channels have an IoU above 0.04 with some concept."""
        return int((self.iou.max(1, initial=0) > DETECTOR).sum())


def dissect(
    explainer: Explainer,
    data: Dataset,
    share: float = SHARE,
    grid: int = GRID,
    limit: int | None = None,
    told: Told | None = None,
) -> Dissection:
    """Compare the channels of the Explainer's layer with the masks of a data set, in two passes over the pictures.

    Marks without a mask are passed over, and pictures without any. What the data set ignores counts for nothing. All
    other marks count, crowds and "difficult" ones too: their pixels show the concept.

    Args:
        explainer: of a file that emits activations; ``explainer.at(layer)`` for another of its layers.
        data: of :func:`fastcam.evaluation.data.open_data`.
        share: of a channel's activations that are above its threshold.
        grid: side of the grid over the part of a picture that the network sees.
        limit: of the data set's first pictures.
        told: is told how far it is.

    Raises:
        FastcamError: a file without activations of pictures, a share or grid out of range, or no picture with masks.
    """
    typed("explainer", explainer, Explainer, "a fastcam.Explainer")
    _check(explainer, share, grid)
    if explainer.exif != data.exif:
        raise FastcamError(f"{data.name} is marked on pictures with exif={data.exif}; open the Explainer so")
    with explainer._limited():
        return _Passes(explainer, data, share, grid, limit, told).run()


def _check(explainer: Explainer, share: float, grid: int) -> None:
    metadata, name = explainer.metadata, explainer.name
    if metadata.emit == "cam" or metadata.cotangents:
        raise FastcamError(f"{name} holds no activations; dissection needs a file of --emit weights and class targets")
    if metadata.kind != "picture":
        raise FastcamError(f"{name} explains {metadata.kind}s; dissection is of pictures")
    if not 0 < share < 1:
        raise FastcamError(f"the share of activations above the threshold is {share}; give one between 0 and 1")
    if not 8 <= grid <= 1024:
        raise FastcamError(f"the grid is {grid}; give 8 to 1024")


class _Passes:
    def __init__(
        self, explainer: Explainer, data: Dataset, share: float, grid: int, limit: int | None, told: Told | None
    ) -> None:
        self.explainer, self.data, self.share, self.grid = explainer, data, share, grid
        self.limit, self.told = limit, told
        self.total = len(data) if limit is None else min(limit, len(data))
        self.left_out, self.done = LeftOut(), 0

    def run(self) -> Dissection:
        thresholds = self._thresholds()
        labels = self.data.labels
        column = {label: c for c, label in enumerate(labels)}
        active, truth = np.zeros(len(thresholds), np.int64), np.zeros(len(labels), np.int64)
        both = np.zeros((len(thresholds), len(labels)), np.int64)
        self.left_out, pictures = LeftOut(), 0
        for sample, activations, geometry in self._activations():
            concepts = _masks(sample, geometry, self.grid)
            counts = _counted(sample, geometry, self.grid)
            on = (_enlarged(activations, geometry, self.grid) > thresholds[:, None, None]) & counts
            active += on.sum((1, 2))
            flat = on.reshape(len(on), -1).astype(np.float32)
            for label, mask in concepts.items():
                mask &= counts
                truth[column[label]] += int(mask.sum())
                both[:, column[label]] += np.rint(flat @ mask.ravel().astype(np.float32)).astype(np.int64)
            pictures += 1
        for reason, names in self.data.left_out.names.items():
            self.left_out.names[reason] = list(names)
            self.left_out.counts[reason] = self.data.left_out.counts[reason]
        layer = self.explainer.metadata.layer
        categories = tuple(category(label) for label in labels)
        name = layer.scope or layer.value
        return Dissection(name, labels, categories, thresholds, active, truth, both, pictures, self.left_out)

    def _thresholds(self) -> NDArray[np.float32]:
        largest: Largest | None = None
        for _, activations, _ in self._activations():
            if largest is None:
                largest = Largest(len(activations), self.total * activations[0].size, self.share)
            largest.add(activations.reshape(len(activations), -1))
        if largest is None:
            reasons = {**self.data.left_out.counts, **self.left_out.counts}
            why = listed(f"{count} {reason}" for reason, count in reasons.items()) or "the data set is empty"
            raise FastcamError(f"{self.data.name}: no picture with masks can be used ({why})")
        return largest.thresholds()

    def _activations(self) -> Iterator[tuple[Sample, Float, Geometry]]:
        """The pictures with masks, their activations [K, h, w] and geometry."""
        samples: Iterable[Sample] = islice(self.data.samples(), self.limit)
        for part in _parts(samples, self.explainer.batch_size):
            marked = [sample for sample in part if self._has_masks(sample)]
            yield from self._of_part(marked)
            self.done += len(part)
            if self.told is not None:
                self.told(min(self.done, 2 * self.total), 2 * self.total)

    def _has_masks(self, sample: Sample) -> bool:
        has = any(each.read_mask is not None for each in sample.annotations)
        if not has:
            self.left_out.add("nothing is marked by a mask", sample.name)
        return has

    def _of_part(self, samples: Sequence[Sample]) -> Iterator[tuple[Sample, Float, Geometry]]:
        """Pictures of one run; where one of them cannot be read, one by one."""
        if not samples:
            return
        try:
            prediction = self.explainer.predict([sample.picture for sample in samples])
        except FastcamError as error:
            if len(samples) == 1:
                self.left_out.add("could not be run", f"{samples[0].name}: {error}")
            else:
                for sample in samples:
                    yield from self._of_part([sample])
            return
        waiting = iter(samples)
        for run in prediction.runs:
            added = self.explainer._network.explain(run.forward, np.array([[-1]]))[ACTIVATIONS]
            for activations, geometry in zip(np.asarray(added, np.float32), run.batch.geometry, strict=True):
                sample = next(waiting)
                if np.isfinite(activations).all():
                    yield sample, activations, geometry
                else:
                    self.left_out.add("activations that are not finite", sample.name)


def category(label: str) -> str:
    """The kind of a concept: generated scenes have colours and textures beside objects."""
    return "color" if label in COLORS else "texture" if label in TEXTURES else "object"


def _parts(samples: Iterable[Any], size: int) -> Iterator[list[Any]]:
    waiting = iter(samples)
    while part := list(islice(waiting, size)):
        yield part


# ---- a picture's grid


def _masks(sample: Sample, geometry: Geometry, grid: int) -> Mapping[str, Mask]:
    """The cells of each concept that has masks in a picture."""
    found: dict[str, Mask] = {}
    for each in sample.annotations:
        if each.read_mask is not None:
            cells = _sampled(each.read_mask(), geometry, grid)
            found[each.label] = found[each.label] | cells if each.label in found else cells
    return found


def _counted(sample: Sample, geometry: Geometry, grid: int) -> Mask:
    if sample.read_ignored is None:
        return np.ones((grid, grid), np.bool_)
    return ~_sampled(sample.read_ignored(), geometry, grid)


def _sampled(mask: Mask, geometry: Geometry, grid: int) -> Mask:
    """The pixels of a mask that lie under the middles of the cells."""
    left, top, right, bottom = geometry.source
    middles = (np.arange(grid) + 0.5) / grid
    rows = (top + middles * (bottom - top)).astype(np.int64)
    columns = (left + middles * (right - left)).astype(np.int64)
    cells: Mask = mask[np.ix_(np.minimum(rows, bottom - 1), np.minimum(columns, right - 1))]
    return cells


def _enlarged(activations: Float, geometry: Geometry, grid: int) -> Float:
    """Activations [K, h, w] of the network's input, bilinear at the middles of the cells: [K, grid, grid]."""
    x0, y0, x1, y1 = geometry.target
    height, width = geometry.network
    rows = _weights(activations.shape[1], y0 / height, y1 / height, grid)
    columns = _weights(activations.shape[2], x0 / width, x1 / width, grid)
    enlarged: Float = np.matmul(np.matmul(rows, activations), columns.T)
    return enlarged


def _weights(size: int, start: float, end: float, grid: int) -> Float:
    """float32 [grid, size]: what each of ``size`` values, spread over 0..1, gives to points from start to end."""
    places = np.clip((start + (np.arange(grid) + 0.5) / grid * (end - start)) * size - 0.5, 0, size - 1)
    lower = np.minimum(places.astype(np.int64), size - 1)
    weights = np.zeros((grid, size), np.float32)
    weights[np.arange(grid), lower] = 1 - (places - lower)
    upper = np.minimum(lower + 1, size - 1)
    np.add.at(weights, (np.arange(grid), upper), (places - lower).astype(np.float32))
    return weights
