"""The per-user cache: engines, timings, and ONNX Runtime's optimised models for faster starts. Deleting it is safe."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import platform
import re
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fastcam.atomic_files import write_files
from fastcam.errors import FastcamError, shown
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
        FastcamError: it cannot be made, or others may change what lies there: what is kept is loaded and run.
    """
    path = base.joinpath(*names)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise FastcamError(
            f"the cache folder {path} cannot be made ({error.strerror or error}); set FASTCAM_CACHE to one that can"
        ) from error
    for each in {base, path} if hasattr(os, "geteuid") else ():
        about = each.stat()
        if about.st_uid not in (os.geteuid(), 0) or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise FastcamError(
                f"the cache folder {shown(each)} belongs to another user, or others may write into it; "
                f"chmod 700 it if it is yours, or set FASTCAM_CACHE to another"
            )
    return path


def sound(path: Path) -> bool:
    """Whether an entry is there, and what :func:`note` noted of it."""
    try:
        return _noted(path).read_text() == sha256_of(path)
    except (OSError, ValueError):
        return False


def note(path: Path) -> None:
    """Note what an entry of the cache is, so that a truncated or changed one is not loaded."""
    with contextlib.suppress(OSError):
        write(_noted(path), sha256_of(path).encode())


def _noted(path: Path) -> Path:
    return path.with_name(f".{path.name}.sha256")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hex; it is read in pieces."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            found.update(chunk)
    return found.hexdigest()


def digest(model: str | Path | bytes, base: Path) -> tuple[str, bool]:
    """SHA-256 of a model file, hex, and whether it refers to external data. Read unless known to be the same.

    That is: same device, inode, length, time of the last change and of the inode's last change (which no program can
    set back) as when it was noted, and then it had not been touched for two seconds. On Windows it is always read.
    """
    if isinstance(model, bytes):
        return hashlib.sha256(model).hexdigest(), has_external_data(model)
    path = Path(model).resolve()
    before, started = _identity(path), time.time()
    entry = folder(base, "digests") / f"{hashlib.sha256(os.fsencode(path)).hexdigest()}.json"
    if sys.platform != "win32":
        try:
            known = json.loads(entry.read_text())
            if known["file"] == before and re.fullmatch("[0-9a-f]{64}", known["sha256"]):
                return str(known["sha256"]), bool(known["external"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            pass
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest(), has_external_data(content)
    if started - max(before[3:]) / 1e9 > _SETTLED and _identity(path) == before:
        write(entry, json.dumps({"file": before, "sha256": found[0], "external": found[1]}).encode())
    return found


def has_external_data(model: bytes) -> bool:
    """Whether a model refers to external data."""
    return _EXTERNAL in model


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
    One whose bytes are not those that were noted is made anew.

    Args:
        about: what else decides: ONNX Runtime's version and build, providers, options.
        save: makes a session of the model, and a file of its optimised form.
        load: makes a session of that file; what cannot be loaded is made anew.

    Returns:
        The session; None where the optimised form cannot be kept: of models with external data, on a full or read-only
        disk.
    """
    sha256, external = digest(model, base)
    if external:  # a change of that other file would go unseen
        return None
    text = json.dumps([sha256, *about, machine(), __version__], default=str, sort_keys=True)
    path = folder(base, "optimized") / f"{hashlib.sha256(text.encode()).hexdigest()}.onnx"
    if sound(path):
        with contextlib.suppress(FastcamError):
            return load(str(path))
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".", ignore_cleanup_errors=True) as stage:
            temporary = Path(stage) / "model.onnx"
            session = save(str(temporary))
            with contextlib.suppress(OSError):  # the session works all the same
                os.replace(temporary, path)
                note(path)
            return session
    except (FastcamError, OSError):  # the disk is full or read-only, or the optimised form too long for one file
        return None


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
