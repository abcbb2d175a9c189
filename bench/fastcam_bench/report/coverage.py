"""How much of fastcam and fastcam_export the tests reach; ``make coverage`` measures it and calls this.

    python -m fastcam_bench.report.coverage REPORT [--out FILE]

REPORT is coverage.py's own, as JSON. Kept are the share of lines and of branches, of each package and of all, and each
module's share of both. A module below ``LEAST`` is an error.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fastcam_bench.oracles.machine import versions, write_report
from fastcam_bench.paths import RESULTS

OUTPUT = RESULTS / "coverage.json"
LEAST = 85.0
"""Percent of a module's lines and branches that tests must reach."""


def summary(report: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of coverage.py's report: percentages by package and by module, of all under ``all``."""
    modules = {
        name: one["summary"] for name, one in sorted(report["files"].items()) if one["summary"]["num_statements"]
    }
    packages = {_package(name) for name in modules}
    return {
        "command": "make coverage",
        "versions": versions("coverage"),
        "all": shares(modules.values()),
        **{name: shares(one for path, one in modules.items() if _package(path) == name) for name in sorted(packages)},
        "modules": {name: round(one["percent_covered"], 1) for name, one in modules.items()},
    }


def shares(parts: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Percent of the lines and of the branches of several modules; 100 where there are none."""
    sums = {"covered_lines": 0, "num_statements": 0, "covered_branches": 0, "num_branches": 0}
    for part in parts:
        sums = {key: value + part.get(key, 0) for key, value in sums.items()}
    pairs = {"lines": ("covered_lines", "num_statements"), "branches": ("covered_branches", "num_branches")}
    return {
        name: round(100 * sums[some] / (sums[of] or 1), 1) if sums[of] else 100.0 for name, (some, of) in pairs.items()
    }


def low(kept: Mapping[str, Any], least: float = LEAST) -> list[str]:
    """A line for each module that tests reach too little of."""
    return [f"{name}: {share} %, at least {least}" for name, share in kept["modules"].items() if share < least]


def _package(path: str) -> str:
    return "fastcam_export" if "fastcam_export" in Path(path).parts else "fastcam"


def main() -> int:
    """The command; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Coverage of the tests.")
    parser.add_argument("report", type=Path)
    parser.add_argument("--out", type=Path, default=OUTPUT)
    options = parser.parse_args()
    kept = summary(json.loads(options.report.read_text(encoding="utf-8")))
    write_report(kept, options.out)
    print(f"lines {kept['all']['lines']} %, branches {kept['all']['branches']} %")
    faults = low(kept)
    print("\n".join(faults), end="\n" if faults else "")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
