"""So many connections at once and no more, as each takes memory and a file number for as long as its client likes.

Where all places are taken, a connection that waits for a request gives its place to a new one, the one that has waited
longest first; and then one whose body comes slowly: slow heads and bodies keep nobody out. Where a request is under way
on each, the new one is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from fastcam.errors import FastcamError
from fastcam.serving.limits import slow
from fastcam.serving.processes.slow_heads import ImpatientProtocol

LINGER, OUTSIDE = 1.0, 64
"""Seconds that a refused connection may take to send what is answered by 503, and how many may; more are cut off."""
GRACE = 2.0
"""Seconds after which a body that comes slowly may lose its place."""
FILES = 200
"""File numbers of a process for all else: models, logs, its own connections."""
BODY = b'{"error":"too many connections are open; come again later"}'
REFUSED = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n"
    b"x-content-type-options: nosniff\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)
)


class Connection(Protocol):
    """What may have a place."""

    @property
    def transport(self) -> Any:
        """What closes it."""


class Places:
    """The connections of a process, for its event loop.

    Args:
        most: of them.
        refused: is told of each that is refused.
    """

    def __init__(self, most: int, refused: Callable[[], object] = lambda: None) -> None:
        self._most, self._refused = most, refused
        self._inside: set[Connection] = set()
        self._waiting: dict[Connection, None] = {}  # those inside without a request, the longest first
        self._sending: dict[BoundedProtocol, None] = {}  # those inside whose body comes
        self._outside: set[Connection] = set()

    def enter(self, connection: Connection) -> bool:
        """Whether there is a place for a new connection."""
        if len(self._inside) >= self._most:
            slow_bodies = (one for one in self._sending if one.slow)
            longest = next(iter(self._waiting), None) or next(slow_bodies, None)
            if longest is None:
                self._outside.add(connection)
                self._refused()
                return False
            self.leave(longest)
            longest.transport.close()
        self._inside.add(connection)
        self.waits(connection)
        return True

    @property
    def crowded(self) -> bool:
        """Whether more have been refused than are heard."""
        return len(self._outside) > OUTSIDE

    def waits(self, connection: Connection) -> None:
        """From now on it has no request under way."""
        self.works(connection)
        if connection in self._inside:
            self._waiting[connection] = None

    def sends(self, connection: BoundedProtocol) -> None:
        """It has one, whose body is still to come."""
        self.works(connection)
        if connection in self._inside:
            self._sending[connection] = None

    def works(self, connection: Any) -> None:
        """It has one."""
        self._waiting.pop(connection, None)
        self._sending.pop(connection, None)

    def leave(self, connection: Connection) -> None:
        """It is closed."""
        self.works(connection)
        self._inside.discard(connection)
        self._outside.discard(connection)


class BoundedProtocol(ImpatientProtocol):
    """uvicorn's protocol for as many connections as there are places.

    Args:
        places: of all connections of the process.
        settings: uvicorn's.

    Attributes:
        greeting: what has had the place of this connection until TLS was agreed.
    """

    greeting: Any = None

    def __init__(self, places: Places, **settings: Any) -> None:
        super().__init__(**settings)
        self._places, self._outside = places, False
        self._begun, self._size = 0.0, 0

    @property
    def slow(self) -> bool:
        """Whether less of a body has come than should have."""
        return slow(self.loop.time() - self._begun, self._size, GRACE)

    def connection_made(self, transport: Any) -> None:
        """A client has connected."""
        super().connection_made(transport)
        self._places.leave(self.greeting)
        self._outside = not self._places.enter(self)
        if self._outside and self._places.crowded:
            self.transport.abort()
        elif self._outside:
            self._enough()
            self._wait(LINGER)

    def data_received(self, data: bytes) -> None:
        """Bytes of a request. Those of one that is refused are read first: closed before, it would not see why."""
        if not self._outside:
            super().data_received(data)
        elif not self.transport.is_closing():
            self.transport.write(REFUSED)
            self.transport.close()

    def on_headers_complete(self) -> None:
        """A head is there. Behind a request that is under way, its body is no reason to lose that one's place."""
        alone = self.cycle is None or self.cycle.response_complete
        self._begun, self._size = self.loop.time(), 0
        (self._places.sends if alone else self._places.works)(self)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of a body is there."""
        self._size += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is there as a whole."""
        super().on_message_complete()
        if self.cycle is not None and not self.cycle.response_complete:
            self._places.works(self)

    def on_response_complete(self) -> None:
        """A request has its answer; another may wait for its own, or be on its way."""
        super().on_response_complete()
        if self.cycle is None or self.cycle.response_complete:
            self._places.waits(self)
        elif self.cycle.more_body:
            self._places.sends(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        self._places.leave(self)
        super().connection_lost(exc)


def provide_files(connections: int) -> None:
    """Let this process open files for so many connections.

    Raises:
        FastcamError: it may not.
    """
    try:
        import resource
    except ImportError:  # no such limits on this system
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + FILES
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise FastcamError(
            f"{connections} connections need {needed} open files, and a process may have {hard} here; give a smaller "
            "--max-connections, or raise the limit (ulimit -n)"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
