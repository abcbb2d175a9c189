"""Servers in processes of their own: started, asked in turns, by one client and by many, and their processor time."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastcam.runtime.timing import interleaved
from fastcam_bench.serving.load import Target, by_clients, measured

TICK = os.sysconf("SC_CLK_TCK")
CLIENTS = 16


@dataclass(frozen=True)
class Ask:
    """A request that servers are compared by: its path, and its body, None of a GET."""

    path: str
    body: bytes | None = None

    def target(self, port: int) -> Target:
        """For the load generator."""
        return Target.of(f"http://127.0.0.1:{port}{self.path}", self.body, {"Content-Type": "application/json"})


@dataclass(frozen=True)
class Running:
    """A server: its port, and the group of its processes."""

    port: int
    group: int

    def processor_seconds(self) -> float:
        """Seconds of processor time that all processes of the group have taken."""
        return processor_seconds(self.group, "group")


def processor_seconds(number: int, of: str = "parent") -> float:
    """Seconds of processor time that a process and its children have taken, or all processes of a group."""
    at, spent = {"parent": 1, "group": 2}[of], 0.0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, IndexError):  # it has ended meanwhile
            fields = stat.read_text(encoding="utf-8", errors="replace").rsplit(")", 1)[1].split()
            if number in (int(fields[at]), int(stat.parent.name)):
                spent += (int(fields[11]) + int(fields[12])) / TICK
    return spent


def said(module: str, arguments: Sequence[str]) -> str:
    """A command for a report, without where this machine keeps packages and reports."""
    words, given = [f"python -m fastcam_bench.serving.{module}"], list(arguments)
    while given:
        word = given.pop(0)
        value = [given.pop(0)] if given and not given[0].startswith("-") else []
        if word != "--json":
            words += [word, *(["DIR"] if word == "--packages" else value)]
    return " ".join(words)


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


@contextmanager
def served(
    command: Sequence[str], port: int, ready: str, more: Mapping[str, str] | None = None, seconds: float = 120.0
) -> Iterator[Running]:
    """A server in processes of its own, from when ``ready`` is answered with 200.

    Args:
        command: behind this Python.
        more: variables of its environment.

    Raises:
        RuntimeError: it has ended, or does not answer.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **(more or {})}
    log = subprocess.DEVNULL if not os.environ.get("FASTCAM_BENCH_LOG") else None
    process = subprocess.Popen(
        [sys.executable, *command], env=environment, stdout=log, stderr=log, start_new_session=True
    )
    try:
        until = time.monotonic() + seconds
        while not _answers(port, ready):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{' '.join(command)} does not answer; FASTCAM_BENCH_LOG=1 shows what it says")
            time.sleep(0.1)
        yield Running(port, process.pid)
    finally:
        for kind in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, kind)
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class Client:
    """One connection that stays open, and asks the same again and again."""

    def __init__(self, port: int, ask: Ask) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        self._ask = ask

    def __call__(self) -> Any:
        """The JSON of the answer.

        Raises:
            RuntimeError: the server did not answer with 200.
        """
        method = "GET" if self._ask.body is None else "POST"
        self._connection.request(method, self._ask.path, self._ask.body, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{self._ask.path}: {answer.status} {content[:200]!r}")
        return json.loads(content)


def compared(
    contestants: Mapping[str, tuple[Running, Ask]], seconds: float, rounds: int
) -> dict[str, dict[str, float]]:
    """Servers in turns: by one client, then in rounds by many.

    Args:
        contestants: by name, each with what it is asked.
        seconds: of the comparison by one client, and of that by many, all contestants together.
        rounds: turns by many clients.

    Returns:
        By name p50 and p99 in ms, processor ms a request, and answers a second: medians of the rounds.
    """
    alone: dict[str, Callable[[], Any]] = {n: Client(running.port, ask) for n, (running, ask) in contestants.items()}
    samples = interleaved(alone, seconds, 10)
    each = seconds / rounds / len(contestants)
    many: dict[str, list[dict[str, float]]] = {name: [] for name in contestants}
    rng = np.random.default_rng(0)
    for _ in range(rounds):
        for index in rng.permutation(len(contestants)):
            name = [*contestants][index]
            many[name].append(saturated(*contestants[name], each))
    return {
        name: {
            "one client: p50 ms": 1e3 * float(np.percentile(samples[name], 50)),
            "one client: p99 ms": 1e3 * float(np.percentile(samples[name], 99)),
            **{key: float(np.median([one[key] for one in many[name]])) for key in many[name][0]},
        }
        for name in contestants
    }


def saturated(running: Running, ask: Ask, seconds: float) -> dict[str, float]:
    """Many clients at once, each of which asks again when it has its answer.

    Raises:
        RuntimeError: not every request was answered with 200.
    """
    target = ask.target(running.port)
    before = running.processor_seconds()
    load = measured(lambda: by_clients(target, CLIENTS, seconds))
    spent = running.processor_seconds() - before
    report, answered = load.report(), len(load.latencies)
    if not answered or set(load.statuses) != {200} or load.errors:
        raise RuntimeError(f"{ask.path}: {report['answers by status']} {report['errors']}")
    return {
        f"{CLIENTS} clients: processor ms a request": 1e3 * spent / answered,
        f"{CLIENTS} clients: answers a second": report["answered a second"],
        f"{CLIENTS} clients: p50 ms": report["latency ms"]["p50"],
        f"{CLIENTS} clients: p99 ms": report["latency ms"]["p99"],
    }
