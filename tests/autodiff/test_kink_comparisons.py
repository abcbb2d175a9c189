"""What makes comparisons of gradients independent of rounding at kinks, and that they still see a wrong gradient."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")

from torch import nn  # noqa: E402

from fastcam_bench.accuracy import agreement  # noqa: E402
from fastcam_bench.oracles import kinks  # noqa: E402
from fastcam_bench.oracles import torch_oracle as oracle  # noqa: E402
from fastcam_export import export_model  # noqa: E402
from fastcam_export.autodiff.core.rule import RULES  # noqa: E402

SIZE = 16
TARGETS = np.array([[0, 3]])


@pytest.fixture(scope="module")
def network():
    """(module, ONNX file, pictures): ReLU, ReLU6 and a max pool behind the layer."""
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU6()]
    module = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()
    return module, oracle.to_onnx(module, SIZE, dynamo=False), oracle.pictures(2, SIZE)


def compared(network, sides=lambda found: found):
    """(ours, autograd's) at the first convolution."""
    module, proto, images = network
    made = export_model(proto, layer="/0/Conv_output_0", emit="gradients", check=False).model
    found, values = agreement.at_kinks(made, images, TARGETS)
    activations, classes = found["fastcam.activations"], found["fastcam.classes"]
    return found["fastcam.gradients"], oracle.gradients_at(module, images, activations, classes, sides(values))


def test_the_values_are_those_at_the_kinks_of_the_model(network):
    module, proto, images = network
    made = export_model(proto, check=False).model
    found, values = agreement.at_kinks(made, images, TARGETS)
    assert [operator for operator, _ in values] == ["Relu", "MaxPool", "Clip"]
    at = torch.from_numpy(images)
    for step, (_, value) in zip((2, 2, 5), values):
        np.testing.assert_allclose(value, module[:step](at).detach().numpy(), atol=1e-6)
    plain = agreement.run(made, images, TARGETS)
    assert set(plain) < set(found) and all(found[name].shape == array.shape for name, array in plain.items())


def nudged(values, by=3e-7):
    """Each value on the other side of its kink where it is nearest to it: as another processor's rounding could be."""
    made = []
    for operator, value in values:
        value = value.copy()
        for one in value:
            flat = one.reshape(-1)
            near = np.abs(flat - (0 if operator != "Clip" else np.where(flat > 3, 6, 0))).argsort()[: flat.size // 4]
            flat[near] = np.where(flat[near] == 0, by, 0)
        made.append((operator, value))
    return made


def test_autograd_takes_the_given_side_of_each_kink(network):
    """With ONNX Runtime's values both agree; with values beyond the kinks they do not."""
    ours, theirs = compared(network)
    assert oracle.difference(ours, theirs) < 1e-6
    crossed = np.abs(ours - compared(network, nudged)[1]).max() / np.abs(ours).max()
    assert crossed > 1e-2


@pytest.mark.parametrize("operator", ["Relu", "MaxPool", "Clip", "Conv"])
def test_a_wrong_rule_is_seen(network, operator, monkeypatch):
    """A gradient that is 0.1 % too large, of any one operator."""
    right = RULES[operator]

    def wrong(op, node, dy):
        return right.gradients(op, node, op.Mul(dy, np.float32(1.001)))

    monkeypatch.setitem(RULES, operator, replace(right, gradients=wrong))
    ours, theirs = compared(network)
    assert oracle.difference(ours, theirs) > 5e-4


def test_values_that_no_rounding_explains_are_refused(network):
    def off(values):
        return [(operator, value * np.float32(1.001)) for operator, value in values]

    with pytest.raises(ValueError, match=r"Relu: the values of both implementations are .*e-03 apart"):
        compared(network, off)
    with pytest.raises(ValueError, match="max_pool2d in PyTorch, Clip in the graph"):
        compared(network, lambda values: [values[0], *values[2:]])
    with pytest.raises(ValueError, match="1 kinks of the graph were not met in PyTorch"):
        compared(network, lambda values: [*values, values[-1]])


def test_margins_are_distances_from_the_nearest_kink():
    images = np.float32([[[[3, 0.5], [-1, 2]]], [[[4, 3.9], [-8, 6.5]]], [[[0, 0], [0, 0]]], [[[1, 1], [1, -2]]]])
    assert kinks.margins(torch.relu, images).tolist() == pytest.approx([0.5 / 3, 3.9 / 8, np.inf, 0.5], nan_ok=True)
    assert kinks.margins(nn.ReLU6(), images)[:2].tolist() == pytest.approx([0.5 / 3, 0.5 / 8])
    assert kinks.margins(nn.Hardswish(), images)[1] == pytest.approx(0.9 / 8)
    pool = kinks.margins(nn.MaxPool2d(2), images)  # the equal ones of the last picture do not count: 1, 1, 1
    assert pool[:2].tolist() == pytest.approx([1 / 3, 2.5 / 8]) and np.isinf(pool[3])
    padded = nn.MaxPool2d(3, 2, 1)  # one window: the same four values
    assert kinks.margins(padded, images)[:2].tolist() == pytest.approx([1 / 3, 2.5 / 8])


def test_fixed_numbers_are_held_to_their_distance():
    with kinks.away():
        leaf = torch.tensor([[1.0, 0.0, -2.0]], requires_grad=True)
        (found,) = torch.autograd.grad(torch.relu(leaf).sum(), leaf)
    assert found.tolist() == [[1, 0, 0]]
    near = torch.tensor([[1.0, 1e-7, -2.0]])
    with pytest.raises(ValueError, match="within 5e-08 of a kink"), kinks.away():
        near.relu()
    with kinks.away(1e-8):
        near.relu()
    with pytest.raises(ValueError, match="within 1e-07 of a kink"), kinks.away():
        torch.nn.functional.max_pool2d(torch.tensor([[[[1, 1 - 1e-7]]]], dtype=torch.float64), (1, 2))


def test_pictures_near_a_kink_are_left_out_but_not_many():
    images = np.float32([[1, 2], [1e-7, 1], [3, -4], [5, 1e-8], [6, 7]])
    np.testing.assert_array_equal(kinks.clear(torch.relu, images, 2), images[[0, 2]])
    with pytest.raises(ValueError, match="fewer than 4 of 5 pictures are clear of kinks"):
        kinks.clear(torch.relu, images, 4)
    with pytest.raises(ValueError, match="leaves out too many"):
        kinks.clear(torch.relu, images, 1)
