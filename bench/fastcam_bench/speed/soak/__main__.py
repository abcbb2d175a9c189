"""The command; see the package's docstring."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastcam import Explainer, Explanation
from fastcam.schema import Mode
from fastcam_bench.oracles.machine import machine, versions, write_report
from fastcam_bench.speed.soak.mixed import Soak, questions
from fastcam_bench.speed.soak.models import all_questions, bundled, explainers
from fastcam_bench.speed.soak.process import verdict
from fastcam_bench.speed.soak.repeated import repeated


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 where anything is wrong."""
    parser = argparse.ArgumentParser(prog="python -m fastcam_bench.speed.soak", description="hours of work at once")
    parser.add_argument("--threads", type=int, default=32)
    parser.add_argument("--minutes", type=float, default=5.0, help="of the threads, after their warm-up")
    parser.add_argument("--calls", type=int, default=2000, help="of one Explainer by one thread")
    parser.add_argument("--cycles", type=int, default=300, help="Explainers made, used and dropped")
    parser.add_argument("--json", type=Path, help="where to write the results")
    options = parser.parse_args(arguments)
    results: dict[str, dict[str, Any]] = {}

    def note(name: str, result: dict[str, Any]) -> None:
        results[name] = result
        said = f"{result['calls']} calls, memory {result['growth']:+.2%}"
        print(f"{name}: {said}: {verdict(result) or 'all equal, nothing left'}", flush=True)

    small, model = questions()[:3], bundled()
    note("calls", repeated(Explainer(model), small, options.calls))

    def cycle(**question: Any) -> Explanation:
        return Explainer(model)(**question)

    note("cycles", repeated(cycle, small, options.cycles))
    each = explainers()

    def ask(mode: Mode | None, **question: Any) -> Explanation:
        return each[mode](**question)

    note("threads", Soak(ask, all_questions()).run(options.threads, 60 * options.minutes))
    if options.json:
        command = " ".join(["python -m fastcam_bench.speed.soak", *(sys.argv[1:] if arguments is None else arguments)])
        about = {"command": command, "machine": machine(), "versions": versions("fastcam", "onnxruntime", "numpy")}
        write_report(about | results, options.json)
    return int(any(map(verdict, results.values())))


if __name__ == "__main__":
    if "MALLOC_ARENA_MAX" not in os.environ:  # glibc reads it at the start: with an arena a thread, what is free in one
        os.environ["MALLOC_ARENA_MAX"] = "1"  # cannot be used by the others, and the size of all moves by percents
        os.execv(sys.executable, [sys.executable, "-m", "fastcam_bench.speed.soak", *sys.argv[1:]])
    raise SystemExit(main())
