"""Files of class names: text, JSON, YAML, Python dicts, and the texts of a model's metadata."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastcam.errors import FastcamError
from fastcam.labels import names_in, read_labels
from fastcam_bench.fuzz import WrongAnswer

NAME = "Label files"
SUFFIXES = (".txt", ".json", ".yaml", ".names")
"""The first byte of an input chooses one; the second how many classes the model has."""
PIECES = [
    b"names:",
    b"0: cat\n",
    b"{0: 'cat'}",
    b"[",
    b"]",
    b"{",
    b"}",
    b"'",
    b'"',
    b"\n",
    b": ",
    b"- ",
    b"&a ",
    b"*a ",
    b"<<: ",
]
PIECES += [
    b"!!python/object:os.system ",
    b"1e999",
    b"NaN",
    b"null",
    b"\\ud800",
    b"\xff",
    b"\0",
    b"item {",
    b"-1",
    b"9" * 30,
]


def seeds() -> list[bytes]:
    """Every form of the documents, each behind its two bytes."""
    texts = {
        0: ["cat\ndog\n", "0: cat\n1: dog\n", "0,cat\n1,dog\n", "n01440764 tench, Tinca\nn01443537 goldfish\n", "cat"],
        1: ['["cat", "dog"]', '{"0": "cat", "1": "dog"}', '{"id2label": {"0": "cat"}}', '{"cat": 0, "dog": 1}'],
        2: [
            "names:\n  0: cat\n  1: dog\n",
            "names: [cat, dog]\n",
            "- cat\n- dog\n",
            "categories:\n- {id: 0, name: a}\n",
        ],
        3: [
            "{0: 'cat', 1: 'dog'}",
            "names = ['cat', 'dog']",
            '[["n0", "tench"], ["n1", "fish"]]',
            '[[0, "a"], [1, "b"]]',
        ],
    }
    texts[2].append("a: &a [x, x, x, x]\nb: &b [*a, *a, *a, *a]\nnames: [*b, *b]\n")  # grows as one writes more lines
    return [bytes([kind, 0]) + text.encode() for kind, some in texts.items() for text in some]


def mutate(data: bytes, random: np.random.Generator) -> bytes:
    """A piece of one of the languages, once or often, put in anywhere."""
    at = int(random.integers(0, len(data) + 1))
    piece = PIECES[int(random.integers(len(PIECES)))] * int(random.choice([1, 1, 1, 2, 50, 2000]))
    return data[:at] + piece + data[at + int(random.integers(0, 4)) :]


def attempt(data: bytes) -> str:
    """Read as a file, and as a text of the metadata; each name is a text, and there are as many as there must be."""
    kind, count, text = data[:1], data[1:2], data[2:]
    path = Path("labels").with_suffix(SUFFIXES[(kind or b"\0")[0] % len(SUFFIXES)])
    path.write_bytes(text)
    classes = (count or b"\0")[0] or None
    found = names_in(text.decode(errors="replace"))
    if found is not None and not all(type(name) is str for name in found):
        raise WrongAnswer(f"names that are no texts: {found!r}")
    try:
        names = read_labels(path, classes)
    except FastcamError as error:
        if "\n" in str(error):
            raise WrongAnswer(f"a message of several lines: {error}") from error
        raise
    if not names or not all(type(name) is str for name in names) or classes not in (None, len(names)):
        raise WrongAnswer(f"{len(names)} names for {classes} classes: {names!r}")
    return "accepted"
