"""What a process holds: memory, open files, threads; and whether it grows."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

LIMIT = 0.01
"""The growth that counts as flat."""


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

    In that time the arenas of ONNX Runtime and of the C library meet most of what can be asked for at once.
    """
    kept = samples[len(samples) // 5 :]
    quarter = max(1, len(kept) // 4)
    return float(np.median(kept[-quarter:]) / np.median(kept[:quarter]) - 1)


@dataclass
class Readings:
    """What a process held at several moments, all of them at rest."""

    mib: list[float] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)

    def take(self) -> None:
        """Read once more."""
        self.mib.append(round(resident() / 2**20, 1))
        self.files.append(len(os.listdir("/proc/self/fd")) - 1)  # less the folder that is being read
        self.threads.append(len(os.listdir("/proc/self/task")))

    def report(self) -> dict[str, Any]:
        """All readings, and the growth of each."""
        return {
            "rss_mib": self.mib,
            "growth": round(growth(self.mib), 5),
            "files": [self.files[0], self.files[-1]],
            "threads_of_process": [self.threads[0], self.threads[-1]],
        }


def verdict(result: dict[str, Any]) -> str:
    """One line that says what is wrong with what was measured; empty where nothing is."""
    wrong = []
    if result["differences"]:
        wrong.append(f"{result['differences']} of {result['calls']} answers differed")
    if result["failures"]:
        wrong.append(f"{len(result['failures'])} calls failed, the first with {result['failures'][0]}")
    if result["growth"] >= LIMIT:
        wrong.append(f"memory grew by {result['growth']:.1%}")
    for what in ("files", "threads_of_process"):
        before, after = result.get(what, (0, 0))
        if after > before:
            wrong.append(f"{after - before} {what.replace('_', ' ')} more")
    return "; ".join(wrong)
