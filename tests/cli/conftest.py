"""A working folder for the verbs."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from fastcam.schema import preset
from support.models.contract_model import brightness_model, noise, random_model

LABELS = ("bright thing", "dark thing, shadow")


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A working folder with an exported file, a plain one, and pictures."""
    exported = brightness_model((64, 64), preset("unit", size=(64, 64)), labels=LABELS)
    (tmp_path / "model.cam.onnx").write_bytes(exported.file())
    (tmp_path / "plain.onnx").write_bytes(random_model().file(metadata=False))
    image = np.zeros((128, 256, 3), np.uint8)
    image[32:96, 64:192] = 255
    cv2.imwrite(str(tmp_path / "photo.png"), image)
    (tmp_path / "album").mkdir()
    for i in range(3):
        cv2.imwrite(str(tmp_path / "album" / f"p{i}.jpg"), noise(seed=i))
    (tmp_path / "album" / "notes.txt").write_text("no picture")
    monkeypatch.chdir(tmp_path)
    return tmp_path
