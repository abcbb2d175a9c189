"""Operators on integers: gradients against PyTorch's of the float operators, at the integers of ONNX Runtime."""

from functools import partial

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fastcam_export import UnsupportedOperator, export_model, inspect_model, vjp
from fastcam_export.autodiff.core.integers import INTEGERS
from fastcam_export.graph.load import load
from support.models.quantized import run_targets
from support.rules.runs import run

torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")
F = torch.nn.functional

X = np.random.default_rng(0).uniform(-2, 2, (2, 4, 6, 5)).astype(np.float32)
ROWS = X[:, :, 0]  # [2, 4, 5]
S, Z = np.float32(4.2 / 255), np.uint8(127)  # x never reaches an end
R = np.random.default_rng(1)
KERNEL = R.integers(-80, 80, (3, 4, 3, 3)).astype(np.int8)
SCALES = np.linspace(0.005, 0.01, 3).astype(np.float32)
MATRIX, COLUMNS = R.integers(-80, 80, (5, 3)).astype(np.int8), R.integers(-80, 80, (4, 3)).astype(np.int8)
BIAS = R.integers(-4000, 4000, 3).astype(np.int32)
OTHER = R.integers(30, 220, X.shape).astype(np.uint8)
CONSTANTS = {
    "s": S, "z": Z, "k": KERNEL, "ks": SCALES, "kz": np.zeros(3, np.int8), "b": BIAS, "m": MATRIX, "c": COLUMNS,
    "ws": np.float32(0.01), "wz": np.int8(3), "t": np.float32(0.02), "tz": np.uint8(120), "o": OTHER,
    "os": np.float32(0.015), "oz": np.uint8(128), "one": np.float32(1 / 256), "nil": np.uint8(0),
    "which": R.random(X.shape) < 0.5,
    "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "up": np.float32([1, 1, 2, 2]), "low": np.uint8(90),
    "high": np.uint8(200),
    "qkv": R.integers(-80, 80, (5, 24)).astype(np.int8), "qb": R.standard_normal(24).astype(np.float32),
    "wss": np.linspace(0.004, 0.01, 24).astype(np.float32), "ws0": np.zeros(24, np.int8),
    "seen": np.array([[1, 1, 0, 1], [0, 1, 1, 1]], np.int32),
    "lw": R.integers(-80, 80, (2, 5, 12)).astype(np.int8), "lr": R.integers(-80, 80, (2, 3, 12)).astype(np.int8),
    "ls": np.float32([0.01, 0.008]), "l0": np.int8([3, -2]), "lb": R.standard_normal((2, 24)).astype(np.float32),
    "lss": np.linspace(0.004, 0.01, 24).astype(np.float32).reshape(2, 12), "ls0": np.zeros((2, 12), np.int8),
}  # fmt: skip


def real(name, scale, zero=0.0, axis=0):
    """The numbers that a constant stands for, as a tensor of PyTorch."""
    scale, zero = (np.asarray(CONSTANTS.get(v, v) if isinstance(v, str) else v, np.float64) for v in (scale, zero))
    column = [-1 if each == axis else 1 for each in range(CONSTANTS[name].ndim)] if scale.ndim else []
    return torch.tensor((CONSTANTS[name] - zero.reshape(column)) * scale.reshape(column))


def window(x):
    return F.conv2d(x, real("k", "ks", "kz"), torch.tensor(BIAS * S * SCALES.astype(np.float64)), padding=1)


def attention(x, mask=None):
    """Two heads of [q, k, v] = x w + b."""
    total = x @ real("qkv", "wss", "ws0", axis=1) + torch.tensor(CONSTANTS["qb"])
    q, k, v = total.reshape(*x.shape[:2], 3, 2, -1).permute(2, 0, 3, 1, 4)
    mask = None if mask is None else torch.tensor(CONSTANTS[mask][:, None, None] != 0)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return y.permute(0, 2, 1, 3).reshape(*x.shape[:2], -1)


def lstm(x, columns=False):
    """Both directions over the first axis, in ONNX's order of gates."""
    scale, zero = ("lss", "ls0") if columns else ("ls", "l0")
    made = torch.nn.LSTM(5, 3, bidirectional=True).double()
    order = [*range(3), *range(6, 9), *range(9, 12), *range(3, 6)]  # input, output, forget, cell to input, forget, ...
    for name, stored in (("ih", "lw"), ("hh", "lr")):
        for which, end in enumerate(("", "_reverse")):
            step, shift = CONSTANTS[scale][which].astype(np.float64), CONSTANTS[zero][which].astype(np.float64)
            weight = ((CONSTANTS[stored][which] - shift) * step).T[order]
            getattr(made, f"weight_{name}_l0{end}").data = torch.tensor(weight)
            bias = CONSTANTS["lb"][which].reshape(2, 12)[0 if name == "ih" else 1][order]
            getattr(made, f"bias_{name}_l0{end}").data = torch.tensor(bias, dtype=torch.float64)
    y, _ = made(x)
    return y.reshape(*x.shape[:2], 2, 3).transpose(1, 2)


MICROSOFT = {"domain": "com.microsoft"}
LSTM = {"hidden_size": 3, "direction": "bidirectional", **MICROSOFT}
PADDED = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
CASES = {
    "QLinearConv": (X, "QLinearConv q s z k ks kz t tz b", PADDED, window),
    "com.microsoft.QLinearConv": (X, "QLinearConv q s z k ks kz t tz b", {**PADDED, **MICROSOFT}, window),
    "QLinearMatMul": (ROWS, "QLinearMatMul q s z m ws wz t tz", {}, lambda x: x @ real("m", "ws", "wz")),
    "com.microsoft.QGemm": (
        ROWS[:, :, 0], "QGemm q s z c ws wz b t tz", MICROSOFT,
        lambda x: x @ real("c", "ws", "wz") + torch.tensor(BIAS * float(S) * float(np.float32(0.01))),
    ),
    "com.microsoft.QLinearAdd": (X, "QLinearAdd q s z o os oz t tz", MICROSOFT, lambda x: x + real("o", "os", "oz")),
    "com.microsoft.QLinearMul": (X, "QLinearMul o os oz q s z t tz", MICROSOFT, lambda x: x * real("o", "os", "oz")),
    "com.microsoft.QLinearAveragePool": (
        X, "QLinearAveragePool q s z t tz", {**PADDED, **MICROSOFT},
        lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
    ),
    "com.microsoft.QLinearGlobalAveragePool": (
        X, "QLinearGlobalAveragePool q s z t tz", MICROSOFT, lambda x: x.mean((2, 3), keepdim=True),
    ),
    "com.microsoft.QLinearConcat": (
        X, "QLinearConcat t tz q s z o os oz", {"axis": 1, **MICROSOFT},
        lambda x: torch.cat([x, real("o", "os", "oz")], 1),
    ),
    "com.microsoft.QLinearLeakyRelu": (
        X, "QLinearLeakyRelu q s z t tz", {"alpha": 0.3, **MICROSOFT}, lambda x: F.leaky_relu(x, 0.3),
    ),
    "com.microsoft.QLinearSigmoid": (X, "QLinearSigmoid q s z one nil", MICROSOFT, torch.sigmoid),
    "com.microsoft.QLinearSoftmax": (
        ROWS, "QLinearSoftmax q s z one nil", {"axis": 2, "opset": 13, **MICROSOFT}, lambda x: x.softmax(2),
    ),
    "com.microsoft.QLinearWhere": (
        X, "QLinearWhere which q s z o os oz t tz", MICROSOFT,
        lambda x: torch.where(torch.tensor(CONSTANTS["which"]), x, real("o", "os", "oz")),
    ),
    "ConvInteger": (X, "ConvInteger q k z", PADDED, lambda x: F.conv2d(x / float(S), real("k", 1.0), padding=1)),
    "MatMulInteger": (ROWS, "MatMulInteger q m z wz", {}, lambda x: x / float(S) @ real("m", 1.0, "wz")),
    "com.microsoft.MatMulIntegerToFloat": (
        ROWS, "MatMulIntegerToFloat q m s ws z wz", MICROSOFT, lambda x: x @ real("m", "ws", "wz"),
    ),
    "com.microsoft.DynamicQuantizeMatMul": (
        ROWS, "DynamicQuantizeMatMul x m ws wz", MICROSOFT, lambda x: x @ real("m", "ws", "wz"),
    ),
    "com.microsoft.QAttention": (
        ROWS, "QAttention q qkv qb s wss nothing z ws0", {"num_heads": 2, **MICROSOFT}, attention,
    ),
    "com.microsoft.DynamicQuantizeLSTM": (
        ROWS, "DynamicQuantizeLSTM x lw lr lb nothing nothing nothing nothing ls l0 ls l0", LSTM, lstm,
    ),
}  # fmt: skip
FORMS = {
    **CASES,
    "QAttention, keys": (
        ROWS, "QAttention q qkv qb s wss seen z ws0", {"num_heads": 2, **MICROSOFT}, partial(attention, mask="seen"),
    ),
    "DynamicQuantizeLSTM, a scale to the column": (
        ROWS, "DynamicQuantizeLSTM x lw lr lb nothing nothing nothing nothing lss ls0 lss ls0", LSTM,
        partial(lstm, columns=True),
    ),
}  # fmt: skip
COUNTS = {"ConvInteger", "MatMulInteger"}
FLOATS = {"DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QAttention"}
NO_KERNEL = {"com.microsoft.QLinearReduceMean"}
SELECTIONS = {
    "MaxPool": ("MaxPool q", {"kernel_shape": [2, 2], "strides": [2, 2]}, lambda x: F.max_pool2d(x, 2)),
    "Pad": ("Pad q pads z", {}, lambda x: F.pad(x, (1, 1, 1, 1))),
    "Resize": ("Resize q nothing up", {"mode": "nearest"}, lambda x: x.repeat_interleave(2, 2).repeat_interleave(2, 3)),
    "Clip": ("Clip q low high", {}, lambda x: x.clamp((90 - 127) * float(S), (200 - 127) * float(S))),
    "DepthToSpace": ("DepthToSpace q", {"blocksize": 2}, lambda x: F.pixel_shuffle(x, 2)),
}


def model(x, lines):
    """x -> QuantizeLinear -> the lines "operator inputs -> output" -> y, three axes or four as ``x`` has them."""
    nodes = [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"])]
    for line, attributes in lines:
        left, _, output = line.partition(" -> ")
        op_type, *names = left.split()
        names = ["" if name == "nothing" else name for name in names]
        nodes.append(helper.make_node(op_type, names, [output], f"{output}_node", **attributes))
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [None] * (4 if "LSTM" in lines[0][0] else x.ndim))],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in CONSTANTS.items() if name in used],
    )
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def compared(x, made, function, passes=None):
    """The gradient at x, and PyTorch's at the numbers that ``q`` stands for."""
    values = run(made, {"x": x})
    seed = np.random.default_rng(2).standard_normal(values["out"].shape).astype(np.float32)
    got = run(vjp(made), {"x": x, "cotangent.out": seed})["grad.x"]
    rounded = any("q" in node.input for node in made.graph.node)
    at = torch.tensor(
        np.rint(x / S).astype(np.float64) * float(S) if rounded else x.astype(np.float64), requires_grad=True
    )
    y = function(at)
    kept = torch.tensor(-seed.astype(np.float64))
    if passes is not None:
        kept = torch.where(torch.tensor(passes(y.detach().numpy())), kept, 0.0)
    (expected,) = torch.autograd.grad(y, at, kept)
    return got, expected.numpy(), -values["out"], y.detach().numpy()


def test_every_integer_operator_has_a_case():
    assert {*CASES, *NO_KERNEL} == set(INTEGERS)


@pytest.mark.parametrize("name", FORMS)
def test_the_gradient_is_that_of_the_float_operator_where_nothing_saturates(name):
    x, line, attributes, function = FORMS[name]
    plain = line.partition(" ")[0]
    last = [("Cast y -> f", {"to": TensorProto.FLOAT})] if plain in COUNTS else [("DequantizeLinear y t tz -> f", {})]
    if plain in ("QLinearSigmoid", "QLinearSoftmax"):
        last = [("DequantizeLinear y one nil -> f", {})]
    last = [("Identity y -> f", {})] if plain in FLOATS else last
    made = model(x, [(f"{line} -> y", attributes), *last, ("Neg f -> out", {})])

    def passes(y):
        code = np.rint(y / 0.02) + 120
        return (code > 0) & (code < 255) if "DequantizeLinear y t" in last[0][0] else np.ones(y.shape, bool)

    got, expected, values, y = compared(x, made, function, passes)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    inside = passes(y)
    step = 0.02 if "DequantizeLinear y t" in last[0][0] else 1 / 256 if "one" in last[0][0] else 1e-2 * np.abs(y).max()
    assert np.abs(values - y)[inside].max() <= 0.51 * step and inside.mean() > 0.5  # the float form is the operator's


@pytest.mark.parametrize("name", SELECTIONS)
def test_operators_that_select_integers_are_their_float_forms(name):
    line, attributes, function = SELECTIONS[name]
    made = model(X, [(f"{line} -> y", attributes), ("DequantizeLinear y s z -> f", {}), ("Neg f -> out", {})])
    got, expected, values, y = compared(X, made, function)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(values, y, atol=1e-6)


def test_a_cast_of_integers_divides_by_their_scale():
    made = model(X, [("Cast q -> f", {"to": TensorProto.FLOAT}), ("Neg f -> out", {})])
    got, expected, *_ = compared(X, made, lambda x: x / float(S))
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_arithmetic_on_integers_is_refused_and_named():
    made = model(X, [("Add q z -> y", {}), ("DequantizeLinear y s z -> f", {}), ("Neg f -> out", {})])
    with pytest.raises(UnsupportedOperator, match=r"Add.*quantised"):
        vjp(made)


# ---- whole models


def classifier():
    """Integers from the picture to the scores: two convolutions, a sum around one, pools, QGemm."""
    lines = [
        ("QLinearConv q s z k1 ws kz1 t nil b1 -> c1", PADDED),
        ("MaxPool c1 -> p", {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("QLinearConv p t nil k2 ws kz1 t tz b1 -> c2", PADDED),
        ("QLinearAdd c2 t tz p t nil t nil -> sum", MICROSOFT),
        ("QLinearGlobalAveragePool sum t nil t nil -> g", MICROSOFT),
        ("Flatten g -> v", {}),
        ("QGemm v t nil fc ws wz nothing os oz -> l", MICROSOFT),
        ("DequantizeLinear l os oz -> out", {}),
    ]
    rng = np.random.default_rng(5)
    more = {
        "k1": rng.integers(-90, 90, (6, 3, 3, 3)).astype(np.int8),
        "k2": rng.integers(-30, 30, (6, 6, 3, 3)).astype(np.int8),
        "kz1": np.int8(0),
        "b1": rng.integers(-900, 900, 6).astype(np.int32),
        "fc": rng.integers(-90, 90, (6, 4)).astype(np.int8),
    }
    CONSTANTS.update(more)
    made = model(np.zeros((2, 3, 12, 12), np.float32), lines)
    made.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    made.graph.output[0].CopyFrom(helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", 4]))
    return made


PICTURES = np.random.default_rng(6).standard_normal((2, 3, 12, 12)).astype(np.float32)


def test_a_model_of_integers_is_explained_at_its_last_map():
    made = classifier()
    found = inspect_model(made)
    assert [line.name for line in found.layers if line.chosen] == ["sum"] and found.missing == []
    exported = export_model(made)
    assert exported.check["bit_identical"] and exported.check["gradient_error"] < 1e-3
    out = run_targets(exported.model, {"x": PICTURES, "fastcam.targets": np.array([[-1, 2]])})
    made.graph.output.append(helper.make_tensor_value_info("sum", TensorProto.UINT8, None))
    codes = run(made, {"x": PICTURES})["sum"]
    np.testing.assert_allclose(out["fastcam.activations"], codes * np.float32(0.02), rtol=1e-6)
    fc = (CONSTANTS["fc"].astype(float) - 3) * 0.01 / 36
    np.testing.assert_allclose(out["fastcam.weights"], fc[:, out["fastcam.classes"]].transpose(1, 2, 0), rtol=1e-5)


@pytest.mark.parametrize("layer", ["c1", "p"])
@pytest.mark.parametrize("emit", ["weights", "gradients"])
def test_a_map_further_in_front_is_confirmed_by_differences(layer, emit):
    exported = export_model(classifier(), layer=layer, emit=emit)
    assert exported.check["bit_identical"] and 0 < exported.check["gradient_error"] < 1e-3


def test_the_check_finds_a_wrong_rule(monkeypatch):
    from fastcam.schema import FastcamError
    from fastcam_export.autodiff.core import codes

    right = codes.masked
    for layer in ("c1", "sum"):
        assert "unconfirmed" not in export_model(classifier(), layer=layer).check
    monkeypatch.setattr(codes, "masked", lambda op, mask, dy: op.Mul(right(op, mask, dy), 2.0))
    with pytest.raises(FastcamError, match="differs from central differences"):
        export_model(classifier(), layer="c1")


def dynamic():
    """Floats between DynamicQuantizeLinear and integer products: what quantize_dynamic writes."""
    rng = np.random.default_rng(7)
    tensors = {
        "w": rng.standard_normal((6, 3, 3, 3)) / 3, "k": rng.integers(-90, 90, (6, 6, 3, 3)),
        "fc": rng.integers(-90, 90, (6, 4)), "zero": np.zeros(()), "ks": np.float32(0.01),
        "bias": rng.standard_normal(4),
    }  # fmt: skip
    integers = {"k", "fc", "zero"}
    tensors = {n: np.asarray(a, np.int8 if n in integers else np.float32) for n, a in tensors.items()}
    make = helper.make_node
    nodes = [make("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]), make("Relu", ["c"], ["first"])]
    for x, op_type, w, attributes, out in (
        ("first", "ConvInteger", "k", {"pads": [1, 1, 1, 1]}, "second"),
        ("v", "MatMulInteger", "fc", {}, "scores"),
    ):
        if x == "v":
            nodes += [
                make("Relu", ["second"], ["r"]),
                make("GlobalAveragePool", ["r"], ["g"]),
                make("Flatten", ["g"], ["v"]),
            ]
        nodes += [
            make("DynamicQuantizeLinear", [x], [f"{x}_q", f"{x}_s", f"{x}_z"]),
            make(op_type, [f"{x}_q", w, f"{x}_z", "zero"], [f"{x}_i"], **attributes),
            make("Cast", [f"{x}_i"], [f"{x}_f"], to=TensorProto.FLOAT),
            make("Mul", [f"{x}_s", "ks"], [f"{x}_ss"]),
            make("Mul", [f"{x}_f", f"{x}_ss"], [out]),
        ]
    nodes.append(make("Add", ["scores", "bias"], ["out"]))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "d", [value("x", TensorProto.FLOAT, ["N", 3, 12, 12])], [value("out", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tensors


def test_dynamic_quantisation_is_differentiated_straight_through():
    made, tensors = dynamic()
    exported = export_model(made, layer="first", emit="gradients")
    assert exported.check["bit_identical"] and 0 < exported.check["gradient_error"] < 1e-3
    out = run_targets(exported.model, {"x": PICTURES, "fastcam.targets": np.array([[1]])})
    probe = onnx.ModelProto()
    probe.CopyFrom(made)
    probe.graph.output.append(helper.make_tensor_value_info("second", TensorProto.FLOAT, None))
    positive = torch.tensor(run(probe, {"x": PICTURES})["second"] > 0)
    maps = torch.tensor(out["fastcam.activations"].astype(np.float64), requires_grad=True)
    second = F.conv2d(maps, torch.tensor(tensors["k"].astype(np.float64) * 0.01), padding=1) * positive
    score = second.mean((2, 3)) @ torch.tensor(tensors["fc"].astype(np.float64) * 0.01)
    (expected,) = torch.autograd.grad(score[:, 1].sum(), maps)
    np.testing.assert_allclose(out["fastcam.gradients"][:, 0], expected.numpy(), rtol=1e-4, atol=1e-9)


def test_shapes_of_integer_operators_follow_without_a_run():
    loaded = load(classifier()).model.graph
    shapes = {value.name: tuple(value.shape) for node in loaded for value in node.outputs if value.shape is not None}
    assert [str(d) for d in shapes["sum"]] == ["N", "6", "6", "6"] and [str(d) for d in shapes["l"]] == ["N", "4"]
