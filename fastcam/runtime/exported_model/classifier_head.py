"""The file of what lies behind the target layer: found beside its model, opened once, refused if it is another's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastcam.errors import FastcamError
from fastcam.runtime.session import Model, model_name, read_metadata
from fastcam.runtime.thread_pipeline import OwnLock
from fastcam.schema import Metadata


class Head:
    """The file of what lies behind the layer, opened when it is first asked for.

    Args:
        model: of the export, and
        head: in place of the file beside it that its metadata name.
        metadata, name: of the export.
        create: path or bytes -> session.
    """

    def __init__(
        self, model: Model, head: Model | None, metadata: Metadata, name: str, create: Callable[[Model], Any]
    ) -> None:
        if head is not None and metadata.head is None:
            raise FastcamError(f"{name} was exported without its head; leave head out, or export with --head")
        self._model, self._file, self._metadata, self._name = model, head, metadata, name
        self._create, self._lock, self._session = create, OwnLock(), None

    def session(self) -> Any:
        """The session, the same for all threads.

        Raises:
            FastcamError: the export has no such file, or that is another's.
        """
        with self._lock:
            if self._session is None:
                self._session = self._opened()
            return self._session

    def _opened(self) -> Any:
        ours, file = self._metadata.head, self._file
        if ours is None or ours.part != "model":
            raise FastcamError(f"{self._name} has no head beside it; export with --head")
        if file is None:
            if isinstance(self._model, bytes) or not ours.other:
                raise FastcamError(
                    f"what lies behind the layer of {self._name} is in a file of its own; give it as head"
                )
            file = Path(self._model).parent / ours.other
            if not file.is_file():
                raise FastcamError(
                    f"{self._name} was exported with its head, and {ours.other} is not beside it; put it there, or "
                    "give it as head"
                )
        session = self._create(file)
        theirs = read_metadata(session, model_name(file)).head
        if theirs is None or theirs.part != "head" or theirs.sha256 != ours.sha256:
            raise FastcamError(
                f"{model_name(file)} is not the head of {self._name}; export again, or copy both files anew"
            )
        return session
