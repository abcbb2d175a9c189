"""Servers in processes of their own: started, asked in turns, by one client and by many, and their processor time."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np

from fastcam_bench.serving.load import Target, by_clients, measured
from fastcam_bench.speed.serving import Client, processes

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
        return sum(spent for _, _, group, spent in processes() if group == self.group)

    def client(self, ask: Ask) -> Client:
        """That asks it again and again."""
        return Client(self.port, ask.path, ask.body)

    def send(self, number: int) -> None:
        """A signal to all of its processes."""
        with suppress(ProcessLookupError):
            os.killpg(self.group, number)


@contextmanager
def alone(running: Running, every: Sequence[Running]) -> Iterator[None]:
    """One server while the others stand still: threads of theirs that wait in a circle would take its cores."""
    others = [one for one in every if one is not running]
    try:
        for one in others:
            one.send(signal.SIGSTOP)
        yield
    finally:
        for one in others:
            one.send(signal.SIGCONT)


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


def compared(
    contestants: Mapping[str, tuple[Running, Ask]], seconds: float, rounds: int
) -> dict[str, dict[str, float]]:
    """Servers in turns, each alone: by one client, then by many.

    Args:
        contestants: by name, each with what it is asked.
        seconds: of the comparison by one client, and of that by many, all contestants together.
        rounds: turns by many clients.

    Returns:
        By name p50 and p99 in ms, processor ms a request, and answers a second: medians of the rounds.
    """
    each = seconds / rounds / len(contestants)
    samples: dict[str, list[float]] = {name: [] for name in contestants}
    many: dict[str, list[dict[str, float]]] = {name: [] for name in contestants}
    every, rng = [running for running, _ in contestants.values()], np.random.default_rng(0)
    for _ in range(rounds):
        for index in rng.permutation(len(contestants)):
            name = [*contestants][index]
            with alone(contestants[name][0], every):
                samples[name] += by_one(*contestants[name], each)
                many[name].append(saturated(*contestants[name], each))
    return {
        name: {
            "one client: p50 ms": 1e3 * float(np.percentile(samples[name], 50)),
            "one client: p99 ms": 1e3 * float(np.percentile(samples[name], 99)),
            **{key: float(np.median([one[key] for one in many[name]])) for key in many[name][0]},
        }
        for name in contestants
    }


def by_one(running: Running, ask: Ask, seconds: float) -> list[float]:
    """Seconds of each request of one client, which asks again when it has its answer."""
    client, samples = running.client(ask), []
    for _ in range(3):
        client()
    until = time.perf_counter() + seconds
    while (begun := time.perf_counter()) < until:
        client()
        samples.append(time.perf_counter() - begun)
    client.close()
    return samples


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
