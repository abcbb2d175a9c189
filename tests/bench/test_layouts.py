"""The benchmark of layouts: each explains every picture once and in order; what is recommended follows from figures."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from fastcam import Explainer
from fastcam_bench.speed.layouts import Layout, Sessions, compare, contestant, layouts, recommended, share_line
from support.models.contract_model import random_model


@pytest.fixture
def pictures():
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (40 + i, 50, 3), dtype=np.uint8) for i in range(7)]


@pytest.mark.parametrize("stream", [False, True])
def test_every_layout_gives_the_boxes_of_one_explainer_in_order(tmp_path, pictures, stream):
    model = random_model().file()
    wanted = Explainer(model)(pictures).boxes
    given = pictures
    if stream:
        given = [tmp_path / f"{i}.png" for i in range(len(pictures))]
        for path, picture in zip(given, pictures, strict=True):
            cv2.imwrite(str(path), picture[:, :, ::-1])
    sessions = Sessions(model)
    each = layouts(2, stream)
    assert len({layout.name for layout in each}) == len(each) >= 5
    for layout in [*each, Layout(3, 1, 2, stream)]:
        np.testing.assert_array_equal(contestant(layout, sessions, given, batch=2)(), wanted)


def test_a_layout_that_finds_other_boxes_is_seen():
    with pytest.raises(AssertionError, match="net: b differs"):
        compare("net", {"a": lambda: [np.array([[1.0, 2, 90, 100]])], "b": lambda: [np.array([[1.0, 4, 90, 100]])]})


def row(source, layout, gain):
    return {"source": source, "layout": layout, "gain": gain}


def test_the_recommendation_is_the_largest_geometric_mean_or_the_default():
    rows = [row("memory", "default", 1.0), row("memory", "a", 2.0), row("memory", "b", 1.3)]
    rows += [row("memory", "default", 1.0), row("memory", "a", 0.5), row("memory", "b", 1.2)]
    rows += [row("files", "default", 1.0), row("files", "a", 1.01)]
    best, same = recommended(rows)
    assert "memory: b, 1.25 times" in best and "(1.20 to 1.30)" in best
    assert same == "For streams of files the default (default) is as good as any."


@pytest.mark.parametrize(("share", "verdict"), [(0.002, "reached"), (0.02, "MISSED")])
def test_the_share_of_post_processing_is_held_to_its_target(share, verdict):
    found = {"forward": {"median_ms": 40.0, "ratio": 1.0}, "kernels": {"median_ms": 1.0, "ratio": share}}
    assert f"{share:.2%}" in share_line({"network": "resnet50", "contestants": found})
    assert verdict in share_line({"network": "resnet50", "contestants": found})
    assert "target" not in share_line({"network": "squeezenet1_1", "contestants": found})
