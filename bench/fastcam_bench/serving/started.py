"""The verb ``fastcam serve`` in a process of its own, for what measures it from outside."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

from fastcam_export import export_model


def bundled(folder: Path) -> Path:
    """The bundled model, exported."""
    path = folder / "scenes.cam.onnx"
    data = Path(str(files("fastcam") / "data"))
    export_model(data / "scenes.onnx", path, preprocess="imagenet", labels=data / "scenes.labels.txt", check=False)
    return path


def scene() -> bytes:
    """The bundled picture, as it lies in its file."""
    return (files("fastcam") / "data" / "scene.jpg").read_bytes()


@contextmanager
def started(model: Path, *options: str) -> Iterator[tuple[int, int, list[str]]]:
    """A server: its port, its process, and what it has written to standard error so far."""
    command: Sequence[str] = [sys.executable, "-m", "fastcam", "serve", str(model), "--port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    lines: list[str] = []
    try:
        line = next(line for line in process.stderr if line.startswith("listening at"))
        stream = process.stderr
        reader = threading.Thread(target=lambda: lines.extend(stream), daemon=True)  # a full pipe would stop the server
        reader.start()
        yield int(line.rsplit(":", 1)[1].rstrip("/\n")), process.pid, lines
    finally:
        process.terminate()
        process.wait()
        process.stderr.close()
