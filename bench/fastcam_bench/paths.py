"""Where the repository, its results and its downloads lie: no module counts its own folders."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The repository."""
RESULTS = ROOT / "bench" / "results"
CACHE = ROOT / "build" / "bench"
"""Networks and exports that are made once."""


def default_assets() -> Path:
    """The folder that FASTCAM_ASSETS names, or ../shared/assets beside the project."""
    return Path(os.environ.get("FASTCAM_ASSETS") or ROOT.parent / "shared" / "assets")
