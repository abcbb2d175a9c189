"""Figures with their intervals, as the experiments' tables have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

Figure: TypeAlias = "Mapping[str, Any] | None"
"""``value``, the ends ``low`` and ``high`` of its interval, and ``n``; None where nothing was measured."""


def interval(figure: Figure, places: int = 2) -> str:
    """As "0.51 (0.40 to 0.62)", or "-"."""
    if figure is None or figure["value"] is None:
        return "-"
    value, low, high = (f"{figure[name]:.{places}f}" for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def figures_table(columns: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Lines of a Markdown table: a row for each figure of the first column, with its interval and n.

    Args:
        columns: by their titles, figures by name; what is no figure is left out.
    """
    lines = [f"| | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
    for name, first in next(iter(columns.values())).items():
        if first is None or isinstance(first, Mapping):
            cells = [_counted(figures.get(name)) for figures in columns.values()]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _counted(figure: Figure) -> str:
    return f"{interval(figure, 3)[:-1]}, n {figure['n']})" if figure else "-"
