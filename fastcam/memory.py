"""How much memory there is, and a line instead of the system's out-of-memory killer for what would take more."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable
from pathlib import Path

from fastcam.errors import FastcamError

CONTAINER = Path("/sys/fs/cgroup/memory.max")
"""The limit of a container, a number of bytes or "max"."""
_SMALL = 1 << 24
"""Bytes that are never refused, without asking the system: Python, NumPy and ONNX Runtime took more."""


def limit() -> float:
    """Bytes that this process may have, as far as the system says; infinity where it does not."""
    limits = [math.inf]
    with contextlib.suppress(AttributeError, ValueError, OSError):  # of Windows
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with contextlib.suppress(OSError, ValueError):  # no container, or none with a limit
        limits.append(float(CONTAINER.read_text(encoding="ascii")))
    try:
        import resource

        soft = resource.getrlimit(resource.RLIMIT_AS)[0]
        limits.append(soft if soft != resource.RLIM_INFINITY else math.inf)
    except ImportError:
        pass
    return min(limits)


def refuse_more(what: str, sizes: Iterable[int], itemsize: int, advice: str) -> None:
    """Raise where an array would take more memory than there is.

    Args:
        what: the array, as the subject of a sentence.
        sizes: of its axes.
        itemsize: bytes of an element.
        advice: what to do.

    Raises:
        FastcamError: it would.
    """
    needed = math.prod(sizes) * itemsize
    if needed > _SMALL and needed > (have := limit()):
        raise FastcamError(f"{what} would take {in_words(needed)} of memory, and there are {in_words(have)}; {advice}")


def in_words(count: float) -> str:
    """Bytes for people: "1.5 GiB"."""
    count = float(min(count, 1 << 100))
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if count < 1024:
            return f"{count:.3g} {unit}" if unit != "bytes" else f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.3g} EiB" if count < 1024 else "more than 1000 EiB"
