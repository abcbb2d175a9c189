"""Values whose gradient is zero because a user says so: where PyTorch detaches one, which no ONNX file tells."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import onnx_ir as ir

from fastcam.schema import FastcamError

MARK = "fastcam.stopped"
"""A key of a value's metadata in memory, which copies of a graph keep and files do not have."""


def stop(graph: ir.Graph, names: str | Iterable[str]) -> tuple[str, ...]:
    """Let no gradient pass the named values of a graph, one or several.

    Returns:
        The names.

    Raises:
        FastcamError: there is no such value (names the nearest).
    """
    names = (names,) if isinstance(names, str) else tuple(names)
    values = {value.name: value for node in graph for value in node.outputs if value.name}
    for name in names:
        if name not in values:
            inside = sorted((known for known in values if name and name in known), key=len)[:3]
            near = inside or difflib.get_close_matches(name, values, 3, 0)
            raise FastcamError(
                f"stop_gradient (--stop-gradient): no node computes a value {name!r}; the nearest: "
                f"{', '.join(map(repr, near))}"
            )
        values[name].meta[MARK] = True
    return names


def is_stopped(value: ir.Value) -> bool:
    """Whether no gradient passes a value."""
    return MARK in value.meta
