"""Contestants measured side by side: what all measurements share, and one group's rounds."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import Any

from fastcam.runtime.timing import Run, interleaved, summary

Row = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """What all measurements share.

    Attributes:
        seconds: for a group of contestants; each gets its least number of rounds in any case.
        threads: of every contestant.
        least: rounds of a group that must be told apart by one percent; other groups make a third of them.
    """

    seconds: float
    threads: int
    least: int


def group(runs: dict[str, Run], settings: Settings, share: float = 1.0, pause: float = 0.0) -> Row:
    """Interleaved contestants; ``share`` is of the least number of rounds."""
    samples = interleaved(runs, settings.seconds, max(2, round(settings.least * share)), pause)
    found: Row = dict(summary(samples, "plain"))
    for name, taken in samples.items():
        found[name]["samples_ms"] = [round(seconds * 1e3, 3) for seconds in taken]
    gc.collect()
    return found
