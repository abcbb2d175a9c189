"""What every measurement says: what it ran on, with which versions, and its report."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """Processor, number of cores and operating system."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {"cpu": names[0] if names else platform.processor(), "cores": os.cpu_count(), "system": platform.system()}


def versions(*packages: str) -> dict[str, str]:
    """Installed versions; "not installed" of a peer that is not there."""

    def one(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return "not installed"

    return {package: one(package) for package in packages}


def write_report(report: dict[str, Any], out: Path, table: Callable[[dict[str, Any]], str] | None = None) -> None:
    """The report as JSON and, where there is a ``table`` of it, that as Markdown beside it."""
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if table is not None:
        out.with_suffix(".md").write_text(table(report), encoding="utf-8")
