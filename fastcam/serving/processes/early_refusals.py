"""Requests that come while as many as may be are under way are refused by the connection itself.

A server that is asked four times what it can do says no three times for each answer, so a no must cost next to nothing.
Here the head is read, 429 written, and the body thrown away as it comes: the connection stays open for the next
request. Through the application a no takes five times as long. A request that is there as a whole does not even pass
the parser.
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
LONGEST = 8192
"""Bytes of a head that is looked for without the parser."""
UNUSUAL = b"transfer-encoding", b"expect", b"upgrade", b"close"
"""Words of heads that are left to the parser, wherever they stand: what they may mean is its matter."""
UNREAD = 65536
"""Bytes of answers that wait for a client to read; one that asks on is cut off."""
REFUSED, LAST = HEAD + b"\r\n" + BODY, HEAD + b"connection: close\r\n\r\n" + BODY


class _Refused:
    """In the place of uvicorn's cycle: a request that has its answer, while its body is still on its way."""

    response_complete = True
    more_body = True

    message_event = asyncio.Event()  # nobody waits for it


class _RefusedWhole(_Refused):
    """The same of a request whose body is there."""

    more_body = False


COMING, WHOLE = _Refused(), _RefusedWhole()


def whole_post(data: bytes) -> int:
    """How many bytes at the begin of ``data`` are a POST and all of its body; 0 where that is not plain to see."""
    end = data.find(b"\r\n\r\n", 0, LONGEST) if data.startswith(b"POST ") else -1
    head = data[: max(0, end)].lower()
    line, _, fields = head.partition(b"\r\n")
    if not line.endswith(b" http/1.1") or any(word in fields for word in UNUSUAL):
        return 0
    length = head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0].strip(b" ")
    if fields.count(b"content-length") != 1 or not length.isdigit() or len(length) > 9:
        return 0
    size = end + 4 + int(length)
    return size if size <= len(data) else 0


class BusyProtocol(BoundedProtocol):
    """uvicorn's protocol, which answers a POST with 429 while the service is full.

    Args:
        service: is told of each that is refused here.
        places, settings: see :class:`fastcam.serving.processes.open_connections.BoundedProtocol`.
    """

    def __init__(self, service: Service, places: Places, **settings: Any) -> None:
        super().__init__(places, **settings)
        self._service, self._last = service, False
        self._amid = False  # a request has begun, and is not there as a whole

    def data_received(self, data: bytes) -> None:
        """Bytes of requests."""
        answered = not self._outside and (self.cycle is None or self.cycle.response_complete)
        while answered and not self._amid and self._service.full and (size := whole_post(data)):
            self._enough()
            self._refuse(REFUSED, WHOLE)
            data = data[size:]
            if not data or self.transport.is_closing():
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """The first byte of a request is there."""
        self._amid = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head is there."""
        waits = self.cycle is not None and not self.cycle.response_complete  # for an answer to an earlier request
        if waits or self.parser.get_method() != b"POST" or not self._service.full:
            super().on_headers_complete()
            return
        self._last = not self.parser.should_keep_alive()
        self._refuse(LAST if self._last else REFUSED, COMING)

    def _refuse(self, answer: bytes, cycle: _Refused) -> None:
        self.transport.write(answer)
        if self.transport.get_write_buffer_size() > UNREAD:
            self.transport.abort()
        self.cycle = cycle  # type: ignore[assignment]
        self._service.refused_early()
        self._service.gather(self.loop)
        self.on_response_complete()

    def on_message_complete(self) -> None:
        """The body is there too: to close before that would take the answer from a client that still sends."""
        self._amid = False
        super().on_message_complete()
        if self._last and not self.transport.is_closing():
            self.transport.close()
