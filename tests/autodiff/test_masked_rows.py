"""Attention rows without any key: their gradient is zero, in every form in which files mask. PyTorch is the oracle.

What PyTorch differentiates leaves such rows out: its own gradient of them is NaN.
"""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from fastcam_export import export_model, vjp
from support.models.quantized import run_targets
from support.rules.runs import run

torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")

B, S, H = 2, 4, 3
SEEN = np.ones((B, S, S), bool)
SEEN[0, 2] = False  # a query that sees nothing
SEEN[1, :, 1] = False  # a key that nothing sees
SEEN[1, 0, 0] = False
ADDED = np.where(SEEN, 0, -np.inf).astype(np.float32)
FILLED = np.full((B, S, S), -np.inf, np.float32)
ROWS = np.array([0, 1, 3])
"""What is read where NaN stays: the rows that see something, in both pictures."""

READ = ["Identity p -> w", "MatMul w v -> all", "Gather all rows -> y"]
CLEANED = ["IsNaN p -> nan", "Where nan zero p -> w", "MatMul w v -> y"]
FORMS = {
    "where, cleaned": (["Where seen s filled -> m", "Softmax m -> p", *CLEANED], ("seen", "filled", "zero"), ()),
    "added, cleaned": (["Add s added -> m", "Softmax m -> p", *CLEANED], ("added", "zero"), ()),
    "added, fed, cleaned": (["Add s added -> m", "Softmax m -> p", *CLEANED], ("zero",), ("added",)),
    "where, fed, cleaned": (["Where seen s filled -> m", "Softmax m -> p", *CLEANED], ("filled", "zero"), ("seen",)),
    "added, not read": (["Add s added -> m", "Softmax m -> p", *READ], ("added", "rows"), ()),
    "where, not read": (["Where seen s filled -> m", "Softmax m -> p", *READ], ("seen", "filled", "rows"), ()),
    "where of a mask that is made, not read": (
        ["Where seen zero low -> a", "Add s a -> m", "Softmax m -> p", *READ], ("zero", "low", "rows"), ("seen",),
    ),
    "turned round, not read": (
        ["Add s added -> m", "Softmax m -> p", "Transpose2 p -> pt", "Transpose2 v -> vt", "MatMul vt pt -> yt",
         "Transpose2 yt -> all", "Gather all rows -> y"], ("added", "rows"), (),
    ),
    "logarithm, not read": (
        ["Add s added -> m", "LogSoftmax m -> l", "Gather l rows -> lr", "Exp lr -> p", "MatMul p v -> y"],
        ("added", "rows"), (),
    ),
    "a copy behind, not read": (
        ["Add s added -> m", "Softmax m -> p", "MatMul p v -> h", "Gather h rows -> r", "Tanh r -> t", "Mul t t -> y"],
        ("added", "rows"), (),
    ),
    "the operator": (["Attention q4 k4 v4 seen4 -> y4", "Squeeze y4 one -> y"], ("seen4", "one"), ()),
}  # fmt: skip
CONSTANTS = {
    "added": ADDED, "seen": SEEN, "filled": FILLED, "zero": np.float32(0), "low": np.float32(-np.inf), "rows": ROWS,
    "one": np.array([1]), "seen4": SEEN[:, None],
}  # fmt: skip


def model(lines, constants, fed, opset=18):
    nodes = [
        helper.make_node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "kt"], ["s"]),
    ]
    if opset > 18:
        nodes = [helper.make_node("Unsqueeze", [name, "one"], [f"{name}4"]) for name in "qkv"]
    for line in lines:
        left, output = line.split(" -> ")
        op_type, *names = left.split()
        more = {"Gather": {"axis": 1}, "Transpose2": {"perm": [0, 2, 1]}, "Attention": {"scale": 1.0}}.get(op_type, {})
        nodes.append(helper.make_node(op_type.rstrip("2"), names, [output], **more))
    value = helper.make_tensor_value_info
    inputs = [value(name, TensorProto.FLOAT, [B, S, H]) for name in "qkv"]
    inputs += [value(name, helper.np_dtype_to_tensor_dtype(CONSTANTS[name].dtype), [B, S, S]) for name in fed]
    graph = helper.make_graph(
        nodes, "masked", inputs, [value("y", TensorProto.FLOAT, [B, None, H])],
        [numpy_helper.from_array(CONSTANTS[name], name) for name in constants],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


@pytest.mark.parametrize("name", FORMS)
def test_rows_without_a_key_have_no_gradient(name):
    lines, constants, fed = FORMS[name]
    made = model(lines, constants, fed, 23 if name == "the operator" else 18)
    rng = np.random.default_rng(0)
    feeds = {each: rng.standard_normal((B, S, H)).astype(np.float32) for each in "qkv"}
    given = {each: CONSTANTS[each] for each in fed}
    q, k, v = (torch.tensor(array, dtype=torch.float64, requires_grad=True) for array in feeds.values())
    some = torch.tensor(SEEN.any(2, keepdims=True))
    s = torch.where(some, (q @ k.mT).masked_fill(~torch.tensor(SEEN), -torch.inf), 0.0)
    y = torch.where(some, s.softmax(2), 0.0) @ v
    y = y[:, ROWS] if "rows" in constants else y
    y = y.tanh().square() if "copy" in name else y
    own = run(made, {**feeds, **given})["y"]
    seed = rng.standard_normal(y.shape).astype(np.float32)
    if name == "the operator":  # what the runtime gives there is its own
        seed[~SEEN.any(2)] = 0
    else:
        there = np.isfinite(own)
        np.testing.assert_allclose(own[there], y.detach().numpy()[there], atol=1e-5)
        seed[~there] = 0
    expected = torch.autograd.grad(y, (q, k, v), torch.tensor(seed.astype(np.float64)))
    got = run(vjp(made, wrt=["q", "k", "v"]), {**feeds, **given, "cotangent.y": seed})
    for each, gradient in zip("qkv", expected):
        np.testing.assert_allclose(got[f"grad.{each}"], gradient.numpy(), atol=1e-5, err_msg=each)


def test_a_whole_model_has_maps_of_numbers_for_several_targets():
    """tokens of a convolution, one of which sees none; the mean of all is classified"""
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 4, stride=4), torch.nn.Flatten(2)).double()
    matrix = torch.randn(5, 4, dtype=torch.float64)
    seen = torch.rand(4, 4) < 0.7
    seen[2], seen[0, 0], seen[1, 1], seen[3, 3] = False, True, True, True
    constants = {
        "w": net[0].weight, "b": net[0].bias, "m": matrix, "added": torch.where(seen, 0.0, -torch.inf),
        "zero": torch.tensor(0.0),
    }  # fmt: skip
    make = helper.make_node
    nodes = [
        make("Conv", ["x", "w", "b"], ["maps"], strides=[4, 4]),
        make("Tanh", ["maps"], ["t"]),
        make("Reshape", ["t", "flat"], ["rows"]),
        make("Transpose", ["rows"], ["q"], perm=[0, 2, 1]),
        make("MatMul", ["q", "rows"], ["s"]),
        make("Add", ["s", "added"], ["masked"]),
        make("Softmax", ["masked"], ["p"]),
        make("IsNaN", ["p"], ["nan"]),
        make("Where", ["nan", "zero", "p"], ["clean"]),
        make("MatMul", ["clean", "q"], ["mixed"]),
        make("ReduceMean", ["mixed", "axis"], ["mean"], keepdims=0),
        make("MatMul", ["mean", "m"], ["y"]),
    ]
    tensors = [numpy_helper.from_array(a.detach().numpy().astype(np.float32), name) for name, a in constants.items()]
    tensors += [numpy_helper.from_array(np.array(a), name) for name, a in (("flat", [0, 5, 4]), ("axis", [1]))]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "whole",
        [value("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [value("y", TensorProto.FLOAT, ["N", 4])],
        tensors,
    )
    exported = export_model(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10),
        layer="t",
        emit="gradients",
    )
    assert exported.check["bit_identical"] and exported.check["gradient_error"] < 1e-5
    x = torch.randn(2, 3, 8, 8)
    got = run_targets(exported.model, {"x": x.numpy(), "fastcam.targets": np.array([[1, 3]])})["fastcam.gradients"]
    maps = net[0](x.double()).tanh().detach().requires_grad_()
    q = maps.flatten(2).mT
    p = torch.where(
        seen.any(1, keepdim=True), q @ q.mT + torch.where(seen | ~seen.any(1, keepdim=True), 0, -torch.inf), 0
    )
    y = (p.softmax(2) * seen.any(1, keepdim=True) @ q).mean(1) @ matrix
    for index, which in enumerate((1, 3)):
        (expected,) = torch.autograd.grad(y[:, which].sum(), maps, retain_graph=True)
        np.testing.assert_allclose(got[:, index], expected.numpy(), atol=1e-6)
