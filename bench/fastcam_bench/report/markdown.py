"""Markdown that sections share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """The lines of a table: words in the first column, numbers in the others."""
    lines = [f"| {' | '.join(titles)} |", "|---|" + "---:|" * (len(titles) - 1)]
    return lines + [f"| {' | '.join(map(str, row))} |" for row in rows]
