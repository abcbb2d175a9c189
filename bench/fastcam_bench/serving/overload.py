"""Four times what a server can do, for minutes: ``python -m fastcam_bench.serving.overload [--seconds 300]``.

First as many clients as keep it busy say what it can do. Then requests come at a multiple of that rate, whether or not
answers come. Judged: good answers a second against those of the first part, memory of the process, and that nothing but
200 and 429 comes back. The load is made by this process on the last of the machine's cores, where there are several;
the server has the others, so that what is judged is the server and not how they share.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam_bench.oracles.machine import machine, versions, write_report
from fastcam_bench.paths import RESULTS
from fastcam_bench.serving.flood import Flood
from fastcam_bench.serving.load import Load, Target
from fastcam_bench.serving.processes import said
from fastcam_bench.serving.started import bundled, scene, started
from fastcam_bench.speed.serving import processor_seconds

OUT = RESULTS / "serving" / "overload.json"
CLIENTS, CROWD = 32, 128
"""That keep it busy, below the limit of requests at once; and beyond it, so that it has made all of its threads."""
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
    for clients in (CROWD, CLIENTS):
        Flood(target).by_clients(clients, min(5.0, seconds / 8))
    marks = [_spent(process)]
    peak = Flood(target).by_clients(CLIENTS, min(60.0, seconds / 2))
    marks.append(_spent(process))
    rate = good(peak)
    with Watched(process) as watched:
        load = Flood(target).by_rate(times * rate, seconds)
    marks.append(_spent(process))
    after = Flood(target).by_clients(1, 1.0)
    (server, _), (loaded, load_own) = ((marks[i + 1] - marks[i]).tolist() for i in (0, 1))
    answer = server / peak.statuses[200]
    refused = (loaded - answer * load.statuses[200]) / max(1, load.statuses[429])
    return {
        "peak answers a second": rate,
        "peak": peak.report(),
        "asked a second": times * rate,
        "goodput of the peak": good(load) / rate,
        "overload": load.report(),
        "processor ms": {
            "an answer at the peak": 1e3 * answer,
            "a refusal": 1e3 * refused,
            "a request in the load generator": 1e3 * load_own / load.requests,
        },
        "memory MiB": watched.report(),
        "only 200 and 429": set(load.statuses) <= {200, 429} and not load.errors,
        "one client afterwards, ms": 1e3 * after.seconds / max(1, after.statuses[200]),
    }


def _spent(process: int) -> NDArray[np.float64]:
    """Processor seconds of the server's processes, and of this one."""
    return np.array([processor_seconds(process), time.process_time()])


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
        model, cores = bundled(Path(folder)), sorted(os.sched_getaffinity(0))
        servers = cores[:-1] or cores
        how = ["--workers", str(options.workers), "--threads", str(max(1, len(servers) // options.workers))]
        os.sched_setaffinity(0, servers)  # what is started has it too
        try:
            with started(model, *how) as (port, process, _):
                os.sched_setaffinity(0, cores[-1:])
                found = measure(port, process, options.seconds, options.times)
        finally:
            os.sched_setaffinity(0, cores)
    given = sys.argv[1:] if arguments is None else arguments
    about = {"machine": machine(), "versions": versions("fastcam", "onnxruntime", "numpy", "uvicorn", "starlette")}
    write_report(
        {"command": said("overload", given), "cores of the server": len(servers)} | about | found, options.json
    )
    for key in ("peak answers a second", "goodput of the peak", "processor ms", "memory MiB", "only 200 and 429"):
        print(key, found[key])
    print("overload", found["overload"]["answers by status"], found["overload"]["errors"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
