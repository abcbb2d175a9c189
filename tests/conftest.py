"""Fixtures that several test files share."""

import gc
import os
from pathlib import Path

import numpy as np
import pytest

from support import one_thread
from support.worker_memory import Memory

one_thread.by_default()

ROOT = Path(__file__).parent.parent

# a graph is many small objects that live long: a search for cycles every 700 of them is a tenth of all time
gc.set_threshold(50_000, 20, 100)


def shift_seeds(by):
    """Add to every seed that tests and models give to NumPy and torch, so that a run draws other numbers."""
    import torch

    class Generator(torch.Generator):
        def manual_seed(self, seed):
            return super().manual_seed(seed + by)

    draw, seeded = np.random.default_rng, torch.manual_seed
    np.random.default_rng = lambda seed=None: draw(seed + by if isinstance(seed, int) else seed)
    torch.manual_seed = lambda seed: seeded(seed + by)
    torch.Generator = Generator


if os.environ.get("FASTCAM_TEST_SEED"):
    shift_seeds(int(os.environ["FASTCAM_TEST_SEED"]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """A test whose numbers of another seed lie near a kink says nothing and is skipped; its own numbers may not."""
    try:
        return (yield)
    except ValueError as error:
        if type(error).__name__ == "TooNear" and os.environ.get("FASTCAM_TEST_SEED"):
            pytest.skip(str(error))
        raise


def pytest_configure(config):
    config.pluginmanager.register(Memory())


@pytest.hookimpl(wrapper=True)  # ahead of pytest-xdist, which reads the groups in a hook of its own that goes first
def pytest_collection_modifyitems(items):
    """Mark properties; with ``--dist loadgroup``, tests of one PyTorch model share a worker and the model's export."""
    for item in items:
        if getattr(item.obj, "is_hypothesis_test", False):
            item.add_marker(pytest.mark.property)
        model = getattr(item, "callspec", None) and item.callspec.params.get("model")
        if isinstance(model, str):
            item.add_marker(pytest.mark.xdist_group(model))
    return (yield)


@pytest.fixture(scope="session")
def assets():
    """The folder with real models and photos: FASTCAM_ASSETS, or ../shared/assets beside the repository."""
    folder = Path(os.environ.get("FASTCAM_ASSETS", ROOT.parent / "shared" / "assets"))
    if not folder.is_dir():
        pytest.skip(f"no real models and photos at {folder} (set FASTCAM_ASSETS)")
    return folder
