"""What an explanation costs, as a multiple of the plain forward pass of the same file in the same runtime.

    python -m fastcam_bench.speed [--only NAME ...] [--seconds S] [--least N] [--threads T] [--out FILE]

Each network is measured in processes of its own, in environments that are made on first use (environments.py).
Contestants take turns in random order, on the same input and number of threads; threads of ONNX Runtime do not spin,
and where torch takes part there is a pause before each run, so that none pays for the one before it. Outputs and maps
are compared before the clock starts. The yardstick is the plain pass of the same round; medians of these ratios, with
a bootstrap interval, raw samples, memory, file sizes and versions go into the JSON file after each process, and the
table of targets into the Markdown file beside it. --only measures some networks anew and keeps the others' results.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from fastcam_bench.models.networks import NETWORKS
from fastcam_bench.oracles.machine import machine
from fastcam_bench.paths import RESULTS
from fastcam_bench.speed.networks import environments, plot, report

OUTPUT = RESULTS / "speed" / "speed.json"
COMPILED = "resnet50"
LIMIT = 900.0
ENVIRONMENT = {"network": "torch", "compiled": "torch"}
Row = dict[str, Any]


def jobs(name: str) -> list[str]:
    """The kinds of measurement of a network, in order: the first one leaves the files that the others read."""
    engines = ["openvino", "openvino-ep", "openvino-xai"] if NETWORKS[name].openvino else []
    return ["network", *engines, *(["compiled"] if name == COMPILED else [])]


def measure(kind: str, name: str, options: argparse.Namespace) -> Row:
    """One measurement; of one that failed why it did."""
    began, load = time.perf_counter(), _load()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        try:
            interpreter = environments.python(ENVIRONMENT.get(kind, kind))
            command = [str(interpreter), "-m", "fastcam_bench.speed.networks.job", kind, name, str(out)]
            command += [f"--{key}={getattr(options, key)}" for key in ("seconds", "threads", "least")]
            done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
        except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
            return {"failed": f"{type(error).__name__}: {error}"}
        if done.returncode:
            killed = [f"killed by signal {-done.returncode}; out of memory?"] if done.returncode < 0 else []
            said = killed or done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"]
            return {"failed": said[-1]}
        found: Row = json.loads(out.read_text(encoding="utf-8"))
    return {**found, "load_average": [load, _load()], "took_seconds": round(time.perf_counter() - began, 1)}


def _load() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def main() -> None:
    """The command; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m fastcam_bench.speed", description="The cost of an explanation beside the plain forward pass."
    )
    parser.add_argument("--only", nargs="+", choices=NETWORKS, metavar="NAME", help=f"of {', '.join(NETWORKS)}")
    parser.add_argument("--out", type=Path, default=OUTPUT)
    parser.add_argument("--seconds", type=float, default=5.0, help="for a group of contestants at one batch size")
    parser.add_argument("--least", type=int, default=15, help="rounds of a group in any case")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    result: Row = {"networks": {}}
    if options.only and options.out.is_file():
        result = json.loads(options.out.read_text(encoding="utf-8"))
    began = time.perf_counter()
    own = [key for key in ("seconds", "least") if getattr(options, key) != parser.get_default(key)]
    given = [f"--{key} {getattr(options, key):g}" for key in own]
    result |= {
        "command": " ".join(["python -m fastcam_bench.speed", *given]),
        "threads": options.threads,
        "machine": machine(),
    }
    result |= {"seconds": options.seconds, "least": options.least}
    for name in options.only or NETWORKS:
        result["networks"][name] = {"title": NETWORKS[name].title}
        for kind in jobs(name):
            found = measure(kind, name, options)
            result["networks"][name][kind] = found
            for line in report.lines(NETWORKS[name].title, kind, found):
                print(line, flush=True)
            order = {known: result["networks"][known] for known in NETWORKS if known in result["networks"]}
            result["networks"] = order
            report.write(result, options.out)
    plot.write(result, options.out.with_suffix(".svg"))
    print(f"{report.verdict(result)}; {(time.perf_counter() - began) / 60:.0f} minutes; {options.out}")


if __name__ == "__main__":
    main()
