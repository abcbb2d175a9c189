"""FullGrad, against PyTorch's autograd at the biases, and its terms against the score that they add up to."""

import copy
import functools

import numpy as np
import onnx
import onnx_ir as ir
import pytest

pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")

import torch
from torch import nn
from torch.nn import functional as F

from fastcam import Explainer
from fastcam.schema import RELEVANCE, TARGETS, FastcamError
from fastcam_bench.oracles import kinks, torch_oracle
from fastcam_export import export_model
from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.graph.load import load
from fastcam_export.outputs import fullgrad
from fastcam_export.verify.session import quiet_session
from support.modes_oracle import Sum

SIZE = 12


def conv(inputs, outputs, **options):
    return nn.Conv2d(inputs, outputs, 3, padding=1, **options)


def vgg():
    dense = [nn.Flatten(), nn.Linear(54, 10), nn.ReLU(), nn.Linear(10, 5)]
    return nn.Sequential(conv(3, 4), nn.ReLU(), nn.MaxPool2d(2), conv(4, 6, stride=2), nn.ReLU(), *dense)


def resnet():
    block = nn.Sequential(conv(4, 4, bias=False), nn.BatchNorm2d(4), nn.ReLU(), conv(4, 4, bias=False))
    stem = [conv(3, 4, bias=False, stride=2), nn.BatchNorm2d(4), nn.ReLU(), Sum(nn.Identity(), block), nn.ReLU()]
    return nn.Sequential(*stem, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, channels):
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        return x * F.hardsigmoid(self.fc(x.mean((2, 3), keepdim=True)))


def gated():
    end = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)]
    return nn.Sequential(conv(3, 4, stride=2), nn.SiLU(), Gate(4), conv(4, 4), nn.Hardswish(), nn.ReLU6(), *end)


NETS = {"vgg": vgg, "resnet": resnet, "gated": gated}


@functools.cache
def network(name):
    torch.manual_seed(2)
    module = NETS[name]()
    torch_oracle.settle(module, torch_oracle.pictures(8, SIZE))
    proto = torch_oracle.to_onnx(module.eval(), SIZE, dynamo=name == "resnet")  # the older one folds BatchNorm
    return module, proto, kinks.clear(copy.deepcopy(module).double(), torch_oracle.pictures(4, SIZE), 2)


def psi(term, size):
    """Sum over channels of what is rescaled, per image, and upsampled."""
    term = term.abs()
    low, high = (fn(term, dim=(1, 2, 3), keepdim=True) for fn in (torch.amin, torch.amax))
    return F.interpolate((term - low) / (high - low), size, mode="bilinear", align_corners=False).sum(1)


def oracle(module, images, target):
    """[N, H, W] by autograd at each convolution's, or BatchNorm's, output."""
    module = copy.deepcopy(module).double()
    kept = []
    for each in module.modules():
        if isinstance(each, (nn.Conv2d, nn.BatchNorm2d)) and getattr(each, "bias", None) is not None:
            each.register_forward_hook(lambda layer, inputs, output: kept.append((layer, output)))
    x = torch.from_numpy(images.astype(np.float64)).requires_grad_()
    score = module(x)[:, target].sum()
    gradients = torch.autograd.grad(score, [x, *(output for _, output in kept)])
    total = psi(gradients[0] * x, images.shape[2:])
    for (layer, _), gradient in zip(kept, gradients[1:]):
        bias = layer.bias
        if isinstance(layer, nn.BatchNorm2d):
            bias = bias - layer.weight * layer.running_mean / (layer.running_var + layer.eps).sqrt()
        total = total + psi(gradient * bias[None, :, None, None], images.shape[2:])
    return total.detach().numpy()


def session(model):
    return quiet_session(model)


@pytest.mark.parametrize("name", ["vgg", "resnet"])
def test_equal_to_autograd(name):
    module, proto, images = network(name)
    exported = export_model(proto, input_gradient="fullgrad", check=False)
    feeds = {exported.metadata.input: images, TARGETS: np.array([[3, 0]])}
    (found,) = session(exported.model).run([RELEVANCE], feeds)
    assert found.dtype == np.float32 and found.shape == (2, 2, SIZE, SIZE)
    for column, target in enumerate((3, 0)):
        assert torch_oracle.difference(found[:, column], oracle(module, images, target)) < 1e-5


@pytest.mark.parametrize("name", NETS)
def test_the_terms_add_up_to_the_score(name):
    """Also where activations are no ReLU, and behind gates."""
    _, proto, images = network(name)
    graph = load(proto).model.graph
    op, image, score = Builder(graph), graph.inputs[0], graph.outputs[0]
    seed = op.Expand(np.eye(5, dtype=np.float32)[3:4], op.Shape(score))
    seed.shape = score.shape
    found = fullgrad.terms(op, image, score, seed)
    parts = [found.image, *(term for _, term in found.biases)]
    graph.outputs.extend(parts)
    model = ir.to_proto(ir.Model(graph, ir_version=10))
    scores, *values = session(model).run(None, {image.name: images})
    total = sum(value.reshape(2, -1).astype(np.float64).sum(1) for value in values)
    assert len(values) > 3 and total == pytest.approx(scores[:, 3], abs=2e-5)
    without = sum(value.reshape(2, -1).astype(np.float64).sum(1) for value in values[1:])
    assert np.abs(without - scores[:, 3]).min() > 5e-4


@pytest.mark.parametrize(("have", "want"), [(7, 224), (5, 12), (1, 4), (6, 3)])
def test_upsampling_is_bilinear(have, want):
    line = torch.randn(1, 1, have, dtype=torch.float64)
    expected = F.interpolate(line, want, mode="linear", align_corners=False).numpy()[0, 0]
    assert fullgrad.bilinear(have, want).astype(np.float64) @ line.numpy()[0, 0] == pytest.approx(expected, abs=1e-6)


def test_at_run_time():
    _, proto, _ = network("vgg")
    exported = export_model(proto, input_gradient="fullgrad", preprocess="unit", check=False)
    picture = np.random.default_rng(3).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    found = Explainer(exported.model.SerializeToString())(picture, targets=[1, 2])
    assert found.relevance.shape == (1, 2, SIZE, SIZE) and found.relevance.min() >= 0
    assert found.gradient_image(0, 1).shape == picture.shape


def test_what_has_no_bias_of_its_own_is_refused():
    proto = copy.deepcopy(network("vgg")[1])
    proto.graph.node.append(onnx.helper.make_node("LayerNormalization", ["logits", "gain"], ["normed"]))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(5, np.float32), "gain"))
    proto.graph.output[0].name = "normed"
    with pytest.raises(FastcamError, match=r"LayerNormalization.*fullgrad says nothing of such an operator"):
        export_model(proto, input_gradient="fullgrad")


def test_a_free_size_is_refused():
    proto = copy.deepcopy(network("resnet")[1])
    for axis in (2, 3):
        proto.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"side{axis}"
    del proto.graph.value_info[:]
    with pytest.raises(FastcamError, match="fullgrad needs a fixed image size"):
        export_model(proto, input_gradient="fullgrad")
