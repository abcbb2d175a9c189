"""Gradients that rounding, other pictures of the batch or a subtracted mean set apart from differences or from a map.

Oracles are closed forms, and gradients that are wrong by a known share.
"""

import numpy as np
import pytest

import fastcam
from fastcam.schema import FastcamError
from fastcam_export import export_model
from support.models.checked_network import NODE, SIDE, network, wrong_gradients


@pytest.fixture
def wrong(monkeypatch):
    return wrong_gradients(monkeypatch)


def rounded(far):
    """y = v mean(((feat + far) - far)^2): what float32 leaves of feat is a multiple of far / 2^23."""
    nodes = [NODE("Add", ["feat", "far"], ["a"]), NODE("Sub", ["a", "far"], ["b"]), NODE("Mul", ["b", "b"], ["cut"])]
    return network(nodes, {"far": np.float32(far)})


@pytest.mark.parametrize("emit", ["gradients", "weights"])
def test_rounding_is_told_from_a_wrong_gradient(emit, wrong):
    model = rounded(3e5)
    found = export_model(model, layer="feat", emit=emit).check
    assert 5e-4 < found["gradient_error"] < 5e-2 and "unconfirmed" not in found
    if emit == "gradients":
        assert "in float64" in export_model(rounded(6e6), layer="feat", emit=emit).check["unconfirmed"]
    wrong(1e-2)
    with pytest.raises(FastcamError, match="differs from central differences"):
        export_model(model, layer="feat", emit=emit)


def test_scores_that_are_shares_of_a_batch_are_checked_as_one_sum(wrong):
    """y = exp(s) over its sum of all pictures, as VideoPrism's video and text scores are."""
    nodes = [
        NODE("GlobalAveragePool", ["feat"], ["p"]),
        NODE("Flatten", ["p"], ["f"]),
        NODE("MatMul", ["f", "v"], ["s"]),
        NODE("Exp", ["s"], ["e"]),
        NODE("ReduceSum", ["e", "zero"], ["t"]),
        NODE("Div", ["e", "t"], ["y"]),
    ]
    model = network(nodes, {"zero": np.array([0])}, end="")
    found = export_model(model, layer="feat", emit="gradients").check
    assert found["gradient_error"] < 1e-4 and "other pictures of its batch" in found["notes"][0]
    wrong(1e-2)
    with pytest.raises(FastcamError, match="differs from central differences"):
        export_model(model, layer="feat", emit="gradients")


def test_a_layer_behind_which_the_mean_is_subtracted_has_no_grad_cam():
    """y is linear in the variances of the maps, whose gradient has a mean over positions of zero, by hand."""
    nodes = [
        NODE("ReduceMean", ["feat", "sides"], ["mean"]),
        NODE("Sub", ["feat", "mean"], ["apart"]),
        NODE("Mul", ["apart", "apart"], ["cut"]),
    ]
    model = network(nodes, {"sides": np.array([2, 3])})
    with pytest.raises(FastcamError, match="Grad-CAM has no map: export with --emit gradients"):
        export_model(model, layer="feat")
    found = export_model(model, layer="feat", emit="gradients")
    assert "Grad-CAM has no map" in found.check["notes"][0] and found.check["gradient_error"] < 1e-4
    explainer = fastcam.Explainer(found.model.SerializeToString())
    image = np.random.default_rng(1).standard_normal((1, 3, SIDE, SIDE)).astype(np.float32)
    assert explainer(image).status == (("zero_gradient",),) and explainer(image, method="hirescam").status == (("ok",),)
