"""Beside other servers: ``python -m fastcam_bench.serving.peers --packages DIR [--seconds 60]``.

LitServe and KServe's SDK serve the plain network in ONNX Runtime, FastCAM its export: theirs predict, ours predicts and
explains. All get the same JPEG in the same JSON, and as many threads. DIR is a folder with the peers, which are no
dependencies and want another protobuf than the tests: ``pip install --target DIR litserve kserve``.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import distributions
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fastcam_bench.models import networks
from fastcam_bench.oracles.machine import machine, versions, write_report
from fastcam_bench.paths import RESULTS
from fastcam_bench.serving.processes import Ask, Running, compared, free_port, said, served
from fastcam_bench.speed.serving import encoded
from fastcam_export import export_model

OUT = RESULTS / "serving" / "peers.json"
NETWORKS = ("resnet50", "mobilenet_v2")
BATCH = 8
SCRIPTS = Path(__file__).with_name("peer_servers")
OURS = "FastCAM, explained"


def started(
    stack: ExitStack, source: Path, folder: Path, threads: int, packages: Path
) -> dict[str, tuple[Running, str]]:
    """The servers by name, each with the path that predicts or explains."""
    made = folder / f"{source.stem}.cam.onnx"
    export_model(source, made, preprocess="imagenet", check=False)
    ports = [free_port() for _ in range(3)]
    peers = {"PYTHONPATH": str(packages)}
    ours = ["-m", "fastcam", "serve", str(made), "--port", str(ports[0]), "--threads", str(threads),
            "--batch-size", str(BATCH)]  # fmt: skip
    lit = [str(SCRIPTS / "litserve_server.py"), str(source), str(ports[1]), str(threads), str(BATCH)]
    kserve = [str(SCRIPTS / "kserve_server.py"), str(source), str(ports[2]), str(threads)]
    name = made.name.removesuffix(".cam.onnx")
    return {
        OURS: (stack.enter_context(served(ours, ports[0], "/v2/health/ready")), f"/v1/models/{name}:explain"),
        "LitServe, predicted": (stack.enter_context(served(lit, ports[1], "/health", peers)), "/predict"),
        "KServe's SDK, predicted": (
            stack.enter_context(served(kserve, ports[2], "/v1/models/plain", peers)),
            "/v1/models/plain:predict",
        ),
    }


def measure(network: str, seconds: float, rounds: int, threads: int, packages: Path) -> dict[str, Any]:
    """One network: the servers in turns, when they have said the same class."""
    source = networks.onnx_file(network, networks.module(network))
    assert source is not None
    body = json.dumps({"instances": [{"b64": base64.b64encode(encoded()).decode()}]}).encode()
    with TemporaryDirectory() as folder, ExitStack() as stack:
        running = started(stack, Path(source), Path(folder), threads, packages)
        contestants = {name: (one, Ask(path, body)) for name, (one, path) in running.items()}
        best = {name: _best(json.loads(one.client(ask)())) for name, (one, ask) in contestants.items()}
        if len(set(best.values())) != 1:
            raise RuntimeError(f"the servers do not say the same class: {best}")
        return compared(contestants, seconds, rounds)


def _best(answer: Any) -> int:
    """The best class of an answer, explained or predicted."""
    (one,) = answer.get("explanations") or answer["predictions"]
    return int(one["classes"][0]["class"])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m fastcam_bench.serving.peers", description=__doc__)
    parser.add_argument("--packages", type=Path, required=True, help="a folder that holds litserve and kserve")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each comparison")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", choices=NETWORKS)
    parser.add_argument("--json", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    found, busy = {}, os.getloadavg()[0]
    for name in [options.only] if options.only else NETWORKS:
        found[name] = measure(name, options.seconds, options.rounds, options.threads, options.packages)
        print(name, json.dumps(found[name], indent=1), flush=True)
    there = {one.metadata["Name"]: one.version for one in distributions(path=[str(options.packages)])}
    about = {
        "command": said("peers", sys.argv[1:] if arguments is None else arguments),
        "machine": machine(),
        "versions": versions("fastcam", "onnxruntime") | {name: there[name] for name in ("litserve", "kserve")},
        "threads": options.threads,
        "batch": BATCH,
        "load": busy,
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    write_report(about | {"networks": found}, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
