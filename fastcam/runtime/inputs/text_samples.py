"""What goes into networks of texts: words, or the ids that stand for them.

The explained input holds a text's ids, [N, L]. A text that is shorter than the network's length is filled up as its
tokenizer says; where the length is free, those of one call to that of the longest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam import input_files
from fastcam.errors import FastcamError, shown
from fastcam.image import preprocess as images_
from fastcam.image.preprocess import Geometry
from fastcam.language.tokenizer import unknown_words
from fastcam.runtime.inputs.base import Inputs, Preprocess, Sources
from fastcam.runtime.inputs.batch import Batch
from fastcam.runtime.session import warn_once
from fastcam.schema import Preprocessing

FILES = (".txt",)
"""Files of a text, by their endings."""


@dataclass(frozen=True, eq=False)
class Text:
    """A text as the network takes it.

    Attributes:
        ids: int [L].
        pieces: the words from ``first`` on, each with the blanks behind it: together they are the text.
        first: the number of ids in front of them that only fill up.
    """

    ids: NDArray[Any]
    pieces: tuple[str, ...]
    first: int = 0

    @property
    def nbytes(self) -> int:
        """About what it takes on its way."""
        return self.ids.nbytes + 4 * sum(map(len, self.pieces))


class TextSamples(Inputs):
    """Turns texts into batches: a text, the path of a ``.txt`` file with one, ids [L], a list of those, or ids [N, L].

    A ``str`` is a text, and never a file; give the file as a Path.
    """

    @property
    def layout(self) -> str:
        """The order of the input's axes."""
        return "NL"

    def _resolve_preprocessing(self, preprocess: Preprocess) -> Preprocessing | None:
        if preprocess is not None:
            raise FastcamError(f"{self._name} takes texts, which are not prepared as pixels are; leave preprocess out")
        return None

    def _sources(self, images: Any) -> Sources:
        if isinstance(images, np.ndarray) and images.ndim == 2:
            images = list(images)
        several = isinstance(images, list | tuple) and not (images and isinstance(images[0], int | np.integer))
        given = list(images) if several else [images]
        if not given:
            raise FastcamError("no text given; give at least one")
        files = [str(one) if isinstance(one, Path) else None for one in given]
        given = [read(one) if isinstance(one, Path) else one for one in given]
        words = [one for one in given if isinstance(one, str)]
        encoded = iter(self._encoded(words) if words else ())
        texts = [next(encoded) if isinstance(one, str) else self._of_ids(images_.as_array(one)) for one in given]
        if len({len(text.ids) for text in texts}) > 1:
            raise FastcamError(f"the ids of one call of {self._name} must have one length; give the texts one by one")
        return Sources(texts, files)

    def _encoded(self, words: list[str]) -> list[Text]:
        """Texts that are words; together, as all of a call have the length of the longest."""
        length, tokenizer = self.shape[1] if isinstance(self.shape[1], int) else None, self.texts.tokenizer
        encoded = tokenizer.encode(words, length, masked=False)
        if encoded.unknown:
            warn_once(f"{self._name}: {unknown_words(encoded)}")
        self._refuse_ids(encoded.ids)
        there = [np.flatnonzero(mask) for mask in encoded.mask]
        each = zip(words, encoded.ids, there, strict=True)
        return [Text(ids, _pieces(text, tokenizer.pieces(text))[: len(own)], int(own[0])) for text, ids, own in each]

    def _of_ids(self, ids: NDArray[Any]) -> Text:
        if ids.dtype.kind not in "iu" or ids.ndim != 1 or not len(ids):
            raise FastcamError(f"a text is words, or whole numbers [L], got {ids.dtype} {list(ids.shape)}")
        if isinstance(self.shape[1], int) and len(ids) != self.shape[1]:
            raise FastcamError(f"a text of {self._name} has {self.shape[1]} ids, got {len(ids)}; fill it up, or cut it")
        self._refuse_ids(ids)
        known = self._metadata.tokenizer is not None
        words = self.texts.tokenizer.words([int(one) for one in ids]) if known else [str(int(one)) for one in ids]
        return Text(np.asarray(ids, np.int64), tuple(f"{word} " for word in words))

    def _refuse_ids(self, ids: NDArray[Any]) -> None:
        """Raise for ids that the network has no row for."""
        words, least, most = self._metadata.words, int(ids.min()), int(ids.max())
        if least < 0 or (words is not None and most >= words):
            raise FastcamError(
                f"{self._name} knows the ids 0 to {(words or 1) - 1}, and the text has {least} to {most}; give the "
                "ids, or the tokenizer, that it was trained with"
            )

    def weight(self, source: Any) -> int:
        """About how many bytes a text takes on its way."""
        return 20 * len(source) if isinstance(source, str) else int(getattr(source, "nbytes", 0))

    def _batch(self, sources: Sources) -> Batch:
        """One run's texts; ``images`` of the batch are their words, an array of texts each."""
        texts: Sequence[Text] = sources.images
        whole = np.int32 if self._type == "tensor(int32)" else np.int64
        tensor = np.stack([text.ids for text in texts]).astype(whole)
        shown_ = tuple(np.array(text.pieces, dtype=str) for text in texts)
        return Batch(tensor, shown_, tuple(map(_geometry, texts)), tuple(sources.files))


def _geometry(text: Text) -> Geometry:
    """Which ids are words of the text: a picture of one row, whose others are bars."""
    count = len(text.pieces)
    return Geometry((1, count), (1, len(text.ids)), (0, 0, count, 1), (text.first, 0, text.first + count, 1))


def _pieces(text: str, found: Sequence[tuple[str, tuple[int, int]]]) -> tuple[str, ...]:
    """The words of a text, each with what stands behind it; a word that the tokenizer adds, by its name."""
    starts = [first for _, (first, past) in found if past > first]
    pieces, here = [], 0
    for word, (first, past) in found:
        if past <= first:
            pieces.append(f"{word} ")
            continue
        here += 1
        end = starts[here] if here < len(starts) else len(text)
        pieces.append(text[0 if here == 1 else first : max(end, past)])
    return tuple(pieces)


def read(path: Path) -> str:
    """The text in a file.

    Raises:
        FastcamError: it cannot be read, or is no text.
    """
    if path.suffix.lower() not in FILES:
        raise FastcamError(f"{shown(path)}: not a text; give a .txt file, or the words (--text)")
    return " ".join(input_files.read_text(path, "give a text file", input_files.NUMBERS).split())
