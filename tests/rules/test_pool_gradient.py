"""The gradient of MaxPool in blocks: PyTorch's numbers, ties among them."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from fastcam_export import vjp
from support.rules.runs import on_openvino

torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")
F = torch.nn.functional

CHANNELS = 16


def weights():
    """Whole numbers, so that sums are exact in any order, and maps full of ties."""
    rng = np.random.default_rng(0)
    return {name: rng.integers(-1, 2, (CHANNELS, CHANNELS, 1, 1)).astype(np.float32) for name in ("first", "second")}


def network(kernel, strides, pads, size, relu):
    nodes = [
        helper.make_node("Conv", ["x", "first"], ["a"]),
        helper.make_node("Relu" if relu else "Identity", ["a"], ["b"]),
        helper.make_node("MaxPool", ["b"], ["c"], kernel_shape=kernel, strides=strides, pads=pads),
        helper.make_node("Conv", ["c", "second"], ["y"]),
    ]
    counts = [(s + 2 * p - k) // step + 1 for s, k, step, p in zip(size, kernel, strides, pads)]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", CHANNELS, *size))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ("N", CHANNELS, *counts))
    constants = [numpy_helper.from_array(array, name) for name, array in weights().items()]
    graph = helper.make_graph(nodes, "pool", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def below(b, kernel, strides, pads):
    second = torch.from_numpy(weights()["second"])
    return F.conv2d(F.max_pool2d(b, kernel, strides, pads[:2]), second)


def gradients(kernel, strides, pads, size, relu):
    """(feeds, that of x, that of the map that is pooled)"""
    rng = np.random.default_rng(1)
    x = torch.from_numpy(rng.integers(-1, 2, (2, CHANNELS, *size)).astype(np.float32)).requires_grad_()
    a = F.conv2d(x, torch.from_numpy(weights()["first"]))
    b = F.relu(a) if relu else a
    y = below(b, kernel, strides, pads)
    seed = rng.integers(-3, 4, y.shape).astype(np.float32)
    dx, db = torch.autograd.grad(y, (x, b), torch.from_numpy(seed))
    return {"x": x.detach().numpy(), "cotangent.y": seed}, dx.numpy(), db.numpy()


def run(model, name, given):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run([name], given)[0]


SIDE_BY_SIDE = {
    "2x2": ([2, 2], [2, 2], [0] * 4, (12, 16)),
    "3x3": ([3, 3], [3, 3], [0] * 4, (12, 15)),
    "2x3": ([2, 3], [2, 3], [0] * 4, (10, 12)),
}
OVERLAPPING = {
    "ResNet": ([3, 3], [2, 2], [1] * 4, (12, 16)),
    "Inception": ([3, 3], [1, 1], [1] * 4, (7, 9)),
    "AlexNet": ([3, 3], [2, 2], [0] * 4, (13, 11)),
    "last row left out": ([3, 3], [2, 2], [0] * 4, (12, 14)),
    "SPPF": ([5, 5], [1, 1], [2] * 4, (6, 8)),
    "padding without overlap": ([2, 2], [2, 2], [1] * 4, (12, 16)),
    "elements left out": ([2, 2], [2, 2], [0] * 4, (13, 16)),
    "rows and columns differ": ([2, 3], [1, 1], [1, 0, 1, 0], (5, 8)),
    "wider than the stride and padded": ([4, 4], [2, 2], [2] * 4, (9, 14)),
}
SCATTERED = {
    "one window": ([5, 6], [1, 1], [0] * 4, (5, 6)),
    "stride 3": ([4, 4], [3, 3], [1] * 4, (13, 14)),
    "two strides": ([3, 3], [1, 2], [1] * 4, (9, 12)),
    "one tap": ([1, 1], [2, 2], [0] * 4, (9, 12)),
}
NOT_BY_THE_REFERENCE = ("Inception", "SPPF", "rows and columns differ", "one window")
"""Of these MaxPools the evaluator of the package onnx has other maxima, or none: it is wrong about windows of unlike
sides and about indices."""


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("case", [*SIDE_BY_SIDE, *OVERLAPPING, *SCATTERED])
def test_the_gradient_is_autograds(case, relu):
    shape = (SIDE_BY_SIDE | OVERLAPPING | SCATTERED)[case]
    model, (given, expected, expected_inside) = network(*shape, relu), gradients(*shape, relu)
    made = vjp(model)
    np.testing.assert_array_equal(run(made, "grad.x", given), expected)
    if case not in NOT_BY_THE_REFERENCE:
        reference = onnx.reference.ReferenceEvaluator(made)
        np.testing.assert_array_equal(reference.run(["grad.x"], given)[0], expected)
    np.testing.assert_array_equal(run(vjp(model, wrt="b"), "grad.b", given), expected_inside)


@pytest.mark.parametrize("case", SIDE_BY_SIDE)
def test_nothing_leaves_the_blocks(case):
    operators = Counter(node.op_type for node in vjp(network(*SIDE_BY_SIDE[case], relu=True)).graph.node)
    assert not operators["ScatterElements"]
    assert operators["HardSigmoid"] == 3, "the mask of the ReLU is applied to the small gradient"


@pytest.mark.parametrize("case", OVERLAPPING)
def test_overlapping_windows_stay_in_blocks(case):
    operators = Counter(node.op_type for node in vjp(network(*OVERLAPPING[case], relu=True)).graph.node)
    assert not operators["ScatterElements"]


@pytest.mark.parametrize("relu", [True, False])
def test_a_last_window_that_ceil_mode_adds_gets_autograds_gradient(relu):
    """GoogLeNet's: it reaches beyond the map, by an element that the node's padding does not name."""
    kernel, strides, size = [3, 3], [2, 2], (12, 14)
    model = network(kernel, strides, [0] * 4, size, relu)
    model.graph.node[2].attribute.append(helper.make_attribute("ceil_mode", 1))
    for dimension, count in zip(model.graph.output[0].type.tensor_type.shape.dim[2:], (6, 7)):
        dimension.dim_value = count
    rng = np.random.default_rng(1)
    x = torch.from_numpy(rng.integers(-1, 2, (2, CHANNELS, *size)).astype(np.float32)).requires_grad_()
    a = F.conv2d(x, torch.from_numpy(weights()["first"]))
    pooled = F.max_pool2d(F.relu(a) if relu else a, kernel, strides, ceil_mode=True)
    y = F.conv2d(pooled, torch.from_numpy(weights()["second"]))
    seed = rng.integers(-3, 4, y.shape).astype(np.float32)
    (expected,) = torch.autograd.grad(y, x, torch.from_numpy(seed))
    made = vjp(model)
    assert "ScatterElements" not in {node.op_type for node in made.graph.node}
    np.testing.assert_array_equal(run(made, "grad.x", {"x": x.detach().numpy(), "cotangent.y": seed}), expected.numpy())


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e30])
def test_maxima_of_any_size_are_told_apart(scale):
    """The next number above or below is no maximum."""
    near = np.array([[1, np.nextafter(np.float32(1), np.float32(2))], [np.nextafter(np.float32(1), np.float32(0)), 1]])
    near = (near * scale).astype(np.float32)
    given = {"x": np.broadcast_to(np.tile(near, (2, 2)), (1, CHANNELS, 4, 4)).copy()}
    given["cotangent.y"] = np.ones((1, CHANNELS, 2, 2), np.float32)
    model = network([2, 2], [2, 2], [0] * 4, (4, 4), relu=False)
    del model.graph.initializer[:]
    identity = np.eye(CHANNELS, dtype=np.float32).reshape(CHANNELS, CHANNELS, 1, 1)
    model.graph.initializer.extend(numpy_helper.from_array(identity, name) for name in ("first", "second"))
    expected = np.broadcast_to(np.tile([[0, 1], [0, 0]], (2, 2)), (1, CHANNELS, 4, 4))
    np.testing.assert_array_equal(run(vjp(model), "grad.x", given), expected)


@pytest.mark.parametrize("shape", [SIDE_BY_SIDE["2x2"], OVERLAPPING["ResNet"], OVERLAPPING["Inception"]])
def test_openvino_has_these_numbers(shape):
    given, expected, _ = gradients(*shape, relu=True)
    found = on_openvino(vjp(network(*shape, relu=True)), given)
    np.testing.assert_array_equal(found["grad.x"], expected)


@pytest.mark.parametrize("kind", ["Identity", "Relu", "Exp", "Reciprocal"])
@pytest.mark.parametrize("case", ["2x2", "ResNet"])
def test_infinities_in_front_of_windows_get_autograds_gradient(kind, case):
    """In blocks a maximum is told by a difference, which two infinities do not have."""
    kernel, strides, pads, size = (SIDE_BY_SIDE | OVERLAPPING)[case]
    model = network(kernel, strides, pads, size, relu=True)
    model.graph.node[0].CopyFrom(helper.make_node(kind, ["x"], ["a"]))
    model.graph.node[-1].input[0] = "d"
    model.graph.node.insert(3, helper.make_node("Clip", ["c", "low", "high"], ["d"]))
    for name, value in (("low", -9), ("high", 9)):
        model.graph.initializer.append(numpy_helper.from_array(np.float32(value), name))

    infinite = {"Exp": 1000.0, "Reciprocal": 0.0}.get(kind, np.inf)
    given = np.random.default_rng(3).integers(1, 4, (1, CHANNELS, 12, 16)).astype(np.float32)
    given[0, 0, 3, 3] = given[0, 1, :2, :2] = infinite
    function = {"Exp": torch.exp, "Reciprocal": torch.reciprocal}.get(kind, torch.clone)
    b = function(torch.from_numpy(given)).requires_grad_()
    assert b.isinf().sum() == 5
    y = F.conv2d(F.max_pool2d(b, kernel, strides, pads[:2]).clamp(-9, 9), torch.from_numpy(weights()["second"]))
    seed = np.ones(y.shape, np.float32)
    (expected,) = torch.autograd.grad(y, b, torch.from_numpy(seed))
    found = run(vjp(model, wrt="b"), "grad.b", {"x": given, "cotangent.y": seed})
    np.testing.assert_array_equal(found, expected.numpy())


def test_a_map_divided_by_a_number_stays_in_blocks():
    """As hard-swish in files of PaddlePaddle; see the infinities above."""
    model = network(*SIDE_BY_SIDE["2x2"], relu=True)
    model.graph.initializer.append(numpy_helper.from_array(np.float32(6), "six"))
    model.graph.node[1].CopyFrom(helper.make_node("Div", ["a", "six"], ["b"]))
    assert "ScatterElements" not in {node.op_type for node in vjp(model).graph.node}
