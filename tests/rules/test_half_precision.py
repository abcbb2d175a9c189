"""Half precision: small gradients survive, sums are taken in float32, and float16 files stay as they are shipped."""

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from fastcam.schema import FastcamError
from fastcam_bench.accuracy import half as bench
from fastcam_export import export_model, vjp
from fastcam_export.graph import float16
from fastcam_export.verify.session import quiet_session
from support.models.half_models import BFLOAT16, FLOAT, FLOAT16, in_half
from support.models.small_models import CLASSES, classifier, weights_of
from support.rules.cases import CASES
from support.rules.runs import differentiate, reference
from support.rules.runs import run as run_case


def run(model, images, targets=None):
    session = quiet_session(model)
    feeds = {session.get_inputs()[0].name: images} | ({} if targets is None else {"fastcam.targets": np.array(targets)})
    return dict(zip([value.name for value in session.get_outputs()], session.run(None, feeds)))


def images(size=8, n=2):
    return np.random.default_rng(3).standard_normal((n, 3, size, size)).astype(np.float32)


def between_casts(model):
    """A half model with float32 inputs and outputs."""
    graph = model.graph
    for value, to in ((graph.input[0], FLOAT16), (graph.output[0], FLOAT)):
        inner = f"{value.name}.half"
        for node in graph.node:
            for names in (node.input, node.output):
                names[:] = [inner if name == value.name else name for name in names]
        ends = [value.name, inner] if to == FLOAT16 else [inner, value.name]
        cast = helper.make_node("Cast", ends[:1], ends[1:], f"cast/{value.name}", to=to)
        graph.node.insert(0 if to == FLOAT16 else len(graph.node), cast)
        value.type.tensor_type.elem_type = FLOAT
    return model


def faint(opset=18, kind=None, shrink=2.0**-14):
    """A classifier whose logits hardly depend on their layer: entries of the gradient are about 2^-20 to 2^-24."""
    model = classifier(opset)
    for tensor in model.graph.initializer:
        if tensor.name == "fc":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(shrink), "fc"))
    return model if kind is None else in_half(model, kind)


def expected(model, classes, area=64):
    """The formula of the last layer's weights, of the numbers that the file holds."""
    return weights_of(model)["fc"].T[classes] / area


# ---- small gradients


@pytest.mark.parametrize("opset", [13, 18, 20])
@pytest.mark.parametrize("emit", ["weights", "gradients"])
def test_gradients_that_float16_cannot_hold_survive(opset, emit):
    source = between_casts(faint(opset, FLOAT16))
    out = run(export_model(source, layer="r2", emit=emit).model, images(), [[-1, 0, 3]])
    found = out[f"fastcam.{emit}"]
    wanted = expected(source, out["fastcam.classes"])
    assert np.abs(wanted).max() < 2.0**-18  # float16 keeps six bits of the largest, and nothing of most
    wanted = wanted if emit == "weights" else np.broadcast_to(wanted[..., None, None], found.shape)
    np.testing.assert_allclose(found, wanted, rtol=2e-3, atol=1e-10)


def test_without_the_scale_they_do_not(monkeypatch):
    monkeypatch.setattr("fastcam_export.outputs.cam.HALF_SCALE", 1.0)
    source = between_casts(faint(18, FLOAT16, 2.0**-18))
    out = run(export_model(source, layer="r2", emit="gradients", check=False).model, images(), [[0, 1, 2, 3, 4]])
    assert (out["fastcam.gradients"] == 0).mean() > 0.5
    monkeypatch.undo()
    out = run(export_model(source, layer="r2", emit="gradients", check=False).model, images(), [[0, 1, 2, 3, 4]])
    assert (out["fastcam.gradients"] == 0).mean() < 0.1


@pytest.mark.parametrize("layer", ["r1", "c2", "r2"])
@pytest.mark.parametrize("emit", ["weights", "gradients", "cam"])
def test_every_layer_and_level_equals_float32(layer, emit):
    source = in_half(classifier())
    exact = export_model(widened(source), layer=layer, emit=emit).model
    ours = run(export_model(source, layer=layer, emit=emit).model, images().astype(np.float16), [[-1, 2]])
    theirs = run(exact, images().astype(np.float16).astype(np.float32), ours["fastcam.classes"])
    name = f"fastcam.{emit}"
    assert ours[name].dtype == np.float32
    assert np.linalg.norm(ours[name] - theirs[name]) <= 2e-2 * np.linalg.norm(theirs[name])


def widened(model):
    """The float32 model with the numbers of a half one."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for tensor in made.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    for value in (*made.graph.input, *made.graph.output):
        value.type.tensor_type.elem_type = FLOAT
    return made


def test_only_graphs_through_float16_are_scaled():
    for model, there in (
        (classifier(), False),
        (in_half(classifier()), True),
        (in_half(classifier(), BFLOAT16), False),
    ):
        made = export_model(model, check=False).model
        constants = [
            numpy_helper.to_array(t).astype(np.float64) for t in made.graph.initializer if "fastcam." in t.name
        ]
        assert any(c.shape == () and c == 2.0**-10 for c in constants) == there


def test_a_cast_to_half_in_the_middle_counts():
    """float32 everywhere but between two Casts behind the layer."""
    model = faint(18)
    nodes = list(model.graph.node)
    down = helper.make_node("Cast", ["r2"], ["down"], "down", to=FLOAT16)
    up = helper.make_node("Cast", ["average"], ["mean"], "up", to=FLOAT)
    nodes[4].input[0], nodes[4].output[0] = "down", "average"
    del model.graph.node[:]
    model.graph.node.extend([*nodes[:4], down, nodes[4], up, *nodes[5:]])
    out = run(export_model(model, layer="r2").model, images(), [[-1, 4]])
    np.testing.assert_allclose(out["fastcam.weights"], expected(model, out["fastcam.classes"]), rtol=2e-3, atol=1e-10)


@pytest.mark.filterwarnings("ignore:overflow")
def test_what_exceeds_float16_is_never_plausible():
    """On the reference evaluator, which computes in float16; ONNX Runtime's CPU has the range of float32 in between."""
    source = in_half(faint(17, None, 2.0**7))
    made = export_model(source, layer="r2", emit="gradients", check=False).model
    targets = np.arange(CLASSES)[None]
    out = reference(made, {"image": images().astype(np.float16), "fastcam.targets": targets})
    found, wanted = out["fastcam.gradients"], expected(source, np.broadcast_to(targets, (2, CLASSES)))
    close = np.isclose(found, wanted[..., None, None], rtol=2e-3)
    assert 0 < close.mean() < 1
    assert (close | ~np.isfinite(found)).all()


@pytest.mark.filterwarnings("ignore:overflow")
def test_a_gradient_beyond_float16_is_refused(monkeypatch):
    monkeypatch.setattr("fastcam_export.outputs.cam.HALF_SCALE", 2.0**17)
    with pytest.raises(FastcamError, match="exceed float16's range; name a later layer"):
        export_model(between_casts(in_half(classifier())), layer="r2", emit="gradients")


# ---- sums


def summed(kind, size):
    """y = x + b with b of one element: db is the sum of all that arrives."""
    nodes = [helper.make_node("Add", ["x", "b"], ["y"], "add")]
    values = [helper.make_tensor_value_info(name, kind, shape) for name, shape in (("x", [size]), ("b", [1]))]
    graph = helper.make_graph(nodes, "sum", values, [helper.make_tensor_value_info("y", kind, [size])])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.mark.parametrize(("kind", "dtype"), [(FLOAT16, np.float16), (BFLOAT16, ml_dtypes.bfloat16)])
def test_sums_are_taken_in_float32(kind, dtype):
    """Of many small numbers behind a large one that cancels: in half precision nothing of them would be left."""
    dy = np.full(4096, 2.0**-6, dtype)
    dy[0], dy[-1] = 4096, -4096
    model = vjp(summed(kind, dy.size), wrt=["b"])
    feeds = {"x": np.zeros(dy.size, dtype), "b": np.zeros(1, dtype), "cotangent.y": dy}
    found = np.asarray(reference(model, feeds)["grad.b"])
    assert found.dtype == dtype and float(found[0]) == np.asarray(4094 * 2.0**-6, dtype).astype(float)


def test_a_mean_over_more_positions_than_float16_counts_to():
    side = 300  # 90000 positions
    nodes = [
        helper.make_node("Relu", ["image"], ["map"], "relu"),
        helper.make_node("GlobalAveragePool", ["map"], ["mean"], "mean"),
        helper.make_node("Flatten", ["mean"], ["scores"], "flat"),
    ]
    dims = ["N", 3, "H", "W"]
    graph = helper.make_graph(
        nodes,
        "mean",
        [helper.make_tensor_value_info("image", FLOAT16, dims)],
        [helper.make_tensor_value_info("scores", FLOAT16, ["N", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    for emit in ("weights", "gradients"):
        made = export_model(model, layer="map", emit=emit, check=False).model
        out = run(made, images(side, 1).astype(np.float16), [[1]])
        found = out["fastcam.weights"] if emit == "weights" else out["fastcam.gradients"].mean((3, 4))
        np.testing.assert_allclose(found, np.array([[[0, 1 / side**2, 0]]]), rtol=1e-2)


# ---- bfloat16


def test_bfloat16_gradients_equal_torch():
    """ONNX Runtime's CPU has no bfloat16 kernels; the reference evaluator runs what is exported."""
    rng = np.random.default_rng(0)
    x, w, b = (rng.standard_normal(shape).astype(ml_dtypes.bfloat16) for shape in ((4, 6), (6, 5), (5,)))
    dy = rng.standard_normal((4, 5)).astype(ml_dtypes.bfloat16)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"], "matmul"),
        helper.make_node("Add", ["product", "b"], ["sum"], "add"),
        helper.make_node("Sigmoid", ["sum"], ["gate"], "sigmoid"),
        helper.make_node("Mul", ["gate", "sum"], ["swish"], "mul"),
        helper.make_node("Softmax", ["swish"], ["y"], "softmax", axis=-1),
    ]
    given = {"x": x, "w": w, "b": b}
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(name, BFLOAT16, list(array.shape)) for name, array in given.items()],
        [helper.make_tensor_value_info("y", BFLOAT16, [4, 5])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    found = reference(vjp(model), {**given, "cotangent.y": dy})
    leaves = {name: torch.tensor(array.astype(np.float32), requires_grad=True) for name, array in given.items()}
    total = leaves["x"] @ leaves["w"] + leaves["b"]
    torch.softmax(torch.sigmoid(total) * total, -1).backward(torch.tensor(dy.astype(np.float32)))
    for name, leaf in leaves.items():
        gradient, exact = np.asarray(found[f"grad.{name}"]), leaf.grad.numpy()
        assert gradient.dtype == ml_dtypes.bfloat16
        assert np.abs(gradient.astype(np.float32) - exact).max() <= 2e-2 * np.abs(exact).max()


EXCEPT = {"Cast", "Celu", "MeanVarianceNormalization", "Range"}
"""The case is about other types; or ONNX defines the operator by a body in float32."""
UNEVALUATED = {"Attention", "Conv", "ConvTranspose", "DeformConv", "Det", "GlobalLpPool", "LpPool"}
UNEVALUATED |= {"SoftmaxCrossEntropyLoss"}
"""Of which the reference evaluator has no bfloat16: it raises, or its result has another type."""


def in_bfloat16(case):
    """The opset in which ONNX lets all operators of the case have bfloat16, or None."""
    opset = max(case.opset, 24)
    schemas = [onnx.defs.get_schema(node[0], opset) for node in case.nodes if len(node) == 4]
    floats = [i.types for schema in schemas for i in schema.inputs if "tensor(float)" in i.types]
    typed = floats and all("tensor(bfloat16)" in types for types in floats)
    skipped = {schema.name for schema in schemas} & (EXCEPT | UNEVALUATED)
    return opset if case.runtime and typed and not skipped else None


BFLOAT16_CASES = [made[0] for made in CASES.values() if in_bfloat16(made[0])]


@pytest.mark.parametrize("case", BFLOAT16_CASES, ids=str)
def test_every_rule_in_bfloat16_gives_the_gradient_of_float32(case):
    feeds = case.feeds(ml_dtypes.bfloat16)
    wide = {name: array.astype(np.float32) for name, array in feeds.items()}
    outputs = run_case(case.model(), wide)
    rng = np.random.default_rng(1)
    seeds = {f"d_{n}": rng.standard_normal(outputs[n].shape).astype(ml_dtypes.bfloat16) for n in case.outputs}
    made = differentiate(case.model(ml_dtypes.bfloat16, opset=in_bfloat16(case)), case.outputs, case.wrt)
    ours = reference(made, {**feeds, **seeds})
    exact = {name: array.astype(np.float32) for name, array in seeds.items()}
    theirs = run_case(differentiate(case.model(), case.outputs, case.wrt), {**wide, **exact})
    for name, gradient in theirs.items():
        found = np.asarray(ours[name])
        assert found.dtype == ml_dtypes.bfloat16 and found.shape == gradient.shape
        scale = max(1.0, float(np.abs(gradient).max(initial=0)))
        np.testing.assert_allclose(found.astype(np.float32), gradient, rtol=0, atol=5e-2 * scale)


@pytest.mark.parametrize("emit", ["weights", "gradients"])
def test_a_bfloat16_classifier_exports_and_its_gradient_equals_the_formula(emit):
    source = in_half(classifier(22), BFLOAT16)  # the first opset whose Conv takes bfloat16
    made = export_model(source, layer="r2", emit=emit, check=False).model
    out = reference(made, {"image": images().astype(ml_dtypes.bfloat16), "fastcam.targets": np.array([[1, 3]])})
    found = np.asarray(out[f"fastcam.{emit}"])
    assert found.dtype == np.float32
    wanted = weights_of(source)["fc"].T[[1, 3]] / 64
    wanted = np.broadcast_to(wanted[None] if emit == "weights" else wanted[None, ..., None, None], found.shape)
    np.testing.assert_allclose(found, wanted, rtol=1e-2)


# ---- the file itself


@pytest.mark.parametrize("opset", [13, 17])
def test_a_float16_file_keeps_an_opset_that_the_runtime_does_not_expand(opset):
    source = between_casts(in_half(classifier(opset)))
    exported = export_model(source)
    assert exported.opset == (opset, float16.BEFORE)
    onnx.checker.check_model(exported.model, full_check=True)
    assert exported.check["bit_identical"]


def test_a_reduction_keeps_its_axes_in_the_older_opset():
    source = between_casts(in_half(classifier(13)))
    mean = next(node for node in source.graph.node if node.op_type == "GlobalAveragePool")
    mean.op_type = "ReduceMean"
    mean.attribute.append(helper.make_attribute("axes", [2, 3]))
    exported = export_model(source)
    assert exported.opset == (13, float16.BEFORE) and exported.check["bit_identical"]
    out = run(exported.model, images(), [[1]])
    np.testing.assert_allclose(out["fastcam.weights"], expected(source, out["fastcam.classes"]), rtol=2e-3)


def test_what_has_no_older_form_keeps_the_opset():
    source = between_casts(in_half(classifier(13)))
    source.graph.node[2].op_type = "Mish"  # of opset 18
    source.opset_import[0].version = 18
    assert export_model(source, check=False).model.opset_import[0].version == 18


@pytest.mark.parametrize("layer", ["auto", "squeezenet0_concat3"])
def test_squeezenet_in_float16(assets, layer):
    """Outputs to the bit; weights, maps and zeros of two photos beside the float32 file's."""
    half_file, single_file = (onnx.load(assets / "models" / name) for name in (bench.HALF, bench.SINGLE))
    figures = bench.measure_layer(half_file, single_file, layer, *photos(assets, single_file))
    assert figures["outputs_bit_identical"]
    found, worst = figures["variants"]["as exported"], 1e-3 if layer == "auto" else 3e-2
    assert found["weights"]["largest"] <= worst and found["maps"]["largest"] <= max(worst, 3e-3)
    assert abs(found["exact_zeros"] - found["exact_zeros_float32"]) <= 1e-4


def test_small_probabilities_of_squeezenet_in_float16(assets):
    files = [bench.with_probabilities(onnx.load(assets / "models" / name)) for name in (bench.HALF, bench.SINGLE)]
    images_, _ = photos(assets, onnx.load(assets / "models" / bench.SINGLE))
    (probabilities,) = bench.run(files[1], images_).values()
    targets = np.argsort(-probabilities, axis=1, kind="stable")[:, 9:10]
    rows = bench.measure_layer(*files, "auto", images_, targets)["variants"]
    ours, without = rows["as exported"], rows["seed of one, sums in float16"]
    assert ours["exact_zeros"] < 0.05 < without["exact_zeros"]
    assert ours["weights"]["median"] < without["weights"]["median"] / 2


def photos(assets, model):
    """Two photos as the network's input, and the classes predicted for them."""
    inputs = bench.pictures(assets)[:2]
    (logits,) = bench.run(model, inputs).values()
    return inputs, logits.argmax(1)[:, None]


def test_every_class_of_a_free_batch():
    source = between_casts(in_half(classifier()))
    out = run(export_model(source).model, images(n=3), [list(range(CLASSES))])
    np.testing.assert_allclose(out["fastcam.weights"], expected(source, out["fastcam.classes"]), rtol=2e-3, atol=1e-5)
