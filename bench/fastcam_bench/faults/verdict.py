"""What must hold after a run that was disturbed; each rule gives a complaint or nothing."""

from __future__ import annotations

import json
import tempfile
from typing import Any

import numpy as np
import onnx

from fastcam import schema
from fastcam.image.resampling import opencv
from fastcam_bench.faults.cases import Case
from fastcam_bench.faults.children import Files, Run

TEMPORARY = ".fastcam-"
"""How the names of files begin that are not complete."""


def of_writing(case: Case, run: Run, before: Files, wanted: Files) -> str | None:
    """After a fault on files that are written."""
    if case.cache:
        return None if run.status == 0 else f"exit {run.status} without its cache: {run.said[-300:]}"
    return _of_end(run) or (_of_success(run, before, wanted) if run.status == 0 else _of_refusal(run, before))


def of_reading(case: Case, run: Run, before: Files, wanted: Files) -> str | None:
    """After a fault on files that are read: of several pictures those that can be read may be there."""
    if case.cache and run.status != 0:
        return _of_end(run)
    if run.status == 0 or not case.partial:
        return of_writing(case, run, before, wanted)
    if run.files == before:
        return _of_end(run)
    return _of_end(run) or _temporary(run) or _halves(run.files, before, wanted)


def of_kill(run: Run, before: Files, wanted: Files) -> str | None:
    """After a kill: each file is as it was, or as it should be; others have names of their own."""
    for name, (_, content) in run.files.items():
        if any(part.startswith((TEMPORARY, ".")) for part in name.split("/")):
            continue
        allowed = [files[name][1] for files in (before, wanted) if name in files]
        if content not in allowed:
            return f"{name} is neither as it was nor as it should be ({len(content or b'')} bytes)"
    missing = [name for name in before if name not in run.files]
    return f"{missing[0]} is gone" if missing else None


def _of_end(run: Run) -> str | None:
    """One line, and exit status 0 or 2."""
    if run.status not in (0, 2):
        return f"exit {run.status}: {run.said[-1500:]}"
    lines = [line for line in run.said.splitlines() if line.startswith("fastcam: ")]
    if "Traceback" in run.said or (run.status == 2) != (len(lines) == 1):
        return f"exit {run.status}, {len(lines)} lines: {run.said[-1500:]}"
    return f"left in the temporary folder: {run.left[0]}" if run.left else None


def _of_success(run: Run, before: Files, wanted: Files) -> str | None:
    """Every file is there, with its bytes and the mode that it had."""
    for name, (mode, content) in wanted.items():
        if name not in run.files:
            return f"exit 0, but {name} is missing"
        if run.files[name][1] != content and not _same(name, run.files[name][1], content):
            return f"exit 0, but {name} is not what it should be"
        if run.files[name][0] != before.get(name, (mode,))[0]:
            return f"exit 0, but the mode of {name} is {run.files[name][0]:o}"
    more = set(run.files) - set(wanted) - set(before)
    return f"exit 0, but {min(more)} is left" if more else None


def _same(name: str, found: bytes | None, wanted: bytes | None) -> bool:
    """Whether two files mean the same, though their bytes differ."""
    if found is None or wanted is None:
        return False
    if name.endswith(".onnx"):
        return _without_check(found) == _without_check(wanted)
    return name.endswith((".avi", ".mp4")) and _same_frames(name, found, wanted)


def _without_check(content: bytes) -> bytes:
    """A model without what the check measured: where float64 cannot be had, the check is made in float32."""
    model: onnx.ModelProto = onnx.load_from_string(content)
    for entry in model.metadata_props:
        if entry.key == schema.METADATA_KEY:
            about = json.loads(entry.value)
            about["check"] = None
            (about.get("pair") or {})["sha256"] = None
            entry.value = json.dumps(about)
    return bytes(model.SerializeToString())


def _same_frames(name: str, found: bytes, wanted: bytes) -> bool:
    """Whether two videos show the same; OpenCV writes with another encoder where the first one cannot be opened."""
    videos = [_frames(content, name) for content in (found, wanted)]
    return len(videos[0]) == len(videos[1]) > 0 and all(
        a.shape == b.shape and float(np.abs(a.astype(int) - b).mean()) < 20 for a, b in zip(*videos, strict=True)
    )


def _frames(content: bytes, name: str) -> list[Any]:
    with tempfile.NamedTemporaryFile(suffix=name[-4:]) as file:
        file.write(content)
        file.flush()
        video = opencv().VideoCapture(file.name)
        frames = []
        while (read := video.read())[0]:
            frames.append(read[1])
        video.release()
    return frames


def _of_refusal(run: Run, before: Files) -> str | None:
    """The folder is as it was."""
    for name in before:
        if name not in run.files:
            return f"exit 2, and {name} is gone"
        if run.files[name] != before[name]:
            return f"exit 2, but {name} has changed"
    more = set(run.files) - set(before)
    return f"exit 2, but {min(more)} is there" if more else None


def _temporary(run: Run) -> str | None:
    found = [name for name in run.files if any(part.startswith(".") for part in name.split("/"))]
    return f"{found[0]} is left" if found else None


def _halves(files: Files, before: Files, wanted: Files) -> str | None:
    """Files of a part of the result: those of JSON say what is missing, the others are whole."""
    for name, (_, content) in files.items():
        if name not in wanted:
            return f"{name} is no file of the result"
        if content is None or content == wanted[name][1] or files[name] == before.get(name):
            continue
        if name.endswith((".avi", ".mp4")):
            continue
        try:
            rows = [json.loads(line) for line in (content.splitlines() if name.endswith("l") else [content])]
        except ValueError:
            return f"{name} is half a file"
        if name.endswith(".json") and "error" not in json.dumps(rows):
            return f"{name} does not say what is missing"
    return None
