"""The one error that FastCAM raises for bad input."""

from __future__ import annotations

from collections.abc import Iterable

MOST = 10
"""How many names an error lists."""


class FastcamError(ValueError):
    """Bad input: one line that says what is wrong and what to do. The command line turns it into exit code 2."""


def listed(names: Iterable[object], most: int = MOST) -> str:
    """Names for an error: the first of them, and how many more there are."""
    every = [str(name) for name in names]
    rest = len(every) - most
    return ", ".join([*every[:most], f"and {rest} more"] if rest > 0 else every)
