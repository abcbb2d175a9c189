"""A key and a certificate of localhost."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def of_localhost(folder: Path) -> tuple[Path, Path]:
    """The files of a key and its certificate, PEM; the test is skipped where openssl is not installed."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here: no certificate was made")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost"
    extension = ["-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*command.split(), *extension], cwd=folder, check=True, capture_output=True, timeout=60)
    return folder / "key.pem", folder / "cert.pem"
