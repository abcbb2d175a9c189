"""Which ways to run a file are tried: engines first, then threads, runs at the same time and batches of the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fastcam.runtime.profile import MOST_SESSIONS, Choice, Goal
from fastcam.runtime.providers import CUDA, OPENVINO, OPENVINO_RUNTIME, TENSORRT, Precision

BATCHES = (16, 4, 1)
"""Pictures of a run that are tried for throughput, beside :data:`BATCH`: more of them first, where engines gain."""
BATCH = 8
"""As ``fastcam stream`` has it."""


def default(goal: Goal, cores: int, batch: int | None) -> Choice:
    """What runs without a profile, on the CPU.

    Args:
        batch: the file's own, where it is fixed.
    """
    if goal == "latency":
        return Choice("cpu", cores, batch or 1)
    several = 1 < cores <= MOST_SESSIONS
    return Choice("cpu", 1 if several else cores, batch or BATCH, sessions=cores if several else 1)


def engines(base: Choice, available: Sequence[str], native: Sequence[Precision] = ()) -> list[Choice]:
    """``base`` on every other engine that is installed, those first that are likely to be fastest: the time may end.

    Args:
        available: providers by the names that ONNX Runtime has for them.
        native: types that OpenVINO's own runtime computes in on this processor, of "f32", "bf16" and "f16". It computes
            others in float32, or emulates them.
    """
    found = []
    if CUDA in available:
        found.append(replace(base, providers="cuda"))
    if TENSORRT in available:
        found += [replace(base, providers="tensorrt", fp16=half) for half in (True, False)]
    if OPENVINO_RUNTIME in available:
        types: tuple[Precision, ...] = ("bf16", "f32", "f16")
        found += [replace(base, providers=OPENVINO_RUNTIME, precision=one) for one in types if one in native]
    if OPENVINO in available:
        found += [replace(base, providers="openvino", fp16=half) for half in (False, True)]
    return [*found, replace(base, optimization="extended")]


def layouts(best: Choice, goal: Goal, cores: int) -> list[Choice]:
    """Other threads and runs at the same time for an engine on the CPU, and threads that sleep between runs."""
    if best.providers in ("cuda", "tensorrt"):
        return []
    several = (1,) if goal == "latency" else (1, 2, 4, 8, min(cores, MOST_SESSIONS))
    pairs = [(cores // runs, runs) for runs in several if runs <= cores]
    pairs += [(max(1, cores // 2), 1)] if goal == "latency" else []
    found = [replace(best, threads=threads, sessions=sessions) for threads, sessions in dict.fromkeys(pairs)]
    if best.providers == "cpu":
        found.append(replace(best, spinning=False))
    return [one for one in found if one != best]


def batches(best: Choice, fixed: int | None) -> list[Choice]:
    """Other numbers of pictures a run."""
    return [] if fixed else [replace(best, batch=size) for size in BATCHES if size != best.batch]
