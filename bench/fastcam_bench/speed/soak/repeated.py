"""The same again and again in one thread: calls of one Explainer, and Explainers that are made and dropped."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from fastcam import Explanation
from fastcam_bench.speed.soak.mixed import Question, arrays_of, same
from fastcam_bench.speed.soak.process import Readings

READINGS = 40
"""How often the process is read."""


def repeated(explain: Callable[..., Explanation], asked: Sequence[Question], times: int) -> dict[str, Any]:
    """Ask one question after the other, ``times`` in all, after each was asked once.

    Args:
        explain: (question) -> answer; of cycles it makes an Explainer first and drops it afterwards.
    """
    wanted = [arrays_of(explain(**question)) for question in asked]
    readings, begun, differences = Readings(), time.monotonic(), 0
    readings.take()
    for n in range(times):
        i = n % len(asked)
        differences += not same(arrays_of(explain(**asked[i])), wanted[i])
        if (n + 1) % max(1, times // READINGS) == 0:
            readings.take()
    about = {"calls": times, "seconds": round(time.monotonic() - begun, 1), "differences": differences, "failures": []}
    return about | readings.report()
