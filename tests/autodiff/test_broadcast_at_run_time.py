"""Gradients of operands of which only a run tells how far they were broadcast."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from fastcam_export import export_model, vjp
from support.rules.runs import on_openvino, run

torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")

NAMED = {"a": ("N", 3, "h", "w"), "b": ("M", 3, "k", "l")}
SIZES = {
    "alike": ((2, 3, 4, 5), (2, 3, 4, 5)),
    "one row": ((2, 3, 4, 5), (2, 3, 1, 5)),
    "one column of the other": ((2, 3, 4, 1), (2, 3, 4, 5)),
    "both, crosswise": ((2, 3, 4, 1), (1, 3, 1, 5)),
    "one image": ((1, 3, 4, 5), (2, 3, 4, 5)),
    "single numbers": ((1, 3, 1, 1), (1, 3, 1, 1)),
    "no image": ((0, 3, 4, 5), (1, 3, 4, 5)),
    "no rows": ((2, 3, 0, 5), (2, 3, 1, 5)),
}


def model(shapes):
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Mul", ["a", "b"], ["y"])], "broadcast", inputs, [output])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def agrees(made, a, b):
    """Whether a file has PyTorch's gradients of a product."""
    rng = np.random.default_rng(0)
    values = [torch.from_numpy(rng.standard_normal(shape).astype(np.float32)).requires_grad_() for shape in (a, b)]
    product = values[0] * values[1]
    seed = rng.standard_normal(product.shape).astype(np.float32)
    wanted = torch.autograd.grad(product, values, torch.from_numpy(seed))
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = {name: value.detach().numpy() for name, value in zip(("a", "b"), values)} | {"cotangent.y": seed}
    for found, expected in zip(session.run(["grad.a", "grad.b"], feed), wanted):
        assert found.shape == tuple(expected.shape)
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", SIZES)
def test_the_gradients_are_autograds(case):
    agrees(vjp(model(NAMED), wrt=["a", "b"]), *SIZES[case])


def test_an_operand_of_fewer_axes():
    made = vjp(model({"a": ("N", 3, "h", "w"), "b": ("k", "l")}), wrt=["a", "b"])
    agrees(made, (2, 3, 4, 5), (1, 5))
    agrees(made, (2, 3, 4, 5), (4, 5))


def test_the_axes_of_sums_are_constants():
    """OpenVINO and TensorRT refuse others."""
    made = vjp(model(NAMED), wrt=["a", "b"])
    known = {tensor.name for tensor in made.graph.initializer}
    known |= {node.output[0] for node in made.graph.node if node.op_type == "Constant"}
    sums = [node for node in made.graph.node if node.op_type == "ReduceSum"]
    assert sums and all(node.input[1] in known for node in sums)
    assert "NonZero" not in {node.op_type for node in made.graph.node}


def test_openvino_reads_a_gradient_to_a_picture_of_free_size():
    """Of several targets: the places of maxima, repeated for each, and operands of unknown sizes."""
    rng = np.random.default_rng(1)
    shapes = {"kernel": (4, 3, 3, 3), "other": (4, 3, 3, 3), "fc": (4, 5)}
    tensors = [numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), n) for n, shape in shapes.items()]
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["image", "other"], ["b"], pads=[1, 1, 1, 1], strides=[1, 1]),
        helper.make_node("Mul", ["a", "b"], ["c"]),
        helper.make_node("MaxPool", ["c"], ["d"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["d"], ["e"]),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("MatMul", ["f", "fc"], ["scores"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ("N", 3, None, None))
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ("N", 5))
    graph = helper.make_graph(nodes, "free", [image], [scores], tensors)
    source = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    made = export_model(source, input_gradient="gradient", check=False).model
    feeds = {"image": rng.standard_normal((1, 3, 10, 12)).astype(np.float32)}
    name, found, wanted = "fastcam.input_gradient", on_openvino(made, feeds), run(made, feeds)
    np.testing.assert_allclose(found[name], wanted[name], rtol=0, atol=1e-5 * np.abs(wanted[name]).max())
