"""The page around the cards: what it is about, its classes, its toolbar, and the one script and style that it needs.

The policy in its head lets this script and this style run and nothing else, from nowhere: what a name might smuggle in
stays text, and nothing is fetched.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from fastcam.evaluation.report.cards import group_row
from fastcam.evaluation.report.facts import Group
from fastcam.evaluation.statistics import Figure
from fastcam.render.drawing import colormap
from fastcam.render.web import escaped
from fastcam.schema import __version__


@dataclass(frozen=True)
class Heading:
    """What stands above: the title, pairs of name and text, notes, and the colour map's name."""

    title: str
    lines: Sequence[tuple[str, str]]
    notes: Sequence[str]
    colors: str


@cache
def asset(name: str) -> str:
    """A file of the page, as it is."""
    return (files("fastcam.evaluation.report") / "page" / name).read_text(encoding="utf-8")


def source(text: str) -> str:
    """The hash by which a Content-Security-Policy allows an inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def head(title: str, style: str, script: str) -> str:
    """A page down to its body, which may run this style and script alone."""
    policy = f"default-src 'none'; img-src data:; style-src {source(style)}; script-src {source(script)}"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="generator" content="FastCAM {__version__}">\n'
        f"<title>{escaped(title)}</title>\n<style>{style}</style>\n</head>\n"
    )


def beginning(about: Heading, figures: Mapping[str, Figure], pictures: int, failures: int, flagged: int) -> str:
    """Head, title and figures."""
    table = base64.b64encode(colormap(about.colors).tobytes()).decode("ascii")
    lines = "".join(
        f"<div><dt>{escaped(name)}</dt><dd>{escaped(text)}</dd></div>" for name, text in about.lines if text
    )
    known = any(figure.n for figure in figures.values())
    counts = {"pictures": pictures} | ({"predicted wrong": failures} if known else {}) | {"suspicious": flagged}
    numbers = "".join(f"<li><b>{count}</b> {escaped(name)}</li>" for name, count in counts.items())
    numbers += "".join(
        f"<li><b>{figure.value:.3f}</b> {escaped(name)} <small>(95 % interval {figure.low:.3f} to {figure.high:.3f}, "
        f"n = {figure.n})</small></li>"
        for name, figure in figures.items()
        if figure.n
    )
    notes = "".join(f"<li>{escaped(note)}</li>" for note in about.notes)
    return (
        head(about.title, asset("report.css"), asset("report.js"))
        + f'<body data-colors="{table}">\n<a class="skip" href="#pictures">To the pictures</a>\n<header>\n'
        f'<h1>{escaped(about.title)}</h1>\n<dl class="about">{lines}</dl>\n<ul class="numbers">{numbers}</ul>\n'
        + (f'<details class="notes"><summary>Left out</summary><ul>{notes}</ul></details>\n' if notes else "")
        + "<noscript><p>Without JavaScript this page shows the pictures and what is known of them; its script draws "
        "the maps.</p></noscript>\n</header>\n<main>\n"
    )


def classes(ranked: Sequence[tuple[str, Group, list[str]]]) -> str:
    """The table of classes."""
    return asset("classes.html") + "".join(group_row(*row) for row in ranked) + "</tbody></table></div></section>\n"


def kinds(figures: Sequence[str]) -> str:
    """The kinds of maps of the classes that have several; nothing where none has."""
    return f'{asset("kinds.html")}<div class="kinds">{"".join(figures)}</div></section>\n' if figures else ""


def toolbar(names: Sequence[str], titles: Sequence[str], count: int) -> str:
    """What filters and sorts, down to the first card.

    Args:
        names: of the classes.
        titles: of the kinds of maps.
    """
    options = "".join(f'<option value="{escaped(name)}">{escaped(name)}</option>' for name in sorted(names))
    choices = "".join(f'<option value="{i}">{escaped(title)}</option>' for i, title in enumerate(titles, 1))
    select = f'\n<label>Maps <select id="kind"><option value="">all</option>{choices}</select></label>'
    text = asset("pictures.html").replace("{count}", str(count)).replace("{kinds}", select if choices else "")
    return text.replace("{options}", options)


def end(errors: Sequence[tuple[str, str]], failed: int) -> str:
    """What could not be explained, and the script."""
    rows = "".join(f"<li><b>{escaped(name)}</b>: {escaped(error)}</li>" for name, error in errors)
    rows += f"<li>and {failed - len(errors)} more</li>" if failed > len(errors) else ""
    said = (
        f'<section aria-labelledby="errors"><h2 id="errors">Not explained: {failed}</h2><ul>{rows}</ul></section>\n'
        if rows
        else ""
    )
    return f"</div></section>\n{said}</main>\n<script>{asset('report.js')}</script>\n</body>\n</html>\n"
