"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """With ``--dist loadgroup``, tests of one PyTorch model share a worker, and with it the model's export."""
    for item in items:
        model = getattr(item, "callspec", None) and item.callspec.params.get("model")
        if isinstance(model, str):
            item.add_marker(pytest.mark.xdist_group(model))


@pytest.fixture(scope="session")
def assets():
    """The folder with real models and photos: FASTCAM_ASSETS, or ../shared/assets beside the repository."""
    folder = Path(os.environ.get("FASTCAM_ASSETS", ROOT.parent / "shared" / "assets"))
    if not folder.is_dir():
        pytest.skip(f"no real models and photos at {folder} (set FASTCAM_ASSETS)")
    return folder
