"""Gradients in ONNX Runtime's blocked layout: PyTorch's numbers, and a residual stream that is never put back."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from fastcam_export import vjp
from support.rules.runs import on_openvino

torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")
F = torch.nn.functional

CHANNELS = 32


def weights():
    rng = np.random.default_rng(0)
    scale = lambda *shape: (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)  # noqa: E731
    square, one, each = (CHANNELS, CHANNELS, 3, 3), (CHANNELS, CHANNELS, 1, 1), (CHANNELS, 1, 3, 3)
    shapes = {"first": square, "second": square, "down": square, "beside": one, "third": square, "apart": each}
    return {name: scale(*shape) for name, shape in shapes.items()} | {"head": scale(7, CHANNELS)}


def network(pool):
    """Two residual blocks, the second with strides, a strided depthwise convolution, and a linear head."""
    both = {"pads": [1] * 4}
    nodes = [
        helper.make_node("Conv", ["x", "first"], ["a"], **both),
        helper.make_node("Clip", ["a", "low", "high"], ["b"]),
        helper.make_node("Conv", ["b", "second"], ["c"], **both),
        helper.make_node("Add", ["c", "b"], ["d"]),
        helper.make_node("Relu", ["d"], ["e"]),
        helper.make_node("Conv", ["e", "down"], ["f"], strides=[2, 2], **both),
        helper.make_node("Conv", ["e", "beside"], ["g"], strides=[2, 2]),
        helper.make_node("Add", ["f", "g"], ["h"]),
        helper.make_node("Relu", ["h"], ["i"]),
        helper.make_node("Conv", ["i", "third"], ["j"], **both),
        helper.make_node("Add", ["j", "i"], ["k"]),
        helper.make_node("Conv", ["k", "apart"], ["l"], strides=[2, 2], group=CHANNELS, **both),
        helper.make_node("Relu", ["l"], ["m"]),
        pool,
        helper.make_node("Flatten", ["n"], ["o"]),
        helper.make_node("Gemm", ["o", "head"], ["y"], transB=1),
    ]
    given = weights() | {"low": np.float32(0), "high": np.float32(6), "axes": np.array([2, 3])}
    constants = [numpy_helper.from_array(np.asarray(array), name) for name, array in given.items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", CHANNELS, 20, 24))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ("N", 7))
    graph = helper.make_graph(nodes, "residual", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


POOLS = {
    "GlobalAveragePool": helper.make_node("GlobalAveragePool", ["m"], ["n"]),
    "ReduceMean": helper.make_node("ReduceMean", ["m", "axes"], ["n"], keepdims=0),
}


def session(model, **settings):
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    for name, value in settings.items():
        setattr(options, name, value)
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("pool", POOLS)
def test_the_gradient_is_autograds(pool):
    w = {name: torch.from_numpy(array) for name, array in weights().items()}
    rng = np.random.default_rng(1)
    x = torch.from_numpy(4 * rng.standard_normal((2, CHANNELS, 20, 24)).astype(np.float32)).requires_grad_()
    seed = rng.standard_normal((2, 7)).astype(np.float32)
    b = F.relu6(F.conv2d(x, w["first"], padding=1))
    e = F.relu(F.conv2d(b, w["second"], padding=1) + b)
    i = F.relu(F.conv2d(e, w["down"], padding=1, stride=2) + F.conv2d(e, w["beside"], stride=2))
    m = F.relu(F.conv2d(F.conv2d(i, w["third"], padding=1) + i, w["apart"], padding=1, stride=2, groups=CHANNELS))
    assert bool((b == 6).any()) and bool((b == 0).any())
    (expected,) = torch.autograd.grad(m.mean((2, 3)) @ w["head"].T, x, torch.from_numpy(seed))
    made = vjp(network(POOLS[pool]))
    ours = session(made).run(["grad.x"], {"x": x.detach().numpy(), "cotangent.y": seed})[0]
    np.testing.assert_allclose(ours, expected.numpy(), rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_the_residual_stream_stays_in_blocks(tmp_path):
    """An Add is part of a convolution where both operands are in blocks, and there alone."""
    left = {}
    for what, model in {"plain": network(POOLS["GlobalAveragePool"]), "vjp": vjp(network(POOLS["ReduceMean"]))}.items():
        path = str(tmp_path / f"{what}.onnx")
        session(model, optimized_model_filepath=path)
        left[what] = [node.op_type for node in onnx.load(path).graph.node]
    if "ReorderInput" not in left["plain"]:
        pytest.skip("ONNX Runtime has no blocked layout on this processor")
    assert "Add" not in left["plain"] and "Add" not in left["vjp"]
    assert "HardSigmoid" in left["vjp"]


def test_a_relu6_in_blocks_leaves_its_ends_out():
    ends = [0.0, -0.0, 6.0, np.nextafter(np.float32(6), np.float32(7)), -1.0, 7.0, -np.finfo(np.float32).tiny]
    inside = [np.nextafter(np.float32(6), np.float32(0)), np.finfo(np.float32).tiny * 2, 1e-30, 1e-7, 0.5, 3.0, 5.999]
    line = np.array([*ends, *inside], np.float32)
    x = np.broadcast_to(line, (1, CHANNELS, 2, len(line))).copy()
    identity = np.eye(CHANNELS, dtype=np.float32).reshape(CHANNELS, CHANNELS, 1, 1)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Clip", ["a", "low", "high"], ["b"]),
        helper.make_node("Conv", ["b", "w"], ["y"]),
    ]
    given = {"w": identity, "low": np.float32(0), "high": np.float32(6)}
    constants = [numpy_helper.from_array(np.asarray(array), name) for name, array in given.items()]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, x.shape) for name in "xy"]
    graph = helper.make_graph(nodes, "relu6", values[:1], values[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    made = vjp(model)
    feeds = {"x": x, "cotangent.y": np.ones_like(x)}
    leaf = torch.from_numpy(x).requires_grad_()
    (expected,) = torch.autograd.grad(F.relu6(leaf).sum(), leaf)
    assert expected[0, 0, 0].tolist() == [0.0] * len(ends) + [1.0] * len(inside)
    np.testing.assert_array_equal(session(made).run(["grad.x"], feeds)[0], expected.numpy())
    # OpenVINO takes a beta of zero for one that is not given, which is 0.5
    betas = [helper.get_node_attr_value(n, "beta") for n in made.graph.node if n.op_type == "HardSigmoid"]
    assert betas and 0 not in betas
    reference = onnx.reference.ReferenceEvaluator(made)
    np.testing.assert_array_equal(reference.run(["grad.x"], feeds)[0], expected.numpy())


def test_openvino_reads_the_masks_as_they_are_meant():
    made = vjp(network(POOLS["ReduceMean"]))
    rng = np.random.default_rng(2)
    feeds = {"x": 4 * rng.standard_normal((2, CHANNELS, 20, 24)).astype(np.float32)}
    feeds["cotangent.y"] = rng.standard_normal((2, 7)).astype(np.float32)
    (expected,) = session(made).run(["grad.x"], feeds)
    found = on_openvino(made, feeds)
    np.testing.assert_allclose(found["grad.x"], expected, rtol=0, atol=1e-5 * np.abs(expected).max())
