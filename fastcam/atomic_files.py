"""Files out: a file is complete or untouched, several receive all of a result or nothing of it.

What is replaced is a regular file, never a device, a pipe or a folder. A new file has the mode that the umask leaves,
an existing one keeps its own; a link stays a link, to the new content.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from fastcam.errors import FastcamError, kind_of, reason, shown

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""How a URL begins as a path, which has one slash where there were two."""


@contextmanager
def replaced(path: str | Path) -> Iterator[Path]:
    """A new, empty file beside ``path`` that takes its name at the end; after an error it is gone.

    Raises:
        FastcamError: it cannot be written, or there is something of that name that is no file.
    """
    path = Path(path)
    with refused(path):
        target = destination(path)
    with _beside(path, target) as partial, refused(path):
        yield partial
        _take_places({partial: target})


@contextmanager
def all_replaced() -> Iterator[Callable[[Path], Path]]:
    """A function that gives a new, empty file beside a path; at the end all of them take their names, or none does.

    Raises:
        FastcamError: as of :func:`replaced`.
    """
    moves: dict[Path, Path] = {}
    first: list[Path] = []
    with ExitStack() as stack:

        def made(path: Path) -> Path:
            with refused(path):
                target = destination(path)
            partial = stack.enter_context(_beside(path, target))
            moves[partial] = target
            first.append(path)
            return partial

        yield made
        if moves:
            with refused(first[-1]):
                _take_places(moves)


@contextmanager
def _beside(path: Path, target: Path) -> Iterator[Path]:
    """A new, empty file beside ``target``, which is gone at the end unless it was renamed."""
    partial = _other_name(target)
    try:
        with refused(path):
            os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield partial
    finally:
        partial.unlink(missing_ok=True)


def _other_name(target: Path) -> Path:
    """A name in the same folder that no file has."""
    return target.with_name(f".fastcam-{secrets.token_hex(6)}{target.suffix[:8]}")


def write_files(files: Mapping[Path, bytes]) -> None:
    """Write all files under other names first, so that all are complete or untouched.

    Raises:
        FastcamError: one cannot be written; then none is.
    """
    with all_replaced() as made:
        for path, content in files.items():
            write(made(path), content, path)


def destination(path: Path) -> Path:
    """The file that writing to ``path`` replaces or makes: through a link to where it leads.

    Raises:
        FastcamError: there is something that is no regular file.
        OSError, ValueError: no such name is possible, or a folder on the way cannot be read.
    """
    target = Path(os.path.realpath(path))
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return target
    if not stat.S_ISREG(mode):
        raise FastcamError(
            f"{shown(path)}: cannot be written (it is {kind_of(mode)}); choose another name for the file"
        )
    return target


def _take_places(moves: Mapping[Path, Path]) -> None:
    """Each new file becomes its target, with the mode that this has had; where one cannot, none does."""
    olds: dict[Path, Path] = {}
    done: list[Path] = []
    try:
        for new, target in moves.items():
            if target.exists():
                new.chmod(stat.S_IMODE(target.stat().st_mode))
                if len(moves) > 1:
                    olds[target] = _second_name(target)
        for new, target in moves.items():
            os.replace(new, target)
            done.append(target)
    except BaseException:
        for target in reversed(done):
            if target in olds:
                os.replace(olds[target], target)
            else:
                target.unlink()
        raise
    finally:
        for old in olds.values():
            with suppress(OSError):
                old.unlink(missing_ok=True)


def _second_name(target: Path) -> Path:
    """Another name of the same file, or a copy where the file system has no links."""
    old = _other_name(target)
    try:
        os.link(target, old)
    except OSError:
        try:
            shutil.copy2(target, old)
        except BaseException:
            old.unlink(missing_ok=True)
            raise
    return old


@contextmanager
def staged(folder: str | Path) -> Iterator[Path]:
    """A temporary folder whose files move into ``folder`` at the end; after an error they and it are gone.

    It lies on the same file system (in ``folder`` itself, or in the nearest parent that exists), so that the moves
    are renames and that a folder that cannot be written is found out before the work, not after it.

    Raises:
        FastcamError: the folder cannot be written.
    """
    folder = Path(folder)
    with refused(folder, "folder"):
        home = folder
        while not home.exists() and home != home.parent:
            home = home.parent
        stage = Path(tempfile.mkdtemp(prefix=".fastcam-", dir=home))
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield stage
        with refused(folder, "folder"):
            folder.mkdir(parents=True, exist_ok=True)
            _take_places({path: destination(folder / path.name) for path in sorted(stage.iterdir())})
            made = []
    finally:
        _remove(stage)
        for path in made:
            with suppress(OSError):  # it was not made after all, or others have put something there
                path.rmdir()


def _remove(folder: Path) -> None:
    """A temporary folder is gone, if it can be at all: where the disk refuses one call, a second may do."""
    for _ in range(2):
        with suppress(OSError):  # with ignore_errors too, shutil closes twice what could not be closed
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def refused(path: Path, what: str = "file") -> Iterator[None]:
    """What the system refuses while ``path`` is written, as one line; a URL, of which it would make folders, is too."""
    if _URL.match(str(path)):
        raise FastcamError(f"{shown(path)}: FastCAM writes to this machine alone; choose a path here, and copy it then")
    try:
        yield
    except FastcamError:
        raise
    except (OSError, ValueError) as error:
        raise FastcamError(
            f"{shown(path)}: cannot be written ({reason(error)}); choose another output {what}"
        ) from error


def write(path: Path, data: bytes, called: Path | None = None) -> None:
    """Write ``data`` to a file of a staged folder, or to one that takes the name of ``called`` later.

    Raises:
        FastcamError: the disk refuses.
    """
    with refused(called or path):
        path.write_bytes(data)


def write_json(folder: Path, report: dict[str, Any]) -> None:
    """``explanation.json`` in ``folder``."""
    write(folder / "explanation.json", json_bytes(report))


def json_bytes(report: Any) -> bytes:
    """JSON as it is written; what is no UTF-8 in a file's name stands there as an escape."""
    return (json.dumps(report, indent=1, ensure_ascii=False) + "\n").encode(errors="backslashreplace")


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


def locked(file: IO[Any], path: str | Path) -> None:
    """Nobody else writes meanwhile what an open file guards, where the system can say so.

    Args:
        file: is held until it is closed.
        path: what is guarded, for the error.

    Raises:
        FastcamError: another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise FastcamError(f"{shown(path)}: another process writes it; wait for it, or give another folder") from error
