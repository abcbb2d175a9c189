"""The bundled model, exported once."""

from __future__ import annotations

from pathlib import Path

import pytest

import fastcam
from fastcam_export import export_model

DATA = Path(fastcam.__file__).parent / "data"


@pytest.fixture(scope="session")
def file(tmp_path_factory):
    """The bundled model of scenes, exported with its classes."""
    path = tmp_path_factory.mktemp("evaluated") / "scenes.cam.onnx"
    export_model(DATA / "scenes.onnx", path, labels=DATA / "scenes.labels.txt", preprocess="imagenet", check=False)
    return path
