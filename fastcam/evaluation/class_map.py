"""From a data set's labels to a model's classes, by a file or by names; what the labels do not say is not guessed."""

from __future__ import annotations

import difflib
import json
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastcam.errors import FastcamError, listed, shown
from fastcam.input_files import read_text
from fastcam.labels import WORDNET
from fastcam.schema import Metadata

SYNSET = re.compile(r"n\d{8}(?=\s|$)")
"""A WordNet identifier at a label's beginning."""
BACKGROUND = ("background", "__background__", "dummy", "none")
"""What class 0 is called where it stands for nothing."""
WANTED = "give JSON or YAML of label: class index, name, WordNet id, or a list of these"


@dataclass(frozen=True)
class ClassMap:
    """Which of a model's classes each label stands for.

    Attributes:
        by_label: the classes, of mapped labels alone.
        unmapped: the other labels, in the data set's order.
        how: how it was found, for people: "by WordNet ids".
    """

    by_label: Mapping[str, frozenset[int]]
    unmapped: tuple[str, ...]
    how: str

    def __str__(self) -> str:
        """How many labels the model knows, and which it does not."""
        count, total = len(self.by_label), len(self.by_label) + len(self.unmapped)
        unknown = f"; unknown: {listed(self.unmapped)}" if self.unmapped else ""
        return f"{count} of {total} labels are known, {self.how}{unknown}"


def class_map(
    labels: Sequence[str], model: Metadata, file: str | Path | None = None, offset: int | None = None
) -> ClassMap:
    """Map a data set's labels to a model's classes.

    Without a file labels are compared by WordNet id where both sides have them; else by any name of a label ("tabby,
    tabby cat" has two), where exactly one class has it; a data set of as many WordNet ids as the model has classes is
    in their sorted order, as ILSVRC is.

    Args:
        labels: of the data set.
        model: of the exported file.
        file: JSON or YAML of label: class index, name, WordNet id, or a list of these. Null and an empty list map
            nothing.
        offset: what is added to the indices of a file, or to the places of sorted WordNet ids: 1 for a model whose
            class 0 is a background and whose classes follow. None: 0, or 1 where the model's labels say so.

    Raises:
        FastcamError: the file cannot be read or names no class of the model, no label is mapped, or it cannot be known
            whether the model has a background class.
    """
    if offset is not None and (isinstance(offset, bool) or not isinstance(offset, int) or abs(offset) > 2**31):
        raise FastcamError(f"the offset of classes is {offset!r}; give a whole number, such as 1")
    if not labels:  # of questions without answers
        return ClassMap({}, (), "as the data set has none")
    names = _Names(model)
    if file is not None:
        found, how = _of_file(labels, names, Path(file), offset), f"by {Path(file).name}"
    else:
        found, how = _automatic(labels, names, offset)
    by_label = {label: frozenset(found[label]) for label in labels if found.get(label)}
    unmapped = tuple(label for label in labels if label not in by_label)
    if not by_label:
        raise FastcamError(
            f"no label of the data set is a class of the model (labels: {listed(labels, 5)}; classes: "
            f"{listed(names.labels or (), 5) or 'without names'}); give a mapping file, or the model's labels"
        )
    return ClassMap(by_label, unmapped, how)


class _Names:
    """The classes of a model by everything that they are called."""

    def __init__(self, model: Metadata) -> None:
        self.labels = model.labels
        self.count = model.score.classes if model.labels is None else len(model.labels)
        self.by_synset: dict[str, list[int]] = defaultdict(list)
        self.by_name: dict[str, list[int]] = defaultdict(list)
        self.by_label: dict[str, list[int]] = defaultdict(list)
        for index, label in enumerate(model.labels or ()):
            synset = SYNSET.match(label.strip())
            if synset:
                self.by_synset[synset[0]].append(index)
            self.by_label[_plain(label)].append(index)
            for name in set(_names(label)):
                self.by_name[name].append(index)

    @property
    def background(self) -> bool:
        """Whether class 0 is called a background."""
        return self.labels is not None and _plain(self.labels[0]) in BACKGROUND

    def called(self, text: str) -> list[int]:
        """The classes that a text means: of its WordNet id, of the whole label, or of one of its names."""
        synset = SYNSET.match(text.strip())
        if synset and synset[0] in self.by_synset:
            return self.by_synset[synset[0]]
        whole = self.by_label.get(_plain(text), [])
        return whole or sorted({index for name in _names(text) for index in self.by_name.get(name, [])})


def _plain(text: str) -> str:
    """A label as it is compared: without its WordNet id, in lower case, words with one space between."""
    return " ".join(re.sub(r"[\s_\-]+", " ", WORDNET.sub("", text.strip())).casefold().split())


def _names(label: str) -> list[str]:
    return [name for name in map(_plain, label.split(",")) if name]


# ---- without a file


def _automatic(labels: Sequence[str], names: _Names, offset: int | None) -> tuple[dict[str, Collection[int]], str]:
    synsets = {label: match[0] for label in labels if (match := SYNSET.match(label))}
    if synsets and names.by_synset:
        return {label: names.by_synset.get(synset, []) for label, synset in synsets.items()}, "by WordNet ids"
    if synsets and len(synsets) == len(labels) == len(set(synsets.values())):
        found = _sorted_places(synsets, names, offset)
        if found is not None:
            return found, "by the sorted order of WordNet ids"
    found = {label: names.called(label) for label in labels}
    return {label: classes if len(classes) == 1 else [] for label, classes in found.items()}, "by names"


def _sorted_places(synsets: Mapping[str, str], names: _Names, offset: int | None) -> dict[str, Collection[int]] | None:
    """Classes in the sorted order of all WordNet ids; None where their number is not the model's.

    Raises:
        FastcamError: it is one less, and nothing says that class 0 is a background; or names disagree.
    """
    count = names.count
    if count is None or count not in (len(synsets), len(synsets) + 1):
        return None
    if offset is None and count == len(synsets) + 1 and not names.background:
        raise FastcamError(
            f"the model has {count} classes and the data set {len(synsets)}; if class 0 is a background, say offset 1 "
            "(--offset), else give the model's labels or a mapping file"
        )
    shift = count - len(synsets) if offset is None else offset
    found = {label: [place + shift] for place, label in enumerate(sorted(synsets, key=lambda one: synsets[one]))}
    if any(not 0 <= places[0] < count for places in found.values()):
        raise FastcamError(f"an offset of {shift} leads out of the model's {count} classes; say another")
    named = [label for label in found if _plain(label) and names.labels is not None and _names(SYNSET.sub("", label))]
    known = [label for label in named if names.called(SYNSET.sub("", label))]
    wrong = [label for label in known if found[label][0] not in names.called(SYNSET.sub("", label))]
    if len(wrong) > len(known) // 10:
        raise FastcamError(
            f"the model's classes are not in the order of WordNet ids ({listed(wrong, 3)} stand elsewhere); give a "
            "mapping file"
        )
    return dict(found)


# ---- a file


def _of_file(labels: Sequence[str], names: _Names, file: Path, offset: int | None) -> dict[str, Collection[int]]:
    raw = {str(key): value for key, value in _mapping(file).items()}
    asked = {label: _key(raw, label) for label in labels}
    wanted = {label: _list(raw[key]) for label, key in asked.items() if key is not None}
    if not wanted:
        raise FastcamError(
            f"{shown(file)}: none of its labels is one of the data set's ({listed(labels, 5)}); {WANTED}"
        )
    if any(isinstance(one, bool) or not isinstance(one, int | str) for each in wanted.values() for one in each):
        raise FastcamError(f"{shown(file)}: what it maps to is no index or name; {WANTED}")
    shift = offset
    if shift is None:
        shift = (
            _shift(wanted, names, file) if any(isinstance(one, int) for each in wanted.values() for one in each) else 0
        )
    return {
        label: {index for one in each for index in _classes(one, label, names, shift, file)}
        for label, each in wanted.items()
    }


def _classes(one: int | str, label: str, names: _Names, shift: int, file: Path) -> list[int]:
    """The classes of one entry of a file."""
    if isinstance(one, int):
        if one + shift < 0 or (names.count is not None and one + shift >= names.count):
            raise FastcamError(f"{shown(file)}: {label} is class {one}, but the model has {names.count}")
        return [one + shift]
    found = names.called(one)
    if not found:
        close = difflib.get_close_matches(_plain(one), names.by_name, 3)
        hint = f"; close to it: {', '.join(close)}" if close else ""
        raise FastcamError(f"{shown(file)}: {label} is {one!r}, which is no class of the model{hint}")
    if len(found) > 1 and not SYNSET.match(one):
        raise FastcamError(f"{shown(file)}: {label} is {one!r}, which are classes {listed(found)}; give indices")
    return found


def _shift(wanted: Mapping[str, list[Any]], names: _Names, file: Path) -> int:
    """Whether a file's indices count a background class: what more of the labels that both sides know agree with.

    Raises:
        FastcamError: the model may have one, and no label tells.
    """
    if names.labels is not None and not names.background:
        return 0
    if names.labels is None and names.count != 1001:
        return 0
    hits = [0, 0]
    for label, each in wanted.items():
        known = set(names.called(label))
        for shift in (0, 1):
            hits[shift] += bool(known & {one + shift for one in each if isinstance(one, int)})
    if hits[0] == hits[1]:
        raise FastcamError(
            f"{shown(file)}: whether its indices count the model's background class 0 cannot be told; say offset 1 "
            "where they do not, 0 where they do (--offset)"
        )
    return int(hits[1] > hits[0])


def _key(raw: Mapping[str, Any], label: str) -> str | None:
    """The file's word for a label: itself, its WordNet id, or one of its names, in any case."""
    synset = SYNSET.match(label)
    for key in (label, synset[0] if synset else label):
        if key in raw:
            return key
    plain = {_plain(key): key for key in raw}
    return next((plain[name] for name in (_plain(label), *_names(label)) if name in plain), None)


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [] if value is None else [value]


def _mapping(file: Path) -> Mapping[Any, Any]:
    text = read_text(file, WANTED, 1 << 20)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None if file.suffix.lower() == ".json" else _yaml(text)
    if not isinstance(found, Mapping):
        raise FastcamError(f"{shown(file)}: no mapping in it; {WANTED}")
    return found


def _yaml(text: str) -> Any:
    """A file of YAML, without aliases, by which a short one becomes endless."""
    import yaml

    try:
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            return None
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
