"""Models in float64 on ONNX Runtime, which has no convolution in it: PyTorch's, in float64, is the oracle."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fastcam_export import export_model
from fastcam_export.verify.double.convolutions import without_convolutions
from fastcam_export.verify.double.float64 import in_double
from fastcam_export.verify.session import quiet_session

torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")
F = torch.nn.functional

FORMS = {
    "plain": ({}, (0, 0, 0, 0)),
    "VALID": ({"auto_pad": "VALID"}, (0, 0, 0, 0)),
    "padded, with strides and dilations": (
        {"pads": [1, 2, 0, 1], "strides": [2, 1], "dilations": [1, 2]},
        (2, 1, 1, 0),
    ),
    "SAME_UPPER": ({"auto_pad": "SAME_UPPER"}, (0, 1, 1, 1)),
    "SAME_LOWER with strides": ({"auto_pad": "SAME_LOWER", "strides": [2, 3]}, (0, 0, 1, 1)),
    "SAME_UPPER with strides": ({"auto_pad": "SAME_UPPER", "strides": [3, 2]}, (0, 0, 0, 0)),
    "depthwise": ({"group": 4, "pads": [1, 1, 1, 1], "strides": [2, 2]}, (1, 1, 1, 1)),
}
"""Attributes for a 3 x 2 kernel on an image of 9 x 8, and the padding that they mean: left, right, top, bottom."""


def convolution(weight, bias, shape, **attributes):
    nodes = [helper.make_node("Conv", ["x", "w", "b"][: 2 + (bias is not None)], ["y"], **attributes)]
    arrays = {"w": weight, "b": bias}
    tensors = [numpy_helper.from_array(a.astype(np.float32), n) for n, a in arrays.items() if a is not None]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "one", [x], [helper.make_empty_tensor_value_info("y")], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model)


def run(model, x):
    session = quiet_session(model)
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("biased", [True, False])
def test_convolutions_are_exact_to_float64(form, biased):
    attributes, pads = FORMS[form]
    group, rng = attributes.get("group", 1), np.random.default_rng(0)
    outputs = 4 if group > 1 else 5
    weight, bias = (rng.standard_normal(s).astype(np.float32) for s in ((outputs, 4 // group, 3, 2), outputs))
    x = rng.standard_normal((2, 4, 9, 8))
    model = convolution(weight, bias if biased else None, [2, 4, 9, 8], **attributes)
    found = run(without_convolutions(in_double(model)), x)
    strides, dilations = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
    weight, bias = torch.tensor(weight.astype(np.float64)), torch.tensor(bias.astype(np.float64)) if biased else None
    expected = F.conv2d(F.pad(torch.tensor(x), pads), weight, bias, strides, 0, dilations, group)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("rank", [1, 3])
def test_one_and_three_axes(rank):
    rng = np.random.default_rng(1)
    weight, x = rng.standard_normal((3, 2, *[3] * rank)).astype(np.float32), rng.standard_normal((2, 2, *[5] * rank))
    model = convolution(weight, None, [2, 2, *[5] * rank], pads=[1] * 2 * rank)
    convolve = {1: F.conv1d, 3: F.conv3d}[rank]
    expected = convolve(torch.tensor(x), torch.tensor(weight.astype(np.float64)), padding=1)
    found = run(without_convolutions(in_double(model)), x)
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-12)


def test_groups_of_several_channels():
    rng = np.random.default_rng(2)
    weight, x = rng.standard_normal((6, 2, 3, 3)).astype(np.float32), rng.standard_normal((2, 4, 5, 5))
    found = run(without_convolutions(in_double(convolution(weight, None, [2, 4, 5, 5], group=2))), x)
    expected = F.conv2d(torch.tensor(x), torch.tensor(weight.astype(np.float64)), groups=2)
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-12)


TRANSPOSED = {
    "plain": ({}, {}),
    "strides, pads and more": (
        {"strides": [2, 3], "pads": [1, 0, 1, 0], "output_padding": [1, 2]},
        {"stride": (2, 3), "padding": (1, 0), "output_padding": (1, 2)},
    ),
    "dilations": ({"dilations": [2, 1], "pads": [3, 1, 3, 1]}, {"dilation": (2, 1), "padding": (3, 1)}),
    "groups": ({"group": 2, "strides": [2, 2]}, {"groups": 2, "stride": 2}),
}


@pytest.mark.parametrize("form", TRANSPOSED)
def test_transposed_convolutions(form):
    attributes, given = TRANSPOSED[form]
    rng, groups = np.random.default_rng(0), attributes.get("group", 1)
    weight, bias = rng.standard_normal((4, 3, 3, 2)).astype(np.float32), rng.standard_normal(3 * groups)
    x = rng.standard_normal((2, 4, 5, 4))
    nodes = [helper.make_node("ConvTranspose", ["x", "w", "b"], ["y"], **attributes)]
    tensors = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in (("w", weight), ("b", bias))]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy"]
    graph = helper.make_graph(nodes, "one", values[:1], values[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    found = run(without_convolutions(in_double(model)), x)
    wide = [torch.tensor(array.astype(np.float32).astype(np.float64)) for array in (weight, bias)]
    expected = F.conv_transpose2d(torch.tensor(x), *wide, **given)
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-12)


SPELLED = {
    "Erf": ({}, torch.erf),
    "Gelu": ({}, F.gelu),
    "Gelu tanh": ({"approximate": "tanh"}, lambda x: F.gelu(x, approximate="tanh")),
    "HardSwish": ({}, F.hardswish),
    "HardSigmoid": ({"alpha": 1 / 6}, F.hardsigmoid),
    "Softplus": ({}, F.softplus),
    "Softsign": ({}, F.softsign),
    "Elu": ({"alpha": 0.7}, lambda x: F.elu(x, 0.7)),
    "Selu": ({}, F.selu),
    "Celu": ({"alpha": 1.5}, lambda x: F.celu(x, 1.5)),
    "Mish": ({}, F.mish),
    "LeakyRelu": ({"alpha": 0.3}, lambda x: F.leaky_relu(x, 0.3)),
    "ThresholdedRelu": ({"alpha": 0.6}, lambda x: F.threshold(x, 0.6, 0)),
    "GlobalAveragePool": ({}, lambda x: x.mean((2, 3, 4), keepdim=True)),
    "GlobalMaxPool": ({}, lambda x: x.amax((2, 3, 4), keepdim=True)),
    "AveragePool": (
        {"kernel_shape": [3, 2, 2], "pads": [1, 0, 1, 1, 0, 1], "strides": [2, 1, 1]},
        lambda x: F.avg_pool3d(x, (3, 2, 2), (2, 1, 1), (1, 0, 1), count_include_pad=False),
    ),
    "AveragePool padded": (
        {"kernel_shape": [2, 2, 2], "pads": [1] * 6, "count_include_pad": 1},
        lambda x: F.avg_pool3d(x, 2, 1, 1),
    ),
}


@pytest.mark.parametrize("form", SPELLED)
def test_operators_that_the_runtime_does_not_have_in_float64(form):
    attributes, function = SPELLED[form]
    x = 4 * np.random.default_rng(0).standard_normal((2, 3, 4, 5, 6))
    node = helper.make_node(form.split()[0], ["x"], ["y"], **attributes)
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in (("x", x.shape), ("y", None))
    ]
    graph = helper.make_graph([node], "one", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    found = run(in_double(model), x)
    np.testing.assert_allclose(
        found, function(torch.tensor(x)).numpy(), rtol=0, atol=1e-6 if form in ("Selu", "Hard") else 3e-7
    )


@pytest.mark.parametrize("aligned", [0, 1])
@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_bilinear_sampling_at_computed_positions(padding, aligned):
    """As deformable attention writes it; the runtime's own GridSample is float32."""
    rng = np.random.default_rng(3)
    x, grid = rng.standard_normal((2, 3, 4, 5)), 1.3 * rng.uniform(-1, 1, (2, 6, 7, 2))
    node = helper.make_node("GridSample", ["x", "g"], ["y"], padding_mode=padding, align_corners=aligned)
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", x.shape), ("g", grid.shape))]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3, 6, 7])
    model = helper.make_model(
        helper.make_graph([node], "one", values, [output]), opset_imports=[helper.make_opsetid("", 20)], ir_version=9
    )
    found = quiet_session(in_double(model)).run(None, {"x": x, "g": grid})[0]
    expected = F.grid_sample(torch.tensor(x), torch.tensor(grid), "bilinear", padding, align_corners=bool(aligned))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-12)


def test_instance_normalisation_and_slopes_per_channel():
    rng = np.random.default_rng(1)
    x, scale, bias, slope = (rng.standard_normal(s) for s in ((2, 3, 4, 5), 3, 3, (3, 1, 1)))
    nodes = [
        helper.make_node("InstanceNormalization", ["x", "s", "b"], ["n"], epsilon=0.01),
        helper.make_node("PRelu", ["n", "p"], ["y"]),
    ]
    arrays = {"s": scale, "b": bias, "p": slope}
    tensors = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in (("x", x.shape), ("y", None))
    ]
    graph = helper.make_graph(nodes, "two", values[:1], values[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    wide = {name: torch.tensor(array.astype(np.float32).astype(np.float64)) for name, array in arrays.items()}
    unit = F.instance_norm(torch.tensor(x), weight=wide["s"], bias=wide["b"], eps=float(np.float32(0.01)))
    np.testing.assert_allclose(run(in_double(model), x), F.prelu(unit, wide["p"].ravel()).numpy(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("given", ["initializer", "constant"])
@pytest.mark.parametrize("scales", [(1, 1, 2, 2), (1, 1, 3, 1), (2, 1, 1, 4)])
def test_nearest_upsampling_is_exact_to_float64(scales, given):
    """As exporters of YOLO's and other pyramids write it; the runtime's own Resize is float32."""
    attributes = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    tensor = numpy_helper.from_array(np.array(scales, np.float32), "s")
    nodes = [helper.make_node("Resize", ["x", "", "s"], ["y"], **attributes)]
    if given == "constant":
        nodes.insert(0, helper.make_node("Constant", [], ["s"], value=tensor))
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5))
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [tensor] * (given == "initializer"),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    found, single = run(in_double(model), x), run(model, x.astype(np.float32))
    for axis, factor in enumerate(scales):
        x = np.repeat(x, factor, axis)
    assert found.dtype == np.float64 and np.array_equal(found, x)
    np.testing.assert_array_equal(single, x.astype(np.float32))


def test_weights_that_are_nodes_are_checked_in_float64_too():
    """As Paddle2ONNX writes them: in float32 no difference would tell a gradient of 1e-5 from its noise."""
    rng = np.random.default_rng(0)
    arrays = {
        "w": rng.standard_normal((4, 3, 3, 3)),
        "k": rng.standard_normal((4, 2, 2, 2)),
        "m": rng.normal(size=(2, 3)),
    }
    constants = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array.astype(np.float32), name))
        for name, array in arrays.items()
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["map"], name="map", pads=[1] * 4),
        helper.make_node("ConvTranspose", ["map", "k"], ["wide"], strides=[2, 2]),
        helper.make_node("Tanh", ["wide"], ["bent"]),
        helper.make_node("GlobalAveragePool", ["bent"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "m"], ["y"]),
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
        for name, dims in (("x", ["N", 3, 8, 8]), ("y", ["N", 3]))
    ]
    graph = helper.make_graph([*constants, *nodes], "nodes", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    assert export_model(model, layer="map").check["gradient_error"] < 1e-6
