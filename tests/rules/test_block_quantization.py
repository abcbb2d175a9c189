"""Quantisation with a scale per channel or per block, and the gradient of the scale itself."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from fastcam_export import export_model, vjp
from support.models.quantized import PAIR, SEED, X, gradient, graph, quantise, run_targets
from support.rules.runs import run


def test_another_scale_per_channel_on_the_way_back_is_a_factor():
    s, s2 = (np.linspace(*ends, 5, dtype=np.float32) for ends in ((0.02, 0.04), (0.1, 0.03)))
    z = np.full(5, 128, np.uint8)
    nodes = [("Identity x -> a", {}), (PAIR[0][0], {"axis": 2}), ("DequantizeLinear q s2 z -> y", {"axis": 2})]
    code = quantise(X, s[:, None], 128, 0, 255)
    factor = (s2 / s)[:, None]
    expected = np.where((code > 0) & (code < 255), factor * SEED, 0)
    np.testing.assert_allclose(gradient(graph(nodes, s=s, s2=s2, z=z)), expected, rtol=1e-6)


def blocks(axis, size, seed=3):
    """Scales and zero points of blocks of ``size`` along ``axis``, and both beside every element of x."""
    shape = [-(-n // size) if a == axis else n for a, n in enumerate(X.shape)]
    rng = np.random.default_rng(seed)
    s, z = rng.uniform(0.01, 0.04, shape).astype(np.float32), rng.integers(-60, 60, shape).astype(np.int8)
    return s, z, *(each.repeat(size, axis).take(range(X.shape[axis]), axis) for each in (s, z))


@pytest.mark.parametrize(("axis", "size"), [(3, 2), (3, 4), (1, 2), (0, 2), (2, 3)])
def test_blocks_saturate_apart(axis, size):
    s, z, each_s, each_z = blocks(axis, size)
    nodes = [("Identity x -> a", {}), *((line, {"axis": axis, "block_size": size}) for line, _ in PAIR)]
    code = quantise(X, each_s, each_z.astype(float), -128, 127)
    passes = (code > -128) & (code < 127)
    assert 0.05 < passes.mean() < 0.95
    model = with_fixed_batch(graph(nodes, opset=21, s=s, z=z))
    np.testing.assert_array_equal(gradient(model), np.where(passes, SEED, 0))


def test_a_clip_before_blocks_is_read_behind_them():
    """Its limits are other codes in every block."""
    s, z, each_s, each_z = blocks(3, 2)
    nodes = [("Clip x low high -> a", {}), *((line, {"axis": 3, "block_size": 2}) for line, _ in PAIR)]
    ends = {"low": np.float32(-0.5), "high": np.float32(0.75)}
    code = quantise(np.clip(X, -0.5, 0.75), each_s, each_z.astype(float), -128, 127)
    low, high = (np.rint(end / each_s.astype(float) + each_z) for end in ends.values())
    passes = (code > np.maximum(low, -128)) & (code < np.minimum(high, 127))
    model = with_fixed_batch(graph(nodes, opset=21, s=s, z=z, **ends))
    np.testing.assert_array_equal(gradient(model), np.where(passes, SEED, 0))


def with_fixed_batch(model):
    """Blocks have a scale for each image."""
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = len(X)
    return model


STEPS = {
    "one": ({}, (), lambda x: x.reshape(1, -1), lambda rows: rows.reshape(X.shape)),
    "per channel": (
        {"axis": 1},
        (4,),
        lambda x: x.swapaxes(0, 1).reshape(4, -1),
        lambda rows: rows.reshape(4, 2, 5, 6).swapaxes(0, 1),
    ),
    "blocks": (
        {"axis": 3, "block_size": 3},
        (2, 4, 5, 2),
        lambda x: x.reshape(-1, 3),
        lambda rows: rows.reshape(X.shape),
    ),
}
"""Attributes, the shape of the scales, an array with a row for each of them, and back."""


@pytest.mark.parametrize("form", STEPS)
def test_the_gradient_of_the_scale_is_that_of_a_learned_step_size(form):
    """As PyTorch's learnable fake quantisation has it (Esser et al. 2020), but for the codes at the ends."""
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of this test")
    attributes, shape, rows, back = STEPS[form]
    s = np.asarray(np.random.default_rng(5).uniform(0.01, 0.04, shape), np.float32)
    z = np.asarray(np.random.default_rng(6).integers(-60, 60, shape), np.int8)
    nodes = [("Identity x -> a", {}), *((line, attributes) for line, _ in PAIR)]
    model = vjp(with_fixed_batch(graph(nodes, opset=21, s=s, z=z)), wrt=["s", "x"])
    code = np.rint(rows(X) / s.reshape(-1, 1)) + z.reshape(-1, 1)
    seed = np.where((code == -128) | (code == 127), 0, rows(SEED))

    scale = torch.tensor(s.reshape(-1), requires_grad=True)
    zero, image = torch.tensor(z.reshape(-1).astype(np.float32)), torch.tensor(rows(X))
    y = torch._fake_quantize_learnable_per_channel_affine(image, scale, zero, 0, -128, 127, 1.0)
    (expected,) = torch.autograd.grad(y, scale, torch.tensor(seed))
    got = run(model, {"x": X, "cotangent.y": np.ascontiguousarray(back(seed))})["grad.s"]
    size = float(expected.abs().max())
    np.testing.assert_allclose(got.reshape(-1), expected.numpy(), rtol=1e-4, atol=1e-4 * size)


def test_a_classifier_quantised_in_blocks_is_exported_and_checked():
    """The check's central differences, of the graph without rounding, know where each block saturates."""
    rng = np.random.default_rng(8)
    scales, zeros = rng.uniform(0.002, 0.01, (1, 6, 4, 8)), np.zeros((1, 6, 4, 8), np.uint8)
    arrays = {"w": rng.standard_normal((6, 3, 3, 3)) / 4, "s": scales, "fc": rng.standard_normal((6, 5)) / 4}
    tensors = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
    tensors.append(numpy_helper.from_array(zeros, "z"))
    blocks = {"axis": 2, "block_size": 2}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["map"], pads=[1, 1, 1, 1]),
        helper.make_node("Neg", ["map"], ["turned"]),
        helper.make_node("QuantizeLinear", ["turned", "s", "z"], ["q"], **blocks),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["positive"], **blocks),
        helper.make_node("Mul", ["positive", "positive"], ["squared"]),
        helper.make_node("GlobalAveragePool", ["squared"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["features"]),
        helper.make_node("Gemm", ["features", "fc"], ["logits"]),
    ]
    value = helper.make_tensor_value_info
    inputs, outputs = value("x", TensorProto.FLOAT, [1, 3, 8, 8]), value("logits", TensorProto.FLOAT, [1, 5])
    made = helper.make_graph(nodes, "blocks", [inputs], [outputs], tensors)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    exported = export_model(model, layer="map", emit="gradients")
    assert exported.check["gradient_error"] < 1e-2  # codes at the ends count as saturated
    image = rng.standard_normal((1, 3, 8, 8)).astype(np.float32)
    got = run_targets(exported.model, {"x": image, "fastcam.targets": np.array([[3]])})
    each = scales.astype(np.float32).repeat(2, 2)
    code = quantise(-got["fastcam.activations"], each, 0, 0, 255)
    slope = -2 * code * each * arrays["fc"][:, 3].reshape(1, 6, 1, 1) / 64
    expected = np.where((code > 0) & (code < 255), slope, 0)
    assert 0.05 < np.mean(code == 255) < 0.95
    np.testing.assert_allclose(got["fastcam.gradients"][:, 0], expected, rtol=1e-4, atol=1e-6)
