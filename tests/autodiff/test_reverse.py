"""The reverse sweep: what it walks, what it adds up, and what it refuses, by name."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from fastcam.schema import FastcamError
from fastcam_export.autodiff.core.builder import Builder
from fastcam_export.autodiff.core.errors import UnsupportedOperator
from fastcam_export.autodiff.core.rule import RULES, Rule
from fastcam_export.autodiff.reverse import backward, path, unsupported
from support.rules.case import Case, Free, H, N, W, ints, one, weight
from support.rules.runs import differentiate, run

X = np.array([[1.0, -2.0, 3.0], [0.5, 4.0, -1.0]], np.float32)
SEED = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], np.float32)


def read(text, opset=18):
    """An ONNX model from ONNX's own notation for the body of a graph."""
    return onnx.shape_inference.infer_shapes(
        onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}, "my" : 1]> {text}'), data_prop=True
    )


def gradient(text, wrt="x", seed=SEED, **feeds):
    model = read(text)
    made = run(differentiate(model, [model.graph.output[0].name], [wrt]), {"x": X, "d_y": seed, **feeds})
    return made[f"d_{wrt}"]


def emit(text, wrt):
    """The graph, its values by name, and what ``backward`` says of ``wrt``."""
    model = ir.from_proto(read(text))
    graph = model.graph
    values = {value.name: value for value in (*graph.inputs, *(o for node in graph for o in node.outputs))}
    y = values["y"]
    seed = ir.Value(name="d_y", type=y.type, shape=y.shape)
    graph.inputs.append(seed)
    return graph, values, backward(Builder(graph), {y: seed}, [values[name] for name in wrt])


def test_gradients_of_several_consumers_are_added():
    got = gradient("f (float[2,3] x) => (float[2,3] y) { a = Mul(x, x) b = Exp(x) c = Add(a, b) y = Sub(c, x) }")
    np.testing.assert_allclose(got, SEED * (2 * X + np.exp(X) - 1), rtol=1e-5)


def test_one_value_as_both_inputs_counts_twice():
    np.testing.assert_allclose(
        gradient("f (float[2,3] x) => (float[2,3] y) { y = Mul(x, x) }"), SEED * 2 * X, rtol=1e-6
    )


def test_a_broadcast_input_gets_the_sum():
    got = gradient("f (float[2,3] x, float[3] b) => (float[2,3] y) { y = Mul(x, b) }", "b", b=np.ones(3, np.float32))
    np.testing.assert_allclose(got, (SEED * X).sum(0), rtol=1e-6)


def test_integers_and_masks_carry_no_gradient():
    text = """f (float[2,3] x) => (float[2,3] y) {
        whole = Cast<to = 7>(x) back = Cast<to = 1>(whole) zero = Constant<value_float = 0.0>()
        mask = Greater(x, zero) chosen = Where(mask, x, zero) y = Add(chosen, back) }"""
    np.testing.assert_allclose(gradient(text), SEED * (X > 0))


def test_a_value_of_which_only_the_type_matters_is_no_path():
    text = "f (float[2,3] x, float[2,3] z) => (float[2,3] y) { a = Exp(x) t = CastLike(z, a) y = Mul(z, t) }"
    graph, values, got = emit(text, ["x"])
    assert got[values["x"]] is None and path(graph, [values["x"]], [values["y"]]) == []


def test_no_path_is_a_structural_zero():
    _, _, got = emit("f (float[2,3] x, float[2,3] z) => (float[2,3] y) { a = Relu(x) y = Relu(z) }", ["x", "a", "z"])
    assert [value is None for value in got.values()] == [True, True, False]


def test_a_path_without_derivative_is_a_structural_zero():
    _, _, got = emit("f (float[2,3] x) => (float[2,3] y) { a = Floor(x) y = Exp(a) }", ["x", "a"])
    assert [value is None for value in got.values()] == [True, False]


def test_the_score_itself_gets_its_cotangent():
    graph, values, got = emit("f (float[2,3] x) => (float[2,3] y) { y = Relu(x) }", ["y"])
    assert got[values["y"]].name == "d_y"
    assert len(graph) == 1


def test_only_the_path_is_walked_and_no_node_is_changed():
    """Operators without a rule beside the path do not matter."""
    text = """f (float[2,3] x) => (float[2,3] y, float[2,3] other) {
        a = Relu(x) y = Exp(a) b = my.Custom(x) other = Add(b, y) }"""
    before = [str(node) for node in ir.from_proto(read(text)).graph]
    graph, values, got = emit(text, ["a"])
    assert [node.op_type for node in path(graph, [values["a"]], [values["y"]])] == ["Exp"]
    assert [str(node) for node in graph][: len(before)] == before
    assert got[values["a"]] is not None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("y = my.Custom<n = 1>(x)", ["my.Custom"]),
        ("i = Constant<value_int = 0>() s = SplitToSequence(x) y = SequenceAt(s, i)", ["SequenceAt"]),
        ("y = If(b) <then_branch = g () => (float[2,3] t) { t = Relu(x) },"
         "else_branch = h () => (float[2,3] e) { e = my.Custom(x) }>", ["If", "my.Custom"]),
    ],
    ids=["custom", "sequence", "subgraph"],
)  # fmt: skip
def test_what_has_no_rule_is_named(text, words):
    head = "f (float[2,3] x, bool b, int64[2,3] k, float[2,3] w, float[3] z) => (float[2,3] y)"
    axes = "zero = Constant<value_ints = [0]>() x3 = ReduceMax<keepdims = 0>(x, zero)"
    with pytest.raises(UnsupportedOperator) as caught:
        emit(f"{head} {{ {axes} {text} }}", ["x"])
    message = str(caught.value)
    assert isinstance(caught.value, FastcamError) and "\n" not in message
    assert all(word in message for word in [*words, "opset 18", "choose a layer after it", "node"])


def test_an_input_that_a_rule_leaves_out_is_named(monkeypatch):
    monkeypatch.setitem(RULES, "Mul", Rule(lambda op, node, dy: {0: op.Mul(dy, node.inputs[1])}, broadcasts=True))
    text = "f (float[2,3] x, float[2,3] z) => (float[2,3] y) { y = Mul(x, z) }"
    assert all(emit(text, ["x"])[2].values())
    with pytest.raises(UnsupportedOperator, match=r"no gradient rule for its input 1 .'z'.; choose a layer after it"):
        emit(text, ["z"])


def test_unsupported_lists_the_nodes_without_rule():
    graph, _, _ = emit("f (float[2,3] x) => (float[2,3] y) { a = my.Custom(x) b = Relu(x) y = Exp(b) }", ["b"])
    assert [node.op_type for node in unsupported(graph)] == ["Custom"]


K = Free("K", (4, 6))
REFUSED = {
    "channels": ("LRN", {"x": (N, K, 8, 8)}, {}, {"size": 3}, "number of channels"),
    "window": (
        "MaxPool",
        {"x": (N, 1, 2)},
        {},
        {"kernel_shape": [1], "strides": [2], "ceil_mode": 1},
        "behind the image",
    ),
    "proportion": (
        "Resize",
        {"x": (N, 4, H, W)},
        {"roi": np.zeros(0), "scales": np.zeros(0, np.float32), "sizes": np.array([4, 5])},
        {"axes": [2, 3], "keep_aspect_ratio_policy": "not_larger"},
        "images of a known size",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_only_known_at_run_time_is_refused_with_its_reason(name):
    op_type, inputs, constants, attributes, reason = REFUSED[name]
    case = Case(((op_type, [*inputs, *constants], ["y"], attributes),), inputs, constants, ("x",))
    with pytest.raises(UnsupportedOperator, match=reason):
        differentiate(case.model(shapes="named"), ["y"], ["x"])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("y = ReduceSum(x, i)", "axes are only known"),
        ("j = Add(i, i) y = Slice(x, i, i, j)", "axes are only known"),
        (
            "zero = Constant<value_ints = [0]>() one = Constant<value_ints = [1]>() y = Slice(x, zero, one, zero, i)",
            "steps",
        ),
        ("e = CastLike(b, x) y = Pad(x, p, e, i)", "axes are only known"),
        ("r = Reshape(x, n) y = Relu(r)", "number of axes"),
    ],
)
@pytest.mark.parametrize("lifted", [False, True])
def test_operands_of_the_run_time_are_refused_with_their_reason(text, reason, lifted):
    head = "f (float[N,3] x, int64[1] i, float[M] b, int64[2] p, int64[r] n) => (float[A,B] y)"
    with pytest.raises(UnsupportedOperator, match=reason):
        differentiate(read(f"{head} {{ {text} }}"), ["y"], ["x"], lifted)


def test_a_convolution_whose_kernel_has_an_unknown_size_is_refused():
    model = read("f (float[N,3,8] x, float[5,3,K] w) => (float[N,5,L] y) { y = Conv(x, w) }")
    with pytest.raises(UnsupportedOperator, match="size of its kernel"):
        differentiate(model, ["y"], ["x"])


def test_constants_and_nodes_are_shared():
    case = one("Add", a=(2, 3), b=(2, 3))
    model = ir.from_proto(case.model())
    op = Builder(model.graph)
    a = model.graph.inputs[0]
    assert op.Mul(a, 2.0) is op.Mul(a, 2.0)
    assert op.constant(np.ones(3)) is op.constant(np.ones(3))
    assert op.constant(np.ones(3)) is not op.constant(np.ones(3, np.float32))


def test_arithmetic_on_constants_is_folded():
    graph = ir.from_proto(one("Relu", x=(2, 3)).model()).graph
    op = Builder(graph)
    folded = op.Add(op.shape(graph.inputs[0]), ints(1, 1))
    assert folded.const_value.numpy().tolist() == [3, 4] and len(graph) == 1


def test_axes_that_are_computed_from_constants_are_known():
    text = """f (float[2,3] x) => (float[2] y) {
        one = Constant<value = int32 {1}>() minus = Constant<value_ints = [-1]>()
        flat = Reshape(one, minus) axes = Cast<to = 7>(flat) y = ReduceSum<keepdims = 0>(x, axes) }"""
    np.testing.assert_array_equal(gradient(text, seed=SEED[:, 0]), SEED[:, :1].repeat(3, 1))


def test_numbers_take_the_type_of_what_they_meet():
    graph = ir.from_proto(one("Relu", x=(2, 3)).model(np.float64)).graph
    op, x = Builder(graph), graph.inputs[0]
    mask = op.And(op.Greater(x, 0.0), op.Less(x, weight(3)))
    assert op.Where(mask, 1.0, 0.0).dtype == ir.DataType.DOUBLE
