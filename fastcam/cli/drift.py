"""``fastcam drift``: whether what a model says has changed, by two tables of ``fastcam batch``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastcam.cli.shared.console import print_table, say
from fastcam.errors import FastcamError, shown

EXAMPLES = (
    "fastcam drift january june",
    "fastcam drift january june --html drift.html --fail-above 0.25",
)
_MAPS = 10
"""Classes whose maps are told of."""


def drift(
    reference: Annotated[
        Path, typer.Argument(metavar="REFERENCE", help="A table of fastcam batch.", show_default=False)
    ],
    now: Annotated[Path, typer.Argument(metavar="NOW", help="The table to compare with it.", show_default=False)],
    html: Annotated[Path | None, typer.Option(help="A page for people.", show_default=False)] = None,
    json: Annotated[Path | None, typer.Option(help="All figures, for programs.", show_default=False)] = None,
    target: Annotated[
        str | None, typer.Option("--target", "-t", help="The rows of which target count.", show_default="all")
    ] = None,
    fail_above: Annotated[
        float | None,
        typer.Option(
            min=0, help="Exit with 2 where an index is larger, and chance does not explain it.", show_default=False
        ),
    ] = None,
) -> None:
    """Compare two tables: scores, heat inside the box, entropy, status, predicted classes, and mean maps of classes.

    Each by its population stability index: below 0.1 nothing has changed, from 0.25 on much has.
    """
    from fastcam.atomic_files import json_bytes, write_files
    from fastcam.drift.compare import compare
    from fastcam.drift.page import WORDS, page

    if html is not None and html == json:
        raise FastcamError(f"{shown(html)} is to be page and JSON at once; give each a file of its own")
    found = compare(reference, now, target)
    rows = [(one.name, f"{one.psi:.3f}", f"{one.chance:.3f}", WORDS[one.level]) for one in found.figures]
    rows += [
        (f"map of {one.label}", f"{one.psi:.3f}", f"{one.chance:.3f}", WORDS[one.level]) for one in found.maps[:_MAPS]
    ]
    print_table(("figure", "PSI", "by chance", "drift"), rows)
    if len(found.maps) > _MAPS:
        say(f"and the maps of {len(found.maps) - _MAPS} more classes, with less drift")
    for note in found.notes:
        say(note)
    written = {html: page(found).encode()} if html is not None else {}
    written |= {json: json_bytes(found.to_dict())} if json is not None else {}
    if written:
        write_files(written)
        say(f"written to {', '.join(map(str, written))}")
    name, psi = found.largest
    if fail_above is not None and psi > fail_above:
        raise FastcamError(f"{name} has drifted: its index is {psi:.3f}, more than {fail_above:g}")
