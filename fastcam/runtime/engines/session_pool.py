"""Several sessions of one file as one, so that as many runs go on at the same time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue
from typing import Any


class SessionPool:
    """Sessions that are alike, each with threads of its own. A run takes one that is free, or waits for it.

    What else a session is asked, the first one answers. Safe to share between threads.

    Args:
        make: opens a session.
        count: of sessions.
    """

    def __init__(self, make: Callable[[], Any], count: int) -> None:
        self._sessions = [make() for _ in range(count)]
        self._free: SimpleQueue[Any] = SimpleQueue()
        for session in self._sessions:
            self._free.put(session)

    def run(self, names: Sequence[str] | None, feed: Mapping[str, Any], options: Any = None) -> Any:
        """See ``onnxruntime.InferenceSession.run``."""
        session = self._free.get()
        try:
            return session.run(names, feed, options)
        finally:
            self._free.put(session)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sessions[0], name)
