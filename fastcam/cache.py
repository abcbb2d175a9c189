"""The per-user cache: engines, timings, and ONNX Runtime's optimised models for faster starts. Deleting it is safe."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fastcam.atomic_files import write_files
from fastcam.errors import FastcamError
from fastcam.schema import __version__

_EXTERNAL = b"\x0a\x08location"
"""How an entry ``key: "location"`` of a tensor's external data begins in a file (protobuf field 1, 8 bytes long)."""
_SETTLED = 2.0
"""Seconds: a file that changed later than this before it was read may change again under the same time stamp."""


def root(given: str | Path | None = None) -> Path:
    """The cache folder: ``given``, FASTCAM_CACHE, or "fastcam" where the system keeps a user's caches."""
    if given is not None:
        return Path(given)
    if os.environ.get("FASTCAM_CACHE"):
        return Path(os.environ["FASTCAM_CACHE"])
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "fastcam" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "fastcam"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastcam"


def folder(base: Path, *names: str) -> Path:
    """``base/names...``, made where it does not exist, readable by its owner only.

    Raises:
        FastcamError: it cannot be made.
    """
    path = base.joinpath(*names)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise FastcamError(
            f"the cache folder {path} cannot be made ({error.strerror or error}); set FASTCAM_CACHE to one that can"
        ) from error
    return path


def digest(model: str | Path | bytes, base: Path) -> tuple[str, bool]:
    """SHA-256 of a model file, hex, and whether it refers to external data. Read unless known to be the same.

    That is: same device, inode, length, time of the last change and of the inode's last change (which no program can
    set back) as when it was noted, and then it had not been touched for two seconds. On Windows it is always read.
    """
    if isinstance(model, bytes):
        return hashlib.sha256(model).hexdigest(), _EXTERNAL in model
    path = Path(model).resolve()
    before, started = _identity(path), time.time()
    note = folder(base, "digests") / f"{hashlib.sha256(os.fsencode(path)).hexdigest()}.json"
    if sys.platform != "win32":
        try:
            known = json.loads(note.read_text())
            if known["file"] == before:
                return str(known["sha256"]), bool(known["external"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest(), _EXTERNAL in content
    if started - max(before[3:]) / 1e9 > _SETTLED and _identity(path) == before:
        write(note, json.dumps({"file": before, "sha256": found[0], "external": found[1]}).encode())
    return found


def _identity(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def write(path: Path, data: bytes) -> None:
    """Write a file of the cache under another name first; that it cannot be written is no error."""
    with contextlib.suppress(FastcamError):
        write_files({path: data})


def optimized(
    model: str | Path | bytes, base: Path, about: Sequence[Any], save: Callable[[str], Any], load: Callable[[str], Any]
) -> Any:
    """A session of ``model``, from its optimised form where that is in the cache, which it is afterwards.

    The name holds all that the optimised form depends on: the digest of the file, ``about``, this machine and FastCAM's
    version. It is written under another name, then renamed, so processes that start together see all of it or nothing.

    Args:
        about: what else decides: ONNX Runtime's version and build, providers, options.
        save: makes a session of the model, and a file of its optimised form.
        load: makes a session of that file; what cannot be loaded is made anew.

    Returns:
        The session; None where the optimised form cannot be kept: of models with external data, or on a full disk.
    """
    sha256, external = digest(model, base)
    if external:  # a change of that other file would go unseen
        return None
    text = json.dumps([sha256, *about, machine(), __version__], default=str, sort_keys=True)
    path = folder(base, "optimized") / f"{hashlib.sha256(text.encode()).hexdigest()}.onnx"
    if path.is_file():
        try:
            return load(str(path))
        except FastcamError:
            path.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as stage:
        temporary = Path(stage) / "model.onnx"
        try:
            session = save(str(temporary))
        except FastcamError:  # the disk is full, or the optimised form too long for one file
            return None
        with contextlib.suppress(OSError):  # the session works all the same
            os.replace(temporary, path)
    return session


@functools.cache
def machine() -> str:
    """What an optimised model depends on of this machine: the processor with all its extensions, and the system."""
    about = [platform.machine(), platform.processor(), platform.system(), str(sys.byteorder)]
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        kept = ("vendor_id", "cpu family", "model", "stepping", "flags", "Features", "CPU part", "CPU implementer")
        about += sorted({line for line in lines if line.startswith(kept)})
    except OSError:
        pass
    return hashlib.sha256("\n".join(about).encode()).hexdigest()
