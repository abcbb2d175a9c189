"""Exported torchvision models against PyTorch autograd on the same weights, at the default layer and in the middle.

At each kink PyTorch takes the side to which ONNX Runtime fell (fastcam_bench.oracles.kinks), so that no processor's
rounding decides whether these tests pass. FASTCAM_TEST_SEED=1 draws other models and pictures.
"""

import functools

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")

from fastcam_bench.accuracy import agreement
from fastcam_bench.oracles import torch_oracle as oracle
from fastcam_export import export_model
from support.models.narrow_heads import narrowed
from support.modes_oracle import input_gradient

SIZE = 128
"""Pixels of a side: every map still has several rows and columns, and a network costs a third of one at 224."""


NEWER = frozenset({"alexnet", "vgg16", "squeezenet1_1"})
"""Exported by torch's newer exporter, which takes 5 to 15 seconds for one of the others; the benchmark has them all,
test_spatial_sum.py its BatchNorm in smaller networks."""


@functools.lru_cache(maxsize=1)
def built(name):
    """The module, and its file by one of torch's exporters, with BatchNorm in it (OLD_EXPORTER: folded)."""
    module = oracle.build(name)
    if name in ("alexnet", "vgg16"):
        module = narrowed(module, SIZE)
    return module, oracle.to_onnx(module, SIZE, dynamo=name in NEWER, normed=name not in oracle.OLD_EXPORTER)


LARGE = frozenset({"densenet121", "inception_v3", "resnet50", "vgg16"})
"""Half of the time of this file, and no operator that the others lack: ``make test-all`` has them."""


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.slow if name in LARGE else ()) for name in oracle.MODELS],
)
def model(request):
    return request.param, *built(request.param)


def test_default_layer_equals_autograd(model):
    """Gradients, pooled weights and maps to 1e-4 of the largest value, and the outputs bit for bit."""
    _, module, proto = model
    found = agreement.default_layer(module, proto, SIZE)
    assert found["outputs_bit_identical"]
    assert max(found["gradients"], found["weights"], found["maps"]) <= 1e-4, found


def test_targets_are_resolved_per_picture(model):
    _, module, proto = model
    exported = export_model(proto, check=False).model
    targets = np.array([[-1, 3], [17, -2]])
    found, kinks = agreement.at_kinks(exported, oracle.pictures(2, SIZE), targets)
    order = np.argsort(-next(iter(found.values())), axis=1)
    assert found["fastcam.classes"].tolist() == [[order[0, 0], 3], [17, order[1, 1]]]
    activations, classes = found["fastcam.activations"], found["fastcam.classes"]
    expected = oracle.gradients_at(module, oracle.pictures(2, SIZE), activations, classes, kinks).mean((3, 4))
    assert np.abs(expected).max() > 0
    assert oracle.difference(found["fastcam.weights"], expected) <= 1e-4


@pytest.mark.parametrize("model", ["mobilenet_v2"], indirect=True)
def test_guided_backpropagation_equals_changed_relus(model):
    """At the image, for two targets, with the map in the same run."""
    _, module, proto = model
    exported = export_model(proto, input_gradient="guided", check=False).model
    images = oracle.pictures(1, SIZE)
    found, kinks = agreement.at_kinks(exported, images, np.array([[-1, 3]]))
    expected = input_gradient(module, images, found["fastcam.classes"], "guided", kinks)
    assert np.abs(expected).max() > 0
    assert oracle.difference(found["fastcam.input_gradient"], expected) <= 1e-4


def test_middle_layer_equals_autograd(model):
    """In float64 to 1e-5 (the graph's constants have float32 precision), in float32 to 1e-4 on all four pictures."""
    name, module, proto = model
    found = agreement.middle_layer(module, proto, oracle.MODELS[name], SIZE)
    assert max(found["float32_per_picture"]) <= 1e-4, found
    assert max(found["float64"], found["float64_maps"]) <= 1e-5, found
