"""A picture's card, and a class's row, as HTML. Whatever a name holds, it is text."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastcam.evaluation.protocols.regions import Boxes
from fastcam.evaluation.report import heat
from fastcam.evaluation.report.facts import CELLS, Facts, Group, percent
from fastcam.evaluation.report.kinds import EXAMPLES, Kind
from fastcam.image.preprocess import Size, Uint8
from fastcam.render import web
from fastcam.render.web import escaped
from fastcam.results.explanation import Explanation

BYTES_A_PIXEL = 0.28
"""Of a thumbnail's JPEG, at most: 16 KB of 240 x 240."""


@dataclass(frozen=True)
class View:
    """One map of a picture: of which class, how sure the model is, and where its truth lies.

    Attributes:
        title: in words: "predicted: dog 0.97".
        explanation, target: whose map it is.
        boxes: float64 [n, 4] of the class's marks, in pixels of the picture.
    """

    title: str
    explanation: Explanation
    target: int
    boxes: Boxes


def views(name: str, shown: Sequence[View], side: int, guided: bool) -> str:
    """The maps of a picture side by side, each over the picture; with ``guided`` Guided Grad-CAM beside each."""
    first = shown[0].explanation
    picture = first.image(0)
    size = (picture.shape[0], picture.shape[1])
    small = web.thumbnail(picture, side)
    uri = web.jpeg_uri(small, side, _most(small))
    figures = [_figure(name, view, uri, size, small, side, guided) for view in shown]
    return f'<div class="views">{"".join(figures)}</div>'


def _most(small: Uint8) -> int:
    height, width = small.shape[:2]
    return max(2000, int(BYTES_A_PIXEL * height * width))


def _figure(name: str, view: View, uri: str, size: Size, small: Uint8, side: int, guided: bool) -> str:
    explanation, target = view.explanation, view.target
    height, width = small.shape[:2]
    status = explanation.status[0][target]
    caption = escaped(view.title) + ("" if status == "ok" else f" <em>(no map: {escaped(status)})</em>")
    alt = escaped(f"{name}, {view.title}")
    stack = (
        f'<div class="stack"><img src="{uri}" alt="{alt}" width="{width}" height="{height}" decoding="async">'
        f'<canvas data-heat="{heat.drawn(explanation, target)}" aria-hidden="true"></canvas>'
        f"{_boxes(view, size)}</div>"
    )
    beside = heat.guided_gradcam(explanation, target, side) if guided else None
    if beside is not None:
        high, wide = beside.shape[:2]
        stack += (
            f'<img class="guided" src="{web.jpeg_uri(beside, side, _most(beside))}" width="{wide}" height="{high}" '
            f'alt="Guided Grad-CAM of {alt}" decoding="async"><small>Guided Grad-CAM</small>'
        )
    return f"<figure><figcaption>{caption}</figcaption>{stack}</figure>"


def _boxes(view: View, size: Size) -> str:
    """The marked boxes and the map's own, as an SVG over the picture."""
    own = view.explanation.boxes[0, view.target]
    rects = [_rect("mark", box) for box in view.boxes.tolist()] + ([_rect("own", own.tolist())] if own.any() else [])
    if not rects:
        return ""
    return (
        f'<svg viewBox="0 0 {size[1]} {size[0]}" preserveAspectRatio="none" aria-hidden="true">{"".join(rects)}</svg>'
    )


def _rect(kind: str, box: Sequence[float]) -> str:
    x0, y0, x1, y1 = (round(float(value), 1) for value in box)
    return (
        f'<rect class="{kind}" x="{x0:g}" y="{y0:g}" width="{max(0, x1 - x0):g}" height="{max(0, y1 - y0):g}"></rect>'
    )


def opening(number: int, facts: Facts, flags: Sequence[str], kind: int = 0) -> str:
    """A card down to its views: what the script filters and sorts by, name, verdict and what is suspicious.

    Args:
        kind: the number of its kind of maps among all of the page, from 1; 0 of none.
    """
    verdict = {True: "right", False: "wrong", None: "unknown"}[facts.right]
    share = "" if facts.share is None else f"{facts.share:.4f}"
    data = {
        "n": number,
        "name": facts.name,
        "class": facts.group,
        "predicted": facts.predicted,
        "verdict": verdict,
        "flagged": int(bool(flags)),
        "score": f"{facts.score:.6g}",
        "share": share,
        "kind": kind or "",
    }
    attributes = " ".join(f'data-{key}="{escaped(value)}"' for key, value in data.items())
    said = "".join(f"<li>{escaped(flag)}</li>" for flag in flags)
    truth = f", marked <b>{escaped(', '.join(facts.truth))}</b>" if facts.truth else ""
    word = {True: "right", False: "wrong", None: ""}[facts.right]
    inside = (
        ""
        if facts.share is None or facts.even is None
        else f'<p class="share">heat in boxes <b>{percent(facts.share)}</b> (even map {percent(facts.even)})</p>'
    )
    return (
        f'<article class="card {verdict}" id="p{number}" tabindex="-1" aria-labelledby="t{number}" {attributes}>'
        f'<h3 id="t{number}">{escaped(facts.name)}</h3>'
        f'<p class="verdict"><span class="badge">{word}</span> predicted <b>{escaped(facts.predicted)}</b> '
        f"(score {facts.score:.3g}){truth}</p>{inside}" + (f'<ul class="flags">{said}</ul>' if said else "")
    )


CLOSING = "</article>\n"


def group_row(name: str, group: Group, flags: Sequence[str]) -> str:
    """A class: mean picture under its mean map, counts, share of heat inside boxes, and what is suspicious."""
    drawn = _whole(group.mean_map) if group.maps else ""
    uri = web.jpeg_uri(group.mean_picture, CELLS, 4000)
    label = escaped(name)
    share = "" if group.share is None or group.even is None else f"{percent(group.share)} (even {percent(group.even)})"
    same = "" if group.sameness is None else f"{group.sameness:.2f}"
    right = f"{group.right / group.known:.0%}" if group.known else ""
    said = "".join(f"<li>{escaped(flag)}</li>" for flag in flags)
    return (
        f'<tr class="{"suspicious" if flags else "plain"}"><td><div class="stack mean">'
        f'<img src="{uri}" alt="mean of the pictures of {label}" width="84" height="84">'
        f'<canvas data-heat="{drawn}" data-wide="84" aria-hidden="true"></canvas></div></td>'
        f'<th scope="row"><button type="button" class="only" data-class="{label}">{label}</button>'
        + (f'<ul class="flags">{said}</ul>' if said else "")
        + f"</th><td>{group.count}</td><td>{right}</td><td>{share}</td><td>{same}</td></tr>\n"
    )


def _whole(mean: NDArray[np.float64]) -> str:
    """A mean map for the page's script, see :func:`fastcam.evaluation.report.heat.drawn`; over the whole picture."""
    values = base64.b64encode(np.rint(255 * mean / max(1e-30, mean.max())).astype(np.uint8).tobytes()).decode("ascii")
    return f"{mean.shape[0]} {mean.shape[1]} {values} 0 0 1 1 0 0 1 1"


def kind_figure(number: int, kind: Kind, group: Group, cards: Mapping[int, tuple[int, str]]) -> str:
    """A kind of maps: its mean map over its class's mean picture, what is known of it, and its plainest pictures.

    Args:
        number: of the kind among all of the page, from 1.
        cards: of each picture's number the number of its card, and its name.
    """
    uri, title = web.jpeg_uri(group.mean_picture, CELLS, 4000), escaped(kind.title)
    lines = "".join(f"<li>{escaped(line)}</li>" for line in kind.lines)
    examples = "".join(
        f'<a class="example" href="#p{cards[place][0]}">{escaped(cards[place][1])}</a> '
        for place in kind.places[:EXAMPLES]
    )
    return (
        f'<div class="kind"><h3><button type="button" class="only" data-kind="{number}">{title}</button></h3>'
        f'<div class="stack mean"><img src="{uri}" alt="mean of the pictures of {escaped(kind.label)}" width="84" '
        f'height="84"><canvas data-heat="{_whole(kind.mean_map)}" data-wide="84" aria-hidden="true"></canvas></div>'
        f'<ul>{lines}</ul><div class="examples">{examples}</div></div>\n'
    )
