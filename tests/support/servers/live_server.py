"""A server that listens at a free port, in a thread, and a client of the standard library."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest


class Client:
    """Requests to a port of this machine, each on a connection of its own."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(
        self, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None, method: str = ""
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method or ("GET" if body is None else "POST"), path, body, dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def json(self, path: str, value: Any = None, **more: Any) -> tuple[int, Any]:
        """Status and JSON of the answer; ``value`` goes as JSON."""
        status, _, body = self.ask(path, None if value is None else json.dumps(value).encode(), **more)
        return status, json.loads(body)


@contextmanager
def listening(app: Any, server_class: Any = None, **settings: Any) -> Iterator[Client]:
    """The application at a port, until the end of the context; ``settings`` are uvicorn's."""
    uvicorn = pytest.importorskip("uvicorn", reason="no uvicorn here: nothing was served")
    server = (server_class or uvicorn.Server)(
        uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=5, **settings)
    )
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    until = time.monotonic() + 60
    while not server.started and time.monotonic() < until:
        time.sleep(0.01)
    try:
        yield Client(listener.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()
