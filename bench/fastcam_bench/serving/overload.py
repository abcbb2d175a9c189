"""Four times what a server can do, for minutes: ``python -m fastcam_bench.serving.overload [--seconds 300]``.

First as many clients as keep it busy say what it can do. Then requests come at a multiple of that rate, whether or not
answers come. Judged: good answers a second against the best second half of the first part, memory of the process, and
that nothing but 200 and 429 comes back. The load is made by a process of its own, which shares the machine's cores.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from fastcam_bench.oracles.machine import machine, versions, write_report
from fastcam_bench.paths import RESULTS
from fastcam_bench.serving.load import Load, Target, by_clients, by_rate, measured
from fastcam_bench.serving.started import bundled, scene, started

OUT = RESULTS / "serving" / "overload.json"
CLIENTS = 32
"""That keep it busy, below the limit of requests at once."""
EVERY = 0.5
"""Seconds between two looks at the process."""


def memory(process: int) -> float:
    """MiB of a process that lie in memory."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


class Watched:
    """The memory of a process, over time."""

    def __init__(self, process: int) -> None:
        self.mib: list[float] = []
        self._process, self._stop = process, threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Watched:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(EVERY):
            self.mib.append(memory(self._process))

    def report(self) -> dict[str, float]:
        """MiB at the end of the first fifth, at the end, and what was gained between, as a share."""
        count = max(1, len(self.mib) // 5)
        first, last = float(np.median(self.mib[count : 2 * count])), float(np.median(self.mib[-count:]))
        return {"after a fifth": first, "at the end": last, "growth": last / first - 1, "most": max(self.mib)}


def measure(port: int, process: int, seconds: float, times: float) -> dict[str, Any]:
    """The peak, then the overload."""
    target = Target.of(f"http://127.0.0.1:{port}/v1/explain", scene())
    measured(lambda: by_clients(target, CLIENTS, min(5.0, seconds / 4)))  # threads and arenas are made
    peak = measured(lambda: by_clients(target, CLIENTS, min(60.0, seconds / 2)))
    rate = good(peak)
    with Watched(process) as watched:
        load = measured(lambda: by_rate(target, times * rate, seconds, connections=4096))
    begun = time.perf_counter()
    after = measured(lambda: by_clients(target, 1, 1.0))
    return {
        "peak answers a second": rate,
        "peak": peak.report(),
        "asked a second": times * rate,
        "goodput of the peak": good(load) / rate,
        "overload": load.report(),
        "memory MiB": watched.report(),
        "only 200 and 429": set(load.statuses) <= {200, 429} and not load.errors,
        "one client afterwards, ms": 1e3 * (time.perf_counter() - begun) / max(1, after.statuses[200]),
    }


def good(load: Load) -> float:
    """Answers a second with status 200."""
    return load.statuses[200] / load.seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m fastcam_bench.serving.overload", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0, help="of the overload")
    parser.add_argument("--times", type=float, default=4.0, help="the rate, in multiples of the peak")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--json", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    with TemporaryDirectory() as folder:
        model, workers = bundled(Path(folder)), str(options.workers)
        with started(model, "--workers", workers) as (port, process, _):
            found = measure(port, process, options.seconds, options.times)
    given = sys.argv[1:] if arguments is None else arguments
    about = {"machine": machine(), "versions": versions("fastcam", "onnxruntime", "numpy", "uvicorn", "starlette")}
    write_report(
        {"command": " ".join(["python -m fastcam_bench.serving.overload", *given])} | about | found, options.json
    )
    for key in ("peak answers a second", "goodput of the peak", "memory MiB", "only 200 and 429"):
        print(key, found[key])
    print("overload", found["overload"]["answers by status"], found["overload"]["errors"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
