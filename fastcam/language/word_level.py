"""A ``tokenizer.json`` for a network whose words are a plain list: "what colour is it?" is what, colour, is, it, ?."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastcam.atomic_files import write_files
from fastcam.errors import FastcamError, typed


def word_level(
    vocabulary: Mapping[str, int] | Sequence[str],
    *,
    length: int | None = None,
    padding: str = "<pad>",
    unknown: str | None = "<unk>",
    start: str | None = None,
    end: str | None = None,
    lowercase: bool = True,
) -> str:
    """The text of a ``tokenizer.json`` of the library ``tokenizers``, which need not be installed for it.

    A text is split into words (letters, digits and underscores) and signs; blanks only separate.

    Args:
        vocabulary: the id of each word, or the words in the order of their ids; special words are among them.
        length: how many ids a shorter text is filled up to; None: as many as the longest of a call has.
        padding: the word that fills up.
        unknown: the word for words that are not in the vocabulary, where it has one; without, they are refused.
        start, end: words that stand in front of each text and behind it.
        lowercase: whether texts become small letters first.

    Raises:
        FastcamError: a special word that is not in the vocabulary, or ids that are no numbers from 0, each once.
    """
    typed("vocabulary", vocabulary, Mapping | list | tuple, "words with their ids, or a list of words")
    ids = dict(vocabulary) if isinstance(vocabulary, Mapping) else {word: i for i, word in enumerate(vocabulary)}
    plain = all(isinstance(word, str) and isinstance(i, int) and i >= 0 for word, i in ids.items())
    if not ids or not plain or len(set(ids.values())) != len(vocabulary):
        raise FastcamError("a vocabulary has words, each once, with ids from 0, each once; give such a one")
    specials = [word for word in (padding, unknown, start, end) if word is not None]
    if unknown is not None and unknown not in ids:
        specials.remove(unknown)
    missing = [word for word in specials if word not in ids]
    if missing:
        raise FastcamError(f"the vocabulary has no {missing[0]!r}; add it, or say which word it has for that")
    strategy: Any = "BatchLongest" if length is None else {"Fixed": length}
    about = {
        "version": "1.0",
        "truncation": None,
        "padding": {
            "strategy": strategy,
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": ids[padding],
            "pad_type_id": 0,
            "pad_token": padding,
        },
        "added_tokens": [_added(word, ids[word]) for word in sorted(set(specials), key=lambda word: ids[word])],
        "normalizer": {"type": "Lowercase"} if lowercase else None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": _framed(ids, start, end),
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": ids, "unk_token": unknown if unknown in ids else ""},
    }
    return json.dumps(about, ensure_ascii=False)


def write_word_level(path: str | Path, vocabulary: Mapping[str, int] | Sequence[str], **rules: Any) -> None:
    """Write :func:`word_level` to a file.

    Raises:
        FastcamError: as of that, or the file cannot be written.
    """
    write_files({Path(path): word_level(vocabulary, **rules).encode()})


def _added(word: str, number: int) -> dict[str, Any]:
    return {
        "id": number, "content": word, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
        "special": True,
    }  # fmt: skip


def _framed(ids: Mapping[str, int], start: str | None, end: str | None) -> dict[str, Any] | None:
    """The rule that puts words in front of a text and behind it."""
    if start is None and end is None:
        return None
    front = [{"SpecialToken": {"id": start, "type_id": 0}}] if start is not None else []
    behind = [{"SpecialToken": {"id": end, "type_id": 0}}] if end is not None else []
    words = sorted({word for word in (start, end) if word is not None})
    return {
        "type": "TemplateProcessing",
        "single": [*front, {"Sequence": {"id": "A", "type_id": 0}}, *behind],
        "pair": [*front, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}, *behind],
        "special_tokens": {word: {"id": word, "ids": [ids[word]], "tokens": [word]} for word in words},
    }
