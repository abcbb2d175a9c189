"""The one error that FastCAM raises for bad input."""

from __future__ import annotations


class FastcamError(ValueError):
    """Bad input: one line that says what is wrong and what to do. The command line turns it into exit code 2."""
