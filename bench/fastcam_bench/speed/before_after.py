"""Whether a change made Explainer slower: two checkouts explain the same pictures with the same file, in turns.

    git worktree add ../before COMMIT      # and build its kernels there, or copy fastcam/_native*.so
    python -m fastcam_bench.speed.before_after ../before [--seconds 60] [--json bench/results/speed/before_after.json]

Each checkout has a process of its own, which waits while the other works. What is timed: from picture to boxes, and a
tensor that is ready. Classes, maps, heatmaps and boxes must have the same bits.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from fastcam.runtime.timing import interleaved, summary
from fastcam_bench.models import networks
from fastcam_bench.oracles.machine import machine, versions, write_report
from fastcam_bench.paths import ROOT
from fastcam_export import export_model

NETWORKS = ("resnet50", "mobilenet_v2")
BATCHES = (1, 8)
PAUSE = 0.02
"""Seconds between two calls, in which ONNX Runtime's threads of the other process stop to spin."""

# uses what users import, and nothing else: the other checkout may be of any age
WORKER = """
import hashlib, sys, time
import numpy as np
import fastcam
model, pictures, threads = sys.argv[1:]
explainer = fastcam.Explainer(model, providers="cpu", threads=int(threads))
pictures = np.load(pictures)
asked = {"picture": list(pictures), "tensor": np.random.default_rng(0).random((len(pictures), 3, 224, 224), np.float32)}
for line in sys.stdin:
    began = time.perf_counter()
    e = explainer(asked[line.strip()])
    seconds = time.perf_counter() - began
    parts = (e.classes, e.maps, e.heatmaps, e.boxes)
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()
    print(seconds, digest, flush=True)
"""


class Worker:
    """A process with one checkout's packages and one Explainer."""

    def __init__(self, checkout: Path, model: Path, pictures: Path, threads: int) -> None:
        path = os.pathsep.join(map(str, (checkout, checkout / "export")))
        command = [sys.executable, "-c", WORKER, str(model), str(pictures), str(threads)]
        # from a folder without packages, since -c puts the working folder in front of PYTHONPATH
        self.process = subprocess.Popen(
            command,
            env=os.environ | {"PYTHONPATH": path},
            cwd=pictures.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.digests: dict[str, str] = {}

    def run(self, what: str) -> None:
        """One call on "picture" or "tensor"; the time around it includes two lines through pipes."""
        assert self.process.stdin is not None and self.process.stdout is not None
        print(what, file=self.process.stdin, flush=True)
        self.digests[what] = self.process.stdout.readline().split()[1]


def measure(name: str, before: Path, batch: int, seconds: float, threads: int) -> dict[str, Any]:
    """Ratios of now to before, of one network and batch."""
    with tempfile.TemporaryDirectory() as folder:
        model, pictures = Path(folder) / "model.cam.onnx", Path(folder) / "pictures.npy"
        export_model(networks.onnx_file(name, networks.module(name)) or "", model, preprocess="imagenet", check=False)
        np.save(pictures, np.stack(networks.photos(batch)))
        a, b = (Worker(checkout, model, pictures, threads) for checkout in (before, ROOT))
        rows = {}
        for what in ("picture", "tensor"):
            runs = {"before": lambda what=what: a.run(what), "now": lambda what=what: b.run(what)}
            rows[what] = summary(interleaved(runs, seconds, pause=PAUSE), "before")["now"]
            rows[what]["same_bits"] = a.digests[what] == b.digests[what]
        for worker in (a, b):
            worker.process.communicate()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="the other checkout")
    parser.add_argument("--seconds", type=float, default=20, help="for each row")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    commit = subprocess.check_output(["git", "-C", options.before, "rev-parse", "--short", "HEAD"], text=True).strip()
    report: dict[str, Any] = {
        "command": f"python -m fastcam_bench.speed.before_after CHECKOUT --seconds {options.seconds:g}",
        "before": commit,
        "machine": machine(),
        "versions": versions("onnxruntime", "numpy", "torch"),
        "networks": {},
    }
    for name in NETWORKS:
        for batch in BATCHES:
            rows = measure(name, options.before.resolve(), batch, options.seconds, options.threads)
            report["networks"][f"{name}, batch {batch}"] = rows
            for what, row in rows.items():
                bits = "same bits" if row["same_bits"] else "OTHER BITS"
                print(f"{name}, batch {batch}, {what}: {row['ratio']:.3f}, 95 % {row['ratio_95']}, {bits}", flush=True)
    if options.json is not None:
        write_report(report, options.json)


if __name__ == "__main__":
    main()
