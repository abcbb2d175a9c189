"""Explanations at several layers, their fusion and the strip; PyTorch's autograd and interpolation are the oracle."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from fastcam import Explainer, FastcamError, kernels
from fastcam.cli import app
from fastcam.explain.multilayer import numbers
from fastcam.methods import layer_fusion
from fastcam.render import drawing
from fastcam.results.layer_sheet import strip
from fastcam_export import export_model
from support.models.pyramid_model import LAYERS, autograd, pyramid

F = torch.nn.functional
IMAGES = np.random.default_rng(1).standard_normal((3, 3, 8, 8)).astype(np.float32)
TARGETS = [0, 3]


@pytest.fixture(scope="module")
def network():
    return pyramid()


@pytest.fixture(scope="module")
def explainer(network):
    return Explainer(export_model(network[0], layer="all", emit="gradients").model.SerializeToString())


def gradcam(tensors):
    """Grad-CAM's maps by layer, by autograd."""
    activations, gradients = autograd(tensors, IMAGES, np.tile(TARGETS, (len(IMAGES), 1)))
    weights = {name: gradients[name].mean((3, 4)) for name in LAYERS}
    return {n: np.maximum(np.einsum("ntk,nkhw->nthw", weights[n], activations[n]), 0) for n in LAYERS}


def normalised(maps):
    peak = maps.max((2, 3), keepdims=True)
    return maps / np.where(peak > 0, peak, 1)


def enlarged(maps, size):
    return F.interpolate(torch.tensor(maps), size, mode="bilinear", align_corners=False).numpy()


@pytest.mark.parametrize("on_demand", [False, True], ids=["one file", "two files"])
def test_each_layer_has_its_explanation(network, on_demand):
    model, tensors = network
    made = export_model(model, layer="all", on_demand=on_demand)
    explanation = made.explanation.SerializeToString() if on_demand else None
    explainer = Explainer(made.model.SerializeToString(), explanation=explanation, batch_size=2)
    found = explainer(IMAGES, targets=TARGETS, layers="all")
    expected = gradcam(tensors)
    assert [one.metadata.layer.value for one in found.layers] == list(LAYERS)
    for one in found.layers:
        name = one.metadata.layer.value
        np.testing.assert_allclose(one.maps, expected[name], rtol=1e-4, atol=1e-6)
        alone = explainer.at(name)(IMAGES, targets=TARGETS)
        np.testing.assert_array_equal(alone.heatmaps, one.heatmaps)
        np.testing.assert_array_equal(alone.boxes, one.boxes)
    np.testing.assert_array_equal(found.maps, found.layers[2].maps)  # the default layer's
    np.testing.assert_array_equal(explainer(IMAGES, targets=TARGETS).maps, found.maps)
    later = explainer.explain(explainer.predict(IMAGES)[1:], targets=TARGETS, layers=["r1", 2])
    assert [one.metadata.layer.value for one in later.layers] == ["r1", "r2"]
    np.testing.assert_allclose(later.layers[0].maps, expected["r1"][1:], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(later.maps, later.layers[1].maps)  # the deepest of those asked for
    np.testing.assert_array_equal(later[1].layers[0].maps, later.layers[0].maps[1:])


def test_combinations_of_classes_reach_every_layer(network, explainer):
    activations, gradients = autograd(network[1], IMAGES, np.tile(TARGETS, (len(IMAGES), 1)))
    found = explainer(IMAGES, targets=[{0: 1, 3: -0.5}], layers="all")
    for one in found.layers:
        name = one.metadata.layer.value
        weights = (gradients[name][:, 0] - 0.5 * gradients[name][:, 1]).mean((2, 3))
        expected = np.maximum(np.einsum("nk,nkhw->nhw", weights, activations[name]), 0)
        np.testing.assert_allclose(one.maps[:, 0], expected, rtol=1e-4, atol=1e-6)


def owns(maps):
    """Of each image and target the map of the last layer that has one."""
    chosen = np.zeros_like(maps[0])
    for one in maps:
        chosen = np.where(one.any((2, 3), keepdims=True), one, chosen)
    return chosen


def sharpened(maps):
    """The same times that of the first layer, unless nothing is left."""
    own = owns(maps[1:])
    product = own * maps[0]
    return np.where(product.any((2, 3), keepdims=True), product, own)


FORMULAS = {
    "max": lambda maps: np.max([enlarged(normalised(m), (8, 8)) for m in maps], 0),
    "mean": lambda maps: np.mean([enlarged(normalised(m), (8, 8)) for m in maps], 0),
    "layercam": lambda maps: np.max([enlarged(np.tanh(2 * normalised(m)), (8, 8)) for m in maps], 0),
    "last": lambda maps: owns([enlarged(normalised(m), (8, 8)) for m in maps]),
    "place": lambda maps: sharpened([enlarged(normalised(m), (8, 8)) for m in maps]),
    "refinecam": lambda maps: np.prod([enlarged(normalised(m), (8, 8)) for m in maps], 0),
}


@pytest.mark.parametrize("name", layer_fusion.NAMES)
def test_fusion_is_the_formula(network, explainer, name):
    found = explainer(IMAGES, targets=TARGETS, fuse=name)
    maps = gradcam(network[1])
    expected = FORMULAS[name]([maps[layer] for layer in LAYERS])
    np.testing.assert_allclose(found.maps, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.heatmaps, normalised(expected), rtol=1e-4, atol=1e-6)
    assert found.fuse == name and len(found.layers) == 3
    ok = (expected > 0).any((2, 3))
    assert [[word == "ok" for word in row] for row in found.status] == ok.tolist() and ok.any()
    plane = found.heatmaps[0, int(np.flatnonzero(ok[0])[0])]
    y, x = np.nonzero(plane >= 0.15 * plane.max())
    x0, y0, x1, y1 = found.boxes[0, int(np.flatnonzero(ok[0])[0])]
    assert x.min() <= x0 and x1 <= x.max() + 1 and y.min() <= y0 and y1 <= y.max() + 1 and x1 > x0


def test_maps_of_other_sizes_are_fused_at_the_largest_height_and_width():
    rng = np.random.default_rng(0)
    a, b = rng.random((1, 1, 4, 2)).astype(np.float32), rng.random((1, 1, 3, 6)).astype(np.float32)
    expected = np.maximum(enlarged(normalised(a), (4, 6)), enlarged(normalised(b), (4, 6)))
    np.testing.assert_allclose(layer_fusion.fuse("max", [a, b], (20, 20)), expected, atol=1e-6)
    refined = layer_fusion.fuse("refinecam", [a, b], (20, 20))
    np.testing.assert_allclose(
        refined, enlarged(normalised(a), (20, 20)) * enlarged(normalised(b), (20, 20)), atol=1e-6
    )


def test_relevance_is_the_default_layers_alone(network):
    made = export_model(network[0], layer=["r2", "r1"], input_gradient="excitation", check=False)
    found = Explainer(made.model.SerializeToString())(np.abs(IMAGES), targets=TARGETS, layers="all")
    assert found.layers[0].relevance is None and found.layers[1].relevance.shape == (3, 2, 4, 4)
    alone = export_model(network[0], layer="r2", input_gradient="excitation", check=False)
    expected = Explainer(alone.model.SerializeToString())(np.abs(IMAGES), targets=TARGETS).relevance
    np.testing.assert_allclose(found.relevance, expected, rtol=1e-5, atol=1e-7)


def test_second_order_is_the_default_layers_alone(network):
    made = export_model(network[0], layer=["r2", "r1"], input_gradient="shapleycam", check=False)
    explainer = Explainer(made.model.SerializeToString())
    assert explainer(IMAGES, targets=TARGETS, method="shapleycam").maps.any()
    with pytest.raises(FastcamError, match="brings shapleycam back to its default layer r2 alone"):
        explainer(IMAGES, targets=TARGETS, method="shapleycam", layers="all")


def test_a_fused_map_follows_the_style(network, explainer):
    expected = FORMULAS["max"](list(gradcam(network[1]).values()))
    low = expected - expected.min((2, 3), keepdims=True)
    found = explainer(IMAGES, targets=TARGETS, fuse="max", style="pytorch-grad-cam")
    np.testing.assert_allclose(found.heatmaps, low / np.maximum(low.max((2, 3), keepdims=True), 1e-7), atol=1e-5)
    with pytest.raises(FastcamError, match="signed, and what is fused is positive"):
        explainer(IMAGES, targets=TARGETS, fuse="max", style="captum")


def test_what_is_not_finite_at_one_layer_is_so_in_the_fused_map(explainer):
    image = IMAGES.copy()
    image[1, 0, 2, 2] = np.nan
    found = explainer(image, targets=TARGETS, fuse="max")
    assert found.status[1] == ("non_finite", "non_finite") and not found.heatmaps[1].any()
    maps = np.array([[[[1, 0], [0, np.inf]]], [[[1, 0], [0, 0]]]], np.float32)
    fused = layer_fusion.fuse("max", [maps, np.ones((2, 1, 2, 2), np.float32)], (2, 2))
    assert np.isnan(fused[0]).all() and np.isfinite(fused[1]).all()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"layers": "nothing"}, "does not explain at layer 'nothing'; it has r1, r2, r3"),
        ({"layers": ["r1", 1]}, "named twice"),
        ({"layers": [4]}, "has the layers 1 to 3, not 4"),
        ({"layers": []}, "no layer is named"),
        ({"fuse": "sum"}, "no fusion 'sum'; use one of: max, mean, layercam, refinecam"),
    ],
)
def test_bad_layers_and_fusions_are_refused(explainer, arguments, said):
    with pytest.raises(FastcamError, match=said):
        explainer(IMAGES, **arguments)


def test_layers_are_named_by_value_node_or_scope(network):
    metadata = export_model(network[0], layer="all", check=False).metadata
    scopes = ("stem", "body.0.conv", "body.1.relu")
    named = replace(metadata, layers=tuple(replace(one, scope=s) for one, s in zip(metadata.layers, scopes)))
    asked = ["r2", "two/relu", "stem", "body", "body.0", 3]
    assert [numbers(named, one, "file") for one in asked] == [(2,), (2,), (1,), (3,), (2,), (3,)]


def test_a_file_with_one_layer_says_how_to_get_more(network):
    explainer = Explainer(export_model(network[0]).model.SerializeToString())
    with pytest.raises(FastcamError, match="explains at one layer, r3; export it again with --layer all"):
        explainer(IMAGES, layers="all")
    with pytest.raises(FastcamError, match="of one layer"):
        strip(explainer(IMAGES))


def test_the_strip_shows_each_layers_heatmap_in_its_column(network):
    picture = np.random.default_rng(0).integers(0, 256, (60, 100, 3), dtype=np.uint8)
    file = export_model(network[0], layer="all", preprocess="unit", check=False).model.SerializeToString()
    found = Explainer(file)(picture, targets=TARGETS, fuse="max", layers="all")
    drawn = strip(found, tile=100)
    assert drawn.shape[1] == 5 * 104 + 4
    for row in range(2):
        top = drawn.shape[0] - (2 - row) * 64 + 4
        for column, one in enumerate([*found.layers, found]):
            heat = cv2.resize(one.heatmaps[0, row], (100, 60), interpolation=cv2.INTER_LINEAR)
            expected = kernels.get().overlay(picture, np.ascontiguousarray(heat), drawing.colormap(), 0.5)
            left = (column + 1) * 104 + 4
            cell = drawn[top : top + 60, left : left + 100]
            below = slice(20, None)  # a caption may stand on a map that is none
            assert np.abs(cell[below].astype(int) - expected[below]).max() <= 6


def test_the_command_line_writes_strips_and_tells_of_each_layer(tmp_path, network):
    file, picture = tmp_path / "p.cam.onnx", tmp_path / "a.png"
    export_model(network[0], file, layer="all", emit="gradients", preprocess="unit")
    pixels = np.random.default_rng(0).integers(0, 256, (60, 100, 3), dtype=np.uint8)
    cv2.imwrite(str(picture), pixels)
    arguments = [file, picture, "--layers", "r3", "--layers", "r1", "--fuse", "mean", "-o", tmp_path / "out", "-t", "0"]
    result = CliRunner().invoke(app, ["explain", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out" / "explanation.json").read_text())
    assert report["fuse"] == "mean" and [one["layer"] for one in report["layers"]] == ["r1", "r3"]
    shown = cv2.imread(str(tmp_path / "out" / "a-layers.png"))[..., ::-1]
    found = Explainer(file)(picture, targets=[0], layers=["r1", "r3"], fuse="mean")
    np.testing.assert_array_equal(shown, strip(found))
    again = CliRunner().invoke(app, ["explain", str(file), str(picture), "--layers", "r9", "-o", str(tmp_path / "no")])
    sheet = ["explain", str(file), str(picture), "-m", "gradcam,layercam", "-o", str(tmp_path / "sheet")]
    refused = CliRunner().invoke(app, [*sheet, "--layers", "all"])
    assert refused.exit_code == 2 and "strips of --layers are of one method" in refused.stderr
    assert CliRunner().invoke(app, [*sheet, "--fuse", "max"]).exit_code == 0
    assert again.exit_code == 2 and "does not explain at layer 'r9'" in again.stderr and not (tmp_path / "no").exists()
