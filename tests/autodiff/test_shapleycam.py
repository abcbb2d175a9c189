"""ShapleyCAM, against PyTorch's second derivatives; and the logarithm of a probability as the explained score."""

import functools

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")

import torch
from torch import nn

from fastcam.schema import ACTIVATIONS, RELEVANCE, TARGETS, WEIGHTS, FastcamError
from fastcam_bench.oracles import kinks, torch_oracle
from fastcam_export import export_model
from fastcam_export.verify.session import quiet_session
from support.models.small_models import classifier

SIZE = 8
SCORES = {"log-probability": torch.log_softmax, "probability": torch.softmax}


def conv(inputs, outputs):
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def linear():
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)]


def mlp():
    return [nn.AvgPool2d(4), nn.Flatten(), nn.Linear(24, 8), nn.GELU(), nn.Linear(8, 5)]


def deep():
    return [conv(6, 6), nn.SiLU(), nn.MaxPool2d(2), conv(6, 6), nn.ReLU(), *linear()]


HEADS = {"linear": linear, "mlp": mlp, "deep": deep}


@functools.cache
def network(name, softmax=False):
    """(layers up to the target, those behind, in float64; the ONNX file; images)"""
    torch.manual_seed(1)
    body, head = nn.Sequential(conv(3, 6), nn.Softplus()), nn.Sequential(*HEADS[name]())
    for layer in head.modules():
        if hasattr(layer, "weight"):
            layer.weight.data *= 3  # so that curvature counts
    end = [nn.Softmax(1)] if softmax else []
    proto = torch_oracle.to_onnx(nn.Sequential(body, head, *end).eval(), SIZE, dynamo=False)
    return body.double(), head.double(), proto, torch_oracle.pictures(3, SIZE)


def expected(body, head, images, classes, of=None):
    """(maps [N, T, h, w], mean of g [N, T, K], mean of H A [N, T, K])"""
    columns = []
    for column in np.asarray(classes).T:
        a = body(torch.from_numpy(images.astype(np.float64))).detach().requires_grad_()
        with kinks.away():
            scores = head(a) if of is None else of(head(a), 1)
        score = scores.gather(1, torch.from_numpy(column.copy())[:, None]).sum()
        (g,) = torch.autograd.grad(score, a, create_graph=True)
        h = torch.zeros_like(g)
        if g.requires_grad:
            (h,) = torch.autograd.grad(g, a, grad_outputs=a.detach())
        weights = (g - h / 2).mean((2, 3))
        maps = torch.einsum("nk,nkhw->nhw", weights, a)
        columns.append([x.detach().numpy() for x in (maps, g.mean((2, 3)), h.mean((2, 3)))])
    return [np.stack(column, 1) for column in zip(*columns)]


def run(model, images, targets):
    session = quiet_session(model)
    found = session.run(None, {session.get_inputs()[0].name: images, TARGETS: np.array(targets)})
    return dict(zip([value.name for value in session.get_outputs()], found))


@pytest.mark.parametrize(
    ("name", "score"),
    [("linear", "log-probability"), ("mlp", "logit"), ("mlp", "log-probability"), ("deep", "log-probability")],
)
def test_equal_to_double_backward(name, score):
    body, head, proto, images = network(name)
    exported = export_model(proto, layer="0", input_gradient="shapleycam", score=score)
    targets = [[0, 3], [1, 1], [4, 2]]
    found = run(exported.model, images, targets)
    maps, gradient, curvature = expected(body, head, images, targets, SCORES.get(score))
    assert np.abs(curvature).max() > 0.05 * np.abs(gradient).max()
    assert torch_oracle.difference(found[WEIGHTS], gradient) < 1e-5
    assert found[RELEVANCE].dtype == np.float32 and found[RELEVANCE].shape == maps.shape
    assert torch_oracle.difference(found[RELEVANCE], maps) < 1e-5


def test_of_the_probability_that_the_model_gives():
    body, head, proto, images = network("mlp", softmax=True)
    exported = export_model(proto, layer="0", input_gradient="shapleycam", score="probability")
    found = run(exported.model, images, [[2, 0]])
    maps, *_ = expected(body, head, images, [[2, 0]] * 3, torch.softmax)
    assert torch_oracle.difference(found[RELEVANCE], maps) < 1e-5


def test_a_linear_head_gives_gradcam():
    _, _, proto, images = network("linear")
    found = run(export_model(proto, layer="0", input_gradient="shapleycam").model, images, [[0, 2]])
    gradcam = np.einsum("ntk,nkhw->nthw", found[WEIGHTS], found[ACTIVATIONS])
    assert np.abs(gradcam).max() > 0 and np.allclose(found[RELEVANCE], gradcam, atol=1e-6)


def test_tensorrt_form():
    body, head, proto, images = network("deep")
    options = {"layer": "0", "input_gradient": "shapleycam", "score": "log-probability", "for_engine": "tensorrt"}
    found = run(export_model(proto, **options).model, images, [[0, 3]])
    maps, *_ = expected(body, head, images, [[0, 3]] * 3, torch.log_softmax)
    assert torch_oracle.difference(found[RELEVANCE], maps) < 1e-5


# ---- the logarithm of a probability


@pytest.mark.parametrize("end", [None, "Softmax", "LogSoftmax", "Sigmoid"])
def test_log_probability(end):
    """Of logits, and of what a model's own last activation makes of them."""
    model = classifier(end=end)
    images = torch_oracle.pictures(2, SIZE)
    exported = export_model(model, score="log-probability")
    assert exported.metadata.score.kind == "log-probability"
    assert exported.metadata.score.output == model.graph.output[0].name
    found = run(exported.model, images, [[1, 4]])
    plain = run(export_model(model, score="logit").model, images, [list(range(5))])
    logits = torch.from_numpy(run(export_model(classifier()).model, images, [[0]])["logits"]).double()
    if end == "Sigmoid":
        slope = torch.diag_embed(torch.sigmoid(-logits)).numpy()
    else:
        slope = (torch.eye(5) - torch.softmax(logits, 1)[:, None]).numpy()
    weights = np.einsum("ntc,nck->ntk", slope[:, [1, 4]], plain[WEIGHTS])
    assert torch_oracle.difference(found[WEIGHTS], weights) < 1e-5


def test_a_quantised_model_is_refused():
    from onnx import helper, numpy_helper

    model = classifier()
    scale = numpy_helper.from_array(np.float32(0.1), "scale")
    zero = numpy_helper.from_array(np.int8(0), "zero")
    model.graph.initializer.extend([scale, zero])
    model.graph.node[4].input[0] = "rounded"
    model.graph.node.insert(4, helper.make_node("QuantizeLinear", ["r2", "scale", "zero"], ["code"]))
    model.graph.node.insert(5, helper.make_node("DequantizeLinear", ["code", "scale", "zero"], ["rounded"]))
    with pytest.raises(FastcamError, match="which rounding has none of; give the float model"):
        export_model(model, layer="r1", input_gradient="shapleycam", check=False)
