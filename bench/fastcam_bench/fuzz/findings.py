"""What was found, one file for each fault rather than for each input: the input beside what happened."""

from __future__ import annotations

import hashlib
import traceback
from pathlib import Path

from fastcam_bench.paths import ROOT

FOLDER = ROOT / "build" / "fuzz"
KINDS = ("crashes", "hangs", "memory", "tracebacks", "wrong")
"""Died by a signal; took too long; took too much memory; another exception than FastcamError; a wrong answer."""


def place_of(error: BaseException) -> str:
    """Which fault an exception is: its type, and the last line of the project that it came through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/fastcam" in frame.filename and "fastcam_bench" not in frame.filename]
    last = (ours or frames)[-1]
    return f"{type(error).__name__} {Path(last.filename).name}:{last.lineno}"


def keep(folder: Path, kind: str, fault: str, data: bytes, text: str, repeat: str) -> Path | None:
    """Write an input and what it did under ``folder``; None where a file for the same fault is there already.

    Args:
        folder: of the class of inputs.
        kind: one of :data:`KINDS`.
        fault: what two inputs with the same fault have in common.
        data: the input.
        text: what happened, for a reader.
        repeat: the command that tries the input again, with ``{}`` for its file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{kind}-{hashlib.sha256(fault.encode()).hexdigest()[:10]}"
    about = folder / f"{name}.txt"
    if about.exists():
        with about.open("a", encoding="utf-8") as file:
            file.write("again\n")
        return None
    path = folder / f"{name}.bin"
    path.write_bytes(data)
    about.write_text(f"{fault}\nrepeat: {repeat.format(path)}\n\n{text}\n", encoding="utf-8", errors="replace")
    return path


def faults(folder: Path) -> dict[str, list[str]]:
    """The faults under a folder by kind, each in one line."""
    found: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for path in sorted(folder.glob("*.txt")):
        kind = path.name.split("-")[0]
        if kind in found:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            found[kind].append(f"{lines[0]} x{1 + sum(line == 'again' for line in lines)}; {lines[1]}")
    return found
