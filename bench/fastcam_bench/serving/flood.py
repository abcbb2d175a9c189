"""The same request again and again, as cheaply as Python can send it: a load that hardly takes the server's processor.

One thread, sockets that do not wait, no parser. :mod:`fastcam_bench.serving.load` is the one for other servers: it
knows TLS, chunks and compression of connections, and takes several times as much for a request.
"""

from __future__ import annotations

import errno
import select
import socket
import time
from collections import deque
from dataclasses import dataclass, field

from fastcam_bench.serving.load import Load, Target

IN, OUT, EDGE = select.EPOLLIN, select.EPOLLOUT, select.EPOLLET
LOOK = 1.0
"""Seconds between two looks for requests that have no answer in time."""


@dataclass(eq=False)
class _Connection:
    """A connection, and the request that is under way on it."""

    socket: socket.socket
    due: float = 0.0
    left: memoryview = field(default_factory=lambda: memoryview(b""))
    """What is not sent yet."""
    came: bytes = b""
    used: bool = False
    """Whether it has had an answer: then the server may have closed it while nobody asked."""


class Flood:
    """A load on a server that speaks plain HTTP and says how long its answers are.

    Args:
        target: what is asked.
        timeout: seconds of a request.
        connections: more at once are errors.
    """

    def __init__(self, target: Target, timeout: float = 60.0, connections: int = 4096) -> None:
        self.load = Load()
        self._target, self._timeout, self._most = target, timeout, connections
        self._poll = select.epoll()
        self._open: dict[int, _Connection] = {}
        self._busy: dict[int, _Connection] = {}
        self._idle: deque[_Connection] = deque()
        self._again = False

    def by_clients(self, clients: int, seconds: float) -> Load:
        """So many clients, each of which asks again when it has its answer."""
        self._again, begun = True, time.perf_counter()
        for _ in range(clients):
            self._ask(begun)
        while (now := time.perf_counter()) < begun + seconds:
            self._look(begun + seconds - now)
            while len(self._busy) < clients:
                self._ask(time.perf_counter())
        self._again = False
        return self._ended(begun)

    def by_rate(self, rate: float, seconds: float) -> Load:
        """So many requests a second, evenly, whether or not answers come; a latency begins when its request was due."""
        begun, number = time.perf_counter(), 0
        while number < rate * seconds:
            now = time.perf_counter()
            while (due := begun + number / rate) <= now and number < rate * seconds:
                number += 1
                if len(self._busy) < self._most:
                    self._ask(due)
                else:
                    self.load.errors["not sent: too many connections"] += 1
            self._look(due - now)
        return self._ended(begun)

    def _ended(self, begun: float) -> Load:
        while self._busy:
            self._look(LOOK)
        self.load.seconds = time.perf_counter() - begun
        for one in self._open.values():
            one.socket.close()
        self._poll.close()
        return self.load

    def _ask(self, due: float) -> None:
        one = self._idle.pop() if self._idle else self._opened()
        self._busy[one.socket.fileno()] = one
        one.due, one.left, one.came = due, memoryview(self._target.request), b""
        if one.used:
            self._send(one)

    def _opened(self) -> _Connection:
        made = socket.socket()
        made.setblocking(False)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.connect_ex((self._target.host, self._target.port))
        one = self._open[made.fileno()] = _Connection(made)
        self._poll.register(made, IN | OUT | EDGE)  # told once that it can send, and each time that something came
        return one

    def _look(self, wait: float) -> None:
        """Whatever there is to send and to read, within so many seconds."""
        for number, what in self._poll.poll(max(0.0, min(wait, LOOK)), 512):
            one = self._open.get(number)
            if one is None:
                continue
            if what & OUT and one.left:
                self._send(one)
                if number not in self._busy and number in self._open and not one.left:
                    self._idle.append(one)  # it was refused before all of it was sent
            if what & ~OUT and number in self._open:
                self._read(one)
        late = time.perf_counter() - self._timeout
        while self._busy:  # in the order in which they were asked
            oldest = next(iter(self._busy.values()))
            if oldest.due > late:
                return
            self._failed(oldest, "no answer in time")

    def _send(self, one: _Connection) -> None:
        try:
            while one.left:
                one.left = one.left[one.socket.send(one.left) :]
        except BlockingIOError:
            return
        except OSError as error:
            self._lost(one, error)

    def _read(self, one: _Connection) -> None:
        try:
            part = one.socket.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError as error:
            self._lost(one, error)
            return
        if not part:
            self._lost(one, None)
            return
        one.came += part
        head, found, body = one.came.partition(b"\r\n\r\n")
        if not found:
            return
        lines = head.lower()
        length = int(lines.partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) >= length:
            self._answered(one, int(head[9:12]), b"\r\nconnection: close" in lines)

    def _answered(self, one: _Connection, status: int, closes: bool) -> None:
        del self._busy[one.socket.fileno()]
        now = time.perf_counter()
        self.load.statuses[status] += 1
        if status < 400:
            self.load.latencies.append(now - one.due)
        one.used = True
        if closes:
            self._close(one)
        elif not one.left:
            self._idle.append(one)
        if self._again:
            self._ask(now)

    def _lost(self, one: _Connection, error: OSError | None) -> None:
        """The server has closed a connection. One that it closed while nobody asked is opened again."""
        if one.socket.fileno() not in self._busy:
            if one in self._idle:
                self._idle.remove(one)
            self._close(one)
        elif one.used and not one.came:
            due = one.due
            self._close(one)
            self._ask(due)
        else:
            code = error.errno if error is not None and error.errno else 0
            self._failed(one, errno.errorcode[code] if code else "answer cut short")

    def _failed(self, one: _Connection, why: str) -> None:
        self.load.errors[why] += 1
        self._close(one)

    def _close(self, one: _Connection) -> None:
        number = one.socket.fileno()
        self._busy.pop(number, None)
        self._open.pop(number, None)
        one.socket.close()
