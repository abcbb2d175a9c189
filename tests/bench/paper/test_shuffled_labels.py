"""A head that is fitted by least squares: it knows any labels by heart, and the network computes what it says."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from fastcam_bench.models.train_bundled import normalise
from fastcam_bench.paper.shuffled_labels import _head, draw, features, fitted, likeness, with_head


def test_a_head_knows_shuffled_labels_by_heart_and_the_file_has_its_logits():
    pictures = draw(20, 5)
    x = features(pictures.images)
    labels = np.random.default_rng(0).permutation(pictures.classes)
    weights, bias = fitted(x, labels)
    np.testing.assert_allclose(x @ weights.T + bias, np.eye(10)[labels], atol=1e-6)
    model = with_head(weights, bias)
    logits = _head(model).output[0]
    model.graph.output[0].name = logits
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run([logits], {session.get_inputs()[0].name: normalise(pictures.images)})
    np.testing.assert_allclose(found, x @ weights.T + bias, atol=1e-3)


def test_a_map_is_like_itself_and_a_map_without_differences_like_none():
    maps = np.random.default_rng(0).random((4, 16, 16)).astype(np.float32)
    same, nothing = likeness(maps, maps), likeness(maps, np.zeros_like(maps))
    assert same["rank correlation"]["value"] == pytest.approx(1) and same["SSIM"]["value"] == pytest.approx(1)
    assert nothing["rank correlation"]["value"] == 0 and nothing["SSIM"]["value"] < 0.1
