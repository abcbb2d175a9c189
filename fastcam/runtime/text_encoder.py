"""The text side of a dual encoder, an ONNX file of its own: texts to embeddings."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam import input_files
from fastcam.errors import FastcamError, listed, shown
from fastcam.input_roles import FurtherInput, TextEncoderFile, role_of_ids
from fastcam.language.tokenizer import Encoded, Tokenizer, unknown_words
from fastcam.runtime.inputs.text_inputs import following
from fastcam.runtime.session import Model, warn_once

KEPT = 4096
"""Embeddings that are kept, of the texts asked for last."""
OUTPUTS = ("text_emb", "sentence_emb", "embed", "pool")
"""In names of outputs that hold the embedding of a text, the surest first."""
WANTED = "give the text encoder of the same model (--text-encoder)"


@dataclass(frozen=True, eq=False)
class TextEncoder:
    """A text encoder, opened when the first text is asked for; safe to share between threads.

    Attributes:
        file: how messages call the file of pictures.
        own: path or bytes of the encoder, as a caller gives it; None: as the file names it.
        about: what the file's metadata say of it.
        folder: where the file lies.
        tokenizer: opens the tokenizer.
        create: opens a session.
    """

    file: str
    own: Model | None
    about: TextEncoderFile | None
    folder: Path | None
    tokenizer: Callable[[], Tokenizer]
    create: Callable[[Model], Any]
    _kept: OrderedDict[str, NDArray[np.float64]] = field(default_factory=OrderedDict)
    _lock: Any = field(default_factory=threading.Lock)

    @property
    def scale(self) -> float:
        """What the cosine is multiplied by."""
        return self.about.scale if self.about is not None else 1.0

    @property
    def bias(self) -> float:
        """What is then added."""
        return self.about.bias if self.about is not None else 0.0

    def embed(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Embeddings [T, D] of texts, each computed once.

        Raises:
            FastcamError: there is no text encoder or tokenizer, or a text that they cannot take.
        """
        with self._lock:
            for text in dict.fromkeys(texts):
                if text not in self._kept:
                    self._kept[text] = self._run(text)
                self._kept.move_to_end(text)
            found = np.stack([self._kept[text] for text in texts])
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return found

    # ---- inside

    @cached_property
    def _name(self) -> str:
        return shown(self.own) if isinstance(self.own, str | Path) else "the text encoder"

    @cached_property
    def _session(self) -> Any:
        if self.own is not None:
            return self.create(self.own)
        if self.about is None or not self.about.file:
            raise FastcamError(f"{self.file} has no text encoder; {WANTED}, or export with it")
        if self.folder is None:
            raise FastcamError(f"the text encoder {self.about.file} of {self.file} does not lie beside it; {WANTED}")
        path = self.folder / self.about.file
        if not path.is_file():
            raise FastcamError(f"{shown(path)}: the text encoder of {self.file} is missing; copy it there, or {WANTED}")
        if hashlib.sha256(input_files.read_bytes(path, WANTED)).hexdigest() != self.about.sha256:
            raise FastcamError(
                f"{shown(path)}: not the text encoder that {self.file} was exported with; copy that one, or {WANTED}"
            )
        return self.create(path)

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return self.tokenizer()

    @cached_property
    def _inputs(self) -> tuple[Any, dict[str, Any]]:
        """The input of the ids, and the others by name."""
        values = {value.name: value for value in self._session.get_inputs()}
        ids = [value for name, value in values.items() if role_of_ids(name) == "text"]
        whole = [value for value in ids if value.type in ("tensor(int64)", "tensor(int32)") and len(value.shape) == 2]
        if len(whole) != 1:
            raise FastcamError(
                f"{self._name} has the inputs {listed(map(repr, values))}, of which none, or several, take the ids "
                f"of a text; {WANTED}"
            )
        return whole[0], {name: value for name, value in values.items() if name != whole[0].name}

    @cached_property
    def _output(self) -> str:
        """The output of the embedding."""
        fitting = [one.name for one in self._session.get_outputs() if len(one.shape) == 2 and "float" in one.type]
        ranked = [name for part in OUTPUTS for name in fitting if part in name.lower()] + fitting
        if not ranked:
            have = listed(f"{one.name} {one.shape}" for one in self._session.get_outputs())
            raise FastcamError(f"{self._name} has no output [texts, numbers], but {have}; {WANTED}")
        return str(ranked[0])

    def _run(self, text: str) -> NDArray[np.float64]:
        ids, others = self._inputs
        length = ids.shape[1] if isinstance(ids.shape[1], int) else None
        encoded = self._tokenizer.encode([text], length)
        if encoded.unknown:
            warn_once(f"{self._name}: {unknown_words(encoded)}")
        feeds = {ids.name: encoded.ids} | {name: self._beside(value, encoded) for name, value in others.items()}
        rows = ids.shape[0] if isinstance(ids.shape[0], int) else 1
        types = {value.name: value.type for value in self._session.get_inputs()}
        feed = {
            name: np.repeat(array, rows, 0).astype(np.int32 if types[name] == "tensor(int32)" else np.int64)
            for name, array in feeds.items()
        }
        try:
            (found,) = self._session.run([self._output], feed)
        except Exception as error:  # of the engine: an id that the encoder has no row for
            why = " ".join(str(error).split())[:200]
            raise FastcamError(
                f"{self._name} cannot take the text {shown(repr(text))} ({why}); {WANTED}, and its tokenizer"
            ) from error
        embedding = np.asarray(found[0], np.float64)
        if not np.isfinite(embedding).all() or not embedding.any():
            raise FastcamError(f"{self._name} gives no embedding of the text {shown(repr(text))}: it has no direction")
        return embedding

    def _beside(self, value: Any, encoded: Encoded) -> NDArray[np.int64]:
        """What an input beside the ids takes."""
        role = role_of_ids(value.name)
        if role == "text" or len(value.shape) != 2:
            raise FastcamError(f"{self._name} wants a value for its input {value.name!r}; {WANTED}")
        found: NDArray[np.int64] = following(FurtherInput(value.name, role=role), encoded)
        return found
