"""Sanity checks: SSIM, copies of a file with random weights, and what the protocol says of them."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch.nn import functional as F

from fastcam import Explainer, FastcamError
from fastcam.evaluation import faithfulness as f
from fastcam.evaluation.protocols import PROTOCOLS
from fastcam.evaluation.protocols.base import Case
from fastcam.evaluation.protocols.faithfulness import randomised_copy as copies
from fastcam.evaluation.samples import Sample
from fastcam.preprocessing import preset
from fastcam_export import export_model
from support.models.small_models import classifier

SIDE = 32
HOW = preset("imagenet", size=(SIDE, SIDE))
PICTURE = np.random.default_rng(3).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def exported():
    return export_model(classifier(size=SIDE), check=False, head=True)


@pytest.fixture(scope="module")
def explainer(exported):
    return Explainer(exported.model.SerializeToString(), preprocess=HOW, head=exported.head.SerializeToString())


def case(explainer):
    return Case(Sample("a", PICTURE), (), explainer([PICTURE]), {-1: 0}, explainer, "gradcam", {})


def weights(data):
    return {one.name: numpy_helper.to_array(one) for one in onnx.load_model_from_string(data).graph.initializer}


def test_ssim_is_the_formula_over_every_window():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 12, 15))
    b[:5] = a[:5]
    values = []
    for i in range(12 - 6):
        for j in range(15 - 6):
            u, v = a[i : i + 7, j : j + 7].ravel(), b[i : i + 7, j : j + 7].ravel()
            ((uu, uv), (_, vv)) = np.cov(u, v)
            values.append(
                (2 * u.mean() * v.mean() + 1e-4)
                * (2 * uv + 9e-4)
                / ((u.mean() ** 2 + v.mean() ** 2 + 1e-4) * (uu + vv + 9e-4))
            )
    assert f.ssim(a, b) == pytest.approx(np.mean(values))
    assert f.ssim(a, a) == pytest.approx(1)
    assert f.ssim(a, b) == pytest.approx(f.ssim(b, a))


def test_layers_are_kernels_and_matrices_from_the_logits_down(exported):
    assert copies.layers(exported.model) == ["fc", "w2", "w1"]


@pytest.mark.parametrize("how", ["normal", "shuffle"])
def test_a_copy_has_other_weights_in_its_layers_alone_and_the_same_every_time(exported, how):
    before, draw = weights(exported.model.SerializeToString()), copies.drawn(how, 0)
    made = copies.randomised(exported.model, ["fc", "w2"], draw)
    after = weights(made)
    assert made == copies.randomised(exported.model, ["fc", "w2"], copies.drawn(how, 0))
    assert made != copies.randomised(exported.model, ["fc", "w2"], copies.drawn(how, 1))
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    twice = changed - {"fc", "w2"}  # the export holds fc a second time, transposed
    assert len(changed) == 3 and all(np.array_equal(after[name], after["fc"].T) for name in twice)
    for name in changed - twice:
        assert after[name].dtype == before[name].dtype and after[name].shape == before[name].shape
        if how == "shuffle":
            assert np.array_equal(np.sort(after[name], None), np.sort(before[name], None))
        else:
            assert after[name].std() == pytest.approx(before[name].std(), rel=0.35)


def test_what_an_export_computed_from_weights_follows_them():
    rng = np.random.default_rng(0)
    values, other = rng.standard_normal((2, 4, 5, 3, 3)).astype(np.float32)

    def check(form):
        np.testing.assert_allclose(copies.derived(form(values), values, other), form(other), rtol=1e-4, atol=1e-5)

    check(lambda w: np.float32(0.25) * w[..., ::-1, ::-1].transpose(1, 0, 2, 3))
    check(lambda w: w.reshape(4, 45).T)
    check(lambda w: w.sum((2, 3)) / np.float32(9))
    check(lambda w: w.sum(0).reshape(5, 9))
    shuffled = rng.permutation(values.ravel()).reshape(4, 45)
    assert copies.derived(shuffled, values, other) is None


def test_a_constant_of_unknown_origin_is_refused(exported):
    model = onnx.ModelProto()
    model.CopyFrom(exported.model)
    constant = np.random.default_rng(0).standard_normal((7, 3)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(constant, "fastcam.constant_99"))
    with pytest.raises(FastcamError, match=r"the constant fastcam\.constant_99, which may have been computed"):
        copies.randomised(model, ["fc"], copies.drawn("normal", 0))


def test_whole_numbers_of_a_quantised_model_change_places():
    values = np.arange(-8, 8, dtype=np.int8).reshape(4, 4)
    drawn = copies.drawn("normal", 0)("w", values)
    assert drawn.dtype == np.int8 and sorted(drawn.ravel()) == sorted(values.ravel())
    assert not np.array_equal(drawn, values)


def test_the_maps_of_a_copy_are_the_gradients_of_its_own_weights(exported, explainer):
    made = copies.randomised(exported.model, copies.layers(exported.model), copies.drawn("normal", 4))
    w = {name: torch.tensor(array) for name, array in weights(made).items() if name in ("w1", "w2", "fc", "bias")}
    x = np.random.default_rng(1).standard_normal((2, 3, SIDE, SIDE)).astype(np.float32)
    found = explainer.with_model(made)(x, 2)
    layer = F.relu(F.conv2d(F.relu(F.conv2d(torch.tensor(x), w["w1"], padding=1)), w["w2"], padding=1))
    np.testing.assert_allclose(found.scores, layer.mean((2, 3)) @ w["fc"] + w["bias"], rtol=1e-3, atol=1e-4)
    positions = layer.shape[2] * layer.shape[3]
    expected = F.relu(torch.einsum("nkhw,k->nhw", layer, w["fc"][:, 2] / positions))
    np.testing.assert_allclose(found.maps[:, 0], expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("file", "options"), [("resnet20_cifar10.onnx", {"input_gradient": "guided"}), ("deployed/mtcnn_onet.onnx", {})]
)
def test_a_copy_of_a_real_file_is_the_export_of_a_model_with_those_weights(assets, file, options):
    source = onnx.load(assets / "models" / file)
    model, draw = export_model(source, check=False, **options).model, copies.drawn("normal", 0)
    names = copies.layers(model)
    copy = Explainer(copies.randomised(model, names, draw))
    for weights in source.graph.initializer:
        if weights.name in names:
            other = draw(weights.name, numpy_helper.to_array(weights))
            weights.CopyFrom(numpy_helper.from_array(other, weights.name))
    anew = Explainer(export_model(source, check=False, **options).model.SerializeToString())
    shape = [side if isinstance(side, int) else 2 for side in copy.input_shape]
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    found, expected = copy(x), anew(x)
    assert len(names) >= 8 and expected.maps.any()
    np.testing.assert_allclose(found.maps, expected.maps, rtol=1e-4, atol=1e-5 * np.abs(expected.maps).max())
    if options:
        np.testing.assert_allclose(found.input_gradients, expected.input_gradients, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("order", ["cascading", "independent"])
def test_each_depth_is_compared_with_the_map(exported, explainer, order):
    protocol = PROTOCOLS["randomisation"](order=order, depths=0)
    one = case(explainer)
    (row,) = json.loads(json.dumps(protocol.measure(one)))["maps"]
    heat, best = one.explanation.heatmaps[0, 0], int(one.explanation.classes[0, 0])
    names = ["fc", "w2", "w1"]
    for number, depth in enumerate(("33 %", "67 %", "100 %")):
        chosen = names[: number + 1] if order == "cascading" else names[number : number + 1]
        made = Explainer(copies.randomised(exported.model, chosen, copies.drawn("normal", 0)), preprocess=HOW)
        other = made([PICTURE], best).heatmaps[0, 0]
        likeness = f.spearman(heat, other) if other.any() else 0
        assert row[f"{order} {depth}, rank correlation"] == pytest.approx(likeness, abs=1e-6)
        assert row[f"{order} {depth}, SSIM"] == pytest.approx(f.ssim(heat, other), abs=1e-6)
    assert protocol.copies(explainer) is protocol.copies(explainer)  # made once


def test_few_depths_end_with_all_layers_and_two_files_are_refused(explainer, tmp_path):
    assert [name for name, _ in PROTOCOLS["randomisation"](depths=2).copies(explainer)] == [
        "cascading 50 %",
        "cascading 100 %",
    ]
    export_model(classifier(size=SIDE), tmp_path / "m.onnx", check=False, on_demand=True)
    two = Explainer(tmp_path / "m.onnx", preprocess=HOW)
    with pytest.raises(FastcamError, match="without --on-demand"):
        PROTOCOLS["randomisation"]().measure(case(two))


def test_methods_that_ask_the_head_are_refused(explainer):
    one = Case(Sample("a", PICTURE), (), explainer([PICTURE]), {-1: 0}, explainer, "ablationcam", {})
    with pytest.raises(FastcamError, match="Ablation-CAM asks what lies behind"):
        PROTOCOLS["randomisation"]().measure(one)
