"""Markdown that sections share."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence


def table(titles: Sequence[str], rows: Iterable[Sequence[object]], words: Collection[int] = (0,)) -> list[str]:
    """The lines of a table: words in the columns of these numbers, figures in the others."""
    ruler = "".join("---|" if column in words else "---:|" for column in range(len(titles)))
    head = "".join(f" {title} |" if title else " |" for title in titles)
    return [f"|{head}", f"|{ruler}", *(f"| {' | '.join(map(str, row))} |" for row in rows)]
