"""CAM, of which Grad-CAM is the generalisation, as the paper proves; and eigen smoothing."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from fastcam import Explainer, FastcamError, schema
from fastcam.methods import METHODS, eigen_smoothed, method
from fastcam_export import export_model, inspect_model
from support.models.pyramid_model import model_of

torch = pytest.importorskip("torch")
oracle = pytest.importorskip("fastcam_bench.oracles.torch_oracle")


def last_map(name):
    """The module's last map before its global average pooling, and the matrix behind that."""
    module = oracle.build(name)
    images = torch.tensor(oracle.pictures(1))
    seen = {}
    at = {"resnet50": "layer4", "googlenet": "inception5b", "squeezenet1_1": "classifier.2"}[name]
    hook = module.get_submodule(at).register_forward_hook(lambda *args: seen.update(maps=args[-1].detach().clone()))
    with torch.no_grad():
        scores = module(images)
    hook.remove()
    matrix = module.fc.weight.detach() if hasattr(module, "fc") else torch.eye(1000)
    return module, images.numpy(), seen["maps"].numpy(), matrix.numpy(), scores.numpy()


@pytest.mark.parametrize("name", ["resnet50", "googlenet", "squeezenet1_1"])
def test_gradcam_at_the_last_map_is_cam_up_to_a_positive_factor(name):
    """Selvaraju et al. 2017, section 3.1: with y_c = sum_k w_k^c mean_ij A_ij^k, alpha_k^c = w_k^c / (h w)."""
    module, images, maps, matrix, scores = last_map(name)
    proto = oracle.to_onnx(module, dynamo=False)
    layer = inspect_model(proto).layers[-1].name  # of SqueezeNet the map of classes, whose matrix is the identity
    explainer = Explainer(export_model(proto, layer=layer, check=False).model.SerializeToString())
    classes = [int(scores[0].argmax()), int(scores[0].argsort()[-2]), 3]
    expected = np.maximum(np.einsum("tk,nkhw->nthw", matrix[classes], maps), 0)
    assert (expected.max((2, 3)) > 0).any()
    cam = explainer(images, targets=classes, method="cam")
    np.testing.assert_allclose(cam.maps, expected, atol=1e-4 * expected.max())
    gradcam = explainer(images, targets=classes)
    area = maps.shape[2] * maps.shape[3]
    np.testing.assert_allclose(gradcam.maps * area, expected, atol=1e-4 * expected.max())
    np.testing.assert_allclose(gradcam.heatmaps, cam.heatmaps, atol=1e-5)


RNG = np.random.default_rng(0)
TENSORS = {
    "w": RNG.standard_normal((6, 3, 1, 1)).astype(np.float32),
    "fc": RNG.standard_normal((6, 5)).astype(np.float32),
    "fc2": RNG.standard_normal((5, 5)).astype(np.float32),
    "flat_fc": RNG.standard_normal((6 * 16, 5)).astype(np.float32),
    "point": RNG.standard_normal((5, 6, 1, 1)).astype(np.float32),
    "bias": RNG.standard_normal(5).astype(np.float32),
    "ones": np.ones(6, np.float32),
    "hw": np.array([2, 3]),
    "rows": np.array([2]),
    "last": np.array([1, 2]),
}
NODE = helper.make_node
LINEAR_HEADS = {
    "mean, matrix, bias": [
        NODE("GlobalAveragePool", ["a"], ["m"]),
        NODE("Flatten", ["m"], ["f"]),
        NODE("MatMul", ["f", "fc"], ["y"]),
        NODE("Add", ["bias", "y"], ["logits"]),
    ],
    "channels last": [
        NODE("Transpose", ["a"], ["t"], perm=[0, 2, 3, 1]),
        NODE("ReduceMean", ["t", "last"], ["m"], keepdims=0),
        NODE("Dropout", ["m"], ["d"]),
        NODE("Gemm", ["d", "fc", "bias"], ["logits"]),
    ],
    "window, convolution": [
        NODE("AveragePool", ["a"], ["m"], kernel_shape=[4, 4]),
        NODE("Conv", ["m", "point", "bias"], ["c"]),
        NODE("Flatten", ["c"], ["logits"]),
    ],
    "convolution, mean": [
        NODE("Conv", ["a", "point"], ["c"]),
        NODE("ReduceMean", ["c", "hw"], ["logits"], keepdims=0),
    ],
}
OTHER_HEADS = {
    "no mean": [NODE("Flatten", ["a"], ["f"]), NODE("MatMul", ["f", "flat_fc"], ["logits"])],
    "two matrices": [
        NODE("ReduceMean", ["a", "hw"], ["m"], keepdims=0),
        NODE("MatMul", ["m", "fc"], ["h"]),
        NODE("MatMul", ["h", "fc2"], ["logits"]),
    ],
    "normalised": [
        NODE("ReduceMean", ["a", "hw"], ["m"], keepdims=0),
        NODE("LayerNormalization", ["m", "ones"], ["n"]),
        NODE("MatMul", ["n", "fc"], ["logits"]),
    ],
    "softmax": [
        NODE("ReduceMean", ["a", "hw"], ["m"], keepdims=0),
        NODE("MatMul", ["m", "fc"], ["y"]),
        NODE("Softmax", ["y"], ["logits"]),
    ],
    "gated": [
        NODE("GlobalAveragePool", ["a"], ["g"]),
        NODE("Mul", ["a", "g"], ["s"]),
        NODE("ReduceMean", ["s", "hw"], ["m"], keepdims=0),
        NODE("MatMul", ["m", "fc"], ["logits"]),
    ],
    "half a mean": [
        NODE("ReduceMean", ["a", "rows"], ["m"], keepdims=0),
        NODE("ReduceMax", ["m", "rows"], ["f"], keepdims=0),
        NODE("MatMul", ["f", "fc"], ["logits"]),
    ],
    "curved": [
        NODE("Relu", ["a"], ["r"]),
        NODE("ReduceMean", ["r", "hw"], ["m"], keepdims=0),
        NODE("MatMul", ["m", "fc"], ["logits"]),
    ],
}


def headed(head):
    nodes = [NODE("Conv", ["image", "w"], ["a"]), *head]
    used = {name for node in nodes for name in node.input}
    return model_of(nodes, {n: t for n, t in TENSORS.items() if n in used}, ["N", 3, 4, 4], 5)


IMAGE = RNG.standard_normal((2, 3, 4, 4)).astype(np.float32)


@pytest.mark.parametrize("emit", schema.EMITS)
@pytest.mark.parametrize("head", LINEAR_HEADS)
def test_cam_is_the_sum_of_the_maps_by_the_classs_row(head, emit):
    made = export_model(headed(LINEAR_HEADS[head]), layer="a", emit=emit)
    found = Explainer(made.model.SerializeToString())(IMAGE, targets=[1, 4], method="cam")
    maps = np.einsum("nchw,kc->nkhw", IMAGE, TENSORS["w"][:, :, 0, 0])
    rows = TENSORS["fc"].T if "convolution" not in head else TENSORS["point"][:, :, 0, 0]
    expected = np.maximum(np.einsum("tk,nkhw->nthw", rows[[1, 4]], maps), 0)
    np.testing.assert_allclose(found.maps, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head", OTHER_HEADS)
def test_cam_is_refused_behind_other_heads(head):
    options = {"score": "probability"} if head == "softmax" else {}
    made = export_model(headed(OTHER_HEADS[head]), layer="a", **options)
    with pytest.raises(FastcamError, match="CAM is for heads that are a mean over positions and one matrix"):
        Explainer(made.model.SerializeToString())(IMAGE, method="cam")


def test_the_logit_before_a_softmax_has_such_a_head():
    assert export_model(headed(OTHER_HEADS["softmax"]), layer="a").metadata.layer.averaged


def test_cam_at_several_layers_is_refused_for_the_one_without_such_a_head():
    nodes = [NODE("Relu", ["a"], ["b"]), *(n for n in OTHER_HEADS["curved"][1:])]
    nodes[1].input[0] = "b"
    explainer = Explainer(export_model(headed(nodes), layer=["b", "a"]).model.SerializeToString())
    assert explainer(IMAGE, method="cam").method == "cam"
    with pytest.raises(FastcamError, match="behind layer a"):
        explainer(IMAGE, method="cam", layers="all")


# ---- eigen smoothing


def first_component(products):
    """Of [K, h, w], by the singular value decomposition of the centred positions; the sign of the larger extreme."""
    samples = products.reshape(len(products), -1).T
    samples = samples - samples.mean(0)
    _, _, right = np.linalg.svd(samples, full_matrices=False)
    scores = (samples @ right[0]).reshape(products.shape[1:])
    return -scores if abs(scores.min()) > abs(scores.max()) else scores


def test_eigen_smoothing_is_the_first_component_of_the_weighted_activations():
    a, w = RNG.standard_normal((2, 7, 4, 5)), RNG.standard_normal((2, 3, 7))
    expected = [[first_component(a[n] * w[n, t][:, None, None]) for t in range(3)] for n in range(2)]
    np.testing.assert_allclose(eigen_smoothed(a, w), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["gradcam", "gradcam++", "xgradcam", "cam"])
def test_every_method_of_weights_can_be_smoothed(name):
    made = export_model(headed(LINEAR_HEADS["mean, matrix, bias"]), layer="a", emit="gradients")
    explainer = Explainer(made.model.SerializeToString())
    found = explainer(IMAGE, targets=[1, 4], method=f"{name}+eigen")
    maps = np.einsum("nchw,kc->nkhw", IMAGE, TENSORS["w"][:, :, 0, 0])
    gradients = np.broadcast_to((TENSORS["fc"].T[[1, 4]] / 16)[None, :, :, None, None], (2, 2, 6, 4, 4))
    weights = METHODS[name].weights(maps, gradients)
    for n, t in np.ndindex(2, 2):
        expected = np.maximum(first_component(maps[n] * weights[n, t][:, None, None]), 0)
        np.testing.assert_allclose(found.maps[n, t], expected, rtol=1e-3, atol=1e-4 * expected.max())
    assert found.method == f"{name}+eigen"


def test_what_has_no_weights_cannot_be_smoothed():
    with pytest.raises(
        FastcamError, match="HiResCAM has no weights, whose products are smoothed; smoothed are gradcam"
    ):
        method("hirescam+eigen")
    with pytest.raises(FastcamError, match="no method 'nothing\\+eigen'"):
        method("nothing+eigen")
    made = export_model(headed(LINEAR_HEADS["convolution, mean"]), layer="a", emit="cam")
    with pytest.raises(FastcamError, match="needs activations and weights; export with --emit weights"):
        Explainer(made.model.SerializeToString())(IMAGE, method="gradcam+eigen")
