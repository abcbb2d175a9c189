"""The gallery's pictures: the small transformer that it trains serves the methods that need one."""

from __future__ import annotations

import cv2
import pytest

from fastcam_bench.report import pictures


def test_a_picture_is_drawn_of_each_kind_of_method(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "IMAGES", tmp_path)
    pictures.gallery(["gradcam", "guided"])  # a heatmap with its box, and pixels
    for name in ("gradcam", "guided"):
        assert cv2.imread(str(tmp_path / "methods" / f"{name}.jpg")).shape == (200, 400, 3)


def test_the_transformer_serves_the_methods_that_need_one(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    from fastcam_bench.report.transformer import write

    monkeypatch.setattr(pictures, "IMAGES", tmp_path)
    model = write(pictures.DATA / "scenes.onnx", tmp_path, scenes=8, epochs=1)
    pictures.gallery(pictures.TRANSFORMERS, model)
    assert {file.stem for file in (tmp_path / "methods").iterdir()} == {*pictures.TRANSFORMERS}
