"""Backward modes, against autograd with changed ReLUs, formulas on dense matrices, and Captum where it is installed."""

import copy

import numpy as np
import onnx
import pytest

pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")

import torch
from torch import nn

from fastcam import schema
from fastcam.schema import INPUT_GRADIENT, RELEVANCE, TARGETS, FastcamError
from fastcam_bench.oracles import torch_oracle
from fastcam_export import export_model
from fastcam_export.autodiff.core import rule
from fastcam_export.autodiff.core.errors import UnsupportedOperator
from fastcam_export.autodiff.core.rule import Rule
from fastcam_export.verify.session import quiet_session
from support.models.modes_networks import NETS, SIZE, conv, head, network
from support.models.small_models import classifier
from support.modes_oracle import Sum, input_gradient, relevance

RELU_MODES = ("gradient", "guided", "deconvolution")
RELEVANCE_MODES = tuple(mode for mode in schema.MODES if mode not in (*RELU_MODES, *schema.MAPS))


def run(exported, images, targets):
    session = quiet_session(exported.model)
    feeds = {exported.metadata.input: images}
    if targets is not None:
        feeds[TARGETS] = np.array(targets)
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds)))


def close(found, expected, tolerance=1e-5):
    assert np.abs(expected).max() > 0
    assert found.dtype == np.float32 and found.shape == expected.shape
    assert torch_oracle.difference(found, expected) <= tolerance


# ---- gradient, guided backpropagation, deconvolution


@pytest.mark.parametrize("mode", RELU_MODES)
@pytest.mark.parametrize("name", NETS)
def test_at_the_image(name, mode):
    """Equal to autograd with changed ReLUs, for several targets an image."""
    module, proto, images = network(name)
    exported = export_model(proto, input_gradient=mode, check=mode == "gradient")
    found = run(exported, images, [[0, -1], [3, -2], [1, 4]])
    close(found[INPUT_GRADIENT], input_gradient(module, images.astype(np.float64), found[schema.CLASSES], mode))


def test_every_emit_level_and_form_has_the_same():
    module, proto, images = network("resnet")
    expected = input_gradient(module, images.astype(np.float64), [[2, 4]] * 3, "guided")
    for emit in schema.EMITS:
        found = run(export_model(proto, emit=emit, input_gradient="guided"), images, [[2, 4]])
        close(found[INPUT_GRADIENT], expected)
        assert set(schema.OUTPUTS[emit]) <= set(found)
    close(
        run(export_model(proto, input_gradient="guided", for_engine="tensorrt"), images, [[2, 4]])[INPUT_GRADIENT],
        expected,
    )


def test_constant_targets():
    module, proto, images = network("vgg")
    found = run(export_model(proto, targets="constant", input_gradient="guided"), images, None)
    close(found[INPUT_GRADIENT], input_gradient(module, images.astype(np.float64), found[schema.CLASSES], "guided"))


def test_the_map_and_the_outputs_are_as_without():
    _, proto, images = network("resnet")
    plain = run(export_model(proto), images, [[-1, 2]])
    guided = run(export_model(proto, input_gradient="guided"), images, [[-1, 2]])
    for name, value in plain.items():
        assert np.array_equal(guided[name], value), name


# ---- excitation backpropagation, layer-wise relevance propagation


@pytest.mark.parametrize("mode", RELEVANCE_MODES)
@pytest.mark.parametrize("name", NETS)
def test_relevance_at_the_image(name, mode):
    module, proto, images = network(name)
    exported = export_model(proto, input_gradient=mode, input_gradient_at="image", check=False)
    images = images[: 2 if name == "vgg" else 1]
    found = run(exported, images, [[0, -1]])
    classes = found[schema.CLASSES]
    expected = [[relevance(module, x, c, mode) for c in row] for x, row in zip(images, classes)]
    close(found[INPUT_GRADIENT], np.array(expected), 1e-4)


@pytest.mark.parametrize("mode", ["excitation", "contrastive-excitation", "lrp-composite"])
def test_relevance_at_a_layer_is_summed_over_channels(mode):
    module, proto, images = network("vgg")
    exported = export_model(proto, layer="2", input_gradient=mode, input_gradient_at="layer")
    found = run(exported, images[:2], [[1, -1]])
    expected = [
        [relevance(module, x, c, mode, behind=3).sum(0) for c in row] for x, row in zip(images, found[schema.CLASSES])
    ]
    close(found[RELEVANCE], np.array(expected), 1e-4)


@pytest.mark.parametrize("name", ["plain", "residual"])
def test_winning_probabilities_sum_to_one(name):
    """Also with biases, which have no part: as long as no neuron lives by its bias alone."""
    _, proto, images = network(name)
    found = run(export_model(proto, input_gradient="excitation", input_gradient_at="image"), images, [[0, 2, 4]])
    assert found[INPUT_GRADIENT].sum((2, 3, 4)) == pytest.approx(1, abs=1e-5)
    assert found[INPUT_GRADIENT].min() >= 0


@pytest.mark.parametrize("name", ["plain", "residual"])
def test_contrastive_probabilities_sum_to_zero(name):
    """One in all for the class, less one in all against it."""
    _, proto, images = network(name)
    options = {"input_gradient": "contrastive-excitation", "input_gradient_at": "image"}
    found = run(export_model(proto, **options), images, [[0, 2, 4]])[INPUT_GRADIENT]
    assert found.sum((2, 3, 4)) == pytest.approx(0, abs=1e-5)
    assert np.abs(found).sum((2, 3, 4)).min() > 0.05


@pytest.mark.parametrize("mode", ["lrp-epsilon", "lrp-composite", "lrp-gamma"])
@pytest.mark.parametrize("name", ["plain", "residual"])
def test_relevance_is_conserved(name, mode):
    """Without biases all of the score arrives at the image."""
    _, proto, images = network(name)
    found = run(export_model(proto, input_gradient=mode), images, [[0, 2, 4]])
    scores = next(iter(found.values()))[:, [0, 2, 4]]
    assert found[INPUT_GRADIENT].sum((2, 3, 4)) == pytest.approx(scores, abs=1e-4)


def test_relevance_passes_a_gate():
    """x sigmoid(x) hands all of R to x, as an activation function does."""
    module, proto, images = network("gated")
    found = run(export_model(proto, input_gradient="lrp-epsilon"), images[:1], [[2]])
    close(found[INPUT_GRADIENT][0, 0], relevance(module, images[0], 2, "lrp-epsilon"), 1e-4)


# ---- Captum


@pytest.fixture
def captum():
    return pytest.importorskip("captum.attr", reason="Captum is not installed")


@pytest.mark.parametrize("method", ["Saliency", "GuidedBackprop", "Deconvolution"])
def test_captum(captum, method):
    module, proto, images = network("vgg")
    mode = dict(zip(("Saliency", "GuidedBackprop", "Deconvolution"), RELU_MODES))[method]
    found = run(export_model(proto, input_gradient=mode), images, [[3]])[INPUT_GRADIENT][:, 0]
    inputs = torch.from_numpy(images.astype(np.float64)).requires_grad_()
    options = {"abs": False} if method == "Saliency" else {}
    close(found, getattr(captum, method)(copy.deepcopy(module)).attribute(inputs, target=3, **options).detach().numpy())


@pytest.mark.parametrize("mode", ["lrp-epsilon", "lrp-composite", "lrp-gamma"])
def test_captum_relevance(captum, mode):
    """Without biases and of positive images, where Captum's rules for convolutions are those of the papers."""
    from captum.attr._utils import lrp_rules

    module, proto, images = network("plain")
    module, images = copy.deepcopy(module), np.abs(images)
    rules = {"lrp-composite": lrp_rules.Alpha1_Beta0_Rule, "lrp-gamma": lrp_rules.GammaRule}
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d) and mode in rules:
            layer.rule = rules[mode]()
        if isinstance(layer, nn.Flatten):  # for which Captum has no default
            layer.rule = lrp_rules.EpsilonRule()
    found = run(export_model(proto, input_gradient=mode), images, [[3]])[INPUT_GRADIENT][:, 0]
    inputs = torch.from_numpy(images.astype(np.float64)).requires_grad_()
    close(found, captum.LRP(module).attribute(inputs, target=3).detach().numpy(), 1e-4)


# ---- what is said and refused


def test_the_check_covers_the_gradient_at_the_image(monkeypatch):
    exported = export_model(classifier(), input_gradient="gradient")
    assert exported.check["input_gradient_error"] < 1e-4
    assert any("gradient at the image equal to central differences" in line for line in exported.summary())
    assert any("no derivative" in line for line in export_model(classifier(), input_gradient="guided").summary())
    monkeypatch.setitem(rule.RULES, "Relu", Rule(lambda op, node, dy: dy))
    with pytest.raises(FastcamError, match="gradient at the image differs from central differences"):
        export_model(classifier(), input_gradient="gradient")


def test_metadata_says_the_mode():
    exported = export_model(classifier(), input_gradient="excitation")
    read = schema.Metadata.from_json(exported.metadata.to_json())
    assert (read.input_gradient, read.input_gradient_at, read.further()) == ("excitation", "layer", (RELEVANCE,))
    assert export_model(classifier()).metadata.further() == ()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"input_gradient": "guide"}, "input_gradient is 'guide'; it must be one of: gradient, guided"),
        ({"input_gradient": "guided", "input_gradient_at": "layer"}, "guided is read at the image"),
        ({"input_gradient_at": "layer"}, "says where input_gradient is read, which is not given"),
        (
            {"input_gradient": "lrp-epsilon", "score": "probability"},
            "it is the softmax of no attention, of which relevance says nothing",
        ),
    ],
)
def test_refusals(options, words):
    with pytest.raises(FastcamError, match=words) as refused:
        export_model(classifier(end="Softmax"), **options)
    assert "\n" not in str(refused.value)


def test_without_a_relu_there_is_nothing_to_guide():
    _, proto, _ = network("gated")
    for mode in ("guided", "deconvolution"):
        with pytest.raises(FastcamError, match="no ReLU between image and score"):
            export_model(proto, input_gradient=mode)
    export_model(proto, input_gradient="gradient")


def test_contrast_needs_one_layer_that_makes_the_score():
    module = nn.Sequential(conv(3, 4), nn.ReLU(), Sum(conv(4, 5), conv(4, 5)), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    proto = torch_oracle.to_onnx(module.eval(), SIZE, dynamo=False)
    with pytest.raises(FastcamError, match="this model has 2; export with input_gradient 'excitation'"):
        export_model(proto, input_gradient="contrastive-excitation")


def test_relevance_of_a_product_of_two_maps_is_refused():
    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.end = conv(3, 4), conv(3, 4), nn.Sequential(*head(4))

        def forward(self, x):
            return self.end(self.a(x) * self.b(x))

    proto = torch_oracle.to_onnx(Product().eval(), SIZE, dynamo=False)
    with pytest.raises(UnsupportedOperator, match="which of them is a gate; export without input_gradient"):
        export_model(proto, input_gradient="lrp-epsilon")


def test_types_that_a_mode_cannot_serve_are_refused():
    model = classifier()
    for node in model.graph.node:
        node.name = node.name or node.op_type
    half = onnx.helper.make_node("Cast", ["logits"], ["halved"], to=onnx.TensorProto.FLOAT16)
    back = onnx.helper.make_node("Cast", ["halved"], ["single"], to=onnx.TensorProto.FLOAT)
    model.graph.node.extend([half, back])
    model.graph.output[0].name = "single"
    with pytest.raises(
        FastcamError, match="lrp-epsilon divides by what float16 rounds to zero; give the float32 model"
    ):
        export_model(model, input_gradient="lrp-epsilon")
    pixels = classifier()
    pixels.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    pixels.graph.node.insert(0, onnx.helper.make_node("Cast", ["image"], ["pixels"], to=onnx.TensorProto.FLOAT))
    pixels.graph.node[1].input[0] = "pixels"
    with pytest.raises(FastcamError, match="input 'image' is UINT8, which has no gradient"):
        export_model(pixels, input_gradient="gradient")
    assert export_model(pixels, input_gradient="excitation").metadata.input_gradient_at == "layer"
