"""Texts for inputs that hold the ids of words, and the masks and ids that follow from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fastcam.errors import FastcamError, listed, typed
from fastcam.input_roles import TEXTS, FurtherInput
from fastcam.language.tokenizer import Encoded, Tokenizer, unknown_words
from fastcam.runtime.session import warn_once

ARRAYS = (".npy", ".json", ".csv", ".txt")
"""Endings of files that hold an array."""


def is_text(value: Any) -> bool:
    """Whether a value is a text, or a list of texts, and not the name of a file with an array."""
    if isinstance(value, list | tuple):
        return bool(value) and all(map(is_text, value))
    return isinstance(value, str) and not (Path(value).suffix.lower() in ARRAYS and " " not in value.strip())


@dataclass(frozen=True)
class TextInputs:
    """The inputs of a file that hold texts.

    Attributes:
        file: how messages call it.
        values: the further inputs by name, as ONNX Runtime describes them.
        about: what the metadata say of them.
        open: opens the tokenizer, when a text is there.
    """

    file: str
    values: Mapping[str, Any]
    about: tuple[FurtherInput, ...]
    open: Callable[[], Tokenizer]

    @property
    def names(self) -> tuple[str, ...]:
        """The inputs that hold a text."""
        return tuple(one.name for one in self.about if one.role in TEXTS and one.name in self.values)

    @cached_property
    def prompts(self) -> str | None:
        """The input whose texts are the classes, if there is one."""
        found = [one.name for one in self.about if one.role == "prompts" and one.name in self.values]
        return found[0] if len(found) == 1 else None

    def of_all(self, name: str) -> bool:
        """Whether an input is the same for all pictures: prompts, and what follows from them."""
        prompts = {one.name for one in self.about if one.role == "prompts"}
        return name in prompts or any(one.name == name and one.of in prompts for one in self.about)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, opened once.

        Raises:
            FastcamError: there is none, or it cannot be read.
        """
        return self.open()

    def named(self, text: Any) -> dict[str, Any]:
        """``text`` as the value of the input that holds the text.

        Args:
            text: a text, or a list with one for each picture; None is none.

        Raises:
            FastcamError: it is no text, or the file has no input for one, or several.
        """
        if text is None:
            return {}
        each = text if isinstance(text, list | tuple) else [text]
        for one in each:
            typed("text", one, str, "a text, or a list with one for each picture")
        if not each:
            raise FastcamError("text is an empty list; give a text, or one for each picture")
        if not self.names:
            have = listed(map(repr, self.values)) or "none"
            raise FastcamError(
                f"{self.file} takes no text; leave text (--text) out. Its further inputs are {have}; an export with "
                "--role NAME=text says which of them is one"
            )
        if len(self.names) > 1:
            raise FastcamError(
                f"{self.file} takes several texts, {listed(map(repr, self.names))}; give each by its name, "
                f"inputs={{{self.names[0]!r}: ...}} (--input-value {self.names[0]}=...)"
            )
        return {self.names[0]: Written(each)}

    def encoded(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Values of inputs, with ids in place of texts, and what follows from those.

        Args:
            given: by name. What follows from a text (a mask, places, kinds of words) is made of it unless it is given.

        Raises:
            FastcamError: a text that cannot become ids.
        """
        found = dict(given)
        for name in self.names:
            value = given.get(name)
            if not isinstance(value, Written) and not is_text(value):
                continue
            texts: list[str] = [value] if isinstance(value, str) else list(value or ())
            followers = [one for one in self.about if one.of == name and one.name in self.values]
            length = self.values[name].shape[-1]
            masked = any(one.role == "mask" for one in followers)
            encoded = self.tokenizer.encode(texts, length if isinstance(length, int) else None, masked)
            self._warn(encoded)
            made = {name: encoded.ids} | {one.name: following(one, encoded) for one in followers}
            alone = len(texts) == 1 and len(self.values[name].shape) == 1  # without an axis of texts
            found |= {key: rows[0] if alone else rows for key, rows in made.items() if key == name or key not in given}
        return found

    def refuse_range(self, name: str, array: Any) -> None:
        """Raise where an array has ids that the network has no row for."""
        words = next((one.words for one in self.about if one.name == name), None)
        if words is None or array.dtype.kind not in "iu" or not array.size:
            return
        least, most = int(array.min()), int(array.max())
        if least < 0 or most >= words:
            raise FastcamError(
                f"input {name!r} of {self.file} has ids from {least} to {most}, and the network knows 0 to "
                f"{words - 1}; give the ids, or the tokenizer, that it was trained with"
            )

    def _warn(self, encoded: Encoded) -> None:
        if encoded.cut:
            warn_once(f"{self.file}: a text was cut to the {self.tokenizer.most} tokens that its tokenizer keeps")
        if encoded.unknown:
            warn_once(f"{self.file}: {unknown_words(encoded)}")


class Written(list[str]):
    """Texts that a caller gave as such, whatever they look like."""


def following(about: FurtherInput, encoded: Encoded) -> Any:
    """What an input that follows from a text holds: its mask, or places or kinds of its words, [N, L]."""
    if about.role == "mask":
        return encoded.mask
    if "position" in about.name.lower():
        return np.maximum(np.cumsum(encoded.mask, 1) - 1, 0)
    return encoded.types
