"""Connections that never come to an end: uvicorn waits for the head of a request, and for the rest of a body that was
answered early, as long as it takes.

Thousands of them would take all of a process's file numbers, and nobody else could connect.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

SECONDS = 10.0
"""From the begin of a connection, or from the first byte of a later request, to the end of a head."""

BAD = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nx-content-type-options: nosniff\r\n"
    b'connection: close\r\ncontent-length: %d\r\n\r\n{"error":"%b"}'
)


class ImpatientProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which closes a connection whose head is not there in time."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """A client has connected."""
        super().connection_made(transport)
        self._wait()

    def on_message_begin(self) -> None:
        """The first byte of a request is there."""
        super().on_message_begin()
        if self._late is None:
            self._wait()

    def on_headers_complete(self) -> None:
        """A head is there; its body has a time of its own."""
        self._enough()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """A request is there as a whole."""
        self._enough()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """A request has its answer, perhaps before its body is there: the rest of that is read for a while."""
        super().on_response_complete()
        if self.cycle is not None and self.cycle.more_body and self._late is None:
            self._wait()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP gets a line in JSON, as every other error."""
        self.transport.write(BAD % (len(msg) + 12, msg.encode()))
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        self._enough()
        super().connection_lost(exc)

    def _wait(self, seconds: float | None = None) -> None:
        self._late = self.loop.call_later(SECONDS if seconds is None else seconds, self._close)

    def _enough(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _close(self) -> None:
        self._late = None
        if not self.transport.is_closing():
            self.transport.close()
