"""Where a function has no derivative, ours is the one that PyTorch's autograd takes."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")

from torch.nn import functional as F  # noqa: E402

from rule_case import one  # noqa: E402
from rule_runs import differentiate, run  # noqa: E402

LINE = np.array([-4.0, -3.0, -2.0, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 2.0, 3.0, 4.0])
"""The knees of all activations, and points on both sides of each."""

ACTIVATIONS = [
    ("Relu", {}, F.relu),
    ("LeakyRelu", {"alpha": 0.25}, lambda x: F.leaky_relu(x, 0.25)),
    ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}, F.hardsigmoid),
    ("HardSwish", {}, F.hardswish),
    ("Elu", {"alpha": 0.5}, lambda x: F.elu(x, 0.5)),
    ("Celu", {"alpha": 0.5}, lambda x: F.celu(x, 0.5)),
    ("Selu", {}, F.selu),
    ("ThresholdedRelu", {"alpha": 1.0}, lambda x: F.threshold(x, 1.0, 0.0)),
    ("Abs", {}, torch.abs),
    ("Clip", {"lo": np.array(-1.0), "hi": np.array(2.0)}, lambda x: torch.clamp(x, -1.0, 2.0)),
    ("Clip", {"lo": np.array(0.0), "hi": np.array(0.0)}, lambda x: torch.clamp(x, 0.0, 0.0)),
    ("Pow", {"p": np.array(2.0)}, lambda x: x**2),
    ("Pow", {"p": np.array(0.0)}, lambda x: x**0.0),
    ("Sqrt", {}, lambda x: torch.sqrt(x)),
    ("Max", {"b": np.zeros(1)}, lambda x: torch.maximum(x, torch.zeros(1))),
    ("Min", {"b": np.full(1, 3.0)}, lambda x: torch.minimum(x, torch.full((1,), 3.0))),
]


def gradients(case, feeds, seed):
    made = run(differentiate(case.model(), case.outputs, case.wrt), {**feeds, "d_y": seed})
    return [made[f"d_{name}"] for name in case.wrt]


def autograd(function, arrays, seed):
    leaves = [torch.from_numpy(array).requires_grad_() for array in arrays]
    return [g.numpy() for g in torch.autograd.grad(function(*leaves), leaves, torch.from_numpy(seed))]


def compare(case, function, *arrays):
    shape = function(*map(torch.from_numpy, arrays)).shape
    seed = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    for ours, theirs in zip(gradients(case, dict(zip(case.wrt, arrays)), seed), autograd(function, arrays, seed)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("op_type", "given", "function"), ACTIVATIONS)
def test_activations_at_their_knees(op_type, given, function):
    compare(one(op_type, x=LINE.shape, **given), function, LINE.astype(np.float32))


def test_prelu_at_zero():
    case = one("PRelu", x=(2, 3, 4), slope=(3, 1))
    x = np.stack([LINE, -LINE]).reshape(2, 3, 4).astype(np.float32)
    slope = np.array([[0.25], [-1.0], [0.0]], np.float32)
    compare(case, lambda x, s: F.prelu(x, s.reshape(-1)), x, slope)


@pytest.mark.parametrize(("op_type", "function"), [("Max", torch.maximum), ("Min", torch.minimum)])
def test_ties_of_two_inputs_are_shared(op_type, function):
    a, b = (np.array(x, np.float32) for x in ([[1, 2, 3], [0, 0, 0]], [1, 1, 3]))
    compare(one(op_type, a=a.shape, b=b.shape), function, a, b)


@pytest.mark.parametrize(("op_type", "reduce"), [("Max", torch.amax), ("Min", torch.amin)])
def test_ties_of_three_inputs_are_shared(op_type, reduce):
    a, b, c = (np.array(x, np.float32) for x in ([1, 2, 3, 0], [1, 1, 3, 0], [0, 2, 3, 1]))
    compare(one(op_type, a=(4,), b=(4,), c=(4,)), lambda *xs: reduce(torch.stack(xs), 0), a, b, c)


@pytest.mark.parametrize(("op_type", "reduce"), [("ReduceMax", torch.amax), ("ReduceMin", torch.amin)])
@pytest.mark.parametrize("axes", [(1,), (0, 2), (0, 1, 2)])
def test_ties_of_a_reduction_are_shared(op_type, reduce, axes):
    x = np.random.default_rng(0).integers(0, 3, (2, 4, 5)).astype(np.float32)
    case = one(op_type, x=x.shape, axes=np.array(axes), keepdims=0)
    compare(case, lambda x: reduce(x, axes), x)


NORMS = [
    ("ReduceL1", lambda x: torch.linalg.vector_norm(x, 1, 1)),
    ("ReduceL2", lambda x: torch.linalg.vector_norm(x, 2, 1)),
]


@pytest.mark.parametrize(("op_type", "function"), NORMS)
def test_norms_of_zeros(op_type, function):
    x = np.float32([[0, 0, 0], [0, -2, 1], [3, 0, 4]])
    compare(one(op_type, x=x.shape, axes=np.array([1]), keepdims=0), function, x)


def test_product_with_zeros_is_that_of_the_others():
    x = np.float32([[0, 2, 3], [0, 0, 4], [0, 0, 0], [-1, 2, 3]])
    compare(one("ReduceProd", x=x.shape, axes=np.array([1]), keepdims=0), lambda x: torch.prod(x, 1), x)


@pytest.mark.parametrize("p", [1, 2, 3])
def test_lp_pool_over_windows_of_zeros(p):
    """The gradient is zero where a whole window is: PyTorch's would not be a number there."""
    x = np.float32([[[0, 0, 0, 0, 1, -2, 3, 0]]])
    seed = np.float32([[[1, 2, 3, 4]]])
    (ours,) = gradients(one("LpPool", x=x.shape, p=p, kernel_shape=[2], strides=[2]), {"x": x}, seed)
    leaf = torch.from_numpy(x[..., 4:]).requires_grad_()
    (theirs,) = torch.autograd.grad(F.lp_pool1d(leaf.abs(), p, 2), leaf, torch.from_numpy(seed[..., 2:]))
    np.testing.assert_allclose(ours[..., 4:], theirs.numpy(), rtol=1e-5)
    assert not ours[..., :4].any()


POOLS = [
    {"kernel_shape": [2, 2], "strides": [2, 2]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
    {"kernel_shape": [3, 2], "strides": [1, 1], "dilations": [2, 3]},
]


@pytest.mark.parametrize("given", POOLS)
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_max_pool_takes_the_first_of_ties(given, levels):
    """Also where a whole window is zero, as behind a ReLU."""
    x = np.random.default_rng(levels).integers(0, levels, (2, 3, 8, 9)).astype(np.float32)
    options = {
        "stride": given["strides"],
        "padding": given.get("pads", [0, 0])[:2],
        "dilation": given.get("dilations", [1, 1]),
        "ceil_mode": bool(given.get("ceil_mode", 0)),
    }
    compare(one("MaxPool", x=x.shape, **given), lambda x: F.max_pool2d(x, given["kernel_shape"], **options), x)


def test_global_max_pool_takes_the_first_of_ties():
    x = np.random.default_rng(0).integers(0, 3, (2, 3, 4, 5)).astype(np.float32)
    compare(one("GlobalMaxPool", x=x.shape), lambda x: F.max_pool2d(x, x.shape[2:]), x)
