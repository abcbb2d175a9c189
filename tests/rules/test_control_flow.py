"""If, Loop and Scan: branches that the file decides, gradients through those that the run time decides, refusals."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from fastcam_bench.oracles import kinks
from fastcam_export import UnsupportedOperator, export_model, inspect_model, vjp
from fastcam_export.graph.constants import constant_array
from fastcam_export.graph.load import load
from support.rules.control import untype
from support.rules.runs import run

CLASSIFIER = """<ir_version: 10, opset_import: ["" : 18]> f (float[N,3,8,8] image) => (float[N,5] scores) {
    a = Conv(image, k1) map = Relu(a) zero = Constant<value_float = 0.0>() total = ReduceSum<keepdims = 0>(image)
    more = Greater(total, zero)
    chosen = If (more) <
        then_branch = first () => (float[N,4,6,6] t) { q = Mul(map, gain) t = Tanh(q) },
        else_branch = second () => (float[N,4,3,3] e) { e = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(map) }>
    b = Conv(chosen, k2) last = Relu(b) mean = GlobalAveragePool(last) flat = Flatten(mean)
    scores = Gemm<transB = 1>(flat, fc) }"""


def read(text, opset=18, **weights):
    """A model, of whose bodies nothing is declared."""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]> {text}')
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                untype(attribute.g)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    return model


def sample(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def classifier():
    model = onnx.parser.parse_model(CLASSIFIER)
    shapes = {"k1": (4, 3, 3, 3), "gain": (4, 1, 1), "k2": (6, 4, 2, 2), "fc": (5, 6)}
    arrays = {name: sample(*shape, seed=seed) for seed, (name, shape) in enumerate(shapes.items())}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    return model, arrays


@pytest.mark.parametrize("sign", [1, -1])
def test_a_layer_before_and_behind_an_if_equals_pytorchs_autograd_for_three_targets(sign):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of this test")
    model, arrays = classifier()
    k1, gain, k2, fc = (torch.from_numpy(array) for array in arrays.values())
    image = sign * np.abs(sample(2, 3, 8, 8, seed=9))
    maps = torch.conv2d(torch.from_numpy(image), k1).relu()
    with kinks.away():
        chosen = torch.tanh(maps * gain) if sign > 0 else torch.nn.functional.max_pool2d(maps, 2)
    for name, start in (("map", maps), ("chosen", chosen)):
        leaf = start.detach().requires_grad_()
        behind = leaf if name == "chosen" else (
            torch.tanh(leaf * gain) if sign > 0 else torch.nn.functional.max_pool2d(leaf, 2)
        )  # fmt: skip
        with kinks.away():
            scores = torch.conv2d(behind, k2).relu().mean((2, 3)) @ fc.T
        expected = [torch.autograd.grad(scores[:, c].sum(), leaf, retain_graph=True)[0] for c in (0, 3, 1)]
        targets = {"image": image, "fastcam.targets": np.array([[0, 3, 1]])}
        exported = export_model(model, layer=name, emit="gradients", targets="required")
        assert exported.check["bit_identical"]
        got = run(exported.model, targets)["fastcam.gradients"]
        np.testing.assert_allclose(got, torch.stack(expected, 1).numpy(), rtol=1e-4, atol=1e-6)
        pooled = run(export_model(model, layer=name, targets="required").model, targets)["fastcam.weights"]
        np.testing.assert_allclose(pooled, got.mean((3, 4)), rtol=1e-4, atol=1e-6)


def test_the_check_of_several_layers_leaves_what_the_export_added_alone():
    """Of a model with bodies too: once, the part behind a further layer kept reads of ``fastcam.cotangent``."""
    exported = export_model(classifier()[0], layer=["last", "map"], emit="gradients", targets="cotangent")
    assert exported.check["bit_identical"] and exported.check["gradient_error"] < 1e-3


def test_values_that_only_a_body_reads_are_layers():
    assert {"map", "chosen", "last"} <= {layer.name for layer in inspect_model(classifier()[0]).layers}


def test_a_condition_of_torch_gives_the_gradients_of_the_branch_that_is_taken():
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of this test")
    pytest.importorskip("onnxscript", reason="torch's exporter needs it")

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.head = (
                torch.nn.Conv2d(3, 4, 3),
                torch.nn.Conv2d(4, 6, 3),
                torch.nn.Linear(6, 5),
            )

        def behind(self, bright, maps):
            maps = torch.cond(bright, lambda a: torch.tanh(2 * a), lambda a: torch.sin(a) + 1, (maps,))
            return self.head(self.second(maps).relu().mean((2, 3)))

        def forward(self, x):
            return self.behind(x.sum() > 0, self.first(x).relu())

    torch.manual_seed(0)
    net, x = Net().eval(), torch.randn(2, 3, 9, 9)
    made = torch.onnx.export(net, (x,), dynamo=True, opset_version=18, verbose=False).model_proto
    assert [node.op_type for node in made.graph.node].count("If") == 1
    relu = next(node.output[0] for node in made.graph.node if node.op_type == "Relu")
    exported = export_model(made, layer=relu, emit="gradients")
    for image in (x, -x):
        got = run(exported.model, {made.graph.input[0].name: image.numpy()})["fastcam.gradients"][:, 0]
        maps = net.first(image).relu().detach().requires_grad_()
        with kinks.away():
            scores = net.behind(image.sum() > 0, maps)
        (expected,) = torch.autograd.grad(scores.max(1).values.sum(), maps)
        np.testing.assert_allclose(got, expected.numpy(), rtol=1e-3, atol=1e-7)


DECIDED = """f (float[N,4,1,1] x) => (float[A,B] y) {
    one = Constant<value_int = 1>() at = Constant<value_int = 3>() shape = Shape(x) size = Gather(shape, at)
    single = Equal(size, one)
    s = If (single) <then_branch = a () => (float t) { axis = Constant<value_ints = [3]>() t = Squeeze(x, axis) },
        else_branch = b () => (float e) { e = Identity(x) }>
    shape2 = Shape(s) two = Constant<value_int = 2>() size2 = Gather(shape2, two) single2 = Equal(size2, one)
    r = If (single2) <then_branch = c () => (float t) { axis = Constant<value_ints = [2]>() t = Squeeze(s, axis) },
        else_branch = d () => (float e) { e = Identity(s) }>
    y = MatMul(r, w) }"""


def test_the_branch_that_is_taken_stands_in_place_of_a_decided_if():
    """The second condition is known only where the first If is gone; names repeat in bodies beside each other."""
    model = read(DECIDED, w=sample(4, 3))
    graph = load(model).model.graph
    assert not any(node.op_type == "If" for node in graph)
    assert [str(value.shape) for value in graph.outputs] == ["[A,3]"] and graph.outputs[0].name == "y"
    x, seed = sample(2, 4, 1, 1), sample(2, 3, seed=1)
    out = run(vjp(model), {"x": x, "cotangent.y": seed})
    assert out["y"].tobytes() == run(model, {"x": x})["y"].tobytes()
    np.testing.assert_allclose(out["grad.x"][..., 0, 0], seed @ sample(4, 3).T, rtol=1e-5, atol=1e-6)


def test_a_decided_if_may_give_an_output_and_hold_weights():
    model = read("""f (float[2,3] x) => (float[2,3] y) { yes = Constant<value = bool {1}>()
        y = If (yes) <then_branch = a () => (float t) <float[3] w = {1, 2, 3}> { t = Mul(x, w) },
            else_branch = b () => (float e) { e = Identity(x) }> }""")
    x, seed = sample(2, 3), sample(2, 3, seed=1)
    out = run(vjp(model), {"x": x, "cotangent.y": seed})
    assert out["y"].tobytes() == (x * np.float32([1, 2, 3])).tobytes()
    np.testing.assert_allclose(out["grad.x"], seed * [1, 2, 3], rtol=1e-6)


LOOP = """f (float[N,3] x, float[3] w) => (float[A,B] y, float[C,D,E] z) {
    count = Constant<value_int = 3>()
    u, z = Loop (count, , x) <body = step (int64 i, bool c, float h) => (bool k, float g, float r)
        { k = Identity(c) g = Mul(h, w) r = Sin(h) }>
    y = Relu(u) }"""


def test_an_unrolled_loop_has_the_gradient_of_its_closed_form():
    """y = relu(x w^3), z = [sin x, sin x w, sin x w^2]; the state's shape is known because a step keeps it."""
    x, w = sample(2, 3), sample(3, seed=1)
    seeds = {"cotangent.y": sample(2, 3, seed=2), "cotangent.z": sample(3, 2, 3, seed=3)}
    out = run(vjp(read(LOOP)), {"x": x, "w": w, **seeds})
    seed, stack = seeds["cotangent.y"] * (x * w**3 > 0), seeds["cotangent.z"]
    cosines = [stack[k] * np.cos(x * w**k) for k in range(3)]
    expected = seed * w**3 + sum(c * w**k for k, c in enumerate(cosines))
    np.testing.assert_allclose(out["grad.x"], expected, rtol=1e-4, atol=1e-6)
    by_w = seed * 3 * x * w**2 + cosines[1] * x + cosines[2] * 2 * x * w
    np.testing.assert_allclose(out["grad.w"], by_w.sum(0), rtol=1e-4, atol=1e-6)


def test_a_loop_may_end_after_a_step_that_its_counter_tells():
    model = read("""f (float[2,3] x) => (float[2,3] y) { most = Constant<value_int = 9223372036854775807>()
        yes = Constant<value = bool {1}>()
        u = Loop (most, yes, x) <body = step (int64 i, bool c, float h) => (bool k, float g)
            { last = Constant<value_int = 2>() k = Less(i, last) g = Mul(h, h) }>
        y = Identity(u) }""")
    x, seed = sample(2, 3), sample(2, 3, seed=1)
    out = run(vjp(model), {"x": x, "cotangent.y": seed})
    np.testing.assert_allclose(out["y"], x**8, rtol=1e-5)
    np.testing.assert_allclose(out["grad.x"], seed * 8 * x**7, rtol=1e-4, atol=1e-7)


SHRINKING = """f (float[2,9] x) => (float[A,B] y) { count = Constant<value_int = 3>() one = Constant<value_ints = [1]>()
    most = Constant<value_ints = [100]>()
    u = Loop (count, , x) <body = step (int64 i, bool c, float h) => (bool k, float g)
        { k = Identity(c) s = Slice(h, one, most, one) g = Mul(s, s) }>
    y = Exp(u) }"""


def test_a_state_that_changes_its_size_is_followed():
    x, seed = np.float32(0.5) * sample(2, 9), sample(2, 6, seed=1)
    out = run(vjp(read(SHRINKING)), {"x": x, "cotangent.y": seed})
    expected = np.zeros((2, 9))
    expected[:, 3:] = seed * np.exp(x[:, 3:] ** 8) * 8 * x[:, 3:] ** 7
    np.testing.assert_allclose(out["grad.x"], expected, rtol=1e-4, atol=1e-6)


def loop(count="count", condition="", body="k = Identity(c)"):
    return f"""f (float[2,3] x, int64 n, bool b) => (float[2,3] y) {{ count = Constant<value_int = 65>()
        u = Loop ({count}, {condition}, x) <body = step (int64 i, bool c, float[2,3] h) => (bool k, float[2,3] g)
            {{ {body} g = Sin(h) }}>
        y = Identity(u) }}"""


REFUSED = {
    "long": (loop(), "more than 64 steps"),
    "count": (loop("n"), "only the run time knows its number of steps"),
    "begin": (loop("count", "b"), "only the run time knows whether it begins"),
    "end": (
        loop(body="s = ReduceSum<keepdims = 0>(h) zero = Constant<value_float = 0.0>() k = Greater(s, zero)"),
        "only the run time knows after which step it ends",
    ),
    "scan": (
        """f (float[N,3] x) => (float[N,3] y) { y = Scan (x) <body = step (float[3] e) => (float[3] r)
            { r = Sin(e) }, num_scan_inputs = 1> }""",
        "only the run time knows its number of steps",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_unrolled_is_refused_with_its_reason_and_a_way_out(name):
    text, reason = REFUSED[name]
    with pytest.raises(UnsupportedOperator, match=reason) as caught:
        vjp(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 18]> {text}'), wrt=["x"])
    message = str(caught.value)
    assert "\n" not in message and "export the model with this loop unrolled" in message


@pytest.mark.parametrize(
    ("body", "reason"),
    [("r = RandomNormalLike(x) t = Mul(x, r)", "random numbers"), ("t = my.Custom(x)", "another domain")],
)
def test_a_branch_that_cannot_be_copied_is_refused(body, reason):
    text = f"""<ir_version: 10, opset_import: ["" : 18, "my" : 1]> f (float[2,3] x, bool b) => (float[2,3] y) {{
        y = If (b) <then_branch = a () => (float[2,3] t) {{ {body} }},
            else_branch = c () => (float[2,3] e) {{ e = Exp(x) }}> }}"""
    with pytest.raises(UnsupportedOperator, match=reason):
        vjp(onnx.parser.parse_model(text), wrt=["x"])


@pytest.mark.parametrize("taken", [True, False])
def test_a_weight_that_only_one_branch_reads_has_a_gradient_in_that_branch(taken):
    """Folding the branch's products of weights would cut the path to them."""
    text = """f (float[2,3] x, bool b) => (float[2,3] y) {
        y = If (b) <then_branch = a () => (float[2,3] t) { q = Mul(w, w) t = Mul(q, x) },
            else_branch = c () => (float[2,3] e) { e = Exp(x) }> }"""
    x, w, seed = sample(2, 3), sample(3, seed=1), sample(2, 3, seed=2)
    out = run(vjp(read(text, w=w), wrt=["w"]), {"x": x, "b": np.array(taken), "cotangent.y": seed})
    np.testing.assert_allclose(out["grad.w"], taken * (2 * w * x * seed).sum(0), rtol=1e-5, atol=1e-6)


def test_integers_that_a_branch_computes_are_known():
    """A branch's graph does not name its opset, which evaluating its nodes needs."""
    text = """<ir_version: 10, opset_import: ["" : 18]> f (float[2,3] x, bool b) => (float[6] y) {
        y = If (b) <then_branch = a () => (float[6] t) {
                two = Constant<value_ints = [2]>() three = Constant<value_ints = [3]>()
                size = Mul(two, three) t = Reshape(x, size) },
            else_branch = c () => (float[6] e) { flat = Constant<value_ints = [6]>() e = Reshape(x, flat) }> }"""
    branch = load(onnx.parser.parse_model(text)).model.graph[-1].attributes["then_branch"].as_graph()
    (size,) = (value for node in branch if node.op_type == "Mul" for value in node.outputs)
    size.dtype = ir.DataType.INT64
    assert constant_array(size).tolist() == [6]
