"""What any functional of outputs brings back to the image, against autograd with changed ReLUs and the papers' sums."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")

import torch
from onnx import TensorProto, helper, numpy_helper

from fastcam import Explainer, FastcamError
from fastcam.schema import INPUT_GRADIENT, RELEVANCE, TARGETS
from fastcam_bench.oracles import kinks, torch_oracle
from fastcam_export import export_model
from support.models import small_vit
from support.models.half_models import in_half
from support.models.heads_model import MASK, F, behind, heads, images, run, weights
from support.models.modes_networks import network
from support.modes_oracle import ChangedRelu, relevance

RELU_MODES = ("gradient", "guided", "deconvolution")


def brought_back(pictures, scalars, mode):
    """[N, T, 3, 8, 8]: of scalars [N] of the outputs of ``heads``."""
    w = {name: torch.from_numpy(array) for name, array in weights().items()}
    made = []
    for t in range(len(scalars(behind(torch.zeros(1, 6, 8, 8))))):
        image = torch.from_numpy(pictures).requires_grad_()
        with ChangedRelu(mode), kinks.away():
            layer = F.relu(F.conv2d(F.relu(F.conv2d(image, w["w1"], padding=1)), w["w2"], padding=1))
            scalar = scalars(behind(layer))[t]
        made.append(torch.autograd.grad(scalar.sum(), image)[0])
    return torch.stack(made, 1).numpy()


def close(found, expected, tolerance=2e-5):
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(found, expected, atol=tolerance * np.abs(expected).max())


SPECS = {
    "region": ("map", "region:3", lambda o: [(o["map"][:, 3] * (o["map"].argmax(1) == 3)).sum((1, 2))]),
    "probability": ("logits", ["probability:-1", "class:2 - 0"],
                    lambda o: [torch.softmax(o["logits"], 1).max(1).values, o["logits"][:, 2] - o["logits"][:, 0]]),
    "words": ("words", "words:3,0", lambda o: [torch.log_softmax(o["words"], 2)[:, i, k] for i, k in ((0, 3), (1, 0))]),
    "several": (["numbers", "map"], ["element:1,output=numbers", "element:1,2,3"],
                lambda o: [o["numbers"][:, 1], o["map"][:, 1, 2, 3]]),
}  # fmt: skip


@pytest.mark.parametrize("mode", RELU_MODES)
@pytest.mark.parametrize("case", SPECS)
def test_any_functional_at_the_image(case, mode):
    output, spec, scalars = SPECS[case]
    options = {"layer": "layer", "targets": "cotangent", "output_name": output, "input_gradient": mode}
    e = Explainer(export_model(heads(), **options).model.SerializeToString())(images(), cotangent=spec)
    close(e.input_gradients, brought_back(images(), scalars, mode))
    if mode == "guided":
        np.testing.assert_array_equal(e.guided_gradcam, e.input_gradients * e.heatmaps[:, :, None])


@pytest.mark.parametrize("level", ["gradients", "cam"])
def test_other_levels_and_two_files(level):
    cotangent = np.zeros((2, 1, 5, 8, 8), np.float32)
    cotangent[:, 0, 1, MASK] = 1
    expected = brought_back(images(), lambda o: [o["map"][:, 1, MASK].sum(1)], "guided")
    options = {"layer": "layer", "targets": "cotangent", "output_name": "map", "input_gradient": "guided"}
    made = export_model(heads(), emit=level, on_demand=True, **options)
    assert made.check["pair_difference"] == 0
    explainer = Explainer(made.model.SerializeToString(), explanation=made.explanation.SerializeToString())
    close(explainer(images(), cotangent=cotangent).input_gradients, expected)


@pytest.mark.parametrize("mode", RELU_MODES)
@pytest.mark.parametrize("name", ["resnet", "vgg"])
def test_a_functional_of_logits_through_a_network(name, mode):
    """Residual sums, BatchNorm, pools; the cotangent differs from image to image."""
    module, proto, pictures = network(name)
    c = np.random.default_rng(2).standard_normal((3, 2, 5)).astype(np.float32)
    made = export_model(proto, targets="cotangent", input_gradient=mode, check=mode == "gradient")
    found = run(made.model, {made.metadata.input: pictures, "fastcam.cotangent": c})[INPUT_GRADIENT]
    for t in range(2):
        image = torch.from_numpy(pictures.astype(np.float64)).requires_grad_()
        with ChangedRelu(mode):
            scalar = (module(image) * torch.from_numpy(c[:, t])).sum()
        close(found[:, t], torch.autograd.grad(scalar, image)[0].numpy())


@pytest.mark.parametrize("at", ["image", "layer"])
@pytest.mark.parametrize("mode", ["lrp-epsilon", "lrp-composite", "lrp-gamma"])
def test_relevance_begins_with_the_addends_of_the_functional(mode, at):
    """R is linear in what it begins with: of sum_k c_k y_k it is sum_k c_k R(class k), each by the paper's sums."""
    module, proto, pictures = network("vgg")
    c = np.random.default_rng(3).standard_normal((3, 1, 5)).astype(np.float32)
    made = export_model(proto, targets="cotangent", input_gradient=mode, input_gradient_at=at, check=False)
    found = run(made.model, {made.metadata.input: pictures, "fastcam.cotangent": c})
    found = found[INPUT_GRADIENT if at == "image" else RELEVANCE]
    layers = 0 if at == "image" else 5  # behind the second ReLU
    for n in range(3):
        parts = [c[n, 0, k] * relevance(module, pictures[n], k, mode, layers) for k in range(5)]
        whole = np.sum(parts, axis=0)
        close(found[n, 0], whole if at == "image" else whole.sum(0), 1e-4)


def test_the_check_compares_with_differences():
    """Of a file in float16 too, whose cotangent stays float32."""
    options = {"layer": "layer", "targets": "cotangent", "output_name": "map", "input_gradient": "gradient"}
    assert export_model(heads(), **options).check["input_gradient_error"] < 1e-5
    half = export_model(in_half(heads()), **options)
    c = (
        np.random.default_rng(5).standard_normal((2, 1, 5, 8, 8)).astype(np.float32) / 64
    )  # of a mean, in float16's range
    found = run(half.model, {"image": images().astype(np.float16), "fastcam.cotangent": c})[INPUT_GRADIENT]
    expected = brought_back(images(), lambda o: [(o["map"] * torch.from_numpy(c[:, 0])).sum((1, 2, 3))], "gradient")
    close(found, expected, 2e-2)


@pytest.mark.parametrize("mode", ["excitation", "contrastive-excitation"])
def test_what_begins_at_a_class_is_refused(mode):
    with pytest.raises(FastcamError, match=f"{mode} begins at one class; of cotangents there are gradient, guided"):
        export_model(heads(), targets="cotangent", output_name="logits", input_gradient=mode)


@pytest.mark.parametrize("mode", ["fullgrad", "shapleycam", "guided", "lrp-gamma"])
def test_a_functional_is_the_class_of_a_model_that_computes_it(mode):
    """sum_k c_k y_k as cotangent, and as the one class of the model with one more matrix product; y is curved."""
    c = np.random.default_rng(4).standard_normal((2, 1)).astype(np.float32)
    model = heads()
    model.graph.initializer.append(numpy_helper.from_array(c, "c"))
    model.graph.node.append(helper.make_node("MatMul", ["numbers", "c"], ["sum"], "sum"))
    model.graph.output.append(helper.make_tensor_value_info("sum", TensorProto.FLOAT, ["N", 1]))
    options = {"layer": "layer", "input_gradient": mode, "check": False}
    theirs = run(export_model(model, output_name="sum", **options).model, {"image": images()})
    ours = export_model(heads(), output_name="numbers", targets="cotangent", **options).model
    found = run(ours, {"image": images(), "fastcam.cotangent": np.tile(c.T[None], (2, 1, 1))})
    name = RELEVANCE if RELEVANCE in found else INPUT_GRADIENT
    close(found[name], theirs[name], 1e-4 if mode == "lrp-gamma" else 2e-5)


@pytest.mark.parametrize("mode", ["legrad", "rollout"])
def test_maps_of_transformers_take_a_one_hot_cotangent_for_a_class(mode):
    proto, pictures = small_vit.to_onnx(small_vit.build()), torch_oracle.pictures(2, small_vit.SIZE)
    theirs = export_model(proto, input_gradient=mode, check=False)
    ours = export_model(proto, targets="cotangent", input_gradient=mode, check=False)
    image = theirs.metadata.input
    one_hot = np.eye(small_vit.CLASSES, dtype=np.float32)[None, [3, 1]].repeat(2, 0)
    expected = run(theirs.model, {image: pictures, TARGETS: np.array([[3, 1]])})[RELEVANCE]
    close(run(ours.model, {image: pictures, "fastcam.cotangent": one_hot})[RELEVANCE], expected)
