"""A load generator for HTTP endpoints: ``python -m fastcam_bench.serving.load URL --picture photo.jpg --clients 16``.

With ``--clients`` each of so many clients asks again when it has its answer. With ``--rate`` so many requests a second
go out, whether or not answers come, and a latency begins when its request was due: a server that stands still is not
asked less. It needs Python alone and knows nothing of FastCAM, so it can ask any server: ``--body`` is sent as it is.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import ssl
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PERCENTILES = (50, 90, 99)
ENDED = (asyncio.IncompleteReadError, ConnectionError)


@dataclass(frozen=True)
class Target:
    """What is asked: where, and the bytes of the request."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    request: bytes

    @classmethod
    def of(cls, url: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Target:
        """A GET, or a POST where there is a body.

        Raises:
            ValueError: no address of http or https.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no address; give http://HOST:PORT/PATH")
        tls = ssl.create_default_context() if parts.scheme == "https" else None
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        said = {"Host": parts.netloc, **(headers or {})}
        said |= {} if body is None else {"Content-Length": str(len(body))}
        head = "".join(f"{name}: {value}\r\n" for name, value in said.items())
        method = "GET" if body is None else "POST"
        request = f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + (body or b"")
        return cls(parts.hostname, parts.port or (443 if tls else 80), tls, request)


class Connection:
    """One connection, which stays open as long as the server lets it."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self) -> tuple[int, bytes]:
        """Status and body of an answer. A connection that the server closed while nobody asked is opened again."""
        kept = self._streams is not None
        try:
            return await self._asked()
        except ENDED as error:
            self.close()
            begun = isinstance(error, asyncio.IncompleteReadError) and error.partial
            if not kept or begun:
                raise
            return await self._asked()

    async def _asked(self) -> tuple[int, bytes]:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._target.host, self._target.port, ssl=self._target.tls)
        reader, writer = self._streams
        writer.write(self._target.request)
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(head[0].split(" ", 2)[1])
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        body = await _body(reader, headers)
        if headers.get("connection", "").lower() == "close":
            self.close()
        return status, body

    def close(self) -> None:
        """Close it, whatever is on its way."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if "chunked" not in headers.get("transfer-encoding", ""):
        return await reader.readexactly(int(headers.get("content-length", "0")))
    parts = []
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        parts.append((await reader.readexactly(size + 2))[:-2])
    await reader.readuntil(b"\r\n")
    return b"".join(parts)


@dataclass
class Load:
    """What was asked and what came of it.

    Attributes:
        seconds: from the first request to the last answer.
        latencies: of requests that were answered with a status below 400, seconds.
        statuses: how many answers had which status.
        errors: how many requests had no answer, by the reason.
    """

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def requests(self) -> int:
        """How many there were, answered or not."""
        return sum(self.statuses.values()) + sum(self.errors.values())

    def report(self) -> dict[str, Any]:
        """For JSON."""
        ranked = sorted(self.latencies)
        times = {f"p{part}": 1e3 * percentile(ranked, part) for part in PERCENTILES} if ranked else {}
        return {
            "seconds": self.seconds,
            "requests": self.requests,
            "answered a second": len(ranked) / self.seconds if self.seconds else 0.0,
            "latency ms": times | ({"max": 1e3 * ranked[-1]} if ranked else {}),
            "answers by status": {str(status): count for status, count in sorted(self.statuses.items())},
            "errors": dict(self.errors.most_common()),
        }

    async def one(self, connection: Connection, due: float, timeout: float) -> None:
        """Ask once, and count what came."""
        try:
            status, _ = await asyncio.wait_for(connection.ask(), timeout)
        except asyncio.TimeoutError:
            self.errors["no answer in time"] += 1
            connection.close()
        except asyncio.IncompleteReadError:
            self.errors["answer cut short"] += 1
            connection.close()
        except ConnectionRefusedError:
            self.errors["connection refused"] += 1
            await asyncio.sleep(0.01)
        except (OSError, ValueError, IndexError) as error:
            self.errors[type(error).__name__] += 1
            connection.close()
        else:
            self.statuses[status] += 1
            if status < 400:
                self.latencies.append(time.perf_counter() - due)


def percentile(ranked: Sequence[float], part: float) -> float:
    """The smallest value that ``part`` percent of the values do not exceed (nearest rank)."""
    return ranked[max(0, math.ceil(len(ranked) * part / 100) - 1)]


async def by_clients(target: Target, clients: int, seconds: float, timeout: float = 60.0) -> Load:
    """So many clients, each of which asks again when it has its answer."""
    load, begun = Load(), time.perf_counter()

    async def client() -> None:
        connection = Connection(target)
        while (now := time.perf_counter()) < begun + seconds:
            await load.one(connection, now, timeout)
        connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    load.seconds = time.perf_counter() - begun
    return load


async def by_rate(target: Target, rate: float, seconds: float, timeout: float = 60.0, connections: int = 1000) -> Load:
    """So many requests a second, evenly, whether or not answers come; more than ``connections`` at once are errors."""
    load, begun = Load(), time.perf_counter()
    idle: list[Connection] = []
    under_way: set[asyncio.Task[None]] = set()

    async def ask(due: float) -> None:
        connection = idle.pop() if idle else Connection(target)
        await load.one(connection, due, timeout)
        idle.append(connection)

    for number in range(math.ceil(rate * seconds)):
        due = begun + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        if len(under_way) >= connections:
            load.errors["not sent: too many connections"] += 1
            continue
        task = asyncio.ensure_future(ask(due))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    await asyncio.gather(*under_way)
    for connection in idle:
        connection.close()
    load.seconds = time.perf_counter() - begun
    return load


def measured(run: Callable[[], Awaitable[Load]]) -> Load:
    """A load from outside of asyncio, on uvloop where it is installed."""

    async def whole() -> Load:
        return await run()

    try:
        import uvloop
    except ImportError:
        return asyncio.run(whole())
    return uvloop.run(whole())


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m fastcam_bench.serving.load", description=__doc__)
    parser.add_argument("url", help="http://127.0.0.1:8000/v1/explain")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--clients", type=int, help="at once, 16 where neither this nor --rate is said")
    how.add_argument("--rate", type=float, help="requests a second")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds of a request")
    parser.add_argument("--picture", "--body", dest="body", type=Path, help="a file that each request sends")
    parser.add_argument("--header", action="append", default=[], metavar="NAME:VALUE", help="may be given again")
    parser.add_argument("--json", type=Path, help="where the report goes; else to the terminal")
    options = parser.parse_args(arguments)
    try:
        headers = {name.strip(): value.strip() for name, _, value in (one.partition(":") for one in options.header)}
        target = Target.of(options.url, options.body.read_bytes() if options.body else None, headers)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if options.rate:
        load = measured(lambda: by_rate(target, options.rate, options.seconds, options.timeout))
    else:
        load = measured(lambda: by_clients(target, options.clients or 16, options.seconds, options.timeout))
    asked = {"url": options.url, "rate": options.rate, "clients": None if options.rate else options.clients or 16}
    text = json.dumps({"asked": asked, **load.report()}, indent=1) + "\n"
    if options.json is None:
        sys.stdout.write(text)
    else:
        options.json.write_text(text, encoding="utf-8")
    return 0 if load.latencies else 1


if __name__ == "__main__":
    sys.exit(main())
