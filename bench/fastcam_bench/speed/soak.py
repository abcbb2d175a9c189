"""Many threads that share one Explainer for minutes: the same answers as one thread alone, and memory that stays flat.

    python -m fastcam_bench.speed.soak [--threads 32] [--seconds 300] [--model FILE.cam.onnx] [--json
    bench/results/kernels/soak.json]

Every question (pictures of several sizes, alone and in batches, several targets, thresholds and connectivities) is
first answered by one thread. Then all threads ask each of them at the same time, which is the warm-up, and from there
on at random until the time is up; every array of every answer must have the bits of the first one. Memory is the
resident size of the process, read twenty times after the warm-up while all threads rest and what is free has been given
back to the system: growth is the median of the last quarter beside that of the first, without the first fifth of the
readings. Exits with 1 where an answer differed, a call failed, or memory grew by 1 % or more. Without --model, the
bundled one is exported.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

import fastcam
from fastcam import Explainer, Explanation
from fastcam_bench.oracles.machine import machine, versions, write_report

LIMIT = 0.01
"""The growth that counts as flat."""
ROUNDS = 20
"""How often all threads come to rest and memory is read."""

Question = dict[str, Any]


def questions(seed: int = 0) -> list[Question]:
    """Arguments of an Explainer's call: noise pictures of several sizes, singly and together."""
    random = np.random.default_rng(seed)

    def picture(height: int, width: int) -> Any:
        return np.kron(
            random.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8)
        )

    sizes = [(64, 64), (96, 128), (240, 320), (480, 360), (600, 800)]
    singles: list[Question] = [{"images": picture(*size)} for size in sizes]
    targets: list[Question] = [
        {"targets": [-1, -2, 0]},
        {"targets": [[0, 1]], "threshold": 0.5},
        {"targets": [{0: 1.0, 1: -1.0}], "connectivity": 4},
    ]
    asked = [single | target for single in singles[:3] for target in targets]
    return [*singles, *asked, {"images": [picture(*size) for size in sizes]}, {"images": [picture(88, 120)] * 20}]


def arrays_of(explanation: Explanation) -> list[Any]:
    """Everything in it that is an array, parts of tuples and outputs included."""

    def flat(value: Any) -> list[Any]:
        if isinstance(value, np.ndarray):
            return [value]
        if isinstance(value, dict):
            return [array for key in sorted(value) for array in flat(value[key])]
        return [array for part in value for array in flat(part)] if isinstance(value, tuple | list) else []

    return [array for field in fields(explanation) for array in flat(getattr(explanation, field.name))]


def same(a: Sequence[Any], b: Sequence[Any]) -> bool:
    """Whether two lists of arrays have the same shapes, dtypes and bits."""
    return len(a) == len(b) and all(
        x.shape == y.shape and x.dtype == y.dtype and x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True)
    )


def resident() -> int:
    """Bytes of this process in memory, after what is free was given back to the system (where the C library can)."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def growth(samples: Sequence[float]) -> float:
    """Median of the last quarter of the samples over that of the first, minus 1, without the first fifth of them.

    In that time the arenas of ONNX Runtime and of the C library meet most of what 32 threads can ask for at once.
    """
    kept = samples[len(samples) // 5 :]
    quarter = max(1, len(kept) // 4)
    return float(np.median(kept[-quarter:]) / np.median(kept[:quarter]) - 1)


class Soak:
    """Questions, their answers by one thread, and what many threads have found."""

    def __init__(self, explain: Callable[..., Explanation], asked: Sequence[Question]) -> None:
        self.explain, self.asked = explain, asked
        self.wanted = [arrays_of(explain(**question)) for question in asked]
        self.calls = self.differences = 0
        self.failures: list[str] = []
        self._lock = threading.Lock()

    def ask(self, i: int) -> None:
        """Question ``i`` once more."""
        failure, equal = "", True
        try:
            equal = same(arrays_of(self.explain(**self.asked[i])), self.wanted[i])
        except Exception as error:  # whatever goes wrong under load is what is looked for
            failure = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        with self._lock:
            self.calls += 1
            self.differences += not equal
            self.failures += [failure] if failure else []

    def run(self, threads: int, seconds: float) -> dict[str, Any]:
        """Ask from ``threads`` threads, for ``seconds`` after the warm-up."""
        over, met = threading.Event(), threading.Barrier(threads + 1)
        until = [0.0]

        def work(number: int) -> None:
            random = np.random.default_rng(number)
            for i in range(len(self.asked)):  # all the same at once: the most memory that this takes
                met.wait()
                self.ask(i)
            while True:
                met.wait()  # all have come to rest
                met.wait()  # and go on
                if over.is_set():
                    return
                while time.monotonic() < until[0]:
                    self.ask(int(random.integers(len(self.asked))))

        workers = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(threads)]
        for worker in workers:
            worker.start()
        for _ in range(len(self.asked) + 1):
            met.wait()
        samples = [resident() / 2**20]
        for _ in range(ROUNDS):
            until[0] = time.monotonic() + seconds / ROUNDS
            met.wait()
            met.wait()
            samples.append(resident() / 2**20)
        over.set()
        met.wait()
        for worker in workers:
            worker.join()
        return {
            "threads": threads,
            "seconds": seconds,
            "questions": len(self.asked),
            "calls": self.calls,
            "differences": self.differences,
            "failures": self.failures,
            "rss_mib": [round(sample, 1) for sample in samples],
            "growth": round(growth(samples), 5),
        }


def bundled() -> bytes:
    """The bundled model, exported."""
    from fastcam_export import export_model

    data = Path(fastcam.__file__).parent / "data"
    exported = export_model(data / "scenes.onnx", preprocess="imagenet", labels=data / "scenes.labels.txt", check=False)
    content: bytes = exported.model.SerializeToString()
    return content


def verdict(result: dict[str, Any]) -> str:
    """One line that says what is wrong; empty where nothing is."""
    wrong = []
    if result["differences"]:
        wrong.append(f"{result['differences']} of {result['calls']} answers differed")
    if result["failures"]:
        wrong.append(f"{len(result['failures'])} calls failed, the first with {result['failures'][0]}")
    if result["growth"] >= LIMIT:
        wrong.append(f"memory grew by {result['growth']:.1%}")
    return "; ".join(wrong)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the module's docstring."""
    parser = argparse.ArgumentParser(description="threads that share one Explainer")
    parser.add_argument("--threads", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--model", type=Path, help="an exported file for RGB pictures; by default the bundled one's")
    parser.add_argument("--json", type=Path, help="where to write the result")
    options = parser.parse_args(arguments)
    explainer = Explainer(options.model or bundled())
    result = Soak(explainer, questions()).run(options.threads, options.seconds)
    command = f"python -m fastcam_bench.speed.soak --threads {options.threads} --seconds {options.seconds:g}"
    about = {"command": command, "machine": machine(), "versions": versions("fastcam", "onnxruntime", "numpy")}
    if options.json:
        write_report(about | {"model": str(options.model or "bundled")} | result, options.json)
    wrong = verdict(result)
    print(f"{result['calls']} answers, memory {result['growth']:+.2%}: {wrong or 'all equal'}")
    return int(bool(wrong))


if __name__ == "__main__":
    if "MALLOC_ARENA_MAX" not in os.environ:  # glibc reads it at the start: with an arena a thread, what is free in one
        os.environ["MALLOC_ARENA_MAX"] = "1"  # cannot be used by the others, and the size of all moves by percents
        os.execv(sys.executable, [sys.executable, "-m", "fastcam_bench.speed.soak", *sys.argv[1:]])
    raise SystemExit(main())
