"""``vjp``: gradients of any output with respect to any value; PyTorch and central differences are the oracles."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fastcam.schema import FastcamError
from fastcam_bench.oracles import kinks
from fastcam_export import UnsupportedOperator, export_model, vjp
from support.models.small_models import classifier, save, weights_of
from support.rules.runs import reference, run


def parse(body, head="f (float[N,3] x, float[N,3] z, int64[1] k) => (float[N,3] y, float[N,3] w)", opset=18):
    text = f'<ir_version: 8, opset_import: ["" : {opset}, "my" : 1]> {head} {{ {body} }}'
    return onnx.parser.parse_model(text)


def feeds(n=2, seed=0, **more):
    rng = np.random.default_rng(seed)
    sample = lambda: rng.standard_normal((n, 3)).astype(np.float32)  # noqa: E731
    made = {name: sample() for name in ("x", "z", "cotangent.y", "cotangent.w")}
    return made | {"k": np.array([1])} | more


def classifier_run(made, n=2, **more):
    images = np.random.default_rng(5).standard_normal((n, 3, 8, 8)).astype(np.float32)
    seed = np.random.default_rng(4).standard_normal((n, 5)).astype(np.float32)
    return images, seed, run(made, {"image": images, "cotangent.logits": seed, **more})


def torch_classifier(model, images):
    """The small classifier in PyTorch, float64: every value by name, ready for autograd."""
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of this test")
    values = {name: torch.tensor(array, requires_grad=True) for name, array in weights_of(model).items()}
    values["image"] = torch.tensor(images.astype(np.float64), requires_grad=True)
    values["c1"] = torch.conv2d(values["image"], values["w1"], padding=1)
    with kinks.away():
        values["r1"] = torch.relu(values["c1"])
        values["c2"] = torch.conv2d(values["r1"], values["w2"], padding=1)
        values["r2"] = torch.relu(values["c2"])
    values["flat"] = values["r2"].mean((2, 3))
    values["logits"] = values["flat"] @ values["fc"] + values["bias"]
    return torch, values


# ---- numbers


def test_inputs_intermediates_and_initializers_equal_pytorchs_autograd():
    model = classifier()
    wrt = ["image", "r1", "c2", "flat", "fc", "bias", "logits"]
    made = vjp(model, wrt=wrt)
    images, seed, out = classifier_run(made)
    torch, values = torch_classifier(model, images)
    expected = torch.autograd.grad(values["logits"], [values[name] for name in wrt], torch.tensor(seed.astype(float)))
    for name, gradient in zip(wrt, expected):
        got = out[f"grad.{name}"]
        assert got.shape == tuple(gradient.shape) and got.dtype == np.float32
        np.testing.assert_allclose(got, gradient.numpy(), rtol=0, atol=1e-5 * float(gradient.abs().max()), err_msg=name)


def test_a_shared_weight_gets_the_sum_over_its_uses():
    model = parse("a = MatMul(x, m) b = MatMul(a, m) y = Exp(b) w = Neg(z)")
    m = np.array([[0.1, 0.2, 0.3], [-0.2, 0.1, 0.0], [0.3, -0.1, 0.2]], np.float32)
    model.graph.initializer.append(numpy_helper.from_array(m, "m"))
    given = feeds()
    got = run(vjp(model, wrt=["m"], of=["y"]), given)["grad.m"]
    x, dy, m = given["x"].astype(float), given["cotangent.y"], m.astype(float)
    db = dy * np.exp(x @ m @ m)
    np.testing.assert_allclose(got, (x @ m).T @ db + x.T @ (db @ m.T), rtol=1e-4, atol=1e-6)


def test_several_outputs_against_central_differences_in_float64():
    head = "f (double[N,3] x, double[N,3] z) => (double[N,3] y, double[N,3] w)"
    model = parse("a = Mul(x, z) b = Sigmoid(a) y = Add(b, x) c = Tanh(b) w = Mul(c, z)", head)
    given = {name: array.astype(np.float64) for name, array in feeds(3).items() if name != "k"}
    out = reference(vjp(model), given)
    rng = np.random.default_rng(1)
    for name in ("x", "z"):
        v, values = rng.standard_normal((3, 3)), []
        for sign in (1, -1):
            y = reference(model, {"x": given["x"], "z": given["z"], name: given[name] + sign * 1e-6 * v})
            values.append(np.vdot(given["cotangent.y"], y["y"]) + np.vdot(given["cotangent.w"], y["w"]))
        assert abs(np.vdot(v, out[f"grad.{name}"]) - (values[0] - values[1]) / 2e-6) < 1e-7


def test_of_leaves_the_other_outputs_out():
    model = parse("y = Mul(x, z) w = Exp(x)")
    given = feeds()
    both, one = run(vjp(model), given), run(vjp(model, of=["w"]), given)
    slope = given["cotangent.w"] * np.exp(given["x"])
    np.testing.assert_allclose(both["grad.x"], given["cotangent.y"] * given["z"] + slope, rtol=1e-5)
    np.testing.assert_allclose(one["grad.x"], slope, rtol=1e-5)
    assert [value.name for value in vjp(model, of="w").graph.input] == ["x", "z", "k", "cotangent.w"]


@pytest.mark.parametrize("n", [1, 4])
def test_a_free_batch_stays_free(n):
    made = vjp(classifier(batch="N"), wrt=["image"])
    images, seed, out = classifier_run(made, n)
    fixed = run(vjp(classifier(batch=n)), {"image": images, "cotangent.logits": seed})
    np.testing.assert_allclose(out["grad.image"], fixed["grad.image"], rtol=1e-5, atol=1e-7)
    dims = {value.name: value.type.tensor_type.shape.dim for value in (*made.graph.input, *made.graph.output)}
    assert dims["cotangent.logits"][0].dim_param == dims["grad.image"][0].dim_param == "N"
    assert [d.dim_value for d in dims["grad.image"][1:]] == [3, 8, 8]


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.DOUBLE])
def test_structural_zeros_are_zeros_of_shape_and_type(kind):
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    name = {1: "float", 10: "float16", 11: "double"}[kind]
    head = f"f ({name}[N,3] x, {name}[2,M] z, {name} s) => ({name}[N,3] y)"
    made = vjp(parse("a = Floor(x) y = Add(a, x) b = Floor(z) c = Mul(b, s)", head), wrt=["x", "z", "s", "a", "b"])
    given = {"x": np.ones((2, 3), dtype), "z": np.ones((2, 5), dtype), "s": np.array(1, dtype)}
    out = run(made, given | {"cotangent.y": np.full((2, 3), 7, dtype)})
    assert {n: (a.shape, a.dtype) for n, a in out.items()} == {
        "y": ((2, 3), dtype), "grad.x": ((2, 3), dtype), "grad.z": ((2, 5), dtype), "grad.s": ((), dtype),
        "grad.a": ((2, 3), dtype), "grad.b": ((2, 5), dtype),
    }  # fmt: skip
    assert (out["grad.x"] == 7).all() and (out["grad.a"] == 7).all()
    assert not any(out[f"grad.{n}"].any() for n in "zsb")


# ---- the model that comes back


def test_the_model_is_otherwise_unchanged(tmp_path):
    model = classifier(end="Softmax")
    path = save(model, tmp_path / "model.onnx")
    for source in (path, str(path), path.read_bytes(), model):
        made = vjp(source)
        onnx.checker.check_model(made, full_check=True)
        assert [value.name for value in made.graph.input] == ["image", "cotangent.scores"]
        assert [value.name for value in made.graph.output] == ["scores", "grad.image"]
        assert list(made.graph.node[: len(model.graph.node)]) == list(model.graph.node)
        assert {node.domain for node in made.graph.node} == {""}
    images, seed, _ = classifier_run(vjp(classifier()))
    out = run(made, {"image": images, "cotangent.scores": seed})
    assert out["scores"].tobytes() == run(model, {"image": images})["scores"].tobytes()


@pytest.mark.parametrize("opset", [9, 13])
def test_older_opsets_give_the_same_gradient(opset):
    _, _, new = classifier_run(vjp(classifier(), wrt=["image", "fc"]))
    _, _, old = classifier_run(vjp(classifier(opset, listed_weights=opset == 9), wrt=["image", "fc"]))
    for name in ("grad.image", "grad.fc"):
        np.testing.assert_allclose(old[name], new[name], rtol=1e-5, atol=1e-7)


# ---- refusals


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"wrt": ["imag"]}, "wrt: the model has no value 'imag'; the nearest is 'image'"),
        ({"of": ["logit"]}, "of: the model has no output 'logit'; the nearest is 'logits'"),
        ({"of": ["r1"]}, "of: the model has no output 'r1'"),
        ({"wrt": []}, "wrt is empty"),
        ({"wrt": ["fc", "image", "fc"]}, "'fc' is given twice"),
    ],
)
def test_names_that_are_wrong(arguments, words):
    with pytest.raises(FastcamError, match=words) as caught:
        vjp(classifier(), **arguments)
    assert "\n" not in str(caught.value)


def test_what_is_no_float_is_refused():
    model = parse("y = Mul(x, z) w = Exp(x) i = Cast<to = 7>(x)")
    for name in ("k", "i"):
        with pytest.raises(FastcamError, match=f"'{name}' is INT64, not a floating point value"):
            vjp(model, wrt=[name])
    with pytest.raises(FastcamError, match="no float output"):
        vjp(parse("y = Shape(x)", "f (float[N,3] x) => (int64[2] y)"))


def test_an_operator_without_a_rule_is_named_where_it_is_on_the_path():
    model = parse("a = my.Magic(x) y = Add(a, z) w = Exp(z)")
    with pytest.raises(UnsupportedOperator, match=r"my\.Magic"):
        vjp(model, wrt=["x"])
    made = vjp(model, wrt=["z"], of=["w"])  # beside the path it does not matter
    assert [value.name for value in made.graph.output] == ["y", "w", "grad.z"]


def test_a_model_with_derivatives_in_it_is_refused():
    with pytest.raises(FastcamError, match="already differentiated"):
        vjp(vjp(classifier()))
    with pytest.raises(FastcamError, match="already exported"):
        vjp(export_model(classifier(), check=False).model)
    model = parse("a = Exp(x) y = Neg(a) w = Neg(z)")
    model.graph.node[0].output[0] = model.graph.node[1].input[0] = "grad.x"
    with pytest.raises(FastcamError, match=r"already has a value named 'grad\.x'"):
        vjp(model)
