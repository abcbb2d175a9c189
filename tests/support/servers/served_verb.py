"""``fastcam serve`` in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.servers.live_server import Client


@contextmanager
def served(folder: Path, *options: str) -> Iterator[tuple[Any, Client]]:
    """The verb in a process of its own, and where it listens."""
    command = [sys.executable, "-m", "fastcam", "serve", str(folder), "--port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    try:
        lines = []
        while not lines or not lines[-1].startswith("listening at"):
            lines.append(process.stderr.readline())
            assert lines[-1], f"it ended: {lines}"
        client = Client(int(re.search(r":(\d+)/", lines[-1])[1]))
        client.lines = lines
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                client.ask("/v2/health/ready")
                break
            except OSError:
                time.sleep(0.02)
        yield process, client
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
