"""What the server costs beside the call in the process: ``python -m fastcam_bench.speed.serving [--seconds 20]``.

One client, in turns with the call: both take the bytes of a JPEG and give JSON. Then several clients at once: the
server's processor time for each picture, beside that of the call, and beside that of ``:predict``, which explains
nothing.
The clients share the machine's cores with the server, so processor time is judged and the rate is told. Two processes
of one thread each answer the same clients once more, and so does one process of one thread.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import msgspec
import numpy as np

from fastcam import Explainer
from fastcam.runtime.providers import Settings
from fastcam.runtime.timing import interleaved
from fastcam.serving import plain
from fastcam.serving.limits import Limits
from fastcam.serving.model import ServedModel
from fastcam_bench.models import networks
from fastcam_bench.oracles.machine import machine, versions, write_report
from fastcam_bench.paths import RESULTS
from fastcam_export import export_model

OUT = RESULTS / "speed" / "serving.json"
NETWORKS = ("resnet50", "mobilenet_v2")
CLIENTS = 16
MANY = {"two processes": ("--workers", "2", "--threads", "1"), "one thread": ("--threads", "1")}
"""As a server of many clients may be started: two threads of one run wait for each other while others decode."""
TICK = os.sysconf("SC_CLK_TCK")


def encoded() -> bytes:
    """A JPEG of 640 x 480."""
    picture = cv2.imread(str(files("fastcam") / "data" / "scene.jpg"))
    assert picture is not None
    return bytes(cv2.imencode(".jpg", cv2.resize(picture, (640, 480)))[1].tobytes())


def processor_seconds(process: int) -> float:
    """Seconds of processor time that a process and its children have taken."""
    return sum(spent for number, parent, _, spent in processes() if process in (number, parent))


def processes() -> Iterator[tuple[int, int, int, float]]:
    """Of every process its number, its parent's, its group's, and the processor seconds that it has taken."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, IndexError):  # it has ended meanwhile
            fields = stat.read_text(encoding="utf-8", errors="replace").rsplit(")", 1)[1].split()
            yield int(stat.parent.name), int(fields[1]), int(fields[2]), (int(fields[11]) + int(fields[12])) / TICK


@contextmanager
def server(model: Path, *options: str) -> Iterator[tuple[int, int]]:
    """A server in a process of its own: its port and number."""
    command = [sys.executable, "-m", "fastcam", "serve", str(model), "--port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        line = next(line for line in process.stderr if line.startswith("listening at"))
        yield int(line.rsplit(":", 1)[1].rstrip("/\n")), process.pid
    finally:
        process.terminate()
        process.wait()
        process.stderr.close()


class Client:
    """One connection that stays open, and asks the same again and again, in one piece: what it takes itself is no
    server's.

    Args:
        port: of this machine.
        path, body: None of a GET.
    """

    def __init__(self, port: int, path: str, body: bytes | None = None) -> None:
        method, length = ("GET", "") if body is None else ("POST", f"Content-Length: {len(body)}\r\n")
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n{length}\r\n"
        self._request = head.encode() + (body or b"")
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=120)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __call__(self) -> bytes:
        """The body of the answer.

        Raises:
            RuntimeError: the server did not answer with 200.
        """
        self._socket.sendall(self._request)
        came = head = body = b""
        length = -1
        while len(body) != length:
            part = self._socket.recv(1 << 18)
            if not part:
                raise RuntimeError(f"the answer was cut short: {came[:200]!r}")
            came += part
            head, found, body = came.partition(b"\r\n\r\n")
            if found and length < 0:
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if b" 200 " not in head[:13]:
            raise RuntimeError(f"{head[:100]!r} {body[:200]!r}")
        return body

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


def saturated(port: int, process: int, path: str, body: bytes, seconds: float) -> dict[str, float]:
    """Many clients at once: processor milliseconds of the server a picture, pictures a second, latencies."""
    taken: list[float] = []
    until = time.monotonic() + seconds

    def ask() -> None:
        client = Client(port, path, body)
        while time.monotonic() < until:
            begun = time.perf_counter()
            client()
            taken.append(time.perf_counter() - begun)

    threads = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    before, begun = processor_seconds(process), time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent = processor_seconds(process) - before
    p50, p99 = np.percentile(taken, [50, 99]) * 1e3
    return {
        "processor ms a picture": 1e3 * spent / len(taken),
        "pictures a second": len(taken) / (time.perf_counter() - begun),
        "p50 ms": float(p50),
        "p99 ms": float(p99),
    }


def alone(call: Callable[[], Any], seconds: float) -> float:
    """Processor milliseconds of a call in this process."""
    begun, count, until = time.process_time(), 0, time.monotonic() + seconds
    while time.monotonic() < until:
        call()
        count += 1
    return 1e3 * (time.process_time() - begun) / count


def measured(name: str, folder: Path, seconds: float) -> dict[str, Any]:
    """One network."""
    source = networks.onnx_file(name, networks.module(name))
    assert source is not None
    made = folder / f"{name}.cam.onnx"
    export_model(source, made, preprocess="imagenet", check=False)
    # threads of the call that spin behind its run would take the cores of the server, which answers next
    picture, explainer = encoded(), Explainer(made, settings=Settings(spinning="run"))
    model = ServedModel(name, "1", explainer, Limits())
    instances = json.dumps({"instances": [{"b64": base64.b64encode(picture).decode()}]}).encode()

    def call() -> bytes:
        return msgspec.json.encode(plain.described(model, explainer(picture)))

    with server(made) as (port, process):
        client = Client(port, "/v1/explain", picture)
        assert json.loads(client())["targets"] == json.loads(call())["targets"]
        samples = interleaved({"call": call, "server": client}, seconds, 5)
        client.close()
        runs: dict[str, list[dict[str, float]]] = {"explain": [], "predict": []}
        calls = []
        for _ in range(3):  # in turns
            calls.append(alone(call, seconds / 4))
            runs["explain"].append(saturated(port, process, "/v1/explain", picture, seconds / 4))
            runs["predict"].append(saturated(port, process, f"/v1/models/{name}:predict",
                                             instances, seconds / 4))  # fmt: skip
    for kind, how in MANY.items():
        with server(made, *how) as (port, process):
            runs[f"explain, {kind}"] = [saturated(port, process, "/v1/explain", picture, seconds / 4) for _ in range(3)]
    each = {kind: _medians(found) for kind, found in runs.items()}
    explained, predicted = (each[kind]["processor ms a picture"] for kind in ("explain", "predict"))
    p50 = {kind: float(np.percentile(times, 50)) * 1e3 for kind, times in samples.items()}
    return {
        "one client: ms above the call, at the median": p50["server"] - p50["call"],
        "one client: p50 ms": p50,
        "16 clients: processor time over the call's": explained / float(np.median(calls)),
        **{
            f"16 clients, {kind}: processor time over the call's": each[f"explain, {kind}"]["processor ms a picture"]
            / float(np.median(calls))
            for kind in MANY
        },
        "16 clients: p99 over p50": each["explain"]["p99 ms"] / each["explain"]["p50 ms"],
        "16 clients: processor time of explain over predict": explained / predicted,
        "16 clients": each,
        "processor ms of the call": float(np.median(calls)),
    }


def _medians(found: Sequence[dict[str, float]]) -> dict[str, float]:
    return {key: float(np.median([one[key] for one in found])) for key in found[0]}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m fastcam_bench.speed.serving", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each comparison")
    parser.add_argument("--only", choices=NETWORKS)
    parser.add_argument("--json", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    found = {}
    with TemporaryDirectory() as folder:
        for name in [options.only] if options.only else NETWORKS:
            found[name] = measured(name, Path(folder), options.seconds)
            print(name, {key: value for key, value in found[name].items() if isinstance(value, float)}, flush=True)
    given = sys.argv[1:] if arguments is None else arguments
    about = {"machine": machine(), "versions": versions("fastcam", "onnxruntime", "numpy", "uvicorn", "starlette")}
    write_report(
        {"command": " ".join(["python -m fastcam_bench.speed.serving", *given])} | about | {"networks": found},
        options.json,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
