"""The command; see the package's docstring."""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fastcam_bench.fuzz as package
from fastcam_bench.fuzz.findings import KINDS
from fastcam_bench.fuzz.watch import Limits, run_class
from fastcam_bench.oracles.machine import machine, versions, write_report

FRAME = ("capi", "findings", "mutation", "record", "watch", "worker", "__main__")
"""Modules of the package that are no class of inputs."""


def classes() -> dict[str, str]:
    """Module names of the classes, by the last part of it."""
    names = [one.name for one in pkgutil.iter_modules(package.__path__) if one.name not in FRAME and not one.ispkg]
    return {name: f"{package.__name__}.{name}" for name in names}


def line(name: str, result: dict[str, Any]) -> str:
    """One class in one line."""
    found = ", ".join(f"{len(result['found'][kind])} {kind}" for kind in KINDS)
    return f"{name:12} {result['inputs']:8} inputs, {result['accepted']} accepted, {result['refused']} refused: {found}"


def added(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """The counts of two runs as those of one."""
    both = dict(before)
    for name, result in now.items():
        old = before.get(name)
        if old is not None:
            counts = {key: old[key] + result[key] for key in ("inputs", "accepted", "refused", "seconds")}
            found = {kind: sorted({*old["found"][kind], *result["found"][kind]}) for kind in KINDS}
            result = result | counts | {"found": found}
        both[name] = result
    return both


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 where anything was found."""
    parser = argparse.ArgumentParser(prog="python -m fastcam_bench.fuzz", description="hostile inputs, by class")
    parser.add_argument("--seconds", type=float, help="of all classes together; 60 where --inputs is not given")
    parser.add_argument("--inputs", type=int, default=2**60, help="of each class, at most")
    parser.add_argument("--only", action="append", help=f"of {', '.join(classes())}, or the dotted name of a module")
    parser.add_argument("--seed", type=int, default=0, help="of the changes")
    parser.add_argument("--json", type=Path, help="where to write the counts")
    parser.add_argument("--add", action="store_true", help="to the counts that the file has")
    parser.add_argument("--repeat", type=Path, metavar="FILE", help="try one kept input again, and print what it does")
    parser.add_argument("--per-input", type=float, default=30.0, help="seconds that one input may take")
    parser.add_argument("--memory", type=int, default=2048, help="MiB that one input may take")
    parser.add_argument("--blind", action="store_true", help="without atheris, though it be installed")
    options = parser.parse_args(arguments)
    known = classes()
    names = options.only or ([options.repeat.resolve().parent.name] if options.repeat else list(known))
    unknown = [name for name in names if name not in known and "." not in name]
    if unknown:
        parser.error(f"no class {unknown[0]!r}; there are {', '.join(known)}")
    seconds = options.seconds or (60.0 if options.inputs == 2**60 else 1e9)
    limits = Limits(seconds / len(names), options.inputs, options.per_input, options.memory << 20, not options.blind)
    results = {}
    for name in names:
        module = known.get(name, name)
        result = run_class(module, name.rpartition(".")[2], limits, options.seed, options.repeat)
        text = result.pop("text")
        results[name] = {"name": getattr(importlib.import_module(module), "NAME", name)} | result
        print(line(name, result), *[f"  {kind}: {one}" for kind in KINDS for one in result["found"][kind]], sep="\n")
        if options.repeat:
            print(text or "nothing was found")
    if options.json:
        command = " ".join(["python -m fastcam_bench.fuzz", *(sys.argv[1:] if arguments is None else arguments)])
        about = {
            "command": command,
            "machine": machine(),
            "versions": versions("fastcam", "onnx", "onnxruntime", "atheris"),
        }
        before = json.loads(options.json.read_text()) if options.add and options.json.exists() else None
        write_report(about | {"classes": added(before["classes"], results) if before else results}, options.json)
    return int(any(found for result in results.values() for found in result["found"].values()))


if __name__ == "__main__":
    sys.exit(main())
