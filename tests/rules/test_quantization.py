"""Quantised (QDQ) files: straight-through gradients by NumPy, outputs bit for bit, maps like the float twins'."""

from collections import Counter

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from scipy.stats import spearmanr

from fastcam.image.preprocess import pictures_in
from fastcam.schema import FastcamError
from fastcam_export import UnsupportedOperator, export_model, inspect_model, vjp
from fastcam_export.steps import check
from fastcam_export.verify import runs
from fastcam_export.verify.sample import Sample
from fastcam_export.verify.session import quiet_session
from fastcam_export.verify.source_runs import SourceRun
from support.models.quantized import PAIR, SEED, X, gradient, graph, quantise, run_targets
from support.rules.runs import run

CODES = {"uint8": (np.uint8, 0, 255), "int8": (np.int8, -128, 127), "uint16": (np.uint16, 0, 65535)}


# ---- the rules, by their formula


ZEROS = [(kind, zero) for kind in CODES for zero in ("low", "middle")] + [("uint8", "absent")]


@pytest.mark.parametrize(("kind", "zero"), ZEROS)
def test_the_gradient_passes_where_nothing_was_saturated(kind, zero):
    dtype, low, high = CODES[kind]
    z = {"low": low, "middle": (low + high) // 2, "absent": 0}[zero]
    scale = np.float32(8 / (high - low))
    nodes = [("Identity x -> a", {}), *PAIR]
    if zero == "absent":
        nodes[1:] = [("QuantizeLinear a s -> q", {}), ("DequantizeLinear q s -> y", {})]
        model = graph(nodes, s=scale)
    else:
        model = graph(nodes, opset=21, s=scale, z=np.array(z, dtype))
    code = quantise(X, scale, z, low, high)
    passes = (code > low) & (code < high)
    assert 0.05 < passes.mean() < 0.95
    np.testing.assert_array_equal(gradient(model), np.where(passes, SEED, 0))


@pytest.mark.parametrize("axis", [1, -1, 0])
def test_one_scale_per_channel(axis):
    size = X.shape[axis]
    scale = np.linspace(0.01, 0.04, size).astype(np.float32)
    zero = np.linspace(-30, 40, size).astype(np.int8)
    nodes = [("Identity x -> a", {}), *((line, {"axis": axis}) for line, _ in PAIR)]
    column = [-1 if a == axis % 4 else 1 for a in range(4)]
    code = quantise(X, scale.reshape(column), zero.reshape(column).astype(float), -128, 127)
    expected = np.where((code > -128) & (code < 127), SEED, 0)
    np.testing.assert_array_equal(gradient(graph(nodes, s=scale, z=zero)), expected)


def test_it_is_pytorchs_fake_quantisation_but_for_the_end_codes():
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of this test")
    x = torch.tensor(X, requires_grad=True)
    y = torch.fake_quantize_per_tensor_affine(x, 0.03, 100, 0, 255)
    (expected,) = torch.autograd.grad(y, x, torch.tensor(SEED))
    model = graph([("Identity x -> a", {}), *PAIR], s=np.float32(0.03), z=np.uint8(100))
    code = quantise(X, np.float32(0.03), 100, 0, 255)
    inner = (code > 0) & (code < 255)
    np.testing.assert_array_equal(gradient(model)[inner], expected.numpy()[inner])
    outside = (X / 0.03 + 100 < -0.5) | (X / 0.03 + 100 > 255.5)
    assert not gradient(model)[outside].any() and not expected.numpy()[outside].any()


def test_activations_before_a_quantisation_are_read_behind_it():
    """Relu and Clip give no gradient where the integer stands for a value at their limits."""
    s, z = np.float32(0.02), np.uint8(10)
    relu = quantise(np.maximum(X, 0), s, 10, 0, 255)
    got = gradient(graph([("Relu x -> a", {}), *PAIR], s=s, z=z))
    np.testing.assert_array_equal(got, np.where((relu > 10) & (relu < 255), SEED, 0))
    clip = quantise(np.clip(X, -0.1, 3), s, 10, 0, 255)
    ends = {"low": np.float32(-0.1), "high": np.float32(3)}
    got = gradient(graph([("Clip x low high -> a", {}), *PAIR], s=s, z=z, **ends))
    np.testing.assert_array_equal(got, np.where((clip > 5) & (clip < 160), SEED, 0))


@pytest.mark.parametrize("activation", ["Sigmoid", "Tanh"])
def test_a_scale_that_covers_the_range_never_saturates(activation):
    s, z = (np.float32(1 / 255), np.uint8(0)) if activation == "Sigmoid" else (np.float32(2 / 254), np.uint8(127))
    got = gradient(graph([(f"{activation} x -> a", {}), *PAIR], s=s, z=z))
    y = 1 / (1 + np.exp(-X.astype(float))) if activation == "Sigmoid" else np.tanh(X.astype(float))
    y = (quantise(y, s, float(z), 0, 255) - z) * s  # the derivative is taken at the dequantised value
    slope = y * (1 - y) if activation == "Sigmoid" else 1 - y**2
    np.testing.assert_allclose(got, SEED * slope, rtol=1e-4, atol=1e-6)


def test_integers_may_be_rearranged_between():
    nodes = [
        ("Identity x -> a", {}),
        ("QuantizeLinear a s z -> q", {}),
        ("Transpose q -> t", {"perm": [0, 1, 3, 2]}),
        ("Reshape t shape -> r", {}),
        ("DequantizeLinear r s z -> y", {}),
    ]
    model = graph(nodes, s=np.float32(0.03), z=np.uint8(128), shape=np.array([-1, 4, 5, 6]))
    code = quantise(X, np.float32(0.03), 128, 0, 255)
    back = SEED.reshape(2, 4, 6, 5).transpose(0, 1, 3, 2)
    np.testing.assert_array_equal(gradient(model), np.where((code > 0) & (code < 255), back, 0))


def test_another_scale_on_the_way_back_is_a_factor():
    nodes = [("Identity x -> a", {}), PAIR[0], ("DequantizeLinear q s2 z -> y", {})]
    got = gradient(graph(nodes, s=np.float32(0.03), s2=np.float32(0.12), z=np.uint8(128)))
    code = quantise(X, np.float32(0.03), 128, 0, 255)
    np.testing.assert_allclose(got, np.where((code > 0) & (code < 255), 4 * SEED, 0), rtol=1e-6)


@pytest.mark.parametrize(
    ("nodes", "word"),
    [
        ([("Add q z -> p", {}), ("DequantizeLinear p s z -> y", {})], "Add"),
        ([("Mul q z -> p", {}), ("DequantizeLinear p s z -> y", {})], "Mul"),
    ],
)
def test_arithmetic_on_integers_is_refused_and_named(nodes, word):
    model = graph([("Identity x -> a", {}), PAIR[0], *nodes], s=np.float32(0.03), z=np.uint8(128))
    with pytest.raises(UnsupportedOperator, match=f"{word}.*quantised"):
        vjp(model)


# ---- export of a small classifier


def classifier(activation="Relu", kind="uint8", channelwise=False, seed=0, symmetric=False):
    """Two quantised convolutions, mean, fully connected layer, every value between them quantised; 5 classes."""
    rng = np.random.default_rng(seed)
    dtype, low, _ = CODES[kind]
    low = low + 128 if symmetric else low
    middle = low if symmetric else low + 128
    nodes, tensors = [], []

    def constant(array, name):
        tensors.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(op_type, inputs, output, **attributes):
        nodes.append(helper.make_node(op_type, inputs, [output], f"{output}_node", **attributes))
        return output

    def pair(x, scale, zero):
        s, z = constant(np.float32(scale), f"{x}_s"), constant(np.array(zero, dtype), f"{x}_z")
        return node("DequantizeLinear", [node("QuantizeLinear", [x, s, z], f"{x}_q"), s, z], f"{x}_dq")

    def weight(name, *shape):
        count = shape[0] if channelwise else 1
        scale = np.linspace(0.01, 0.02, count).astype(np.float32)
        inputs = [constant(rng.integers(-60, 60, shape).astype(np.int8), f"{name}_q")]
        inputs.append(constant(scale if channelwise else scale[0], f"{name}_s"))
        inputs.append(constant(np.zeros(count if channelwise else (), np.int8), f"{name}_z"))
        return node("DequantizeLinear", inputs, name, **({"axis": 0} if channelwise else {}))

    def activate(x, output):
        if activation == "Clip":
            return node("Clip", [x, constant(np.float32(0), f"{x}_0"), constant(np.float32(6), f"{x}_6")], output)
        if activation == "Swish":
            return node("Mul", [x, node("Sigmoid", [x], f"{output}_gate")], output)
        return node("Relu", [x], output) if activation == "Relu" else x

    x = pair("image", 0.03, middle)
    bias = constant(rng.standard_normal(8).astype(np.float32) / 4, "bias1")
    x = activate(node("Conv", [x, weight("w1", 8, 3, 3, 3), bias], "c1", pads=[1, 1, 1, 1]), "r1")
    x = pair(x, 6 / 255, low)  # zero at the lower end: where there is no activation, the quantisation is the Relu
    x = activate(node("Conv", [x, weight("w2", 6, 8, 3, 3)], "c2", pads=[1, 1, 1, 1]), "r2")
    x = pair(x, 10 / 255, low)
    x = pair(node("GlobalAveragePool", [x], "mean"), 10 / 255, low)
    x = node("Conv", [x, weight("fc", 5, 6, 1, 1)], "scores")
    x = pair(x, 0.1, middle)
    node("Flatten", [x], "logits")
    value = helper.make_tensor_value_info
    inputs = [value("image", TensorProto.FLOAT, ["N", 3, 12, 12])]
    made = helper.make_graph(nodes, "q", inputs, [value("logits", TensorProto.FLOAT, ["N", 5])], tensors)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


FORMS = [("Relu", "uint8", False), ("Clip", "uint8", True), ("none", "uint8", True), ("Relu", "int8", True)]
IMAGES = np.random.default_rng(7).standard_normal((2, 3, 12, 12)).astype(np.float32)


def explain(model, **options):
    exported = export_model(model, **options)
    return exported, explain_with(exported.model)


def explain_with(model):
    return run_targets(model, {"image": IMAGES, "fastcam.targets": np.array([[-1, 2, -3]])})


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("layer", ["auto", "first"])
def test_outputs_stay_bit_identical_and_levels_agree(form, layer):
    model = classifier(*form)
    before = run(model, {"image": IMAGES})["logits"]
    name = "auto" if layer == "auto" else inspect_model(model).layers[1].name
    made = {emit: explain(model, layer=name, emit=emit) for emit in ("weights", "gradients")}
    for exported, out in made.values():
        assert exported.check["bit_identical"] and out["logits"].tobytes() == before.tobytes()
    gradients = made["gradients"][1]["fastcam.gradients"]
    assert np.abs(gradients).max() > 0
    np.testing.assert_allclose(made["weights"][1]["fastcam.weights"], gradients.mean((3, 4)), rtol=1e-4, atol=1e-7)


def kernels(model, path):
    """How many kernels of integers the runtime makes of a model."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(path), 4
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(path).graph.node if node.op_type.startswith("QLinear"))


@pytest.mark.parametrize("symmetric", [False, True])
def test_int8_values_that_are_read_besides_keep_the_runtimes_kernels_as_uint8(tmp_path, monkeypatch, symmetric):
    model = classifier("Relu", "int8", channelwise=True, symmetric=symmetric)
    own, layer = kernels(model, tmp_path / "own"), inspect_model(model).layers[1].name
    plain = export_model(model, layer=layer)
    if kernels(plain.model, tmp_path / "plain") == own:
        pytest.skip("this processor has kernels for int8")
    answers = iter([False, True])  # outputs differ as the values are, and keep their bits as uint8
    monkeypatch.setattr(check, "same_bits", lambda exported, run: next(answers))
    kept = export_model(model, layer=layer)
    assert kernels(kept.model, tmp_path / "kept") == own
    assert kept.check["bit_identical"] and "int8 values" in kept.check["notes"][0]
    out = [explain_with(exported.model) for exported in (plain, kept)]
    for name, array in out[0].items():
        np.testing.assert_allclose(out[1][name], array, rtol=1e-5, atol=1e-7)


def test_outputs_may_differ_by_what_the_runtimes_own_ways_differ_and_it_is_said():
    model = classifier("none", "uint8", seed=1, symmetric=True)
    for tensor in model.graph.initializer:  # steps so small that a rounding shows
        if tensor.name in ("mean_s", "scores_s"):
            tensor.CopyFrom(numpy_helper.from_array(np.float32(0.004), tensor.name))
    plain, whole = (quiet_session(model, plain=way).run(None, {"image": IMAGES})[0] for way in (True, False))
    assert plain.tobytes() != whole.tobytes()
    source = SourceRun(Sample({"image": IMAGES}, "image"), {"logits": whole})
    identical, worst, note = runs._same_outputs(model, source, {"logits": plain})
    assert not identical and f"{worst:.1e}" in note and "other kernels" in note
    with pytest.raises(FastcamError, match="name another layer"):
        runs._same_outputs(model, source, {"logits": whole + 3 * (plain - whole)})


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_weights_of_the_head_are_its_matrix_for_a_saturated_score_too(form):
    model = classifier(*form)
    for node in model.graph.node:  # quantisers write a pair on either side of a reshape
        node.output[0] = "flat" if node.op_type == "Flatten" else node.output[0]
    for op_type, value, output in [("QuantizeLinear", "flat", "flat_q"), ("DequantizeLinear", "flat_q", "logits")]:
        model.graph.node.append(helper.make_node(op_type, [value, "scores_s", "scores_z"], [output], f"{output}_node"))
    for tensor in model.graph.initializer:
        if tensor.name == "scores_s":  # a scale so small that the predicted class saturates
            tensor.CopyFrom(numpy_helper.from_array(np.float32(0.004), "scores_s"))
    exported, out = explain(model)
    constants = {t.name: numpy_helper.to_array(t) for t in exported.model.graph.initializer}
    fc = constants["fc_q"].astype(float)[:, :, 0, 0] * np.reshape(constants["fc_s"], (-1, 1))
    assert np.isclose(out["logits"].max(), 127 * 0.004)
    np.testing.assert_allclose(out["fastcam.weights"], fc[out["fastcam.classes"]] / 144, rtol=1e-5)


def test_a_quantised_final_activation_is_looked_through():
    model = classifier()
    s, z = (numpy_helper.from_array(a, n) for a, n in ((np.float32(1 / 255), "p_s"), (np.uint8(0), "p_z")))
    model.graph.initializer.extend([s, z])
    model.graph.node.extend(
        helper.make_node(op_type, inputs, [output], f"{output}_node")
        for op_type, inputs, output in [
            ("Sigmoid", ["logits"], "p"),
            ("QuantizeLinear", ["p", "p_s", "p_z"], "p_q"),
            ("DequantizeLinear", ["p_q", "p_s", "p_z"], "probabilities"),
        ]
    )
    plain, _ = explain(model)
    model.graph.output[0].name = "probabilities"
    exported, out = explain(model)
    assert (exported.metadata.score.kind, exported.metadata.score.value) == ("logit", "logits")
    expected = run_targets(plain.model, {"image": IMAGES, "fastcam.targets": out["fastcam.classes"]})
    np.testing.assert_array_equal(out["fastcam.weights"], expected["fastcam.weights"])


def test_layers_are_what_the_next_layer_reads():
    model = classifier()
    found = inspect_model(model)
    assert [layer.name for layer in found.layers] == ["image_dq", "r1_dq", "r2_dq"]
    assert [layer.name for layer in found.layers if layer.chosen] == ["r2_dq"] and found.missing == []
    moved = export_model(model, layer="c1").metadata.layer
    assert moved.value == "r1_dq" and "dequantised" in moved.reason


def test_a_model_without_kinks_is_checked_at_its_own_values():
    checked = export_model(classifier("Swish", symmetric=True), layer="r1_dq").check
    assert checked["bit_identical"] and 0 < checked["gradient_error"] < 2e-6


def test_a_gradient_that_is_wrong_fails_the_check(monkeypatch):
    from fastcam_export.outputs import cam

    right = cam.pooled_gradient
    monkeypatch.setattr(cam, "pooled_gradient", lambda op, *rest: op.Mul(right(op, *rest), 2.0))
    with pytest.raises(FastcamError, match="differs from central differences"):
        export_model(classifier())


# ---- real files

TWINS = {"mobilenet_v1_0.25_128_quant": (128, 0.97), "mobilenet_v2_1.0_224_quant": (224, 0.97)}
"""Name -> input size, and the least mean rank correlation of the maps with the float twin's."""


def photos(assets, size):
    files = pictures_in(assets / "photos")
    images = [
        cv2.resize(cv2.imread(str(file))[..., ::-1], (size, size), interpolation=cv2.INTER_AREA) for file in files
    ]
    return ((np.stack(images).astype(np.float32) - 128) / 128).transpose(0, 3, 1, 2)


def maps(model, images, classes):
    feeds = {"input": images, "fastcam.targets": classes}
    return run_targets(export_model(model, emit="cam", check=False).model, feeds)["fastcam.cam"][:, 0]


@pytest.mark.parametrize("name", TWINS)
def test_maps_rank_like_those_of_the_float_twin(assets, name):
    size, least = TWINS[name]
    images = photos(assets, size)
    shipped, twin = (assets / "models" / f"{name}.{form}.onnx" for form in ("qdq", "float"))
    logits = run(onnx.load(shipped), {"input": images})["logits"]
    classes = logits.argmax(1)[:, None]
    ours, theirs = maps(shipped, images, classes), maps(twin, images, classes)
    ranks = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(ours, theirs)]
    assert np.mean(ranks) > least, ranks


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize("emit", ["weights", "gradients"])
def test_logits_of_shipped_files_stay_bit_identical(assets, name, emit):
    shipped = assets / "models" / f"{name}.qdq.onnx"
    images = photos(assets, TWINS[name][0])[:4]
    before = run(onnx.load(shipped), {"input": images})["logits"]
    middle = inspect_model(shipped).layers[-4].name
    for layer in ("auto", middle):
        exported = export_model(shipped, layer=layer, emit=emit)
        out = run_targets(exported.model, {"input": images, "fastcam.targets": np.array([[-1, 283]])})
        assert exported.check["bit_identical"] and out["logits"].tobytes() == before.tobytes()
        assert np.abs(out[f"fastcam.{emit}"]).max() > 0
