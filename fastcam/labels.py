"""Class names in every form that people keep them in, by index. The exporter reads them by the same functions.

A text file with one name per line, numbered or not; a list; a dict of numbers to names ({0: "cat"}, as Ultralytics'
``names``; {"0": "cat"}, as JSON has it) or of names to numbers; JSON or YAML that holds one of these, also under
``names`` (Ultralytics) or ``id2label`` (config.json of Hugging Face); the text of a Python dict or list.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from fastcam.errors import FastcamError, shown
from fastcam.input_files import read_text

WORDNET = re.compile(r"^(n\d{8})\s+(?=\S)")
"""The identifier in front of ImageNet's class names."""
KEYS = ("names", "id2label", "classes", "labels", "class_names", "label2id", "categories", "thing_classes")
"""Where files of several kinds keep their class names."""
NUMBERED = re.compile(r"(\d+)(?:\s*[:,;=]\s*|\s+)(?=\S)")
"""How a line "0: cat", "0 cat" or "0,cat" begins."""
YAML = 1 << 20
"""Letters of YAML that are read, at most."""
PYTHON, PARTS = 4 << 20, 1 << 17
"""Letters of Python's dicts and lists that are read, at most, and parts of them, or of YAML: each takes half a
kilobyte, or a ten-thousandth of a second."""
Labels: TypeAlias = "str | Path | Sequence[str] | Mapping[Any, Any]"
"""A file, or the names themselves."""


def short_label(label: str) -> str:
    """The first name in a label: "n02123045 tabby, tabby cat" -> "tabby"."""
    return WORDNET.sub("", label.strip()).split(",")[0].strip()


def read_labels(source: Labels, classes: int | None) -> tuple[str, ...]:
    """Class names by index, from a file, a list or a dict, see the module.

    Args:
        source: a UTF-8 file, with or without a byte order mark; of one with a name per line, empty lines at its end do
            not count. Or the names: a sequence by index, or a dict from index to name or from name to index.
        classes: how many there must be; None where the model does not say.

    Raises:
        FastcamError: the file cannot be read or holds no names, numbers have gaps, or the number of names is not the
            model's number of classes.
    """
    if isinstance(source, str | Path):
        labels = _of_file(Path(source))
    else:
        labels = names_by_index(source, "the labels")
    if classes is not None and len(labels) != classes:
        raise FastcamError(f"{len(labels)} labels do not fit a model with {classes} classes; give one label per class")
    if not labels:
        where = source if isinstance(source, str | Path) else "the labels"
        raise FastcamError(f"{where}: no names; give one per class")
    return labels


def names_in(text: str) -> tuple[str, ...] | None:
    """The class names in a text of a model's metadata: JSON, a Python dict or list, one a line, or between commas.

    None where it holds none.
    """
    try:
        found = _literal(text)
        if found is not None:
            return _names(found, "the text")
    except FastcamError:
        return None
    lines = tuple(line.strip("\r") for line in text.split("\n"))
    lines = lines[:-1] if lines[-1] == "" else lines
    return lines if len(lines) > 1 else tuple(part.strip() for part in text.split(",")) if "," in text else None


def names_by_index(names: Any, what: str) -> tuple[str, ...]:
    """The names of a list or a dict, in the order of their numbers.

    Args:
        names: a sequence by index; or a dict from index (a number, or its digits) to name, or from name to index.
        what: how messages call it.

    Raises:
        FastcamError: it is none of these, or the numbers do not run from 0 without a gap.
    """
    if not isinstance(names, Mapping):
        if not isinstance(names, Iterable) or isinstance(names, str | bytes | set | frozenset):
            raise FastcamError(f"{what} are {type(names).__name__}; give a list of names, or a dict from index to name")
        names = list(names)
        pairs = _pairs(names)
        if pairs is None:
            return tuple(_name(name) for name in names)
        names = pairs
    numbered = {_number(key): _name(name) for key, name in names.items()}
    if None in numbered:
        numbered = {_number(number): _name(name) for name, number in names.items()}
    if None in numbered or len(numbered) != len(names):
        raise FastcamError(f"{what} are a dict, but its keys are no class numbers; give a dict from index to name")
    missing = next((i for i in range(len(numbered)) if i not in numbered), None)
    if missing is not None:
        raise FastcamError(f"{what} have {len(numbered)} names, but none for class {missing}; numbers run from 0 on")
    return tuple(numbered[i] for i in range(len(numbered)))


def _pairs(names: Sequence[Any]) -> dict[Any, Any] | None:
    """The names of a list of numbers with names, or of dicts with ``name`` and ``id``; None of other lists."""
    if names and all(isinstance(one, Mapping) and "name" in one for one in names):
        return {one.get("id", i): one["name"] for i, one in enumerate(names)}
    if names and all(isinstance(one, list | tuple) and len(one) == 2 for one in names):
        numbers = [_number(one[0]) for one in names]
        if None not in numbers and sorted(numbers) == list(range(len(names))):  # type: ignore[type-var]
            return dict(names)
    return None


# ---- files


def _of_file(path: Path) -> tuple[str, ...]:
    text = read_text(path, "give one class name per line")
    found = _literal(text)
    if found is None and path.suffix.lower() in (".yaml", ".yml"):
        if len(text) > YAML or 2 * sum(map(text.count, ",:\n")) > PARTS:
            raise FastcamError(f"{shown(path)}: YAML longer than for {PARTS // 4:,} classes; write one name per line")
        found = _yaml(text)
        if not isinstance(found, dict | list):
            raise FastcamError(f"{path}: no valid YAML with class names; they are a list, or numbered, under names")
    if found is not None:
        return _names(found, str(path))
    if re.match(r"\s*item\s*\{", text):
        raise FastcamError(f"{path}: a label map of TensorFlow, which is not read; write one class name per line")
    if path.suffix.lower() == ".json":
        raise FastcamError(f"{path}: no valid JSON; give a list of names, or a dict from index to name")
    return _lines(text)


def _lines(text: str) -> tuple[str, ...]:
    """One name per line. Where every line begins with its own number, that is not a part of the name."""
    lines = [line.strip() for line in text.rstrip().splitlines()]
    for numbered in (lines, lines[1:]):  # a table may have a head
        matches = [NUMBERED.match(line) for line in numbered]
        if len(matches) > 1 and all(match and _number(match[1]) == i for i, match in enumerate(matches)):
            rest = (line[match.end() :] for line, match in zip(numbered, matches, strict=True) if match)
            return tuple(_unquoted(name.removesuffix(",").rstrip()) for name in rest)
    return tuple(lines)


def _names(found: Any, what: str) -> tuple[str, ...]:
    """The names in what a JSON, YAML or Python text holds."""
    while isinstance(found, Mapping):
        key = next((key for key in KEYS if isinstance(found.get(key), Mapping | list | tuple)), None)
        if key is not None:
            found = found[key]
            continue
        if not found or isinstance(next(iter(found.values())), Mapping):
            raise FastcamError(f"{what}: no class names in it; they are a list, or stand under names or id2label")
        break
    return names_by_index(found, what)


def _literal(text: str) -> Any:
    """A list or dict that is all of a text, as JSON or as Python, with ``names =`` in front or not; else None."""
    text = re.sub(r"^\s*\w+\s*=\s*(?=[\[{])", "", text).strip()
    if not text.startswith(("{", "[")):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    if len(text) > PYTHON or sum(map(text.count, ",:([{+-*/")) > PARTS:
        return None
    try:
        found = ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):  # TypeError: a dict as a key
        return None
    return found if isinstance(found, dict | list | tuple) else None


def _yaml(text: str) -> Any:
    """What a YAML file holds, each scalar as the text that it is: a class may be called "no"."""
    import yaml

    try:
        return yaml.load(text, Loader=yaml.BaseLoader)  # which makes texts, lists and dicts, and nothing else
    except (yaml.YAMLError, ValueError, RecursionError):
        return None


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def _number(key: Any) -> int | None:
    """A class number, or its digits."""
    if isinstance(key, bool):
        return None
    if isinstance(key, str):
        digits = re.fullmatch(r"\s*(\d{1,9})\s*", key)  # of what counts as a space int() takes only a part
        return int(digits[1]) if digits else None
    number = getattr(key, "__index__", None)
    return int(number()) if number is not None else None


def _name(name: Any) -> str:
    """A name; several of one class ("n01440764", "tench") are one text."""
    if name is None:
        raise FastcamError("a class has no name (None); give one name per class")
    if isinstance(name, bytes):
        return name.decode(errors="replace")
    parts = name if isinstance(name, list | tuple) else [name]
    if any(isinstance(part, Mapping | list | tuple | set | frozenset) for part in parts):  # of YAML it may be endless
        raise FastcamError("a class name is a list or a dict itself; give one text per class")
    return " ".join(map(str, parts))
