"""A verb of the command line: what it writes is none of the files that it reads, and it keeps to its threads."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import typer
import typer.core

from fastcam.errors import FastcamError, shown

OUTPUTS = ("output", "html", "json")
"""Parameters that say what is written."""
THREADS = "fastcam.threads"
"""Where a context's ``meta`` has the threads that NumPy and OpenCV keep to; not an open limit, as nobody closes what
options open if a later one is refused."""


class Verb(typer.core.TyperCommand):
    """A verb that refuses to overwrite what it was given, before it begins: the model, a picture, labels."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        from fastcam.runtime.thread_limit import at_most

        spare_inputs(ctx.params)
        with at_most(ctx.meta.get(THREADS)):
            return super().invoke(ctx)


def spare_inputs(given: Mapping[str, Any]) -> None:
    """Raise a FastcamError where an output of a call is a file that is one of its inputs, by whatever name."""
    inputs = {path for name, value in given.items() if name not in OUTPUTS for path in _files(value)}
    for output in (path for name in OUTPUTS for path in _files(given.get(name))):
        if any(os.path.samefile(output, path) for path in inputs):
            raise FastcamError(f"{shown(output)}: cannot be written (it is read); choose another name for the output")


def _files(value: Any) -> Iterator[str]:
    """What is a file's path of a parameter's value, which may be several."""
    for one in value if isinstance(value, list | tuple) else (value,):
        if isinstance(one, str | os.PathLike) and os.path.isfile(one):
            yield os.fspath(one)
