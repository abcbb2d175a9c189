"""Where a function has no derivative, ours is the one that PyTorch's autograd takes."""

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")

from torch.nn import functional as F  # noqa: E402

from fastcam_export.autodiff.core.errors import UnsupportedOperator  # noqa: E402
from support.rules.case import Case, one  # noqa: E402
from support.rules.runs import differentiate, run  # noqa: E402

LINE = np.array([-4.0, -3.0, -2.0, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 7.0])
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
    ("Clip", {"lo": np.array(0.0), "hi": np.array(6.0)}, F.relu6),
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


def compare(case, function, *arrays, tolerance=1e-6):
    shape = function(*map(torch.from_numpy, arrays)).shape
    seed = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    for ours, theirs in zip(gradients(case, dict(zip(case.wrt, arrays)), seed), autograd(function, arrays, seed)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=tolerance)


@pytest.mark.parametrize(("op_type", "given", "function"), ACTIVATIONS)
def test_activations_at_their_knees(op_type, given, function):
    compare(one(op_type, x=LINE.shape, **given), function, LINE.astype(np.float32))


def test_prelu_at_zero():
    case = one("PRelu", x=(2, 3, 4), slope=(3, 1))
    x = np.stack([LINE[:12], -LINE[:12]]).reshape(2, 3, 4).astype(np.float32)
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


# ---- operators that index


DUPLICATES = np.array([[0, 2, 2, 1], [0, 2, 1, 1], [0, 0, 1, 3], [3, 2, 1, 3], [0, 2, 3, 1]])
"""Indices along axis 0 of a [4, 5] array, many of them twice."""


def whole_numbers(*shape, levels=3, seed=0):
    """Few different values, zero among them: ties and products of zeros."""
    return np.random.default_rng(seed).integers(0, levels, shape).astype(np.float32)


@pytest.mark.parametrize(("reduction", "reduce"), [("add", "sum"), ("mul", "prod"), ("max", "amax"), ("min", "amin")])
@pytest.mark.parametrize("seed", range(3))
def test_scattered_ties_and_zeros(reduction, reduce, seed):
    """Ties share the gradient, whether in data or updates; a product's gradient is exact where factors are zero."""
    data, updates = whole_numbers(4, 5, seed=seed), whole_numbers(5, 4, seed=seed + 10)
    index = torch.from_numpy(DUPLICATES)
    case = one("ScatterElements", x=(4, 5), i=DUPLICATES, u=(5, 4), axis=0, reduction=reduction)
    compare(case, lambda x, u: x.scatter_reduce(0, index, u, reduce), data, updates)


@pytest.mark.filterwarnings("ignore:index_reduce")
@pytest.mark.parametrize(("reduction", "reduce"), [("mul", "prod"), ("max", "amax"), ("min", "amin")])
def test_scattered_rows_with_ties_and_zeros(reduction, reduce):
    rows = np.array([[0], [2], [2], [-1], [0]])
    data, updates = whole_numbers(4, 3, seed=1), whole_numbers(5, 3, seed=2)
    index = torch.from_numpy(rows % 4).expand(5, 3)
    case = one("ScatterND", x=(4, 3), i=rows, u=(5, 3), reduction=reduction)
    compare(case, lambda x, u: x.scatter_reduce(0, index, u, reduce), data, updates)
    compare(case, lambda x, u: x.index_reduce(0, index[:, 0], u, reduce), data, updates)


def test_scatter_without_reduction():
    index = np.array([[3, 0, 1], [1, 2, 0]])
    case = one("ScatterElements", x=(4, 3), i=index, u=(2, 3), axis=0)
    compare(case, lambda x, u: x.scatter(0, torch.from_numpy(index), u), whole_numbers(4, 3), whole_numbers(2, 3))


def test_elements_gathered_twice_sum_up():
    index = np.array([[0, 0, 3], [2, 2, 2]])
    compare(
        one("GatherElements", x=(3, 4), i=index, axis=1),
        lambda x: torch.gather(x, 1, torch.from_numpy(index)),
        whole_numbers(3, 4),
    )
    pairs = np.array([[0, 1], [0, 1], [2, 3]])
    compare(one("GatherND", x=(3, 4, 2), i=pairs), lambda x: x[pairs[:, 0], pairs[:, 1]], whole_numbers(3, 4, 2))


@pytest.mark.parametrize("given", [{}, {"exclusive": 1}, {"reverse": 1}, {"exclusive": 1, "reverse": 1}])
def test_cumulative_product_with_zeros(given):
    x = whole_numbers(8, 6, levels=4)
    x[:2] = [[0, 0, 1, 2, 3, 1], [1, 2, 3, 1, 2, 0]]
    ones = torch.ones(8, 1)

    def theirs(x):
        x = x.flip(1) if "reverse" in given else x
        x = torch.cat([ones, x[:, :-1]], 1) if "exclusive" in given else x
        y = torch.cumprod(x, 1)
        return y.flip(1) if "reverse" in given else y

    compare(one("CumProd", x=x.shape, axis=np.array(1), opset=26, **given), theirs, x)


def test_determinant_of_matrices_without_inverse():
    """The cofactors, by the singular value decomposition; PyTorch's gradient is zero there, and so not the limit."""
    x = np.random.default_rng(0).standard_normal((3, 4, 4)).astype(np.float32)
    x[0, 1] = x[0, 0]
    x[1] = 0
    seed = np.float32([1, 2, 3])
    (ours,) = gradients(one("Det", x=x.shape), {"x": x}, seed)
    u, s, v = np.linalg.svd(x.astype(np.float64))
    others = np.stack([np.delete(s, i, 1).prod(1) for i in range(4)], 1)
    cofactors = (np.linalg.det(u) * np.linalg.det(v))[:, None, None] * (u * others[:, None]) @ v
    np.testing.assert_allclose(ours, seed[:, None, None] * cofactors, atol=1e-5)


@pytest.mark.parametrize("equation", ["ij,jk->ik", "bij,bkj->bik", "ij,ij->", "ij,kl->il", "ij,jk,kl->il"])
def test_einsum(equation):
    sizes = dict(zip("bijkl", (2, 3, 4, 5, 3)))
    shapes = [tuple(sizes[c] for c in term) for term in equation.split("->")[0].split(",")]
    arrays = [np.random.default_rng(k).standard_normal(shape).astype(np.float32) for k, shape in enumerate(shapes)]
    case = one("Einsum", **dict(zip("pqr", shapes)), equation=equation)
    compare(case, lambda *xs: torch.einsum(equation, *xs), *arrays)


@pytest.mark.parametrize("size", [(4, 5), (11, 4), (14, 13)])
def test_resize_with_antialias(size):
    """PyTorch leaves out what lies outside the image, as ONNX's exclude_outside, which it only has for cubic."""
    wanted = {"roi": None, "scales": None, "sizes": np.array(size), "axes": [2, 3]}
    cubic = {"mode": "cubic", "cubic_coeff_a": -0.5, "exclude_outside": 1, "antialias": 1}
    function = lambda x: F.interpolate(x, size, mode="bicubic", antialias=True)  # noqa: E731
    x = np.random.default_rng(0).standard_normal((2, 3, 9, 10)).astype(np.float32)
    compare(one("Resize", x=x.shape, **wanted, **cubic), function, x, tolerance=1e-5)


@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])
def test_padding_that_repeats(mode):
    case = one(
        "Pad", x=(2, 3, 5, 6), pads=np.array([2, 1, 3, 4]), value=None, axes=np.array([2, 3]), mode=mode, opset=19
    )
    theirs = {"edge": "replicate", "wrap": "circular"}.get(mode, mode)
    function = lambda x: F.pad(x, (1, 4, 2, 3), mode=theirs)  # noqa: E731
    compare(case, function, np.random.default_rng(0).standard_normal((2, 3, 5, 6)).astype(np.float32))


def test_top_k_and_compress():
    x = np.random.default_rng(0).permutation(24).reshape(4, 6).astype(np.float32)
    values = {"outputs": ("y", "indices"), "cotangents": ("y",)}
    compare(one("TopK", x=x.shape, k=np.array([3]), **values), lambda x: torch.topk(x, 3).values, x)
    kept = np.array([True, False, True, False, False, True])
    compare(one("Compress", x=x.shape, c=kept, axis=1), lambda x: x[:, torch.from_numpy(kept)], x)


def test_hardmax_and_its_like_have_no_gradient():
    for case in (one("Hardmax", x=(2, 3)), one("EyeLike", x=(3, 3)), one("Bernoulli", x=(2, 3))):
        seed = np.ones(case.shape("x"), np.float32)
        assert not gradients(case, {"x": np.full(case.shape("x"), 0.5, np.float32)}, seed)[0].any()


def test_inputs_that_set_how_an_operator_works_have_no_gradient():
    edge = {"pads": np.array([1, 0, 0, 2]), "value": (), "mode": "edge", "wrt": ("value",)}
    mean = {"scale": (3,), "outputs": ("m", "y"), "cotangents": ("y",), "wrt": ("scale",)}
    cases = (one("Pad", x=(2, 3), **edge), one("Dropout", x=(2, 3), ratio=(), wrt=("ratio",)))
    for case in (*cases, one("LayerNormalization", x=(2, 3), **mean)):
        shape = (3, 5) if case.nodes[0][0] == "Pad" else (2, 1 if "m" in case.nodes[0][2] else 3)
        feeds = {name: np.full(case.shape(name), 0.5, np.float32) for name in case.inputs}
        assert not gradients(case, feeds, np.ones(shape, np.float32))[0].any()


CLAMPS = [(-1.0, 2.0), (0.0, 0.0), (2.0, -1.0), (None, 1.0), (1.0, None), (-5.0, 5.0)]


@pytest.mark.parametrize(("low", "high"), CLAMPS)
def test_clip_at_and_between_limits_that_are_inputs(low, high):
    """Also where the lower limit is the higher one."""
    limits = {name: limit for name, limit in (("lo", low), ("hi", high)) if limit is not None}
    case = one("Clip", x=LINE.shape, lo=None if low is None else (), hi=None if high is None else ())
    compare(
        case,
        lambda x, *ends: torch.clamp(x, **{{"lo": "min", "hi": "max"}[n]: end for n, end in zip(limits, ends)}),
        LINE.astype(np.float32),
        *(np.array(limit, np.float32) for limit in limits.values()),
    )


# ---- casts


FLOAT_TYPES = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.BFLOAT16: torch.bfloat16,
    onnx.TensorProto.DOUBLE: torch.float64,
}


def casts(*types):
    """x in the first type, cast to each of the others in turn."""
    names = ["x", *(f"v{k}" for k in range(len(types) - 2)), "y"]
    nodes = tuple(("Cast", [a], [b], {"to": int(t)}) for a, b, t in zip(names, names[1:], types[1:]))
    return Case(nodes, {"x": (2, 3)}, {}, ("x",))


@pytest.mark.parametrize("first", FLOAT_TYPES)
@pytest.mark.parametrize("second", FLOAT_TYPES)
def test_casts_between_float_types_round_the_gradient_as_pytorch_does(first, second):
    single = onnx.TensorProto.FLOAT
    case = casts(single, first, second, single)
    feeds = case.feeds(np.float32)
    seed = np.float32([[1.2345678, -3e-5, 7e4], [1 / 3, 1e-9, -65504]])
    leaf = torch.from_numpy(feeds["x"]).requires_grad_()
    leaf.to(FLOAT_TYPES[first]).to(FLOAT_TYPES[second]).to(torch.float32).backward(torch.from_numpy(seed))
    gradient = run(differentiate(case.model(), case.outputs, case.wrt), {**feeds, "d_y": seed})["d_x"]
    assert gradient.dtype == np.float32
    np.testing.assert_array_equal(gradient, leaf.grad.numpy())


def test_a_cast_to_eight_bits_is_refused():
    eight = casts(onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT8E4M3FN, onnx.TensorProto.FLOAT)
    with pytest.raises(UnsupportedOperator, match="numbers of type FLOAT8E4M3FN"):
        differentiate(eight.model(opset=19), eight.outputs, eight.wrt)
