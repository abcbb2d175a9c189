"""A detector's form: which numbers of its outputs are whose box, which its scores, and what follows from them."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam.image.preprocess import Float
from fastcam.targets.arrays import Double, softmax
from fastcam.targets.box_layouts import SIDES
from fastcam.targets.detectors.decoding import Decode, slope

Index = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Numbers:
    """Some numbers of each box: ``index`` [B, k] are their places in one image's part of an output, laid out flat."""

    output: str
    index: Index

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True, eq=False)
class Level:
    """Boxes of one kind, in most detectors those of one resolution.

    Attributes:
        classes: [B, C], a score of each class; [B, 1] where each box has one.
        factors: [B, 1] each: numbers by which the scores of all classes are multiplied, as objectness.
        boxes: [B, k], the numbers that a box follows from; None where nothing is known of them.
        sizes: [B, k], those of them that are in an output of their own and stand behind the others; None of most.
        decode, priors: how it does, see :mod:`fastcam.targets.detectors.decoding`; None where nobody knows.
    """

    classes: Numbers
    factors: tuple[Numbers, ...] = ()
    boxes: Numbers | None = None
    decode: Decode | None = None
    priors: Double | None = None
    sizes: Numbers | None = None

    @property
    def sides(self) -> tuple[Numbers, ...]:
        """The numbers that a box follows from, output by output."""
        return tuple(one for one in (self.boxes, self.sizes) if one is not None)


@dataclass(frozen=True, eq=False)
class Detections:
    """The boxes of a run. They are counted through the levels.

    Attributes:
        name: of the form, for people.
        outputs: float64 [N, ...] by name.
        levels: where things are.
        labels: [N, B], where each box has one label.
        logits: whether scores are still to go through a sigmoid, or a softmax. What is explained of them is the number
            itself, as of classes; their rank is that of the probability.
        background: the column of the scores that stands for no object, behind (or still in front of) a softmax.
        power: of the class's score in the product; the factors have ``1 - power`` where it is below 1.
        counted_from: of class names: 1 where the first column is the background and has no name.
        scale: pixels in a unit of the corners, across and down; None where nobody knows.
    """

    name: str
    outputs: Mapping[str, Double]
    levels: tuple[Level, ...]
    labels: NDArray[np.int64] | None = None
    logits: bool = False
    background: int | None = None
    power: float = 1.0
    counted_from: int = 0
    scale: tuple[float, float] | None = (1.0, 1.0)

    @cached_property
    def _flat(self) -> dict[str, Double]:
        return {name: y.reshape(len(y), -1) for name, y in self.outputs.items()}

    def _of(self, numbers: Numbers) -> Double:
        """[N, B, k]."""
        return self._flat[numbers.output][:, numbers.index]

    @cached_property
    def scores(self) -> Double:
        """What is explained, [N, B, C]."""
        each = []
        for level in self.levels:
            own, factors = self._of(level.classes), [self._of(one) for one in level.factors]
            if self.logits:
                each.append(sum(factors, own))
            else:
                own = own if self.power == 1 else np.maximum(own, 0) ** self.power
                for factor in factors:
                    own = own * (factor if self.power == 1 else np.maximum(factor, 0) ** (1 - self.power))
                each.append(own)
        return np.concatenate(each, axis=1)

    @cached_property
    def chances(self) -> Double:
        """What boxes are ranked by, [N, B, C]: probabilities; of the background -1."""
        if not self.logits:
            chances = self.scores.copy()
        elif self.background is not None:
            chances = softmax(self.scores)
        else:
            chances = np.concatenate([self._sigmoids(level) for level in self.levels], axis=1)
        if self.background is not None:
            chances[..., self.background] = -1
        return chances

    def _sigmoids(self, level: Level) -> Double:
        product: Double = _sigmoid(self._of(level.classes))
        for factor in level.factors:
            product = product * _sigmoid(self._of(factor))
        return product

    @cached_property
    def corners(self) -> Double | None:
        """Boxes as the model counts them, [N, B, 4]; None where nobody knows how they follow."""
        each = []
        for level in self.levels:
            if not level.sides or level.decode is None or level.priors is None:
                return None
            numbers = np.concatenate([self._of(one) for one in level.sides], axis=2)
            with np.errstate(over="ignore"):
                each.append(level.decode(numbers, level.priors))
        return np.concatenate(each, axis=1)

    @cached_property
    def pixels(self) -> Double | None:
        """The same in pixels of the network's input."""
        return None if self.corners is None or self.scale is None else self.corners * np.array(self.scale * 2)

    def zeros(self, count: int, explained: Container[str]) -> dict[str, Float]:
        """Cotangents of ``count`` targets, of those outputs that are explained."""
        return {
            name: np.zeros((len(y), count, *y.shape[1:]), np.float32)
            for name, y in self.outputs.items()
            if name in explained
        }

    def reads(self, side: bool) -> set[str]:
        """The outputs that a score, or a side, is made of."""
        if side:
            return {one.output for level in self.levels for one in level.sides}
        return {one.output for level in self.levels for one in (level.classes, *level.factors)}

    def fill_score(self, arrays: Mapping[str, Float], at: tuple[int, int], box: int, column: int) -> None:
        """Set the cotangent of image and target ``at`` to that of a box's score of a class."""
        level, k = self._at(box)
        pieces = [(level.classes, level.classes.index[k, column]), *((one, one.index[k, 0]) for one in level.factors)]
        n = at[0]
        values = [self._flat[numbers.output][n, place] for numbers, place in pieces]
        powers = [self.power, *[1.0 if self.power == 1 else 1 - self.power] * len(level.factors)]
        for i, (numbers, place) in enumerate(pieces):
            if self.logits:
                derivative = 1.0
            else:
                others = [max(v, 0) ** p if p != 1 else v for j, (v, p) in enumerate(zip(values, powers)) if j != i]
                own = 1.0 if powers[i] == 1 else powers[i] * max(values[i], 1e-12) ** (powers[i] - 1)
                derivative = float(own * np.prod(others))
            _add(arrays, numbers.output, at, place, derivative)

    def fill_side(self, arrays: Mapping[str, Float], at: tuple[int, int], box: int, side: str) -> None:
        """The same of a side, "x0" to "y1"."""
        level, k = self._at(box)
        assert level.sides and level.decode is not None and level.priors is not None
        places = [(one.output, place) for one in level.sides for place in one.index[k]]
        numbers = np.array([self._flat[output][at[0], place] for output, place in places])
        derivatives = slope(level.decode, numbers, level.priors[k], SIDES.index(side))
        for (output, place), derivative in zip(places, derivatives):
            _add(arrays, output, at, place, derivative)

    def _at(self, box: int) -> tuple[Level, int]:
        """The level of a box, and its number there."""
        for level in self.levels:
            if box < len(level.classes):
                return level, box
            box -= len(level.classes)
        raise IndexError(box)


def distinct(boxes: Double | None, order: Sequence[int], most: int, overlap: float = 0.5) -> list[int]:
    """The first boxes of ``order`` that are not much the same as a better one, by intersection over union."""
    if boxes is None:
        return list(order[:most])
    kept: list[int] = []
    for k in order:
        if all(_overlap(boxes[k], boxes[other]) <= overlap for other in kept):
            kept.append(k)
        if len(kept) == most:
            break
    return kept


def _overlap(a: Double, b: Double) -> float:
    sides = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
    common = float(sides.prod())
    return common / max(float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])) - common, 1e-12)


def _sigmoid(values: Double) -> Double:
    with np.errstate(over="ignore"):
        return np.asarray(1 / (1 + np.exp(-values)))


def _add(arrays: Mapping[str, Float], output: str, at: tuple[int, int], place: Any, value: float) -> None:
    array = arrays[output]
    array.reshape(*array.shape[:2], -1)[at][place] += value
