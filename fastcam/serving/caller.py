"""Who waits for an answer, and may leave before it is there: then what is not begun is not done.

What an answer does not need is done behind it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from fastcam.serving.errors import Left


class Caller:
    """The client of one request. Safe to share between threads.

    Args:
        patient: whether somebody does behind the answer what is left for then, see :meth:`after_answer`.
    """

    def __init__(self, patient: bool = False) -> None:
        self._lock = threading.Lock()
        self._left, self._patient = False, patient
        self._deferred: list[Callable[[], object]] = []
        self._told: set[Callable[[], object]] = set()

    def leave(self) -> None:
        """Nobody waits any more: whoever has to be told is told."""
        with self._lock:
            self._left = True
            told = [*self._told]
        for tell in told:
            tell()

    def check(self) -> None:
        """Stop here where nobody waits.

        Raises:
            Left: the client has left.
        """
        if self._left:
            raise Left("the client has left")

    def after_answer(self, call: Callable[[], object]) -> None:
        """A call that the answer does not need: left for when that is on its way, or made now where nobody waits."""
        with self._lock:
            later = self._patient and not self._left
            if later:
                self._deferred.append(call)
        if not later:
            call()

    def take_deferred(self) -> list[Callable[[], object]]:
        """What was left; from now on nothing is."""
        with self._lock:
            self._patient = False
            found, self._deferred = self._deferred, []
        return found

    @contextmanager
    def telling(self, tell: Callable[[], object]) -> Iterator[None]:
        """As long as the context lasts, ``tell`` is called when the client leaves, from any thread.

        Raises:
            Left: it has left already.
        """
        with self._lock:
            self.check()
            self._told.add(tell)
        try:
            yield
        finally:
            with self._lock:
                self._told.discard(tell)


CALLER: ContextVar[Caller] = ContextVar("caller", default=Caller())  # noqa: B039
"""Of the request for which this thread works; the default never leaves."""
