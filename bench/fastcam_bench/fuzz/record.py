"""What a worker tells whoever watches it: counts, and the input that it is at, in a file that both have mapped.

A process that is killed cannot say what it was doing. It therefore writes each input here before it tries it.
"""

from __future__ import annotations

import mmap
import struct
import time
from pathlib import Path

HEAD = struct.Struct("<9q")
"""started (nanoseconds, 0 between inputs), tried, accepted, refused, findings, length of the input, ready (when),
finished, ended (when the last input was, or the worker was ready)."""
LARGEST = 4 << 20
"""Bytes of an input; longer ones are cut."""


class Record:
    """The file, made or opened; its numbers are attributes that other processes see."""

    def __init__(self, path: Path, create: bool = False) -> None:
        if create:
            path.write_bytes(bytes(HEAD.size + LARGEST))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)

    def _numbers(self) -> list[int]:
        return list(HEAD.unpack_from(self._map))

    def _change(self, **changes: int) -> None:
        names = ("started", "tried", "accepted", "refused", "findings", "length", "ready", "finished", "ended")
        numbers = self._numbers()
        for name, value in changes.items():
            numbers[names.index(name)] = value
        HEAD.pack_into(self._map, 0, *numbers)

    def begin(self, data: bytes) -> None:
        """An input is about to be tried."""
        self._map[HEAD.size : HEAD.size + len(data)] = data
        self._change(length=len(data), tried=self.tried + 1, started=time.monotonic_ns())

    def end(self, outcome: str) -> None:
        """It was "accepted", "refused", or else is a finding that the worker has written."""
        name = outcome if outcome in ("accepted", "refused") else "findings"
        self._change(**{name: getattr(self, name) + 1}, started=0, ended=time.monotonic_ns())

    def caught(self) -> None:
        """The input has raised: it is no longer at work, and a finding of the worker."""
        self._change(started=0, ended=time.monotonic_ns())

    def lost(self) -> None:
        """The process died or was ended at its input: a finding of whoever watches."""
        self._change(started=0, findings=self.findings + 1)

    def set_ready(self) -> None:
        """All is imported, and the limits hold."""
        now = time.monotonic_ns()
        self._change(ready=now, ended=now)

    def set_finished(self, finished: bool) -> None:
        """The worker ends because it is done."""
        self._change(finished=int(finished))

    def renew(self) -> None:
        """For the next process on the same file."""
        self._change(ready=0, finished=0, started=0, ended=0)

    @property
    def seconds(self) -> float:
        """How long the present input has taken; 0 between inputs."""
        started = self._numbers()[0]
        return (time.monotonic_ns() - started) / 1e9 if started else 0.0

    @property
    def idle(self) -> float:
        """Seconds since the last input ended, or the worker was ready; 0 at an input."""
        started, *_, ended = self._numbers()
        return (time.monotonic_ns() - ended) / 1e9 if ended and not started else 0.0

    @property
    def busy(self) -> bool:
        """Whether an input is being tried."""
        return self._numbers()[0] != 0

    @property
    def tried(self) -> int:
        """Inputs that were begun."""
        return self._numbers()[1]

    @property
    def accepted(self) -> int:
        """Inputs that gave a result."""
        return self._numbers()[2]

    @property
    def refused(self) -> int:
        """Inputs that gave one line."""
        return self._numbers()[3]

    @property
    def findings(self) -> int:
        """Inputs that gave neither."""
        return self._numbers()[4]

    @property
    def ready(self) -> bool:
        """Whether the worker has imported all."""
        return bool(self._numbers()[6])

    @property
    def ready_for(self) -> float:
        """Seconds since then."""
        ready = self._numbers()[6]
        return (time.monotonic_ns() - ready) / 1e9 if ready else 0.0

    @property
    def finished(self) -> bool:
        """Whether the worker ended by itself."""
        return bool(self._numbers()[7])

    @property
    def data(self) -> bytes:
        """The present or last input."""
        return self._map[HEAD.size : HEAD.size + self._numbers()[5]]
