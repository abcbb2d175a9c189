"""The words of a captioner: numbers to text and back, by a plain list of words."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from fastcam.captioning import Captioning
from fastcam.errors import FastcamError, shown
from fastcam.labels import Labels, read_labels


@dataclass(frozen=True)
class Vocabulary:
    """Words by number, with blanks between them in a text."""

    words: tuple[str, ...]

    @staticmethod
    def of(given: Labels | None, about: Captioning, name: str) -> Vocabulary:
        """That which a caller gives, else the file's.

        Raises:
            FastcamError: there is none.
        """
        words = about.vocabulary if given is None else read_labels(given, None)
        if not words:
            raise FastcamError(f"{name} does not say its words; give them with vocabulary (--labels words.txt)")
        most = max(about.start, about.end)
        if most >= len(words):
            raise FastcamError(f"{len(words)} words, and the captions of {name} need word {most}; give all words")
        return Vocabulary(words)

    def word(self, token: int) -> str:
        """One word; "?12" where the list has none for the number."""
        return self.words[token] if token < len(self.words) else f"?{token}"

    def text(self, tokens: Sequence[int]) -> str:
        """A caption."""
        return " ".join(map(self.word, tokens))

    def tokens(self, text: str) -> list[int]:
        """The numbers of a caption's words.

        Raises:
            FastcamError: no words, or one that the list does not have.
        """
        said = text.split()
        for word in said:
            if word not in self.words:
                near = difflib.get_close_matches(word, self.words, 1, 0.5)
                hint = f"; the nearest is {near[0]!r}" if near else ""
                raise FastcamError(f"the captioner has no word {shown(repr(word))}{hint}")
        if not said:
            raise FastcamError("the caption is empty; give at least one word")
        return [self.words.index(word) for word in said]
