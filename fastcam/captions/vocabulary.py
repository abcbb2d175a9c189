"""The words of a captioner: numbers to text and back, by a plain list of words or by a tokenizer."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fastcam.captioning import Captioning
from fastcam.errors import FastcamError, shown
from fastcam.labels import Labels, read_labels
from fastcam.language.tokenizer import Tokenizer, open_tokenizer, read_tokenizer
from fastcam.schema import Metadata


class Vocabulary(Protocol):
    """Words as numbers, and texts of them."""

    def word(self, token: int) -> str:
        """One word, for people."""

    def text(self, tokens: Sequence[int]) -> str:
        """A caption."""

    def tokens(self, text: str) -> list[int]:
        """The numbers of a caption's words, without those that begin and end it.

        Raises:
            FastcamError: no words, or one that the vocabulary does not have.
        """


def vocabulary_of(
    metadata: Metadata, words: Labels | None, tokenizer: str | Path | None, folder: Path | None, name: str
) -> Vocabulary:
    """What a caller gives, else the file's.

    Args:
        metadata: of a captioner.
        words, tokenizer: the caller's.
        folder: where the file lies, and its tokenizer beside it; None of one that is bytes.
        name: how messages call the file.

    Raises:
        FastcamError: there is none, or it lacks words that begin and end a caption.
    """
    about = metadata.captioning
    assert about is not None
    if words is not None and tokenizer is not None:
        raise FastcamError("words and a tokenizer were both given; give one of them (--labels or --tokenizer)")
    if tokenizer is not None:
        return Pieces(read_tokenizer(tokenizer), about)
    if words is None and metadata.tokenizer is not None:
        return Pieces(open_tokenizer(metadata.tokenizer, folder, name), about)
    known = about.vocabulary if words is None else read_labels(words, None)
    if not known:
        raise FastcamError(f"{name} does not say its words; give them (--labels words.txt or --tokenizer)")
    most = max(about.start, about.end)
    if most >= len(known):
        raise FastcamError(f"{len(known)} words, and the captions of {name} need word {most}; give all words")
    return Words(known)


@dataclass(frozen=True)
class Words:
    """Words by number, with blanks between them in a text."""

    words: tuple[str, ...]

    def word(self, token: int) -> str:
        return self.words[token] if token < len(self.words) else f"?{token}"

    def text(self, tokens: Sequence[int]) -> str:
        return " ".join(map(self.word, tokens))

    def tokens(self, text: str) -> list[int]:
        said = text.split()
        for word in said:
            if word not in self.words:
                near = difflib.get_close_matches(word, self.words, 1, 0.5)
                hint = f"; the nearest is {near[0]!r}" if near else ""
                raise FastcamError(f"the captioner has no word {shown(repr(word))}{hint}")
        return [self.words.index(word) for word in _some(said)]


@dataclass(frozen=True, eq=False)
class Pieces:
    """Pieces of words, as a tokenizer splits texts."""

    tokenizer: Tokenizer
    about: Captioning

    def word(self, token: int) -> str:
        return self.tokenizer.decode([token]).strip() or self.tokenizer.words([token])[0]

    def text(self, tokens: Sequence[int]) -> str:
        return self.tokenizer.decode(tokens).strip()

    def tokens(self, text: str) -> list[int]:
        _some(text.split())
        found = self.tokenizer.encode([text])
        if found.unknown:
            raise FastcamError(f"{self.tokenizer.name} has no word {shown(repr(found.unknown[0]))}")
        ids = [int(one) for one, counts in zip(found.ids[0], found.mask[0], strict=True) if counts]
        first, last = int(ids[0] == self.about.start), len(ids) - int(ids[-1] == self.about.end)
        return ids[first:last]


def _some(said: list[str]) -> list[str]:
    if not said:
        raise FastcamError("the caption is empty; give at least one word")
    return said
