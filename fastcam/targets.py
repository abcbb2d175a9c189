"""What to explain: class indices, ranks and class names -> the int64 tensor ``fastcam.targets``."""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam.schema import FastcamError

_WORDNET = re.compile(r"^(n\d{8})\s+(?=\S)")


def short_label(label: str) -> str:
    """The first name in a label: "n02123045 tabby, tabby cat" -> "tabby"."""
    return _WORDNET.sub("", label.strip()).split(",")[0].strip()


def read_labels(source: str | Path | Sequence[str], classes: int | None) -> tuple[str, ...]:
    """Class names by index, from a file with one per line or from a sequence.

    Raises:
        FastcamError: the file cannot be read, or their number is not the model's number of classes.
    """
    if isinstance(source, str | Path):
        try:
            lines = Path(source).read_text(encoding="utf-8-sig").rstrip().splitlines()
        except OSError as error:
            raise FastcamError(f"{source}: cannot be read ({error.strerror}); give one class name per line") from error
        except UnicodeDecodeError as error:
            raise FastcamError(f"{source}: not UTF-8 text; give one class name per line") from error
        labels = tuple(line.strip() for line in lines)
    else:
        labels = tuple(str(label) for label in source)
    if classes is not None and len(labels) != classes:
        raise FastcamError(f"{len(labels)} labels do not fit a model with {classes} classes; give one label per class")
    return labels


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
            bare = _WORDNET.sub("", label.strip())
            identifier = label.strip()[:9] if bare != label.strip() else ""
            parts = {_key(part) for part in (*bare.split(","), identifier)} - {""}
            self._names[0][_key(label)].append(index)
            self._names[1][_key(bare)].append(index)
            for part in parts:
                self._names[2][part].append(index)

    def resolve(self, targets: Any, images: int) -> NDArray[np.int64]:
        """``targets`` as int64 [1, T] (the same for every image) or [images, T].

        Args:
            targets: a class index >= 0, a rank -r (the class with the r-th highest score of each image), a class
                name, a list of those for every image, or a list with one such list per image, all of one length.

        Raises:
            FastcamError: out of range, an unknown or ambiguous name, lists of different lengths.
        """
        if isinstance(targets, np.ndarray):
            targets = targets.tolist()
        if isinstance(targets, str) or not isinstance(targets, list | tuple):
            return np.array([[self.one(targets)]], np.int64)
        if not any(isinstance(entry, list | tuple | np.ndarray) for entry in targets):
            return np.array([[self.one(entry) for entry in targets]], np.int64).reshape(1, _count(len(targets)))
        rows = [list(entry) if isinstance(entry, list | tuple | np.ndarray) else None for entry in targets]
        if len(rows) != images:
            raise FastcamError(f"targets for {len(rows)} images were given, but there are {images}; give one list each")
        lengths = {-1 if row is None else len(row) for row in rows}
        if len(lengths) > 1 or -1 in lengths:
            raise FastcamError("targets per image must be lists of the same length; repeat one to fill a shorter list")
        return np.array([[self.one(entry) for entry in row or ()] for row in rows], np.int64).reshape(
            images, _count(lengths.pop())
        )

    def one(self, target: Any) -> int:
        """One target as the number that goes into ``fastcam.targets``."""
        if isinstance(target, str):
            return self._by_name(target)
        if isinstance(target, bool | np.bool_) or not isinstance(target, int | np.integer):
            raise FastcamError(f"a target must be a class index, a rank -1, -2, ... or a class name, got {target!r}")
        index, classes = int(target), self.classes
        if classes is not None and not -classes <= index < classes:
            raise FastcamError(
                f"class {index} is out of range: the model has {classes} classes, 0 to {classes - 1}, "
                f"or -1 to -{classes} by rank"
            )
        return index

    def _by_name(self, name: str) -> int:
        if self.labels is None:
            raise FastcamError(
                f"class {name!r} cannot be looked up: the file has no class names; give an index, or labels"
            )
        for table in self._names:
            found = table.get(_key(name), [])
            if len(found) == 1:
                return found[0]
            if found:
                options = ", ".join(f"{index} ({self.labels[index]})" for index in found[:5])
                raise FastcamError(f"class {name!r} is ambiguous: {options}; give the index")
        raise FastcamError(f"no class {name!r}{self._nearest(name)}")

    def _nearest(self, name: str) -> str:
        known = [key for table in reversed(self._names[1:]) for key in table]
        word = re.compile(rf"\b{re.escape(_key(name))}\b")  # "cat" means "tabby cat" rather than "crate"
        near = [*filter(word.search, known), *difflib.get_close_matches(_key(name), known, n=3, cutoff=0.6)]
        close = list(dict.fromkeys(near))[:3]
        if close:
            return f"; did you mean {' or '.join(repr(key) for key in close)}?"
        some = ", ".join(repr(short_label(label)) for label in (self.labels or ())[:4])
        return f"; the model knows {len(self.labels or ())} classes: {some}, ..."


def _key(text: str) -> str:
    """Names are compared without regard to case and spacing."""
    return " ".join(text.casefold().split())


def _count(targets: int) -> int:
    if targets < 1:
        raise FastcamError("no targets given; give at least one, -1 is the predicted class")
    return targets
