"""Sections about hostile inputs, failing disks and long work, from bench/results/robustness."""

from __future__ import annotations

import json
from collections.abc import Callable

from fastcam_bench.paths import RESULTS
from fastcam_bench.report.results import read

KINDS = ("crashes", "hangs", "memory", "tracebacks", "wrong")


def hostile_inputs() -> str:
    """Inputs tried by class and what they did, before and after."""
    measured, before = read("robustness/fuzz.json")["classes"], read("robustness/before.json")
    rows = [(before["classes"].get(name, ""), one) for name, one in measured.items()]
    sanitized = RESULTS / "fuzz" / "native.json"
    if sanitized.exists():
        one = json.loads(sanitized.read_text(encoding="utf-8"))
        counts = {"inputs": one["accepted"] + one["refused"], "found": {kind: [] for kind in KINDS}}
        rows.append(("", one | counts | {"name": "The C API, with sanitizers"}))
    total = sum(one["inputs"] for _, one in rows)
    lines = [
        f"{total:,} inputs in all, `python -m fastcam_bench.fuzz`. *Accepted*: the input gave a result. *Refused*:",
        "it gave one line that says what is wrong. All else is a fault, counted once for each place in the code: a",
        "process that died, an input that took more than 30 seconds or 2 GB, an exception that is no `FastcamError`,",
        f"a result that an oracle refutes. *Before*: what {before['what']} found, in inputs.",
        "",
        "| inputs | before | tried | accepted | refused | crashes | hangs | memory | tracebacks | wrong |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for old, one in rows:
        found = " | ".join(str(len(one["found"][kind])) for kind in KINDS)
        tried = f"{one['inputs']:,} | {one['accepted']:,} | {one['refused']:,}"
        lines.append(f"| {one['name']} | {old} | {tried} | {found} |")
    return "\n".join(lines)


def failing_disks() -> str:
    """Runs of each verb in which one call failed or the process was killed."""
    measured, before = read("robustness/faults.json")["cases"], read("robustness/before.json")
    counts = {name: _counts(one["runs"]) for name, one in measured.items()}
    runs, kills = (sum(one[i] for one in counts.values()) for i in (0, 1))
    lines = [
        f"{runs:,} runs in which one call, or all from one on, failed, and {kills:,} in which the process was killed",
        "(`python -m fastcam_bench.faults`). *Wrong*: a half file, a success that is none, a traceback, a file that is",
        f"left, a next call that fails. Before, {before['kills']}.",
        "",
        "| call | failing calls | kills | wrong |",
        "|---|---:|---:|---:|",
    ]
    for name, (failing, killed) in counts.items():
        lines.append(f"| {name} | {failing} | {killed} | {len(measured[name]['complaints'])} |")
    return "\n".join(lines)


def _counts(runs: dict[str, int]) -> tuple[int, int]:
    """Runs with failing calls, and kills, each of which is followed by a run that must work."""
    killed = runs.get("killed", 0)
    return sum(runs.values()) - killed, killed // 2


def long_work() -> str:
    """What grew in long work."""
    measured = read("robustness/soak.json")
    lines = [
        f"`{measured['command']}`. Memory is read at rest; its growth is that of the last quarter of the readings over",
        "the first.",
        "",
        "| work | calls | answers that differ | memory | open files | threads |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    mixed = measured["threads"]
    threads = f"{mixed['threads']} threads, all methods of one pass, {mixed['seconds'] / 60:g} min"
    for key, name in (("calls", "one Explainer"), ("cycles", "Explainers made and dropped"), ("threads", threads)):
        one = measured[key]
        more = [one[what][1] - one[what][0] for what in ("files", "threads_of_process")]
        lines.append(
            f"| {name} | {one['calls']:,} | {one['differences']} | {one['growth']:+.2%} | {more[0]:+d} | {more[1]:+d} |"
        )
    return "\n".join(lines)


SECTIONS: dict[str, Callable[[], str]] = {
    "hostile_inputs": hostile_inputs,
    "failing_disks": failing_disks,
    "long_work": long_work,
}
