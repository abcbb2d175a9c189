"""Maps that are the same everywhere say nothing about where: status "constant", no heat, no box."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from fastcam import Explainer
from fastcam_export import export_model
from support.models.pyramid_model import model_of

TENSORS = {"w": np.ones((2, 3, 1, 1), np.float32), "fc": np.eye(2, dtype=np.float32)}
IMAGES = np.ones((2, 3, 8, 8), np.float32)
IMAGES[1, :, 2:4, 5:7] = 3.0  # the second picture has a place


@pytest.fixture(scope="module")
def file():
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["a"]),
        helper.make_node("GlobalAveragePool", ["a"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("MatMul", ["f", "fc"], ["logits"]),
    ]
    return export_model(model_of(nodes, TENSORS, ["N", 3, 8, 8], 2), layer="a", emit="gradients").model


@pytest.mark.parametrize("method", ["gradcam", "hirescam", "occlusion"])
def test_a_constant_map_is_never_ok(file, method):
    explainer = Explainer(file.SerializeToString())
    options = {"window": (8, 8), "stride": (8, 8)} if method == "occlusion" else None
    found = explainer(IMAGES, targets=[0], method=method, options=options)
    assert found.status[0] == ("constant",)
    assert not found.heatmaps[0].any() and not found.boxes[0].any() and not len(found.components[0][0])
    assert found.maps[0].max() > 0  # the map itself stays
    if method == "occlusion":  # one window covers all: the score's fall is the same everywhere
        assert found.status[1] == ("constant",)
        return
    assert found.status[1] == ("ok",)
    np.testing.assert_array_equal(found.boxes[1, 0], [0, 0, 8, 8])  # 1/3 of the maximum is above 0.15
    assert found.to_dict()["images"][0]["targets"][0]["box"] is None


def test_fused_layers_that_are_constant_say_so(file):
    both = export_model(
        model_of(
            [
                helper.make_node("Conv", ["image", "w"], ["a"]),
                helper.make_node("Relu", ["a"], ["b"]),
                helper.make_node("GlobalAveragePool", ["b"], ["g"]),
                helper.make_node("Flatten", ["g"], ["f"]),
                helper.make_node("MatMul", ["f", "fc"], ["logits"]),
            ],
            TENSORS,
            ["N", 3, 8, 8],
            2,
        ),
        layer=["b", "a"],
    ).model.SerializeToString()
    found = Explainer(both)(IMAGES, targets=[0], layers="all", fuse="max")
    assert found.status == (("constant",), ("ok",))
