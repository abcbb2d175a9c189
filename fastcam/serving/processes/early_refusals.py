"""Requests that come while as many as may be are under way are refused by the connection itself.

A server that is asked four times what it can do says no three times for each answer, so a no must cost next to nothing.
Here the head is read, 429 written, and the body thrown away as it comes: the connection stays open for the next
request. Through the application a no takes five times as long.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fastcam.serving.processes.open_connections import BoundedProtocol, Places
from fastcam.serving.service import Service

BODY = b'{"error":"too many requests are under way; come again later"}'
HEAD = (
    b"HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\nretry-after: 1\r\n"
    b"x-content-type-options: nosniff\r\ncontent-length: %d\r\n" % len(BODY)
)
REFUSED, LAST = HEAD + b"\r\n" + BODY, HEAD + b"connection: close\r\n\r\n" + BODY


class _Refused:
    """In the place of uvicorn's cycle: a request that has its answer, while its body is still on its way."""

    response_complete = True
    more_body = True

    message_event = asyncio.Event()  # nobody waits for it


class BusyProtocol(BoundedProtocol):
    """uvicorn's protocol, which answers a POST with 429 while the service is full.

    Args:
        service: is told of each that is refused here.
        places, settings: see :class:`fastcam.serving.processes.open_connections.BoundedProtocol`.
    """

    def __init__(self, service: Service, places: Places, **settings: Any) -> None:
        super().__init__(places, **settings)
        self._service, self._last = service, False

    def on_headers_complete(self) -> None:
        """A head is there."""
        waits = self.cycle is not None and not self.cycle.response_complete  # for an answer to an earlier request
        if waits or self.parser.get_method() != b"POST" or not self._service.full:
            super().on_headers_complete()
            return
        self._last = not self.parser.should_keep_alive()
        self.transport.write(LAST if self._last else REFUSED)
        self.cycle = _Refused()  # type: ignore[assignment]
        self._service.refused_early()
        self.on_response_complete()

    def on_message_complete(self) -> None:
        """The body is there too: to close before that would take the answer from a client that still sends."""
        super().on_message_complete()
        if self._last and not self.transport.is_closing():
            self.transport.close()
