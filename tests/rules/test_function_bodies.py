"""Functions: those of the model are inlined, and ONNX's bodies are what an operator is differentiated through."""

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from fastcam_bench.oracles import kinks
from fastcam_export import UnsupportedOperator, export_model, vjp
from fastcam_export.graph.load import load
from support.rules.runs import run

FUNCTIONS = """<ir_version: 10, opset_import: ["" : 18, "my" : 1]>
f (float[N,3] x) => (float[N,3] y) { a = my.Act<alpha = 0.5>(x) b = my.Act<alpha = 0.25>(a) y = my.Twice(b) }
<opset_import: ["" : 18], domain: "my"> Act <alpha>(x) => (y) { c = Elu<alpha: float = @alpha>(x) y = Sin(c) }
<opset_import: ["" : 18, "my" : 1], domain: "my"> Twice (x) => (y)
    { c = my.Act<alpha = 0.5>(x) y = my.Act<alpha = 0.1>(c) }
"""


def function_model():
    model = onnx.parser.parse_model(FUNCTIONS)
    for index, node in enumerate(model.graph.node):
        entry = node.metadata_props.add()
        entry.key, entry.value = "pkg.torch.onnx.name_scopes", f"['', 'layer{index}']"
    return model


def test_functions_of_the_model_are_inlined_and_keep_their_scopes():
    graph = load(function_model()).model.graph
    assert [node.op_type for node in graph] == ["Elu", "Sin"] * 4
    assert "layer2" in list(graph)[-1].metadata_props["pkg.torch.onnx.name_scopes"]
    assert list(graph.opset_imports) == [""]


def test_a_model_with_functions_gives_its_own_outputs_and_the_gradient_of_their_composition():
    model, rng = function_model(), np.random.default_rng(0)
    x, seed = (rng.standard_normal((2, 3)).astype(np.float32) for _ in range(2))
    out = run(vjp(model), {"x": x, "cotangent.y": seed})
    assert out["y"].tobytes() == run(model, {"x": x})["y"].tobytes()
    value, slope = x.astype(float), np.ones((2, 3))
    for alpha in (0.5, 0.25, 0.5, 0.1):
        inner = np.where(value > 0, value, alpha * (np.exp(value) - 1))
        slope *= np.where(value > 0, 1, inner + alpha) * np.cos(inner)
        value = np.sin(inner)
    np.testing.assert_allclose(out["grad.x"], seed * slope, rtol=1e-4, atol=1e-6)


def test_a_small_weight_inside_a_function_body_is_not_folded_away():
    """Folding would cut the path to it, and its gradient would be a silent zero."""
    text = """<ir_version: 10, opset_import: ["" : 23]>
        f (float[2,4,3,8] x, float[2,3,4] s) => (float[2,4,3,8] y) { y = RotaryEmbedding(x, c, s) }"""
    model, rng = onnx.parser.parse_model(text), np.random.default_rng(0)
    sample = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
    x, c, s, seed = sample(2, 4, 3, 8), sample(2, 3, 4), sample(2, 3, 4), sample(2, 4, 3, 8)
    model.graph.initializer.append(onnx.numpy_helper.from_array(c, "c"))
    got = run(vjp(model, wrt=["c"]), {"x": x, "s": s, "cotangent.y": seed})["grad.c"]
    expected = (x * seed).reshape(2, 4, 3, 2, 4).sum((1, 3))  # each cosine meets one of the first half, one of the last
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_equals_pytorchs(causal):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of this test")
    text = f"""<ir_version: 10, opset_import: ["" : 23]> f (float[N,4,S,6] q, float[N,2,S,6] k, float[N,2,S,6] v)
        => (float[N,4,S,6] y) {{ y = Attention<is_causal = {int(causal)}>(q, k, v) }}"""
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, heads, 5, 6, requires_grad=True) for heads in (4, 2, 2))
    y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True)
    seed = torch.randn_like(y)
    feeds = {name: value.detach().numpy() for name, value in zip("qkv", (q, k, v))}
    out = run(vjp(onnx.parser.parse_model(text)), {**feeds, "cotangent.y": seed.numpy()})
    for name, expected in zip("qkv", torch.autograd.grad(y, (q, k, v), seed)):
        np.testing.assert_allclose(out[f"grad.{name}"], expected.numpy(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("opset", [18, 21])
def test_layers_in_front_of_group_normalisation_equal_pytorchs_autograd(opset):
    """ONNX infers no type behind GroupNormalization: the export does."""
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of this test")
    pytest.importorskip("onnxscript", reason="torch's exporter needs it")
    torch.manual_seed(0)
    first = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU())
    middle = (torch.nn.GroupNorm(2, 8), torch.nn.ReLU(), torch.nn.Conv2d(8, 6, 3), torch.nn.GroupNorm(3, 6))
    rest = torch.nn.Sequential(*middle, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(6, 5))
    x = torch.randn(2, 3, 9, 9)
    net = torch.nn.Sequential(first, rest).eval()
    made = torch.onnx.export(net, (x,), dynamo=True, opset_version=opset, verbose=False).model_proto
    del made.graph.value_info[:]
    relu = next(node.output[0] for node in made.graph.node if node.op_type == "Relu")
    exported = export_model(made, layer=relu, emit="gradients", check=False)
    out = run(exported.model, {made.graph.input[0].name: x.numpy()})
    maps = first(x)
    with kinks.away():
        scores = rest(maps)
    (expected,) = torch.autograd.grad(scores.max(1).values.sum(), maps)
    np.testing.assert_allclose(out["fastcam.gradients"][:, 0], expected.numpy(), rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("size", [(2, 3, 5, 4), (2, 1, 3, 2, 4)], ids=["flat", "solid"])
def test_affine_grids_equal_pytorchs(align, size):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of this test")
    torch.manual_seed(0)
    rank = len(size) - 2
    theta = torch.randn(2, rank, rank + 1, requires_grad=True)
    grid = torch.nn.functional.affine_grid(theta, size, align_corners=align)
    seed = torch.randn_like(grid)
    text = f"""<ir_version: 10, opset_import: ["" : 20]> f (float[2,{rank},{rank + 1}] theta) => (float y) {{
        size = Constant<value_ints = [{", ".join(map(str, size))}]>()
        g = AffineGrid<align_corners = {int(align)}>(theta, size) y = Identity(g) }}"""
    model = onnx.parser.parse_model(text)
    model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("y", 1, list(grid.shape)))
    (got,) = ReferenceEvaluator(vjp(model)).run(
        ["grad.theta"], {"theta": theta.detach().numpy(), "cotangent.y": seed.numpy()}
    )
    (expected,) = torch.autograd.grad(grid, theta, seed)
    np.testing.assert_allclose(got, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_an_affine_grid_of_a_size_of_the_run_time_is_refused():
    text = """<ir_version: 10, opset_import: ["" : 20]> f (float[N,2,3] theta, int64[4] size) => (float[N,H,W,2] y)
        { y = AffineGrid(theta, size) }"""
    with pytest.raises(UnsupportedOperator, match="size is only known at run time"):
        vjp(onnx.parser.parse_model(text))


@pytest.mark.parametrize("rule", ["linear", "gated_delta"])
def test_linear_attention_equals_its_recurrence_in_pytorch(rule):
    """S = exp(g) S + k (beta (v - exp(g) S^T k))^T and o = q S / sqrt(d); the definition that ONNX gives is a Scan."""
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of this test")
    torch.manual_seed(0)
    heads, length, width = 2, 4, 3
    shapes = dict.fromkeys("qkv", (2, length, heads * width))
    if rule == "gated_delta":
        shapes |= {"g": (2, length, heads * width), "beta": (2, length, heads)}
    values = {name: 0.5 * torch.randn(shape, requires_grad=True) for name, shape in shapes.items()}
    parts = {name: value.reshape(2, length, heads, -1) for name, value in values.items()}
    state, steps = torch.zeros(2, heads, width, width), []
    for t in range(length):
        q, k, v = (parts[name][:, t] for name in "qkv")
        if rule == "gated_delta":
            state = state * parts["g"][:, t].exp()[..., None]
            v = parts["beta"][:, t] * (v - (state * k[..., None]).sum(2))
        state = state + k[..., None] * v[:, :, None]
        steps.append((state * q[..., None]).sum(2) / width**0.5)
    y = torch.stack(steps, 1).reshape(2, length, -1)
    given = ", ".join(f"float[2,4,{shape[-1]}] {name}" for name, shape in shapes.items())
    inputs = "q, k, v" if rule == "linear" else "q, k, v, , g, beta"
    text = f"""<ir_version: 12, opset_import: ["" : 27]> f ({given}) => (float[2,4,6] y, float[2,2,3,3] s) {{
        y, s = LinearAttention<q_num_heads = 2, kv_num_heads = 2, update_rule = "{rule}">({inputs}) }}"""
    seed = torch.randn_like(y)
    model = vjp(onnx.parser.parse_model(text), of=["y"])
    evaluator = ReferenceEvaluator(model)
    feeds = {name: value.detach().numpy() for name, value in values.items()}
    made = dict(zip(evaluator.output_names, evaluator.run(None, {**feeds, "cotangent.y": seed.numpy()})))
    np.testing.assert_allclose(made["y"], y.detach().numpy(), rtol=1e-4, atol=1e-5)
    for name, expected in zip(values, torch.autograd.grad(y, list(values.values()), seed)):
        np.testing.assert_allclose(made[f"grad.{name}"], expected.numpy(), rtol=1e-3, atol=1e-5)
