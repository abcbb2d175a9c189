"""``fastcam batch`` beside ``Explainer.stream``: ``python -m fastcam_bench.speed.batch [--pictures 100000]``.

Its rate over the stream's, in turns, each in a process of its own, from the first picture to the last, and what each
takes of the processor. Two workers of one thread beside one; one has threads that read and write beside the model's, so
it is more than a core where there is more than one: then also with a core for each worker and no more. The memory of a
long run. And that run once more, killed at random and called again: the table must be the same.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib.resources import files
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np

from fastcam import Explainer
from fastcam.batch.job import Job
from fastcam.batch.run import Progress, run
from fastcam.batch.sources.opened import open_source
from fastcam.batch.table import files_of
from fastcam_bench.oracles.machine import machine, versions, write_report
from fastcam_bench.paths import RESULTS

OUT = RESULTS / "speed" / "batch.json"
DISTINCT = 100
"""Pictures that differ; the others are further names of these."""
SMALL = 128
"""Pictures of a part where several workers are measured, so that each has many."""
TARGETS = {
    "two workers over one": 1.8,
    "rate over the stream's": 0.95,
    "memory of the last half over the first half's": 1.05,
}
BUNDLED = "bundled"
"""The model that comes with the package: the smallest, so that what is not the model counts most."""
PAGE = os.sysconf("SC_PAGE_SIZE")


def pictures(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """A folder with JPEGs of that width and height, a thousand in each of its subfolders."""
    rng, kept = np.random.default_rng(0), []
    for number in range(count):
        path = folder / f"{number // 1000:04}" / f"{number:07}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number < DISTINCT:
            picture = cv2.resize(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8), size, interpolation=2)
            cv2.imwrite(str(path), picture)
            kept.append(path)
        else:
            os.link(kept[number % DISTINCT], path)
    return folder


def resident(process: int) -> float:
    """MiB that a process holds; 0 of one that has ended."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1]) * PAGE / (1 << 20)
    except (OSError, IndexError):
        return 0.0


class Clock:
    """When the first picture and the last came, and what memory there was on the way."""

    def __init__(self) -> None:
        self.count = 0
        self.memory: list[float] = []
        self._first = self._last = self._begun = self._spent = 0.0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            if self.count:
                self.memory.append(resident(os.getpid()))
            time.sleep(0.25)

    def tick(self, progress: Progress | None = None) -> None:
        """One more picture."""
        self._last, self._spent = time.perf_counter(), time.process_time()
        if not self.count:
            self._first, self._begun = self._last, self._spent
        self.count += 1

    @property
    def rate(self) -> float:
        """Pictures a second."""
        return (self.count - 1) / (self._last - self._first)

    def found(self) -> dict[str, Any]:
        """What was measured."""
        spent = 1e3 * (self._spent - self._begun) / (self.count - 1)
        return {"a second": self.rate, "processor": spent, "memory": self.memory}


def streamed(model: Path, folder: Path, out: Path, opening: dict[str, Any]) -> dict[str, Any]:
    """The rate of ``Explainer.stream``."""
    files, clock = sorted(folder.rglob("*.jpg")), Clock()
    for frame in Explainer(model, **opening).stream(files):
        assert frame.explanation is not None, frame.error
        clock.tick()
    return clock.found()


def batched(model: Path, folder: Path, out: Path, opening: dict[str, Any]) -> dict[str, Any]:
    """The rate of a batch."""
    clock = Clock()
    job = Job(model, opening=opening)
    done = run(job, open_source(str(folder)), out, clock.tick)
    assert done.failed == 0, done.first
    return clock.found()


def shared(model: Path, folder: Path, out: Path, batch_size: int, count: int, ray: bool, cores: int) -> dict[str, Any]:
    """The rate of several workers of one thread each, from the first part that is there to the last.

    Args:
        cores: that they have together; 0 is all.
    """
    from fastcam.batch.on_ray import LOCAL, run_on_ray
    from fastcam.batch.workers import run_in_processes

    if cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    seen: list[tuple[float, int]] = []

    def told(progress: Progress) -> None:
        seen.append((time.perf_counter(), progress.done))

    job = Job(model, opening={"threads": 1, "batch_size": batch_size}, part=SMALL, decoders=1)
    source = open_source(str(folder))
    if ray:
        run_on_ray(job, source, out, LOCAL, count, told)
    else:
        run_in_processes(job, source, out, count, told)
    (begun, before), (ended, after) = seen[count - 1], seen[-1]  # each has begun
    return {"a second": (after - before) / (ended - begun)}


def alone(call: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """A measurement in a process of its own."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(call, arguments)


def flat(memory: list[float]) -> dict[str, float]:
    """The memory of a run: its largest of the first half, without the beginning, and of the last half."""
    begun = memory[len(memory) // 20 :]
    half = len(begun) // 2
    first, last = max(begun[:half], default=0.0), max(begun[half:], default=0.0)
    return {"first half MiB": first, "last half MiB": last, "last over first": last / max(first, 1e-9)}


def killed(model: Path, folder: Path, out: Path, options: list[str], times: int, seconds: float) -> dict[str, Any]:
    """A run that is killed ``times`` times, each within about a ``times``-th of ``seconds``, until it is complete."""
    command = [sys.executable, "-m", "fastcam", "batch", str(model), str(folder), "--out", str(out), *options]
    draw, kills = random.Random(0), 0
    while kills < times:
        there = len(list(out.glob("part-*")))
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while process.poll() is None and not has_begun(out, there):
            time.sleep(0.01)  # of a run that is killed before it has done anything nothing can be wrong
        try:
            process.wait(draw.random() * seconds / times)
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
    last = subprocess.run(command, check=True, capture_output=True, text=True)
    return {"kills": kills, "the last run": last.stdout.partition(", written to")[0].strip()}


def has_begun(out: Path, before: int) -> bool:
    """Whether a run has begun a part: its file under another name, or one more than before."""
    return any(out.glob(".fastcam-*.parquet")) or len(list(out.glob("part-*"))) > before


def same(one: Path, other: Path) -> bool:
    """Whether two tables are, part by part."""
    import pyarrow.parquet as parquet

    files, others = files_of(one), files_of(other)
    if [path.name for path in files] != [path.name for path in others]:
        return False
    return all(parquet.read_table(a).equals(parquet.read_table(b)) for a, b in zip(files, others, strict=True))


def measured(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Everything about one network."""
    from fastcam_export import export_model  # here, so that the processes that are measured do not hold it

    model = folder / "model.cam.onnx"
    export_model(_source(options.network), model, preprocess="imagenet", check=False)
    width, height = map(int, options.size.split("x"))
    size = width, height
    few = pictures(folder / "few", options.few, size)
    seen: dict[str, list[dict[str, Any]]] = {"stream": [], "batch": []}
    how = {"threads": options.threads, "batch_size": options.batch_size, "goal": "throughput"}  # as the verb opens it
    for number in range(options.rounds):
        seen["stream"].append(alone(streamed, model, few, folder, how))
        seen["batch"].append(alone(batched, model, few, folder / f"table {number}", how))
    kinds = (("processes", False), *((("ray", True),) if options.ray else ()))
    scaling = {name: workers(model, few, folder / name, options, ray) for name, ray in kinds}
    many, table = pictures(folder / "many", options.pictures, size), folder / "many table"
    begun = time.perf_counter()
    long = alone(batched, model, many, table, how)
    seconds = time.perf_counter() - begun
    given = ["--batch-size", str(options.batch_size)]
    given += [] if options.threads is None else ["--threads", str(options.threads)]
    again = killed(model, many, folder / "killed table", given, options.kills, 0.9 * seconds)
    return {
        "network": options.network,
        "pictures": options.size,
        "batch size": options.batch_size,
        "threads": options.threads,
        "goal": how["goal"],
        "rate": {
            "pictures": options.few,
            "stream a second": [one["a second"] for one in seen["stream"]],
            "batch a second": [one["a second"] for one in seen["batch"]],
            "over the stream's": over(seen["batch"], seen["stream"], "a second"),
            "stream's processor ms a picture": [one["processor"] for one in seen["stream"]],
            "batch's processor ms a picture": [one["processor"] for one in seen["batch"]],
            "processor over the stream's": over(seen["batch"], seen["stream"], "processor"),
        },
        "workers of one thread": scaling,
        "memory": {"pictures": options.pictures, "a second": long["a second"], **flat(long["memory"])},
        "killed": again
        | {
            "pictures": options.pictures,
            "parts": len(files_of(table)),
            "the same table": same(table, folder / "killed table"),
        },
    }


def _source(network: str) -> Path:
    """A network's file."""
    if network == BUNDLED:
        return Path(str(files("fastcam") / "data" / "scenes.onnx"))
    from fastcam_bench.models import networks

    source = networks.onnx_file(network, networks.module(network))
    assert source is not None
    return source


def over(ones: list[dict[str, Any]], others: list[dict[str, Any]], key: str) -> float:
    """The median ratio of what was measured in turns."""
    return statistics.median(float(one[key]) / float(other[key]) for one, other in zip(ones, others, strict=True))


def workers(model: Path, few: Path, out: Path, options: argparse.Namespace, ray: bool) -> dict[str, Any]:
    """Two workers beside one, on all cores and with one core for each."""
    found: dict[str, Any] = {}
    for name, each in (("all cores", 0), ("a core for each", 1)):
        rates = {n: shared_rate(model, few, Path(f"{out} {name} {n}"), options, n, ray, n * each) for n in (1, 2)}
        found[name] = {"a second": rates, "two over one": rates[2] / rates[1]}
    return found


def shared_rate(
    model: Path, folder: Path, out: Path, options: argparse.Namespace, count: int, ray: bool, cores: int
) -> float:
    """The rate of several workers, in a process that is not one of a pool, which may have none of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        found = pool.submit(shared, model, folder, out, options.batch_size, count, ray, cores).result()
    return float(found["a second"])


def main() -> None:
    """Measure, print and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", default=BUNDLED, help=f"of fastcam_bench.models.networks, or {BUNDLED}")
    parser.add_argument("--size", default="160x120", help="width and height of the pictures")
    parser.add_argument("--pictures", type=int, default=100_000, help="of the long run")
    parser.add_argument("--few", type=int, default=3000, help="pictures of each run in turns with the stream")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--ray", action="store_true", help="two actors of a local Ray cluster beside one, too")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        found = measured(options, Path(folder))
    command = " ".join(["python -m fastcam_bench.speed.batch", *sys.argv[1:]])
    about = {
        "command": command,
        "machine": machine(),
        "versions": versions("fastcam", "onnxruntime", "pyarrow"),
        "targets": TARGETS,
    }
    print(json.dumps(found, indent=1))
    write_report(about | found, options.out)


if __name__ == "__main__":
    main()
