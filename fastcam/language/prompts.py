"""Prompts as classes: a label file of prompts, or a list, or a dict from the name of each to its text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from fastcam import input_files
from fastcam.errors import FastcamError, shown, typed
from fastcam.typed_fields import parse_json

Prompts: TypeAlias = "str | Path | Sequence[str] | Mapping[str, str]"
WANTED = "give a text file with a prompt a line, or NAME<tab>PROMPT, or JSON"
MOST = 20_000
"""Prompts of a file, at most."""


def read_prompts(source: Prompts) -> dict[str, str]:
    """The prompts by name, in order.

    Args:
        source: a file with one prompt a line, which is its own name, or a name, a tab and the prompt; a .json file with
            a list of prompts or an object of them by name; or such a list or dict.

    Raises:
        FastcamError: it cannot be read, has no prompts, or two of one name.
    """
    typed("prompts", source, str | Path | list | tuple | Mapping, "a file of prompts, a list of them, or a dict")
    if isinstance(source, str | Path):
        where = f"{shown(source)}: "
        text = input_files.read_text(source, WANTED)
        if Path(source).suffix.lower() == ".json":
            try:
                said = parse_json(text)
            except ValueError as error:
                raise FastcamError(f"{where}no JSON ({error}); {WANTED}") from error
            return _named(said, where)
        lines = [line.strip("\r") for line in text.split("\n") if line.strip()]
        pairs = [line.split("\t", 1) if "\t" in line else [line, line] for line in lines]
        return _unique([(name.strip(), prompt.strip()) for name, prompt in pairs], where)
    return _named(source, "")


def _named(source: object, where: str) -> dict[str, str]:
    each = list(source.items()) if isinstance(source, Mapping) else None
    if isinstance(source, list | tuple):
        each = [(prompt, prompt) for prompt in source]
    if each is None or not all(isinstance(part, str) for pair in each for part in pair):
        raise FastcamError(f"{where}prompts are texts; {WANTED}")
    return _unique([(name.strip(), prompt.strip()) for name, prompt in each], where)


def _unique(pairs: Sequence[tuple[str, str]], where: str) -> dict[str, str]:
    found = dict(pairs)
    if not pairs or not all(name and prompt for name, prompt in pairs):
        raise FastcamError(f"{where}{'a prompt has no text' if pairs else 'there are no prompts'}; {WANTED}")
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise FastcamError(f"{where}the prompt {shown(repr(twice))} is there twice; give each name once")
    if len(found) > MOST:
        raise FastcamError(f"{where}{len(found)} prompts are more than the {MOST} that are read; give fewer")
    return found
