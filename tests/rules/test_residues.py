"""Gradients of strided convolutions in parts, one for each remainder of a position: PyTorch's numbers."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from fastcam_export import export_model, vjp
from support.rules.runs import on_openvino

torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")
F = torch.nn.functional

NARROW, WIDE, CLASSES = 16, 64, 5


class Strided(torch.nn.Module):
    """A convolution of one tap, ReLU or ReLU6, a strided one in groups, a mean and a linear head."""

    def __init__(self, kernel=3, stride=2, pads=(1, 1, 1, 1), group=WIDE, relu6=True, beside=False):
        super().__init__()
        torch.manual_seed(0)
        self.kernel, self.stride, self.pads, self.relu6, self.beside = kernel, stride, pads, relu6, beside
        self.group = group
        self.wider = torch.nn.Parameter(torch.randn(WIDE, NARROW, 1, 1))
        self.strided = torch.nn.Parameter(torch.randn(WIDE, WIDE // group, kernel, kernel))
        self.head = torch.nn.Parameter(torch.randn(CLASSES, WIDE) / WIDE)

    def forward(self, x):
        a = F.conv2d(x, self.wider)
        b = F.relu6(a) if self.relu6 else F.relu(a)
        top, left, bottom, right = self.pads
        c = F.conv2d(F.pad(b, (left, right, top, bottom)), self.strided, stride=self.stride, groups=self.group)
        features = F.relu(c).mean((2, 3)) + (b.mean((2, 3)) if self.beside else 0)
        return features @ self.head.T

    def onnx(self, size):
        window = {"kernel_shape": [self.kernel] * 2, "strides": [self.stride] * 2, "pads": list(self.pads)}
        clip = helper.make_node("Clip", ["a", "low", "high"], ["b"])
        nodes = [
            helper.make_node("Conv", ["x", "wider"], ["a"]),
            clip if self.relu6 else helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("Conv", ["b", "strided"], ["c"], group=self.group, **window),
            helper.make_node("Relu", ["c"], ["d"]),
            helper.make_node("GlobalAveragePool", ["d"], ["e"]),
            helper.make_node("GlobalAveragePool", ["b"], ["f"]),
            helper.make_node("Add", ["e", "f"], ["g"]),
            helper.make_node("Flatten", ["g" if self.beside else "e"], ["h"]),
            helper.make_node("Gemm", ["h", "head"], ["y"], transB=1),
        ]
        nodes = nodes if self.beside else [node for node in nodes if node.output[0] not in ("f", "g")]
        given = {name: value.detach().numpy() for name, value in self.named_parameters()}
        given |= {"low": np.float32(0), "high": np.float32(6)} if self.relu6 else {}
        constants = [numpy_helper.from_array(np.asarray(array), name) for name, array in given.items()]
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", NARROW, *size))
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ("N", CLASSES))
        graph = helper.make_graph(nodes, "strided", [x], [y], constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def feeds(size, count=3):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((count, NARROW, *size)).astype(np.float32)
    return {"x": x, "cotangent.y": rng.standard_normal((count, CLASSES)).astype(np.float32)}


def autograd(network, given):
    x = torch.from_numpy(given["x"]).requires_grad_()
    return torch.autograd.grad(network(x), x, torch.from_numpy(given["cotangent.y"]))[0].numpy()


def operators(model):
    return Counter(node.op_type for node in model.graph.node)


def run(model, name, given):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run([name], given)[0]


CASES = {
    "3x3": ({}, (16, 20)),
    "odd sizes": ({}, (17, 21)),
    "one odd size": ({}, (17, 20)),
    "ReLU": ({"relu6": False}, (16, 20)),
    "padded behind": ({"pads": (0, 0, 1, 1)}, (16, 20)),
    "5x5": ({"kernel": 5, "pads": (2, 2, 2, 2)}, (15, 16)),
    "stride 3": ({"kernel": 5, "stride": 3, "pads": (1, 2, 2, 1)}, (17, 19)),
    "in groups of four": ({"group": WIDE // 4, "relu6": False}, (16, 21)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_gradient_is_autograds(case):
    settings, size = CASES[case]
    network, given = Strided(**settings), feeds(size)
    made = vjp(network.onnx(size))
    assert operators(made)["Concat"] == network.stride + 1, "the parts are put side by side once, behind the masks"
    expected = autograd(network, given)
    ours = run(made, "grad.x", given)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-6 * float(np.abs(expected).max()))
    reference = onnx.reference.ReferenceEvaluator(made)
    again = reference.run(["grad.x"], given)[0]
    np.testing.assert_allclose(again, expected, rtol=0, atol=2e-6 * float(np.abs(expected).max()))


def test_nothing_is_left_of_the_whole_gradient():
    """A Resize would be that of the gradient with zeros between its elements."""
    size = (16, 20)
    made = vjp(Strided(relu6=False).onnx(size))
    assert operators(made)["Resize"] == 1, "that of the mean's gradient"


UNSUITED = {
    "a map that is read elsewhere": ({"beside": True}, (16, 20)),
    "a stride that leaves taps out": ({"kernel": 1, "pads": (0, 0, 0, 0)}, (16, 20)),
    "elements behind the last window": ({"kernel": 2, "stride": 2, "pads": (0, 0, 0, 0)}, (17, 21)),
}


@pytest.mark.parametrize("case", UNSUITED)
def test_other_gradients_are_autograds_too(case):
    settings, size = UNSUITED[case]
    network, given = Strided(**settings), feeds(size)
    expected = autograd(network, given)
    ours = run(vjp(network.onnx(size)), "grad.x", given)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-6 * float(np.abs(expected).max()))


def test_a_layer_between_has_its_whole_gradient():
    """What the parts belong to is asked for itself."""
    size = (16, 20)
    network, given = Strided(), feeds(size)
    made = vjp(network.onnx(size), wrt="b")
    x = torch.from_numpy(given["x"])
    b = F.relu6(F.conv2d(x, network.wider)).detach().requires_grad_()
    c = F.conv2d(b, network.strided, stride=2, padding=1, groups=WIDE)
    (expected,) = torch.autograd.grad(
        F.relu(c).mean((2, 3)) @ network.head.T, b, torch.from_numpy(given["cotangent.y"])
    )
    ours = run(made, "grad.b", given)
    np.testing.assert_allclose(ours, expected.numpy(), rtol=0, atol=2e-6 * float(expected.abs().max()))


def test_openvino_has_these_numbers():
    size = (16, 20)
    network, given = Strided(relu6=False), feeds(size)
    found, expected = on_openvino(vjp(network.onnx(size)), given), autograd(network, given)
    np.testing.assert_allclose(found["grad.x"], expected, rtol=0, atol=1e-5 * float(np.abs(expected).max()))


class Guided(torch.autograd.Function):
    """ReLU or ReLU6 whose gradient is max(dy, 0) where 0 < y (and y < 6)."""

    @staticmethod
    def forward(ctx, x, high):
        ctx.save_for_backward((x > 0) & (x < high))
        return x.clamp(0, high)

    @staticmethod
    def backward(ctx, dy):
        return dy.clamp(min=0) * ctx.saved_tensors[0], None


@pytest.mark.parametrize("relu6", [True, False])
@pytest.mark.parametrize("pooled", [{}, {"kernel_size": 2, "stride": 2}, {"kernel_size": 3, "stride": 2, "padding": 1}])
def test_guided_gradients_have_parts_too(relu6, pooled):
    size, network = (16, 20), Strided(relu6=relu6)
    model = network.onnx(size)
    if pooled:  # maxima in place of the strided convolution
        window = {
            "kernel_shape": [pooled["kernel_size"]] * 2,
            "strides": [2, 2],
            "pads": [pooled.get("padding", 0)] * 4,
        }
        model.graph.node[2].CopyFrom(helper.make_node("MaxPool", ["b"], ["c"], **window))
        del model.graph.initializer[[w.name for w in model.graph.initializer].index("strided")]
    made = export_model(model, layer="d", input_gradient="guided", targets="constant", check=False).model
    assert not operators(made)["Greater"] + operators(made)["ScatterElements"], "these leave the blocks"
    given = {"x": feeds(size)["x"]}
    x, high = torch.from_numpy(given["x"]).requires_grad_(), 6.0 if relu6 else float("inf")
    b = Guided.apply(F.conv2d(x, network.wider), high)
    c = F.max_pool2d(b, **pooled) if pooled else F.conv2d(b, network.strided, stride=2, padding=1, groups=WIDE)
    scores = Guided.apply(c, float("inf")).mean((2, 3)) @ network.head.T
    (expected,) = torch.autograd.grad(scores.max(1).values.sum(), x)
    ours = run(made, "fastcam.input_gradient", given)
    np.testing.assert_allclose(ours[:, 0], expected.numpy(), rtol=0, atol=2e-6 * float(expected.abs().max()))
