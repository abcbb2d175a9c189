"""Targets in words, "region:person,mask=sky.png": the grammar, what a file offers to them, and what becomes of one.

A spec is KIND, or KIND:WORD,WORD,option=value. :mod:`fastcam.targets.spec_kinds` has the kinds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastcam.errors import FastcamError, listed, shown
from fastcam.image.preprocess import Float
from fastcam.image.reading import DEFAULT, Reading
from fastcam.labels import short_label
from fastcam.schema import PREFIX, Cotangent, Preprocessing
from fastcam.targets.arrays import Double
from fastcam.targets.classes import Targets, Terms, whole_number
from fastcam.targets.run_pictures import picture_alone

Outputs: TypeAlias = Mapping[str, Any]
"""The outputs of a run by name; beside them, under :data:`INPUT_SIZE`, of what size the input was."""
INPUT_SIZE = f"{PREFIX}input_size"
"""[1, 2]: height and width of the network's input."""
Names: TypeAlias = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Spec:
    """One target, or several of a kind, as it was written.

    Attributes:
        text: all of it.
        kind: lower case, with "-" for "_".
        words: what stands behind the colon between commas, and is no option.
        options: those with "=".
    """

    text: str
    kind: str
    words: tuple[str, ...]
    options: Mapping[str, str]

    def wrong(self, why: str) -> FastcamError:
        """An error that names the spec."""
        return FastcamError(f"{shown(repr(self.text))}: {why}")

    def choice(self, option: str, allowed: Sequence[str]) -> str:
        """The value of an option, by default the first that is allowed."""
        value = self.options.get(option, allowed[0]).replace("-", "_")
        if value not in allowed:
            raise self.wrong(f"{option} is one of {', '.join(filter(None, allowed))}, got {value!r}")
        return value

    def number(self, option: str, default: float) -> float:
        try:
            number = float(self.options.get(option, default))
        except ValueError as error:
            raise self.wrong(f"{option} is a number, got {shown(repr(self.options[option]))}") from error
        if not math.isfinite(number):
            raise self.wrong(f"{option} is a finite number, got {number}")
        return number

    def none_but(self, least: int, most: int, what: str) -> None:
        """Raise unless the number of words is between the two."""
        if not least <= len(self.words) <= most:
            raise self.wrong(f"give {what}, got {len(self.words) or 'none'}")


def parse(text: str, options: Mapping[str, Sequence[str]]) -> Spec:
    """A spec; ``options`` are those that each kind knows.

    Raises:
        FastcamError: a kind or an option that is none.
    """
    kind, colon, rest = text.partition(":")
    kind = "-".join(kind.casefold().replace("_", " ").replace("-", " ").split())
    if kind == "text":  # in which commas and signs are the text's own
        return Spec(text, kind, (rest.strip(),) if rest.strip() else (), {})
    words: list[str] = []
    chosen: dict[str, str] = {}
    for part in map(str.strip, rest.split(",")) if colon else ():
        option, equals, value = (each.strip() for each in part.partition("="))
        if equals and re.fullmatch(r"[a-z]+", option):
            if kind in options and option not in options[kind]:
                raise FastcamError(f"{text!r}: no option {option!r}; {kind} knows {', '.join(options[kind])}")
            chosen[option] = value
        elif part:
            words.append(part)
    return Spec(text, kind, tuple(words), chosen)


def sizes(about: Cotangent) -> tuple[int | str, ...]:
    """The shape of one image's output without axes of one element at its end: [1000, 1, 1] is [1000]."""
    shape = about.shape
    while len(shape) > 1 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


class Texts(Protocol):
    """What compares embeddings with texts, see :class:`fastcam.targets.prompts.TextSide`."""

    @property
    def prompts(self) -> Mapping[str, str]:
        """Texts by name, which are the classes."""

    def embed(self, texts: Sequence[str], /) -> Double:
        """Their embeddings, [T, D]."""

    def explain(self, y: Double, texts: Sequence[str]) -> tuple[Double, Double]:
        """Of embeddings [N, D] slopes [N, T, D] and scores [N, T]."""

    def classes(self) -> Targets:
        """What resolves names of prompts."""


@dataclass(frozen=True)
class File:
    """What an exported file offers to specs.

    Attributes:
        name: how messages call it.
        about: the outputs that it explains.
        labels: class names by index, or None.
        preprocessing: how pictures become its input.
        outputs_of: a picture -> the outputs that the model gives for it alone.
        reading: how files of pictures are read.
        texts: what compares embeddings with texts.
    """

    name: str
    about: tuple[Cotangent, ...]
    labels: tuple[str, ...] | None
    preprocessing: Preprocessing | None
    outputs_of: Callable[[Any], Outputs]
    reading: Reading = DEFAULT
    texts: Texts | None = None

    def output(self, spec: Spec, axes: Sequence[int]) -> Cotangent:
        """The output that a spec is about: the one it names, or the only one with so many axes for one image.

        Raises:
            FastcamError: there is none, or there are several.
        """
        name = spec.options.get("output")
        fitting = [one for one in self.about if len(sizes(one)) in axes and name in (None, one.output)]
        if len(fitting) == 1:
            return fitting[0]
        have = listed(f"{one.output} {list(one.shape)}" for one in self.about)
        if fitting:
            raise spec.wrong(f"of which output? add output=NAME, one of {listed(one.output for one in fitting)}")
        if name is not None and name not in [one.output for one in self.about]:
            raise spec.wrong(f"{self.name} does not explain an output {name!r}; it explains {have}")
        wanted = " or ".join(str(count) for count in axes)
        raise spec.wrong(f"that needs an output with {wanted} axes for one image, {self.name} explains {have}")

    def text(self, spec: Spec) -> Cotangent:
        """The output of a sequence that a spec is about: a text, or one with two axes for one image.

        Raises:
            FastcamError: there is none, or there are several.
        """
        name = spec.options.get("output")
        texts = [one for one in self.about if one.axes in ("LC", "LNC") and name in (None, one.output)]
        return texts[0] if len(texts) == 1 else self.output(spec, (2,))

    def classes(self, spec: Spec, count: int | None) -> Targets:
        """What resolves class names; they count where there is one for each of ``count`` classes."""
        fits = self.labels is not None and count in (None, len(self.labels))
        if not fits and self.labels is not None and any(whole_number(word) is None for word in spec.words):
            raise spec.wrong(
                f"{self.name} has {len(self.labels)} class names for an output of {count}; give the number of the class"
            )
        return Targets(count, self.labels if fits else None)

    def label(self, index: int, count: int | None = None) -> str:
        """The short name of a class, or its number."""
        known = self.labels is not None and 0 <= index < len(self.labels) and count in (None, len(self.labels))
        return short_label(self.labels[index]) if known and self.labels else f"class {index}"


@dataclass(frozen=True)
class SpecResult:
    """What becomes of a spec, of the images of one run.

    Attributes:
        arrays: the cotangents by output, [N, T, ...], axes of one element at the end left out or not; N is 1 of
            outputs without an axis of images.
        names: per image what each of the T targets is.
        values: [N, T], the scalars themselves. Where they are not linear in the outputs, the cotangents are their
            derivatives.
        boxes: [N, T, 4], of boxes the detector's own in pixels of the network's input; not a number where nobody
            knows. None: there are none.
    """

    arrays: Mapping[str, Float]
    names: Names
    values: Double
    boxes: Double | None = None


SpecFunction: TypeAlias = Callable[[Outputs], SpecResult]
Explained: TypeAlias = tuple[Float, Double, Names]
"""Of one output: the cotangents, the scalars and the names of a :class:`SpecResult`."""


@dataclass(frozen=True)
class Kind:
    """A kind of spec.

    Attributes:
        form: how it is written.
        says: what is explained.
        axes: of one image's output that it is about.
        options: those it knows.
        resolve: a spec of this kind, for a file -> what gives cotangents, names and values of the outputs of a run.
        place: whether what a spec of this kind explains has a place in the picture, which a map should keep.
    """

    form: str
    says: str
    axes: tuple[int, ...]
    options: tuple[str, ...]
    resolve: Callable[[Spec, File], SpecFunction]
    place: Callable[[Spec], bool] = lambda spec: False


def of_output(about: Cotangent, explain: Callable[[Double], Explained]) -> SpecFunction:
    """A spec that is about one output; ``explain`` is given it as :func:`array_of` has it."""

    def function(outputs: Outputs) -> SpecResult:
        cotangents, values, names = explain(array_of(outputs, about))
        return SpecResult({about.output: cotangents}, names, values)

    return function


def array_of(outputs: Outputs, about: Cotangent) -> Double:
    """One output, float64 [N, ...], without axes of one element at its end."""
    y = np.asarray(outputs[about.output], np.float64)
    y = y if about.batched else y[None]
    return y.reshape(y.shape[: 1 + len(sizes(about))])


def joined(pieces: Sequence[SpecResult], outputs: Outputs, about: Sequence[Cotangent]) -> SpecResult:
    """All targets of several specs, with cotangents of zero for outputs that a spec says nothing of."""
    arrays = {}
    for one in about:
        rest = np.shape(outputs[one.output])[one.batched :]
        parts = []
        for piece in pieces:
            n, t = piece.values.shape
            shape = (n if one.batched else 1, t, *rest)
            parts.append(piece.arrays.get(one.output, np.zeros(shape, np.float32)).reshape(shape))
        arrays[one.output] = np.concatenate(parts, axis=1, dtype=np.float32)
    rows = [[name for piece in pieces for name in _filled(piece, n)] for n in range(len(pieces[0].names))]
    values = np.concatenate([piece.values for piece in pieces], axis=1)
    boxes = np.concatenate([*map(_boxes, pieces)], axis=1)
    if len(pieces) > 1 and not all(map(all, rows)):  # what an image does not have stands behind what it has
        orders = np.array([np.argsort([not name for name in row], kind="stable") for row in rows])
        most = max(sum(map(bool, row)) for row in rows)
        orders = orders[:, :most]
        arrays = {name: _picked(array, orders) for name, array in arrays.items()}
        rows = [[row[t] for t in order] for row, order in zip(rows, orders, strict=True)]
        values, boxes = _picked(values, orders), _picked(boxes, orders)
    return SpecResult(arrays, tuple(map(_without_end, rows)), values, boxes)


def _picked(array: NDArray[Any], orders: NDArray[np.int64]) -> NDArray[Any]:
    """The targets of each image [N, T, ...] in another order, [N, T]; an array for all images by the first's order."""
    orders = orders[: len(array)]
    return np.take_along_axis(array, orders.reshape(*orders.shape, *[1] * (array.ndim - 2)), axis=1)


def _filled(piece: SpecResult, n: int) -> list[str]:
    """The names of an image's targets, "" where it has fewer than another."""
    own = piece.names[n]
    return [*own, *[""] * (piece.values.shape[1] - len(own))]


def _without_end(names: list[str]) -> tuple[str, ...]:
    while names and not names[-1]:
        names.pop()
    return tuple(names)


def _boxes(piece: SpecResult) -> Double:
    """Its boxes, [N, T, 4]."""
    return np.full((*piece.values.shape, 4), np.nan) if piece.boxes is None else piece.boxes


@dataclass(frozen=True)
class PerImageSpecs:
    """Specs for each image of a call, lists that may have different lengths."""

    rows: tuple[SpecFunction, ...]

    @property
    def place(self) -> bool:
        """Whether one of them has a place in the picture."""
        return any(getattr(row, "place", False) for row in self.rows)

    def of_run(self, start: int, outputs: Outputs, images: int) -> SpecResult:
        """Of the images from ``start`` on that ran together, with cotangents of zero where one has fewer targets."""
        each = []
        for n, function in enumerate(self.rows[start : start + images]):
            own = {name: y[n : n + 1] if len(np.shape(y)) and len(y) == images else y for name, y in outputs.items()}
            with picture_alone(n):
                each.append(function(own))
        most = max(piece.values.shape[1] for piece in each)

        def padded(array: NDArray[Any]) -> NDArray[Any]:
            return np.pad(array, [(0, 0), (0, most - array.shape[1]), *[(0, 0)] * (array.ndim - 2)])

        arrays = {name: np.concatenate([padded(piece.arrays[name]) for piece in each]) for name in each[0].arrays}
        return SpecResult(
            arrays,
            tuple(piece.names[0] for piece in each),
            np.concatenate([padded(piece.values) for piece in each]),
            np.concatenate([padded(_boxes(piece)) for piece in each]),
        )


def terms(spec: Spec, word: str, classes: Targets) -> Terms:
    """A word as a combination of classes: a number, a rank, a name, or "tabby - tiger cat"."""
    try:
        number = whole_number(word)
        return classes.terms(word if number is None else number)
    except FastcamError as error:
        raise spec.wrong(str(error)) from error


def index(spec: Spec, word: str, classes: Targets) -> int:
    """A word as one class, no rank."""
    (c, coefficient), *others = terms(spec, word, classes)
    if others or coefficient != 1 or c < 0:
        raise spec.wrong(f"{word!r} is no single class; give a name or a number from 0")
    return c


def integers(spec: Spec, what: str) -> list[int]:
    """The words as numbers."""
    numbers = [number for word in spec.words if (number := whole_number(word)) is not None]
    if len(numbers) != len(spec.words):
        raise spec.wrong(f"give {what} as whole numbers")
    return numbers
