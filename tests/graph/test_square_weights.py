"""A gradient reads the model's square weights as values of their own, and is autograd's on OpenVINO too."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from fastcam.schema import PREFIX
from fastcam_export import export_model, vjp
from fastcam_export.graph.square_weights import CONVOLUTIONS, PRODUCTS
from support.rules.runs import on_openvino, run

torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")
F = torch.nn.functional

ROWS, IMAGE = (2, 5, 72), (2, 32, 6, 7)  # 72 * 72 elements are too many to be folded
RNG = np.random.default_rng(0)
FLAT, CONV, TAP, GROUPED = (
    RNG.standard_normal(shape).astype(np.float32) / 8
    for shape in ((72, 72), (32, 32, 3, 3), (32, 32, 1, 1), (32, 8, 3, 3))
)
STRIDED = {"strides": [2, 2], "pads": [1, 1, 1, 1]}


def node(op_type, *inputs, **attributes):
    return lambda out: helper.make_node(op_type, inputs, [out], **attributes)


CASES = {
    "MatMul": (ROWS, FLAT, [node("MatMul", "x", "w")], lambda x, w: x @ w),
    "MatMul of a transposed weight": (
        ROWS,
        FLAT,
        [node("Transpose", "w", perm=[1, 0]), node("MatMul", "x", "v0")],
        lambda x, w: x @ w.T,
    ),
    "Gemm": (ROWS[1:], FLAT, [node("Gemm", "x", "w", transB=1)], lambda x, w: x @ w.T),
    "Einsum": (ROWS, FLAT, [node("Einsum", "x", "w", equation="btc,cd->btd")], lambda x, w: x @ w),
    "float16 weight": (
        ROWS,
        FLAT.astype(np.float16),
        [node("Cast", "w", to=TensorProto.FLOAT), node("MatMul", "x", "v0")],
        lambda x, w: x @ w.float(),
    ),
    "int8 weight": (
        ROWS,
        RNG.integers(-127, 128, FLAT.shape).astype(np.int8),
        [node("DequantizeLinear", "w", "scale"), node("MatMul", "x", "v0")],
        lambda x, w: x @ (w.float() / 256),
    ),
    "Conv with strides": (IMAGE, CONV, [node("Conv", "x", "w", **STRIDED)], lambda x, w: F.conv2d(x, w, None, 2, 1)),
    "1x1 Conv with strides": (
        IMAGE,
        TAP,
        [node("Conv", "x", "w", strides=[2, 2])],
        lambda x, w: F.conv2d(x, w, None, 2),
    ),
    "Conv": (IMAGE, CONV, [node("Conv", "x", "w", pads=[1] * 4)], lambda x, w: F.conv2d(x, w, None, 1, 1)),
    "1x1 Conv": (IMAGE, TAP, [node("Conv", "x", "w")], lambda x, w: F.conv2d(x, w)),
    "grouped Conv": (
        IMAGE,
        GROUPED,
        [node("Conv", "x", "w", group=4, **STRIDED)],
        lambda x, w: F.conv2d(x, w, None, 2, 1, groups=4),
    ),
    "ConvTranspose": (
        IMAGE,
        CONV,
        [node("ConvTranspose", "x", "w", **STRIDED)],
        lambda x, w: F.conv_transpose2d(x, w, None, 2, 1),
    ),
}


def model(shape, weight, steps):
    """A network of these steps: x and the weight w in, y out."""
    names = [f"v{k}" for k in range(len(steps) - 1)] + ["y"]
    constants = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.float32(1 / 256), "scale")]
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", *shape[1:])),
        helper.make_empty_tensor_value_info("y"),
    ]
    graph = helper.make_graph([step(out) for step, out in zip(steps, names)], "g", ends[:1], ends[1:], constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return onnx.shape_inference.infer_shapes(made)


def computed(case, runtime):
    """(what a runtime computes for one case, what PyTorch does)"""
    shape, weight, steps, forward = CASES[case]
    rng = np.random.default_rng(1)
    x = rng.standard_normal(shape).astype(np.float32)
    leaf = torch.from_numpy(x).requires_grad_()
    y = forward(leaf, torch.from_numpy(weight))
    seed = rng.standard_normal(y.shape).astype(np.float32)
    (gradient,) = torch.autograd.grad(y, leaf, torch.from_numpy(seed))
    found = runtime(vjp(model(shape, weight, steps)), {"x": x, "cotangent.y": seed})
    return found, {"y": y.detach().numpy(), "grad.x": gradient.numpy()}


@pytest.mark.parametrize("runtime", [run, on_openvino])
@pytest.mark.parametrize("case", CASES)
def test_the_gradient_is_autograds(case, runtime):
    found, expected = computed(case, runtime)
    for name, array in expected.items():
        in_int8 = case == "int8 weight" and runtime is on_openvino  # as it may compute then
        tolerance = 2e-2 if in_int8 else 1e-5
        np.testing.assert_allclose(found[name], array, rtol=0, atol=tolerance * np.abs(array).max(), err_msg=name)


BETWEEN = ("Transpose", "Cast", "DequantizeLinear")


def read_by_added_nodes(made):
    """The weights of the model that added products and convolutions read directly, or transposed."""
    graph = ir.from_proto(made).graph
    for each in graph:
        if (each.name or "").startswith(PREFIX) and each.op_type in PRODUCTS | CONVOLUTIONS:
            for value in each.inputs:
                while value.producer() is not None and value.producer().op_type in (
                    "Transpose",
                    "Cast",
                    "DequantizeLinear",
                ):
                    value = value.producer().inputs[0]
                if value.name in graph.initializers and not value.name.startswith(PREFIX):
                    yield value.name


ARRANGED = {"Conv", "1x1 Conv", "grouped Conv"}
"""Whose gradient is a Conv with kernels that the file rearranges."""


@pytest.mark.parametrize("case", sorted(set(CASES) - ARRANGED))
def test_no_square_weight_is_read_in_two_ways(case):
    shape, weight, steps, _ = CASES[case]
    made = vjp(model(shape, weight, steps))
    assert not list(read_by_added_nodes(made))
    assert [n.op_type for n in made.graph.node].count("Neg") == 2
    assert sum(len(each.raw_data) for each in made.graph.initializer) < 1.5 * weight.nbytes  # not stored twice


def test_other_weights_are_read_as_they_are():
    made = vjp(model(ROWS, FLAT[:, :60].copy(), [node("MatMul", "x", "w")]))
    assert list(read_by_added_nodes(made)) == ["w"]
    assert "Neg" not in [n.op_type for n in made.graph.node]


def perceptron():
    """image [N, 3, 9, 9] -> a convolution -> [N, 8, 3, 3] -> three dense layers, the first two of them square."""
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["a"], strides=[3, 3]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Flatten", ["b"], ["c"]),
        helper.make_node("Gemm", ["c", "first"], ["d"], transB=1),
        helper.make_node("Relu", ["d"], ["e"]),
        helper.make_node("Gemm", ["e", "second"], ["f"]),
        helper.make_node("Relu", ["f"], ["g"]),
        helper.make_node("Gemm", ["g", "last"], ["logits"], transB=1),
    ]
    shapes = {"kernel": (8, 3, 3, 3), "first": (72, 72), "second": (72, 72), "last": (5, 72)}
    rng = np.random.default_rng(2)
    weights = [numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n) for n, s in shapes.items()]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ("N", 3, 9, 9))
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ("N", 5))
    graph = helper.make_graph(nodes, "perceptron", [image], [logits], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.mark.parametrize(("engine", "number"), [("onnxruntime", 1), ("web", 0), ("cuda", 0), ("tensorrt", 0)])
def test_files_for_other_engines_read_them_as_they_are(engine, number):
    """OpenVINO reads the files for ONNX Runtime."""
    made = export_model(perceptron(), for_engine=engine, preprocess="unit", check=False).model
    assert len([n for n in made.graph.node if n.name.startswith(f"{PREFIX}apart")]) == number
