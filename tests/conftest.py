"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def assets():
    """The folder with real models and photos: FASTCAM_ASSETS, or ../shared/assets beside the repository."""
    folder = Path(os.environ.get("FASTCAM_ASSETS", ROOT.parent / "shared" / "assets"))
    if not folder.is_dir():
        pytest.skip(f"no real models and photos at {folder} (set FASTCAM_ASSETS)")
    return folder
