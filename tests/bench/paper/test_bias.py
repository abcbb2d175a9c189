"""The pictures of the bias experiment, and clusters that find maps of another kind without being told."""

from __future__ import annotations

import numpy as np

from fastcam_bench.paper.bias import clusters
from fastcam_bench.paper.scenes_with_context import CLASSES, draw, draw_tagged


def test_contexts_go_with_classes_as_often_as_asked():
    pictures = draw(200, 3, (1.0, 0.25))
    own = pictures.contexts == pictures.classes
    assert own[pictures.classes == 0].all() and 0.1 < own[pictures.classes == 1].mean() < 0.4
    assert (np.bincount(pictures.classes) == 100).all() and len(CLASSES) == 2
    red = pictures.images[..., 0].astype(int) - pictures.images[..., 2]
    difference = [red[i][pictures.rings[i]].mean() for i in range(200)]
    assert (np.sign(difference) == np.where(pictures.contexts == 0, 1, -1)).mean() > 0.95
    assert not pictures.objects[:, :32].any(axis=(1, 2)).all() and pictures.rings[:, 32:].mean() < 0.01


def test_tags_are_there_or_not():
    pictures = draw_tagged(60, 4, (0.5, 0.0))
    assert (pictures.rings.any(axis=(1, 2)) == (pictures.contexts == 0)).all()
    assert (pictures.contexts[pictures.classes == 1] == -1).all()


def test_clusters_separate_heat_above_from_heat_below():
    rng = np.random.default_rng(0)
    maps, above = np.zeros((80, 16, 16), np.float32), rng.random(80) < 0.3
    for one, up in zip(maps, above, strict=True):
        y, x = (rng.integers(1, 5) if up else rng.integers(9, 13)), rng.integers(0, 12)
        one[y : y + 3, x : x + 4] = 1
    labels = clusters(maps)
    assert max((labels == above).mean(), (labels != above).mean()) == 1
