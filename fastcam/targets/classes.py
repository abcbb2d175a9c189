"""What to explain: class indices, ranks, names and combinations of them -> the int64 tensor ``fastcam.targets``."""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam.errors import FastcamError, shown
from fastcam.labels import WORDNET, short_label

Terms = tuple[tuple[int, float], ...]
"""A linear combination of class scores: (class or rank, coefficient), in the order in which the call has them."""


@dataclass(frozen=True)
class Target:
    """What one target of one image was.

    Attributes:
        name: "tabby - tiger cat", "not tabby"; of a cotangent "target 1".
        terms: (column of the scores, coefficient): what was explained is their sum.
        box: of a detector's box its corners x0, y0, x1, y1 in pixels of the network's input, where they are known.
    """

    name: str
    terms: Terms
    box: tuple[float, float, float, float] | None = None


def whole_number(text: str) -> int | None:
    """A text as a whole number; None where it is none, or has more digits than an index has."""
    return int(text) if re.fullmatch(r"\s*[+-]?[0-9]{1,18}\s*", text) else None


def combined_name(terms: Terms, labels: Sequence[str] | None, whole: bool = False) -> str:
    """A combination for people: "tabby - 0.5 tiger cat", "not tabby"; ``whole`` labels, or their short forms."""
    short = str if whole else short_label
    names = [short(labels[c]) if labels is not None and 0 <= c < len(labels) else f"class {c}" for c, _ in terms]
    if len(terms) == 1 and terms[0][1] < 0:
        return f"not {_scaled(-terms[0][1])}{names[0]}"
    text = ""
    for name, (_, a) in zip(names, terms, strict=True):
        sign = (" - " if a < 0 else " + ") if text else "-" if a < 0 else ""
        text += f"{sign}{_scaled(abs(a))}{name}"
    return text


def _scaled(factor: float) -> str:
    return "" if factor == 1 else f"{factor:g} "


@dataclass(frozen=True)
class ClassTargets:
    """The targets of a call, for every image the same (one row) or a row for each.

    Attributes:
        classes: int64 [rows, U]: the classes that they are made of, for ``fastcam.targets``.
        terms: per row and target its combination of these: (position among the U, coefficient); rows may have different
            lengths. None where every target is one class, in that order.
        most: T, the length of the longest list of the call.
    """

    classes: NDArray[np.int64]
    terms: tuple[tuple[Terms, ...], ...] | None = None
    most: int = 0

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, rows: slice) -> ClassTargets:
        return ClassTargets(self.classes[rows], None if self.terms is None else self.terms[rows], self.most)

    def of(self, images: int) -> tuple[tuple[Terms, ...], ...]:
        """The terms of each of ``images`` images."""
        terms = self.terms or ()
        return terms if len(terms) == images else terms * images

    def picked(self, images: int) -> NDArray[np.int64] | None:
        """int64 [images, T]: where each target's one class is among the U, -1 where an image has fewer than T.

        None where a target is a combination.
        """
        rows = self.of(images)
        if any(len(terms) != 1 or terms[0][1] != 1 for row in rows for terms in row):
            return None
        return np.array([[*(terms[0][0] for terms in row), *[-1] * (self.most - len(row))] for row in rows], np.int64)

    def coefficients(self, images: int) -> NDArray[np.float32]:
        """float32 [images, T, U]; zeros where an image has fewer than T targets."""
        rows = self.of(images)
        coefficients = np.zeros((images, self.most, self.classes.shape[1]), np.float32)
        for n, row in enumerate(rows):
            for t, terms in enumerate(row):
                for position, coefficient in terms:
                    coefficients[n, t, position] += coefficient
        return coefficients


class Targets:
    """Resolves what a user calls a target, for one model.

    Args:
        classes: number of classes, or None where the file does not say (then the range is not checked).
        labels: class names by index, or None.
    """

    def __init__(self, classes: int | None, labels: Sequence[str] | None) -> None:
        self.classes = classes
        self.labels = None if labels is None else tuple(labels)
        # three dictionaries in order of precedence: the whole label, the label without its WordNet id, any part
        self._names: tuple[dict[str, list[int]], ...] = tuple(defaultdict(list) for _ in range(3))
        for index, label in enumerate(self.labels or ()):
            bare = WORDNET.sub("", label.strip())
            identifier = label.strip()[:9] if bare != label.strip() else ""
            parts = {_key(part) for part in (*bare.split(","), identifier)} - {""}
            self._names[0][_key(label)].append(index)
            self._names[1][_key(bare)].append(index)
            for part in parts:
                self._names[2][part].append(index)

    def resolve(self, targets: Any, images: int) -> ClassTargets:
        """What goes into ``fastcam.targets``, and how the targets follow from it.

        Args:
            targets: a target, a list of those for every image, or a list with one such list per image. A target is a
                class index >= 0, a rank -r (the class with the r-th highest score of each image), a class name, or a
                linear combination of those: {"tabby": 1, "tiger cat": -1}, or as text "tabby - 0.5*tiger cat", where
                signs stand between spaces; "not tabby" is {"tabby": -1}, the counterfactual.

        Raises:
            FastcamError: out of range, an unknown or ambiguous name, a combination of nothing, or no targets.
        """
        rows = [[self.terms(target) for target in row] for row in _rows(targets, images)]
        if len({len(row) for row in rows}) == 1 and all(
            len(terms) == 1 and terms[0][1] == 1 for row in rows for terms in row
        ):
            return ClassTargets(np.array([[terms[0][0] for terms in row] for row in rows], np.int64))
        unions = [list(dict.fromkeys(c for terms in row for c, _ in terms)) for row in rows]
        width = max(map(len, unions))
        classes = np.array([union + union[:1] * (width - len(union)) for union in unions], np.int64)
        terms = tuple(
            tuple(tuple((union.index(c), a) for c, a in terms) for terms in row)
            for row, union in zip(rows, unions, strict=True)
        )
        return ClassTargets(classes, terms, max(map(len, rows)))

    def terms(self, target: Any) -> Terms:
        """One target as a combination of class indices and ranks."""
        if isinstance(target, str) and not self.knows(target):
            combination = expression(target)
            if combination is not None:
                return tuple((self._term(name), a) for name, a in combination)
        if not isinstance(target, Mapping):
            return ((self.one(target), 1.0),)
        for name, a in target.items():
            if isinstance(a, bool) or not isinstance(a, int | float | np.number) or not np.isfinite(a) or not a:
                raise FastcamError(f"the coefficient of class {name!r} must be a number other than zero, got {a!r}")
        if not target:
            raise FastcamError("a combination of no classes was given; give {class: coefficient}")
        return tuple((self.one(name), float(a)) for name, a in target.items())

    def _term(self, text: str) -> int:
        """A class in a combination that is given as text."""
        number = whole_number(text)
        return self.one(text if number is None or self.knows(text) else number)

    def knows(self, name: str) -> bool:
        """Whether a text is the name of a class, whatever signs it has in it."""
        return any(_key(name) in table for table in self._names)

    def one(self, target: Any) -> int:
        """One target as the number that goes into ``fastcam.targets``."""
        if isinstance(target, str):
            return self._by_name(target)
        if isinstance(target, bool | np.bool_) or not isinstance(target, int | np.integer):
            raise FastcamError(f"a target must be a class index, a rank -1, -2, ... or a class name, got {target!r}")
        index, classes = int(target), self.classes
        if classes is not None and not -classes <= index < classes:
            raise self._out_of_range(str(index))
        return index

    def _out_of_range(self, number: str) -> FastcamError:
        if self.classes is None:
            return FastcamError(f"class {shown(number)} is out of range: no model has so many classes")
        return FastcamError(
            f"class {shown(number)} is out of range: the model has {self.classes} classes, 0 to {self.classes - 1}, or "
            f"-1 to -{self.classes} by rank"
        )

    def _by_name(self, name: str) -> int:
        if re.fullmatch(r"\s*[+-]?[0-9]{19,}\s*", name) and not self.knows(name):
            raise self._out_of_range(name.strip())
        if self.labels is None:
            raise FastcamError(
                f"class {shown(repr(name))} cannot be looked up: the file has no class names; give an index, or labels"
            )
        for table in self._names:
            matches = table.get(_key(name), [])
            if len(matches) == 1:
                return matches[0]
            if matches:
                options = ", ".join(f"{index} ({self.labels[index]})" for index in matches[:5])
                raise FastcamError(f"class {name!r} is ambiguous: {options}; give the index")
        raise FastcamError(f"no class {shown(repr(name))}{self._nearest(name)}")

    def _nearest(self, name: str) -> str:
        known = [key for table in reversed(self._names[1:]) for key in table]
        word = re.compile(rf"\b{re.escape(_key(name))}\b")  # "cat" means "tabby cat" rather than "crate"
        near = [*filter(word.search, known), *difflib.get_close_matches(_key(name), known, n=3, cutoff=0.6)]
        close = list(dict.fromkeys(near))[:3]
        if close:
            return f"; did you mean {' or '.join(repr(key) for key in close)}?"
        some = ", ".join(repr(short_label(label)) for label in (self.labels or ())[:4])
        return f"; the model knows {len(self.labels or ())} classes: {some}, ..."


def expression(text: str) -> list[tuple[str, float]] | None:
    """(class, coefficient) of "a - 0.5*b" or "not a"; None where the text is no such thing, but a name."""
    words = re.split(r"\s+([+-])\s+", text.strip())
    negated = re.fullmatch(r"not\s+(\S.*)", words[0], re.IGNORECASE)
    if len(words) == 1 and negated is None and "*" not in text:
        return None
    if negated is not None:
        if len(words) > 1:
            raise FastcamError(f"{text!r} has both not and a sign; not is for one class alone, say 'a - b' otherwise")
        words[0] = negated[1]
    combination = []
    for sign, term in zip(["+", *words[1::2]], words[::2], strict=True):
        factor, name = re.fullmatch(r"(?s)(?:(\d+\.?\d*|\.\d+)\s*\*\s*)?(.*)", term).groups()  # type: ignore[union-attr]
        a = float(factor or 1) * (-1 if (sign == "-") != (negated is not None) else 1)
        if not a or not np.isfinite(np.float32(a)):
            times = "zero times; leave it out" if not a else "more often than a number can say; give a smaller factor"
            raise FastcamError(f"{shown(repr(text))} takes a class {times}")
        combination.append((name.strip(), a))
    return combination


def _rows(targets: Any, images: int) -> list[list[Any]]:
    """One row of targets for every image, or a row for each."""
    if isinstance(targets, np.ndarray):
        targets = targets.tolist()
    if not isinstance(targets, list | tuple):
        return [[targets]]
    nested = [isinstance(entry, list | tuple | np.ndarray) for entry in targets]
    rows = [list(entry) for entry in targets] if targets and all(nested) else [list(targets)]
    if any(nested) and not all(nested):
        raise FastcamError("targets are a list for every image, or one list for each; both were given")
    if targets and all(nested) and len(rows) != images:
        raise FastcamError(f"targets for {len(rows)} images were given, but there are {images}; give one list each")
    if not all(rows):
        raise FastcamError("no targets given; give at least one, -1 is the predicted class")
    return rows


def _key(text: str) -> str:
    """Names are compared without regard to case and spacing."""
    return " ".join(text.casefold().split())
