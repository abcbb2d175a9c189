"""TLS on connections that are counted: a client that never ends its greeting holds a place, and not for long.

A loop that listens for TLS itself shows a connection behind the greeting alone, and waits a minute for that: nobody
would count it until then. So connections are taken here, and the loop gets each with the time that its greeting has.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Any

import uvicorn

from fastcam.serving.processes.open_connections import Places

SECONDS = 5.0
"""Of a greeting."""
PAUSE = 0.5
"""Seconds until the next connection, where none can be taken: no number of a file is left."""


class Greeting:
    """A connection until TLS is agreed, in its place."""

    task: asyncio.Future[Any]

    @property
    def transport(self) -> Greeting:
        """What closes it."""
        return self

    def close(self) -> None:
        """Cut it off."""
        self.task.cancel()


class TlsServer(uvicorn.Server):
    """uvicorn's server, over TLS.

    Args:
        config: with a certificate.
        places: of all connections. One that has none is cut off, as an answer would need the greeting first.
    """

    def __init__(self, config: uvicorn.Config, places: Places) -> None:
        super().__init__(config)
        self._places, self._tasks = places, set[Any]()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to take connections from these sockets."""
        await super().startup([])
        for listening in sockets or []:
            listening.setblocking(False)
            self._keep(self._take(listening))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take none any more, and end as uvicorn does."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)  # none is left to a socket that is closed
        await super().shutdown(sockets)

    def _keep(self, coming: Any) -> asyncio.Future[Any]:
        task: asyncio.Future[Any] = asyncio.ensure_future(coming)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _take(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = await asyncio.get_running_loop().sock_accept(listening)
            except OSError:
                await asyncio.sleep(PAUSE)
                continue
            greeting = Greeting()
            if self._places.enter(greeting):
                greeting.task = self._keep(self._greet(connection, greeting))
                await asyncio.sleep(0)  # so that it has begun, and closes what it has, before it may lose its place
            else:
                connection.close()
                self._places.leave(greeting)

    async def _greet(self, connection: socket.socket, greeting: Greeting) -> None:
        make: Any = self.config.http_protocol_class

        def protocol() -> Any:
            made = make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)
            made.greeting = greeting
            return made

        loop = asyncio.get_running_loop()
        connection.setblocking(False)
        try:
            # what fails is no TLS, another certificate, not in time, or the client has left
            with suppress(OSError, asyncio.TimeoutError):
                await loop.connect_accepted_socket(
                    protocol, connection, ssl=self.config.ssl, ssl_handshake_timeout=SECONDS
                )
        finally:
            self._places.leave(greeting)
