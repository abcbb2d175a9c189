"""The same application in uvicorn and in granian: ``python -m fastcam_bench.serving.servers [--seconds 20]``.

Asked for its health, which costs the server alone, and for the explanation of a JPEG: latency of one client, and
processor time of a request under sixteen. granian is no dependency: ``pip install granian``, or ``--packages`` names a
folder that ``pip install --target`` has filled.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fastcam import Explainer
from fastcam.serving.http import Server
from fastcam.serving.limits import Limits
from fastcam.serving.model import ServedModel
from fastcam.serving.repository import Place, Repository
from fastcam.serving.watching.metrics import Metrics
from fastcam_bench.models import networks
from fastcam_bench.oracles.machine import machine, versions, write_report
from fastcam_bench.paths import RESULTS
from fastcam_bench.serving.processes import Ask, compared, free_port, said, served
from fastcam_bench.speed.serving import encoded
from fastcam_export import export_model

OUT = RESULTS / "serving" / "servers.json"
MODEL = "FASTCAM_BENCH_MODEL"
"""The variable by which the application is told its file."""
LIVE = "/v2/health/live"


def application() -> Any:
    """The application for any ASGI server."""
    limits, metrics = Limits(), Metrics()

    def load(place: Place) -> ServedModel:
        explainer = Explainer(place.path, threads=int(os.environ["FASTCAM_BENCH_THREADS"]), batch_size=8)
        return ServedModel(place.name, place.version, explainer, limits)

    return Server(Repository([Path(os.environ[MODEL])], load), limits, metrics).app


def commands(port: int) -> dict[str, list[str]]:
    """How each server is started."""
    app = "fastcam_bench.serving.servers:application"
    at = ["--host", "127.0.0.1", "--port", str(port)]
    return {
        "uvicorn": ["-m", "uvicorn", "--factory", app, *at, "--http", "httptools", "--loop", "uvloop",
                    "--no-access-log", "--log-level", "warning"],
        "granian": ["-m", "granian", "--factory", "--interface", "asgi", *at, "--loop", "uvloop", "--workers", "1",
                    "--no-log", app],
    }  # fmt: skip


def measure(network: str, seconds: float, rounds: int, threads: int, packages: str) -> dict[str, Any]:
    """Both servers in turns, by request."""
    source = networks.onnx_file(network, networks.module(network))
    assert source is not None
    with TemporaryDirectory() as folder, ExitStack() as stack:
        made = Path(folder) / f"{network}.cam.onnx"
        export_model(source, made, preprocess="imagenet", check=False)
        paths = [path for path in (os.environ.get("PYTHONPATH", ""), packages) if path]
        more = {MODEL: str(made), "FASTCAM_BENCH_THREADS": str(threads), "PYTHONPATH": os.pathsep.join(paths)}
        running = {}
        for name in commands(0):
            port = free_port()
            running[name] = stack.enter_context(served(commands(port)[name], port, LIVE, more))
        asks = {"health": Ask(LIVE), "explain a JPEG": Ask("/v1/explain", encoded())}
        found = {}
        for kind, ask in asks.items():
            found[kind] = compared({name: (one, ask) for name, one in running.items()}, seconds, rounds)
            print(kind, found[kind], flush=True)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m fastcam_bench.serving.servers", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each comparison")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--network", default="mobilenet_v2")
    parser.add_argument("--packages", default="", help="a folder that holds granian, where it is not installed")
    parser.add_argument("--json", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    if options.packages:
        sys.path.append(options.packages)  # for its version
    busy = os.getloadavg()[0]
    requests = measure(options.network, options.seconds, options.rounds, options.threads, options.packages)
    about = {
        "command": said("servers", sys.argv[1:] if arguments is None else arguments),
        "machine": machine(),
        "versions": versions("fastcam", "uvicorn", "httptools", "uvloop", "granian", "starlette"),
        "network": networks.NETWORKS[options.network].title,
        "threads": options.threads,
        "load": busy,
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    write_report(about | {"requests": requests}, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
