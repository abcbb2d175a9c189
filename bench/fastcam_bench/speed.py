"""What an explanation costs: exported files beside their source's plain forward pass, in the same runtime.

    python -m fastcam_bench.speed [--out FILE] [--seconds S] [--threads T] [MODEL.onnx ...]

Contestants run interleaved in random order in one process, on the same input and number of threads, worker threads
not spinning, so that a contestant does not pay for the one before it. Each round gives one ratio to the plain pass of
the same round; the median of these and a bootstrap interval are reported. Before timing, the exported file's outputs
are compared with the source's. Without arguments: the bundled model, the real exporters' graphs in the onnx package
(their weights are all one number, which does not matter to speed) and, where they are, the models in FASTCAM_ASSETS.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from fastcam import schema
from fastcam_bench.machine import machine, versions, write_report
from fastcam_export import export_model

ROOT = Path(__file__).parent.parent.parent
OUTPUT = ROOT / "bench" / "results" / "speed.json"
TOP = 5
Array = npt.NDArray[Any]
Run = Callable[[], list[Array]]


def models() -> list[Path]:
    """What is measured when nothing is named."""
    light = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    assets = Path(os.environ.get("FASTCAM_ASSETS", ROOT.parent / "shared" / "assets")) / "models"
    if not assets.is_dir():
        print(f"no models at {assets} (set FASTCAM_ASSETS): leaving them out", file=sys.stderr)
    names = ["squeezenet1.1", "mobilenet_v2_1.0_224_quant.float", "mobilenet_v1_0.25_128_quant.float"]
    real = [assets / f"{name}.onnx" for name in (*names, "resnet20_cifar10")]
    bundled = Path(str(files("fastcam"))) / "data" / "scenes.onnx"
    return [bundled, *(path for path in real if path.is_file()), *sorted(light.glob("*.onnx"))]


def session(model: bytes, threads: int) -> ort.InferenceSession:
    """A CPU session whose threads sleep when they have nothing to do."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def contestants(path: Path, batch: int, threads: int) -> dict[str, Run] | None:
    """Name -> a function that runs once; the plain pass first. None where the file's batch is another one."""
    source = onnx.load(path)
    listed = {tensor.name for tensor in source.graph.initializer}
    image = next(value for value in source.graph.input if value.name not in listed)
    dims = [dim.dim_value or None for dim in image.type.tensor_type.shape.dim]
    if dims[0] not in (None, batch):
        return None
    shape = [size if size is not None else fill for size, fill in zip(dims, (batch, 3, 224, 224))]
    feeds = {image.name: np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    plain = session(path.read_bytes(), threads)
    top = {**feeds, schema.TARGETS: -np.arange(1, TOP + 1)[None]}
    runs: dict[str, Run] = {"plain": partial(plain.run, None, feeds)}
    for emit in schema.EMITS:
        exported = session(export_model(source, emit=emit, check=False).model.SerializeToString(), threads)
        runs[emit] = partial(exported.run, None, feeds)
        if emit == "weights":
            runs[f"weights, {TOP} targets"] = partial(exported.run, None, top)
    return runs


def measure(runs: dict[str, Run], seconds: float) -> dict[str, Any]:
    """Interleaved rounds for about ``seconds``: per contestant its times and their ratios to the plain pass."""
    first = {name: run() for name, run in runs.items()}
    same = {name: all(map(np.array_equal, first["plain"], out)) for name, out in first.items()}
    rng = np.random.default_rng(0)
    rounds: list[dict[str, float]] = []
    began = time.perf_counter()
    while len(rounds) < 10 or time.perf_counter() - began < seconds:
        times = {}
        for index in rng.permutation(len(runs)):
            name = list(runs)[index]
            start = time.perf_counter()
            runs[name]()
            times[name] = time.perf_counter() - start
        rounds.append(times)
    plain = np.array([times["plain"] for times in rounds])
    found = {}
    for name in runs:
        taken = np.array([times[name] for times in rounds])
        ratio = taken / plain
        resampled = np.median(rng.choice(ratio, (1000, len(ratio))), axis=1)
        found[name] = {
            "outputs_equal_plain": same[name],
            "ratio": round(float(np.median(ratio)), 4),
            "ratio_95": [round(float(q), 4) for q in np.quantile(resampled, (0.025, 0.975))],
            "median_ms": round(float(np.median(taken)) * 1e3, 3),
            "p99_ms": round(float(np.quantile(taken, 0.99)) * 1e3, 3),
            "samples_ms": [round(float(t) * 1e3, 3) for t in taken],
        }
    return {"rounds": len(rounds), "contestants": found}


def main() -> None:
    """The command; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Exported files beside their source's plain forward pass.")
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--out", type=Path, default=OUTPUT)
    parser.add_argument("--seconds", type=float, default=8.0, help="per model and batch size")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    results = []
    for path in options.models or models():
        for batch in (1, 8):
            runs = contestants(path, batch, options.threads)
            if runs is None:
                continue
            result = {"model": path.stem, "batch": batch, **measure(runs, options.seconds)}
            results.append(result)
            line = "  ".join(f"{name} {one['ratio']:.3f}" for name, one in result["contestants"].items())
            print(f"{path.stem:36} batch {batch}  {line}", flush=True)
    report = {
        "command": "python -m fastcam_bench.speed",
        "threads": options.threads,
        "seconds": options.seconds,
        "versions": versions("fastcam", "onnxruntime", "onnx", "numpy"),
        "python": platform.python_version(),
        "machine": machine(),
        "results": results,
    }
    write_report(report, options.out)


if __name__ == "__main__":
    main()
