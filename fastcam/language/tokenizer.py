"""Texts to ids and masks, by a ``tokenizer.json`` of the library ``tokenizers``.

The file holds the rules: how a text is split, which words begin and end it, how long it may be, and with what it is
filled up. :mod:`fastcam.language.word_level` writes such a file for a network with a plain list of words.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam import input_files
from fastcam.errors import FastcamError, listed, shown, typed
from fastcam.input_roles import TokenizerFile
from fastcam.language.padding_rule import CONFIG, with_rule

WANTED = "give a tokenizer.json, as the library tokenizers writes it"
PADDING = ("[PAD]", "<pad>", "<PAD>", "<|pad|>", "<|endoftext|>", "</s>")
"""Words that fill up a text where the file has no rule for it, as tokenizers of known networks call them."""
MASKS = ("[MASK]", "<mask>", "<MASK>")
"""Words that stand for a hidden one, likewise."""


@dataclass(frozen=True, eq=False)
class Encoded:
    """Texts as a network takes them.

    Attributes:
        ids: int64 [N, L], the words of each text.
        mask: int64 [N, L], 1 where there is a word of the text and 0 where it is filled up.
        types: int64 [N, L], the kind of each word, 0 for all words of a single text.
        unknown: pieces of the texts that the vocabulary does not have, each once.
        cut: how many texts were cut to the length that the tokenizer's own rule allows.
    """

    ids: NDArray[np.int64]
    mask: NDArray[np.int64]
    types: NDArray[np.int64]
    unknown: tuple[str, ...] = ()
    cut: int = 0


class Tokenizer:
    """A tokenizer, safe to share between threads.

    Args:
        content: the text of a ``tokenizer.json``.
        name: how messages call it.

    Raises:
        FastcamError: it is none, or the library ``tokenizers`` is not installed.
    """

    def __init__(self, content: str, name: str = "the tokenizer") -> None:
        try:
            import tokenizers
        except ImportError as error:
            raise FastcamError(
                f"texts need the library tokenizers ({error}); run: pip install fastcam[language], or give the ids"
            ) from error
        self.name, self.content = name, content
        try:
            self._rules: Any = tokenizers.Tokenizer.from_str(content)
        except Exception as error:  # of the library, which has no class of its own for it
            raise FastcamError(f"{name}: not a tokenizer ({' '.join(str(error).split())}); {WANTED}") from error
        self._padding: dict[str, Any] | None = self._rules.padding
        self._rules.no_padding()  # done below, where the length of the input is known
        self._unknown = _unknown_id(self._rules)

    @property
    def sha256(self) -> str:
        """Hex digest of the file."""
        return hashlib.sha256(self.content.encode()).hexdigest()

    @property
    def size(self) -> int:
        """One more than the largest id of a word."""
        return max(self._rules.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    @property
    def most(self) -> int | None:
        """How many words of a text its own rule keeps; None where it has no such rule."""
        rule = self._rules.truncation
        return None if rule is None else int(rule["max_length"])

    def id_of(self, word: str) -> int | None:
        """The id of a word of the vocabulary, such as "[CLS]"; None where it is none."""
        found = self._rules.token_to_id(word)
        return None if found is None else int(found)

    @property
    def hiding(self) -> int | None:
        """The id of a word that stands for a hidden one: the mask's, else the unknown one's; None of neither."""
        masks = (self.id_of(word) for word in MASKS)
        return next((found for found in masks if found is not None), self._unknown)

    def words(self, ids: Sequence[int]) -> list[str]:
        """The words of ids, as the vocabulary writes them; "?" for an id that it does not have."""
        return [self._rules.id_to_token(int(one)) or "?" for one in ids]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, without the words that begin, end and fill up."""
        return str(self._rules.decode([int(one) for one in ids], skip_special_tokens=True))

    def pieces(self, text: str) -> list[tuple[str, tuple[int, int]]]:
        """The words of a text, and where in it each stands: (first, past the last) character."""
        found = self._encode(text)
        return list(zip(found.tokens, found.offsets, strict=True))

    def encode(self, texts: Sequence[str], length: int | None = None, masked: bool = True) -> Encoded:
        """Texts as rows of ids, all of one length.

        Args:
            texts: one or more.
            length: how many ids the network takes; None where that is free, and the longest text says it.
            masked: whether the network is told which ids count. If not, and where neither the network nor the
                tokenizer fixes a length, texts of several lengths are refused: what fills them up would count.

        Raises:
            FastcamError: a text that is none, or is too long; or there is no rule for filling up one that is shorter.
        """
        typed("texts", texts, list | tuple, "a list of texts")
        for text in texts:
            typed("a text", text, str, "words")
        if not texts:
            raise FastcamError("no texts given; give at least one")
        found = [self._encode(text) for text in texts]
        counts = [len(one.ids) for one in found]
        for text, count in zip(texts, counts, strict=True):
            if not count:
                raise FastcamError(f"the text {shown(repr(text))} has no words; give one")
            if length is not None and count > length:
                raise FastcamError(
                    f"the text {shown(repr(text))} has {count} tokens, and the network takes {length}; shorten it"
                )
        most = self._length(counts, length, masked)
        ids = np.full((len(texts), most), self._filler(counts, most), np.int64)
        mask, types = np.zeros_like(ids), np.zeros_like(ids)
        left = self._padding is not None and self._padding["direction"] == "left"
        for row, one in enumerate(found):
            place = slice(most - len(one.ids), most) if left else slice(0, len(one.ids))
            ids[row, place], types[row, place] = one.ids, one.type_ids
            mask[row, place] = 1  # the library's mask is of its own padding, which is off
        return Encoded(
            ids, mask, types, self._pieces_unknown(texts, found), sum(bool(one.overflowing) for one in found)
        )

    def _encode(self, text: str) -> Any:
        try:
            return self._rules.encode(text)
        except Exception as error:  # a word that is not in a vocabulary without a word for such
            why = " ".join(str(error).split())
            raise FastcamError(
                f"{self.name} cannot split {shown(repr(text))} ({why}); use words that it knows"
            ) from error

    def _length(self, counts: Sequence[int], length: int | None, masked: bool) -> int:
        """How many ids all rows have."""
        if length is not None:
            return length
        longest, rule = max(counts), self._padding
        if rule is None:
            if not masked and len(set(counts)) > 1:
                raise FastcamError(
                    f"texts of {min(counts)} and {longest} tokens, and the network has no mask that would leave out "
                    "what fills up the shorter one; give them one by one"
                )
            return longest
        most = max(longest, rule["length"] or 0)
        step = rule["pad_to_multiple_of"] or 1
        return int(-(-most // step) * step)

    def _filler(self, counts: Sequence[int], most: int) -> int:
        """The id of what fills up."""
        if self._padding is not None:
            return int(self._padding["pad_id"])
        for word in PADDING:
            found = self.id_of(word)
            if found is not None:
                return found
        if min(counts) == most:
            return 0
        raise FastcamError(
            f"{self.name} has no rule for filling up {min(counts)} tokens to {most}; give one with padding "
            "(enable_padding of the library tokenizers)"
        )

    def _pieces_unknown(self, texts: Sequence[str], found: Sequence[Any]) -> tuple[str, ...]:
        unknown = [
            text[first:past]
            for text, one in zip(texts, found, strict=True)
            for number, (first, past) in zip(one.ids, one.offsets, strict=True)
            if number == self._unknown and past > first  # a special word of that name stands for no piece
        ]
        return tuple(dict.fromkeys(unknown))


def _unknown_id(rules: Any) -> int | None:
    """The id that stands for words that the vocabulary does not have; None of a tokenizer that has all."""
    word = getattr(rules.model, "unk_token", None)
    return None if word is None else rules.token_to_id(word)


def read_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer in a file; SigLIP's with the rule for filling up of the settings beside it.

    Raises:
        FastcamError: it cannot be read, is no tokenizer, or the library ``tokenizers`` is not installed.
    """
    content = input_files.read_text(path, WANTED, input_files.NUMBERS)
    return Tokenizer(with_rule(content, Path(path).with_name(CONFIG)), shown(path))


def open_tokenizer(about: TokenizerFile | None, folder: Path | None, file: str) -> Tokenizer:
    """The tokenizer that an exported file names.

    Args:
        about: what its metadata say.
        folder: where the file lies; None of one that is bytes.
        file: how messages call it.

    Raises:
        FastcamError: it names none, or that file is not there, or is another one.
    """
    if about is None:
        raise FastcamError(
            f"{file} has no tokenizer; give tokenizer.json (--tokenizer), export it with that, or give the ids"
        )
    if about.content:
        return Tokenizer(about.content, f"the tokenizer of {file}")
    if folder is None or not about.file:
        raise FastcamError(f"the tokenizer of {file} does not lie beside it; give tokenizer.json (--tokenizer)")
    path = folder / about.file
    if not path.is_file():
        raise FastcamError(
            f"{shown(path)}: the tokenizer of {file} is missing; copy it there, or give it (--tokenizer)"
        )
    found = Tokenizer(input_files.read_text(path, WANTED, input_files.NUMBERS), shown(path))
    if found.sha256 != about.sha256:
        raise FastcamError(
            f"{shown(path)}: not the tokenizer that {file} was exported with; copy that one, or give this one "
            "(--tokenizer)"
        )
    return found


def unknown_words(found: Encoded) -> str:
    """What is said of pieces that the vocabulary does not have; "" where it has all."""
    if not found.unknown:
        return ""
    return f"words that the tokenizer does not know are all alike to the network: {listed(map(repr, found.unknown))}"
