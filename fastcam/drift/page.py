"""The drift of two tables as one HTML page, which needs no script and no network."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from fastcam.drift.compare import Drift, MapDrift, Measured
from fastcam.drift.stability import LARGE, SOME
from fastcam.evaluation.report.page import head
from fastcam.render.drawing import colormap
from fastcam.render.web import escaped

_WIDTH, _ROW = 240, 22
"""Of the bars of a figure, in units of its drawing."""
_CELL = 14
_SHOWN = 100
"""Classes with their mean maps, at most."""
WORDS = {"none": "no drift", "some": "some drift", "large": "large drift"}


def style() -> str:
    """The page's."""
    return (files("fastcam.drift") / "page.css").read_text(encoding="utf-8")


def page(drift: Drift) -> str:
    """All of it."""
    title = f"Drift of {drift.now.name} from {drift.reference.name}"
    notes = "".join(f"<li>{escaped(note)}</li>" for note in drift.notes)
    rows = "".join(_row(one.name, one) for one in drift.figures)
    figures = "".join(_figure(one) for one in drift.figures)
    shown = drift.maps[:_SHOWN]
    maps = "".join(map(_map, shown))
    more = f"<p>And {len(drift.maps) - len(shown)} classes with less drift.</p>" if len(drift.maps) > len(shown) else ""
    section = f'<section><h2>Mean maps of classes</h2><div class="maps">{maps}</div>{more}</section>' if maps else ""
    return (
        head(title, style(), "")
        + f"<body>\n<header><h1>{escaped(title)}</h1>\n"
        + f"<p>{drift.pictures[0]} pictures before, {drift.pictures[1]} now.</p>\n"
        + (f"<ul>{notes}</ul>\n" if notes else "")
        + "</header>\n<main>\n<section><h2>Figures</h2>\n"
        + "<p>The population stability index (PSI) of each figure, and what "
        f"it stays below by chance. From {SOME} on there is some drift, from {LARGE} on a large one.</p>\n"
        + '<table><thead><tr><th scope="col">figure</th><th scope="col">PSI</th><th scope="col">by chance</th>'
        f'<th scope="col">drift</th></tr></thead><tbody>{rows}</tbody></table></section>\n'
        + "<section><h2>Where they differ</h2>\n"
        + '<p><span class="before">■</span> before <span class="now">■</span> now</p>\n'
        + f'<div class="figures">{figures}</div></section>\n{section}</main>\n'
        "</body>\n</html>\n"
    )


def _row(name: str, one: Measured | MapDrift) -> str:
    return (
        f'<tr><th scope="row">{escaped(name)}</th><td>{one.psi:.3f}</td><td>{one.chance:.3f}</td>'
        f'<td class="{one.level}">{WORDS[one.level]}</td></tr>'
    )


def _figure(one: Measured) -> str:
    """Bars of each bin, before and now."""
    most = max(max(p, q) for _, p, q in one.bins) or 1.0
    bars = []
    for i, (name, p, q) in enumerate(one.bins):
        y = i * _ROW
        bars.append(f'<text x="150" y="{y + 14}" text-anchor="end">{escaped(name[:24])}</text>')
        for share, at, kind in ((p, y + 2, "before"), (q, y + 11, "now")):
            bars.append(
                f'<rect class="{kind}" x="158" y="{at}" width="{_WIDTH * share / most:.1f}" height="8">'
                f"<title>{escaped(name)}, {kind}: {share:.2%}</title></rect>"
            )
    height = len(one.bins) * _ROW + 4
    return (
        f"<figure><figcaption>{escaped(one.name)} <small>PSI {one.psi:.3f}, n = {one.reference} and {one.now}</small>"
        f'</figcaption><svg viewBox="0 0 {158 + _WIDTH + 4} {height}" role="img" aria-label="{escaped(_spoken(one))}">'
        f"{''.join(bars)}</svg></figure>"
    )


def _spoken(one: Measured) -> str:
    """A figure in words, for who does not see the bars."""
    return f"{one.name}: " + "; ".join(f"{name}: {p:.1%} before, {q:.1%} now" for name, p, q in one.bins)


def _map(one: MapDrift) -> str:
    """The two mean maps of a class, in the same colours."""
    most = max(float(each.max()) for each in one.maps)
    drawn = "".join(_cells(each, most, said) for each, said in zip(one.maps, ("before", "now"), strict=True))
    return (
        f'<figure><figcaption>{escaped(one.label)} <small class="{one.level}">PSI {one.psi:.3f}, by chance '
        f"{one.chance:.3f}</small> <small>n = {one.reference} and {one.now}</small></figcaption>{drawn}</figure>"
    )


def _cells(heat: NDArray[np.float64], most: float, said: str) -> str:
    table: Sequence[Sequence[int]] = colormap("viridis").tolist()
    rows, columns = heat.shape
    cells = []
    for y in range(rows):
        for x in range(columns):
            red, green, blue = table[round(255 * min(1.0, float(heat[y, x]) / max(most, 1e-30)))]
            place = f'x="{x * _CELL}" y="{y * _CELL}" width="{_CELL}" height="{_CELL}"'
            cells.append(f'<rect {place} fill="#{red:02x}{green:02x}{blue:02x}"/>')
    top = np.unravel_index(int(heat.argmax()), heat.shape)
    name = f"mean map {said}, hottest in row {top[0] + 1}, column {top[1] + 1} of {rows} x {columns}"
    size = f"0 0 {columns * _CELL} {rows * _CELL}"
    return f'<svg class="map" viewBox="{size}" role="img" aria-label="{name}">{"".join(cells)}</svg>'
