"""The command; see the package's docstring."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastcam_bench.faults import injection, verdict
from fastcam_bench.faults.cases import CASES, Case
from fastcam_bench.faults.children import Files, Place, timed, warm
from fastcam_bench.faults.injection import KILLING, READING, WRITING, Fault
from fastcam_bench.oracles.machine import machine, versions, write_report


class Study:
    """All runs of one case: its undisturbed files, and the complaints."""

    def __init__(self, place: Place, case: Case) -> None:
        self.place, self.case = place, case
        self.runs: Counter[str] = Counter()
        self.complaints: list[str] = []
        self.wanted: Files = {}
        place.prepare({})
        first, self.seconds = timed(place, case, WRITING[0])
        self.wanted = first.files
        place.prepare({})
        again = place.run(case, WRITING[0], 0, "out")
        if first.status or (first.files != again.files and not case.cache):
            self.complaints.append(f"undisturbed: exit {first.status}, or not the same twice: {first.said[-500:]}")
        self.old: Files = {
            name: (mode, None) if content is None else (0o604, b"old") for name, (mode, content) in first.files.items()
        }

    def faults(self, folder: str, faults: Sequence[Fault], step: int, offset: int) -> None:
        """Every fault at the n-th call, for every n or one in ``step``, on an empty folder and a full one."""
        for nth, fault, before in self._plan(folder, faults, step, offset):
            self.place.prepare(before)
            run = self.place.run(self.case, fault, nth, folder)
            judge = verdict.of_writing if folder == "out" else verdict.of_reading
            self._note(fault, nth, bool(before), judge(self.case, run, before, self.wanted))

    def _plan(self, folder: str, faults: Sequence[Fault], step: int, offset: int) -> Iterator[tuple[int, Fault, Files]]:
        number = offset
        for before in ({}, self.old) if not self.case.cache else ({},):
            self.place.prepare(before)
            self.place.run(self.case, faults[0], 0, folder)
            counts = [self.place.counter.of(fault.groups) for fault in faults]
            for fault, count in zip(faults, counts, strict=True):
                for nth in range(1, count + 1):
                    number += 1
                    if number % step == 0:
                        yield nth, fault, before

    def kills(self, times: int, step: int, random: np.random.Generator) -> None:
        """Killed at every call, or one in ``step``, and ``times`` at a random moment; then the same call once more."""
        self.place.prepare(self.old)
        self.place.run(self.case, KILLING, 0, "out")
        count = self.place.counter.of(KILLING.groups)
        for nth in range(1, count + 1, step):
            self._kill(nth, None)
        for _ in range(times):
            self._kill(0, float(random.uniform(0, self.seconds)))

    def _kill(self, nth: int, after: float | None) -> None:
        self.place.prepare(self.old)
        run = self.place.run(self.case, KILLING, nth, "out", after)
        killed = None if self.case.cache else verdict.of_kill(run, self.old, self.wanted)
        self._note(KILLING, nth, True, killed)
        again = self.place.run(self.case, WRITING[0], 0, "out")
        left = {name: file for name, file in again.files.items() if name in self.wanted}
        wrong = again.status or (not self.case.cache and {n: c for n, (_, c) in left.items()} != self._contents())
        self._note(KILLING, nth, True, f"the next call: exit {again.status}, {again.said[-500:]}" if wrong else None)

    def _contents(self) -> dict[str, bytes | None]:
        return {name: content for name, (_, content) in self.wanted.items()}

    def _note(self, fault: Fault, nth: int, full: bool, complaint: str | None) -> None:
        self.runs[fault.name] += 1
        if complaint:
            self.complaints.append(f"{fault.name}, call {nth}, {'files there' if full else 'empty'}: {complaint}")


def added(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """The runs of two studies as those of one."""
    return {
        name: {
            "runs": dict(Counter(before.get(name, {}).get("runs", {})) + Counter(case["runs"])),
            "complaints": before.get(name, {}).get("complaints", []) + case["complaints"],
        }
        for name, case in now.items()
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 where anything did not hold."""
    parser = argparse.ArgumentParser(prog="python -m fastcam_bench.faults", description="disks that fail")
    parser.add_argument("--only", action="append", help=f"of {', '.join(case.name for case in CASES)}")
    parser.add_argument("--every", type=int, default=1, help="one in so many calls, in turn; 1 is each")
    parser.add_argument("--offset", type=int, default=0, help="with which of them to begin")
    parser.add_argument("--kills", type=int, default=0, help="kills at random moments, of each case")
    parser.add_argument("--no-faults", action="store_true", help="kills alone")
    parser.add_argument("--add", action="store_true", help="to the runs that the file has")
    parser.add_argument("--json", type=Path, help="where to write the counts")
    options = parser.parse_args(arguments)
    chosen = [case for case in CASES if not options.only or case.name in options.only]
    library = injection.library()
    warm()
    random = np.random.default_rng(0)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="faults-") as root:
        place = Place(Path(root), library)
        for case in chosen:
            study = Study(place, case)
            if not options.no_faults:
                study.faults("out", WRITING, options.every, options.offset)
                study.faults("in", READING, options.every, options.offset)
            if options.kills:
                study.kills(options.kills, options.every, random)
            results[case.name] = {"runs": dict(study.runs), "complaints": study.complaints}
            print(
                f"{study.seconds:.2f} {case.name:30} {study.runs.total():5} runs, {len(study.complaints)} complaints",
                flush=True,
            )
            print(
                *[f"    {complaint}" for complaint in study.complaints[:20]],
                sep="\n",
                end="\n" * bool(study.complaints),
            )
    if options.json:
        command = " ".join(["python -m fastcam_bench.faults", *(sys.argv[1:] if arguments is None else arguments)])
        about = {
            "command": command,
            "machine": machine(),
            "versions": versions("fastcam", "onnxruntime", "opencv-python"),
        }
        before = json.loads(options.json.read_text())["cases"] if options.add and options.json.exists() else {}
        write_report(about | {"cases": before | added(before, results)}, options.json)
    return int(any(result["complaints"] for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())
