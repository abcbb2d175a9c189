"""What was measured as JSON, Markdown and HTML: a row a model and method, a column a figure, each with its interval."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastcam.atomic_files import write_files
from fastcam.errors import listed, printable
from fastcam.evaluation.runner import Measured
from fastcam.evaluation.statistics import LEVEL, Figure
from fastcam.schema import __version__

INTERVAL = f"{LEVEL:.0%} interval (bootstrap over pictures; Wilson's where a share of hits is 0 or 1)"
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
:root { color-scheme: light dark; }
table { border-collapse: collapse; margin: 1rem 0 2rem; }
th, td { border-bottom: 1px solid #8886; padding: .3rem .8rem; text-align: right; vertical-align: top; }
th:first-child, td:first-child { text-align: left; }
small { opacity: .7; display: block; white-space: nowrap; }
.scroll { overflow-x: auto; }
""".strip()


def to_dict(measured: Sequence[Measured], data: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Everything, for JSON."""
    about = {"fastcam": __version__, "data": data, "interval": INTERVAL}
    return about | dict(settings) | {"results": [each.to_dict() for each in measured]}


@dataclass(frozen=True)
class Table:
    """The figures of one protocol.

    Attributes:
        protocol: its name.
        columns: names of its figures.
        rows: the contestants' names, and their figures in the order of the columns; None where one has none.
    """

    protocol: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Figure | None, ...]], ...]

    @property
    def n(self) -> str:
        """Of how many pictures or objects the figures are; where they differ the smallest and the largest number."""
        return count_of([figure for _, figures in self.rows for figure in figures])


def count_of(figures: Sequence[Figure | None]) -> str:
    """The n of figures; where they differ the smallest and the largest."""
    counts = {figure.n for figure in figures if figure is not None}
    return " to ".join(map(str, sorted({min(counts), max(counts)}))) if counts else ""


def tables(measured: Sequence[Measured]) -> list[Table]:
    """A table for each protocol that has any figure."""
    made = []
    for protocol in dict.fromkeys(name for each in measured for name in each.figures):
        columns = tuple(dict.fromkeys(name for each in measured for name in each.figures.get(protocol, {})))
        rows = tuple(
            (_name(each, measured), tuple(each.figures.get(protocol, {}).get(name) for name in columns))
            for each in measured
        )
        if columns:
            made.append(Table(protocol, columns, rows))
    return made


def markdown(measured: Sequence[Measured], data: str) -> str:
    """A table a protocol, each figure with its interval; below what was left out."""
    lines = [f"# Maps measured on {data}", ""]
    for table in tables(measured):
        lines += [f"## {table.protocol}", "", f"n = {table.n}; in parentheses the {INTERVAL}.", ""]
        lines += [_row(["", *table.columns]), _row(["---", *["---:"] * len(table.columns)])]
        lines += [_row([name, *map(cell, figures)]) for name, figures in table.rows]
        lines.append("")
    return "\n".join([*lines, *(f"- {line}" for line in left_out(measured)), ""])


def page(measured: Sequence[Measured], data: str) -> str:
    """The same as one HTML file that needs no network."""
    title = f"Maps measured on {html.escape(data)}"
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title><style>{STYLE}</style></head><body><h1>{title}</h1>",
    ]
    for table in tables(measured):
        parts.append(f"<h2>{html.escape(table.protocol)}</h2><p>n = {table.n}; below each figure the {INTERVAL}.</p>")
        head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in ["", *table.columns])
        parts.append(f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>')
        for name, figures in table.rows:
            values = [cell(figure).partition(" ") for figure in figures]
            cells = "".join(f"<td>{value}<small>{interval}</small></td>" for value, _, interval in values)
            parts.append(f'<tr><th scope="row">{html.escape(name)}</th>{cells}</tr>')
        parts.append("</tbody></table></div>")
    parts += [f"<p>{html.escape(line)}</p>" for line in left_out(measured)]
    return "\n".join([*parts, "</body></html>", ""])


def write(measured: Sequence[Measured], data: str, settings: Mapping[str, Any], folder: str | Path) -> list[Path]:
    """``evaluation.json``, ``.md`` and ``.html`` in a folder; all of them or none.

    Raises:
        FastcamError: the folder cannot be written.
    """
    folder = Path(folder)
    as_json = json.dumps(to_dict(measured, data, settings), indent=1, ensure_ascii=False, allow_nan=False)
    texts = {"json": as_json + "\n", "md": markdown(measured, data), "html": page(measured, data)}
    files = {folder / f"evaluation.{end}": text.encode("utf-8", "backslashreplace") for end, text in texts.items()}
    write_files(files)
    return list(files)


def cell(figure: Figure | None) -> str:
    """A figure with its interval; nothing where there is none."""
    return "" if figure is None else str(figure)


def left_out(measured: Sequence[Measured]) -> list[str]:
    """How many pictures were measured, and what was not, by reason, with the first names.

    Protocols that were refused come too, and labels that the model does not know.
    """
    counts = sorted({each.pictures for each in measured})
    lines = [f"{' to '.join(map(str, counts[:1] + counts[1:][-1:]))} pictures were measured"]
    if counts == [1]:
        lines = ["1 picture was measured"]
    refused = {(each.model, each.method, name): one for each in measured for name, one in each.refused.items()}
    nothing = {
        name: None
        for each in measured
        for name, found in each.figures.items()
        if not found and (each.model, each.method, name) not in refused
    }
    lines += [f"{protocol}: no figure; no picture has the boxes or masks that it needs" for protocol in nothing]
    for each in measured:
        for protocol, one in each.refused.items():
            of = f"{one.pictures} of {each.pictures} pictures" if one.pictures < each.pictures else "any picture"
            lines.append(f"{protocol}: not measured of {of} by {_name(each, measured)}: {printable(one.why)}")
    for each in measured:
        if each.unknown:
            said = [f"{printable(label)} in {_pictures(count)}" for label, count in each.unknown.items()]
            of_model = f" {each.model}" if len({one.model for one in measured}) > 1 else ""
            lines.append(f"labels that the model{of_model} does not know: {len(said)} ({listed(said)})")
        lines += each.left_out.lines()
    return list(dict.fromkeys(lines))


def _name(each: Measured, measured: Sequence[Measured]) -> str:
    models = {one.model for one in measured}
    return each.method if len(models) == 1 else f"{each.model}, {each.method}"


def _pictures(count: int) -> str:
    return f"{count} picture{'' if count == 1 else 's'}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in cells) + " |"
