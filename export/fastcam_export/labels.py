"""Class names as a user gives them: a file with one per line, or a sequence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fastcam.schema import FastcamError


def read(given: str | Path | Sequence[str] | None, classes: int | None) -> tuple[str, ...] | None:
    """Class names by index.

    Raises:
        FastcamError: the file cannot be read, or their number is not that of the classes.
    """
    if given is None:
        return None
    if isinstance(given, (str, Path)):
        try:
            names = [line.strip() for line in Path(given).read_text(encoding="utf-8-sig").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise FastcamError(f"cannot read the labels file {given} ({why}); give one class name per line") from error
        names = names[: max((i + 1 for i, name in enumerate(names) if name), default=0)]
    else:
        names = [str(name) for name in given]
    if classes is not None and len(names) != classes:
        raise FastcamError(f"{len(names)} labels were given, but the score has {classes} classes; one name per class")
    return tuple(names)
