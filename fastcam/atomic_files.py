"""Files out: a folder receives all of a result or nothing of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastcam.errors import FastcamError


@contextmanager
def staged(folder: str | Path) -> Iterator[Path]:
    """A temporary folder whose files move into ``folder`` at the end; after an error they and it are gone.

    It lies on the same file system (in ``folder`` itself, or in the nearest parent that exists), so that the moves
    are renames and that a folder that cannot be written is found out before the work, not after it.

    Raises:
        FastcamError: the folder cannot be written.
    """
    folder = Path(folder)
    home = folder
    while not home.exists() and home != home.parent:
        home = home.parent
    with _refused(folder):
        stage = Path(tempfile.mkdtemp(prefix=".fastcam-", dir=home))
    try:
        yield stage
        with _refused(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for path in sorted(stage.iterdir()):
                os.replace(path, folder / path.name)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


@contextmanager
def _refused(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        raise FastcamError(f"{folder}: cannot be written ({why}); choose another output folder") from error


def write(path: Path, data: bytes) -> None:
    """Write ``data`` to a file of a staged folder.

    Raises:
        FastcamError: the disk refuses.
    """
    with _refused(path):
        path.write_bytes(data)


def write_json(folder: Path, report: dict[str, Any]) -> None:
    """``explanation.json`` in ``folder``."""
    write(folder / "explanation.json", (json.dumps(report, indent=1, ensure_ascii=False) + "\n").encode())


def unique_stems(files: Sequence[str | None]) -> list[str]:
    """One file stem per image: the picture's own, "image" for an array, with a number where two would be the same."""
    stems = [slug(Path(file).stem) if file else "image" for file in files]
    taken: set[str] = set()
    for index, stem in enumerate(stems):
        number, name = 2, stem
        if stem == "image" and len(stems) > 1:
            name = f"image-{index}"
        while name in taken:
            name, number = f"{stem}_{number}", number + 1
        taken.add(name)
        stems[index] = name
    return stems


def slug(text: str) -> str:
    """``text`` as part of a file name: letters and digits of any language, the rest becomes "-"."""
    return re.sub(r"[^\w.]+", "-", text).strip("-.")[:60] or "image"
