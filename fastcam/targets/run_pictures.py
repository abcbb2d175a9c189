"""How messages call the pictures of the run whose outputs are being explained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from fastcam.errors import shown

_names: ContextVar[tuple[str, ...]] = ContextVar("_names", default=())


@contextmanager
def pictures(files: Sequence[str | None], start: int = 0) -> Iterator[None]:
    """While it lasts, the pictures of a run have these names.

    Args:
        files: of each picture its file, or None.
        start: how many pictures of the call are before them.
    """
    token = _names.set(
        tuple(f"picture {start + n + 1}" if file is None else shown(file) for n, file in enumerate(files))
    )
    try:
        yield
    finally:
        _names.reset(token)


@contextmanager
def picture_alone(n: int) -> Iterator[None]:
    """While it lasts, picture ``n`` of the run is the only one."""
    token = _names.set(_names.get()[n : n + 1])
    try:
        yield
    finally:
        _names.reset(token)


def name_of(n: int) -> str:
    """Picture ``n`` of the run: its file, or its number in the call, from 1."""
    names = _names.get()
    return names[n] if n < len(names) else f"picture {n + 1}"
