"""Operators of files that ONNX Runtime has optimised: their gradients against differences of its own kernels."""

import numpy as np
import onnx
import pytest
from onnx import helper

from fastcam.schema import FastcamError
from fastcam_export import UnsupportedOperator, export_model, vjp
from fastcam_export.autodiff.core.integers import INTEGERS
from fastcam_export.autodiff.core.rule import RULES
from support.models.small_models import classifier
from support.rules.attention import CASES
from support.rules.fused import equal_differences, fused
from support.rules.runs import run

onnxruntime = pytest.importorskip("onnxruntime")

X, IMAGE = (2, 3, 6), (2, 4, 6, 5)
NORM = {"x": X, "skip": X, "scale": (6,)}
FUSIONS = {
    "FusedConv": [
        ({"x": IMAGE, "w": (3, 4, 3, 3), "b": (3,)}, {"activation": "Sigmoid", "pads": [1, 1, 1, 1]}),
        ({"x": IMAGE, "w": (4, 2, 3, 3)}, {"activation": "HardSigmoid", "activation_params": [0.01, 0.5], "group": 2}),
        ({"x": IMAGE, "w": (4, 4, 1, 1), "b": (4,), "z": IMAGE}, {"activation": "Tanh"}),
    ],
    "FusedGemm": [({"a": (2, 5), "b": (3, 5), "c": (3,)}, {"activation": "Tanh", "transB": 1, "alpha": 0.5})],
    "FusedMatMul": [
        ({"a": (2, 4, 3), "b": (2, 4, 5)}, {"transA": 1, "alpha": 0.5}),
        ({"a": (2, 3, 4), "b": (2, 5, 4)}, {"transB": 1}),
        ({"a": (2, 3, 4), "b": (4, 5)}, {}),
    ],
    "Gelu": [({"x": X}, {})],
    "BiasGelu": [({"x": X, "b": (6,)}, {})],
    "FastGelu": [({"x": X}, {}), ({"x": X, "b": (6,)}, {})],
    "QuickGelu": [({"x": X}, {}), ({"x": X}, {"alpha": 1.0})],
    "SkipLayerNormalization": [
        (NORM, {}),
        ({**NORM, "beta": (6,), "bias": (6,)}, {"epsilon": 0.1}),
        *((NORM, {"epsilon": 0.1}, 4, which) for which in (1, 2, 3)),
        ({**NORM, "skip": (3, 6)}, {"epsilon": 0.1}),
    ],
    "SkipSimplifiedLayerNormalization": [
        (NORM, {"epsilon": 0.1}),
        ({**NORM, "bias": (6,)}, {"epsilon": 0.1}),
        *((NORM, {"epsilon": 0.1}, 4, which) for which in (2, 3)),
    ],
}
NO_KERNEL = {"BiasAdd", "TransposeMatMul"}
"""Registered, but ONNX Runtime's CPU has no kernel to compare with, or no schema any more."""
ALL = [(op_type, *form) for op_type, forms in FUSIONS.items() for form in forms]


def test_every_fusion_has_a_case():
    attention = {case[0] for case in CASES}
    here = {f"com.microsoft.{name}" for name in {*FUSIONS, *NO_KERNEL, *attention}}
    assert here == {name for name in RULES if "." in name} - set(INTEGERS)  # test_integer.py has those


@pytest.mark.parametrize("case", ALL, ids=lambda case: "-".join([case[0], *case[1], *map(str, case[3:])]))
def test_gradient_equals_differences_of_the_runtimes_kernel(case):
    equal_differences(fused(*case))


def test_an_optimised_file_gives_the_gradients_of_the_original(assets, tmp_path):
    source = assets / "models" / "resnet20_cifar10.onnx"
    path = optimised(str(source), tmp_path, LEVELS.ORT_ENABLE_EXTENDED)
    assert any(node.op_type == "FusedConv" for node in onnx.load(path).graph.node)
    ours, original = export_model(path), export_model(source)
    name = original.model.graph.input[0].name
    dims = [d.dim_value or 1 for d in original.model.graph.input[0].type.tensor_type.shape.dim]
    feeds = {name: np.random.default_rng(1).standard_normal(dims).astype(np.float32)}
    a, b = run(ours.model, feeds), run(original.model, feeds)
    assert ours.check["bit_identical"]
    np.testing.assert_allclose(a["fastcam.weights"], b["fastcam.weights"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("activation", "given"), [("Relu", {}), ("LeakyRelu", {"activation_params": [0.25]})])
def test_a_convolution_with_a_kinked_activation_equals_pytorchs_autograd(activation, given):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of this test")
    torch.manual_seed(0)
    shapes = {"x": IMAGE, "w": (3, 4, 3, 3), "b": (3,)}
    values = {name: torch.randn(shape, requires_grad=True) for name, shape in shapes.items()}
    y = torch.conv2d(values["x"], values["w"], values["b"], stride=2)
    assert y.abs().min() > 1e-5 * y.abs().max()  # so that rounding decides at no kink
    y = torch.where(y > 0, y, (given or {"activation_params": [0.0]})["activation_params"][0] * y)
    seed = torch.randn_like(y)
    model = vjp(fused("FusedConv", shapes, {"activation": activation, "strides": [2, 2], **given}))
    made = run(model, {**{n: v.detach().numpy() for n, v in values.items()}, "cotangent.out": seed.numpy()})
    np.testing.assert_allclose(made["out"], y.detach().numpy(), rtol=1e-4, atol=1e-5)
    for name, expected in zip(values, torch.autograd.grad(y, list(values.values()), seed)):
        np.testing.assert_allclose(made[f"grad.{name}"], expected.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("op_type", "inputs", "attributes", "formula"),
    [
        ("BiasAdd", {"x": X, "b": (6,), "skip": X}, {}, lambda x, b, skip: x + b + skip),
        ("TransposeMatMul", {"a": (2, 4, 3), "b": (2, 4, 5)}, {"transA": 1, "alpha": 0.5},
         lambda a, b: 0.5 * a.swapaxes(1, 2) @ b),
    ],
    ids=["BiasAdd", "TransposeMatMul"],
)  # fmt: skip
def test_gradient_where_the_runtime_has_no_kernel_equals_differences_of_the_formula(
    op_type, inputs, attributes, formula
):
    """The forward node cannot run: the gradient alone is kept."""
    model, rng = fused(op_type, inputs, attributes), np.random.default_rng(0)
    feeds = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in inputs.items()}
    made = vjp(model)
    kept = [node for node in made.graph.node if node.domain != "com.microsoft"]
    gradients = [value for value in made.graph.output if value.name.startswith("grad.")]
    del made.graph.node[:], made.graph.output[:]
    made.graph.node.extend(node for node in kept if node.output[0] != "out")
    made.graph.output.extend(gradients)
    wide = {name: array.astype(np.float64) for name, array in feeds.items()}
    seed = rng.standard_normal(formula(**wide).shape).astype(np.float32)
    got = run(made, {**feeds, "cotangent.out": seed})
    for name in inputs:
        v = rng.standard_normal(inputs[name])
        up, down = (formula(**{**wide, name: wide[name] + h * v}) for h in (1e-4, -1e-4))
        expected = np.vdot(seed, up - down) / 2e-4
        np.testing.assert_allclose(np.vdot(v, got[f"grad.{name}"]), expected, rtol=1e-4, atol=1e-5)


def optimised(source, tmp_path, level):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.graph_optimization_level, options.log_severity_level = level, 4
    onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return tmp_path / "optimised.onnx"


LEVELS = onnxruntime.GraphOptimizationLevel


def test_the_default_layer_of_an_optimised_classifier_is_found(tmp_path):
    path = optimised(classifier().SerializeToString(), tmp_path, LEVELS.ORT_ENABLE_EXTENDED)
    nodes = onnx.load(path).graph.node
    assert [node.op_type for node in nodes[:2]] == ["FusedConv", "FusedConv"]
    ours, original = export_model(path), export_model(classifier())
    feeds = {"image": np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)}
    a, b = run(ours.model, feeds), run(original.model, feeds)
    assert ours.metadata.layer.value == original.metadata.layer.value
    np.testing.assert_allclose(a["fastcam.weights"], b["fastcam.weights"], rtol=1e-5, atol=1e-6)


def test_an_optimised_quantised_file_is_refused_with_advice(assets, tmp_path):
    source = assets / "models" / "mobilenet_v1_0.25_128_quant.qdq.onnx"
    path = optimised(str(source), tmp_path, LEVELS.ORT_ENABLE_ALL)
    with pytest.raises(FastcamError, match="already optimised this file: give the file from before that"):
        export_model(path)


class Block:
    """Attention and perceptron of a small vision transformer, as torch modules: made where torch is there."""

    @staticmethod
    def net(torch):
        functional, dim, heads = torch.nn.functional, 16, 2

        class Layer(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.norm1, self.norm2 = torch.nn.LayerNorm(dim), torch.nn.LayerNorm(dim)
                self.q, self.k, self.v, self.o = (torch.nn.Linear(dim, dim) for _ in range(4))
                self.up, self.down = torch.nn.Linear(dim, 2 * dim), torch.nn.Linear(2 * dim, dim)

            def forward(self, x):
                h, (n, t, d) = self.norm1(x), x.shape
                q, k, v = (f(h).reshape(n, t, heads, d // heads).transpose(1, 2) for f in (self.q, self.k, self.v))
                a = torch.softmax(q @ k.transpose(-1, -2) / (d // heads) ** 0.5, -1) @ v
                x = x + self.o(a.transpose(1, 2).reshape(n, t, d))
                return x + self.down(functional.gelu(self.up(self.norm2(x))))

        class Net(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.patches, self.place = torch.nn.Conv2d(3, dim, 8, 8), torch.nn.Parameter(torch.randn(1, 16, dim))
                self.blocks, self.head = torch.nn.ModuleList([Layer(), Layer()]), torch.nn.Linear(dim, 5)
                self.norm = torch.nn.LayerNorm(dim)

            def forward(self, x):
                x = self.patches(x).flatten(2).transpose(1, 2) + self.place
                for block in self.blocks:
                    x = block(x)
                return self.head(self.norm(x).mean(1))

        torch.manual_seed(0)
        return Net().eval()


def test_an_optimised_vision_transformer_gives_the_gradients_of_the_original(tmp_path):
    """The layer lies before the attentions, whose fused products and skip norms the gradient passes."""
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of this test")
    pytest.importorskip("onnxscript", reason="torch's exporter needs it")
    net, x = Block.net(torch), torch.randn(1, 3, 32, 32)
    torch.onnx.export(net, (x,), tmp_path / "vit.onnx", dynamo=True, opset_version=18, verbose=False)
    path = optimised(str(tmp_path / "vit.onnx"), tmp_path, LEVELS.ORT_ENABLE_EXTENDED)
    nodes = onnx.load(path).graph.node
    assert {"FusedMatMul", "SkipLayerNormalization"} <= {node.op_type for node in nodes}
    layer = next(node.output[0] for node in nodes if node.op_type == "Conv")
    exported = export_model(path, layer=layer, emit="gradients")
    made = run(exported.model, {exported.model.graph.input[0].name: x.numpy()})["fastcam.gradients"]
    maps = net.patches(x)
    h = maps.flatten(2).transpose(1, 2) + net.place
    for block in net.blocks:
        h = block(h)
    scores = net.head(net.norm(h).mean(1))
    (expected,) = torch.autograd.grad(scores.max(), maps)
    np.testing.assert_allclose(made[:, 0], expected.numpy(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("op_type", "opset"), [("LayerNormalization", 13), ("SimplifiedLayerNormalization", 18)])
def test_layer_norms_that_onnx_does_not_have_are_read_as_the_runtime_has_them(op_type, opset):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of this test")
    model = fused("Gelu", {"x": X, "scale": (6,)}, {"epsilon": 0.1})
    model.graph.node[0].op_type, model.graph.node[0].domain = op_type, ""
    model.opset_import[0].version = opset
    rng = np.random.default_rng(0)
    feeds = {"x": rng.standard_normal(X).astype(np.float32), "scale": rng.standard_normal(6).astype(np.float32)}
    x, scale = (torch.tensor(array, requires_grad=True) for array in feeds.values())
    centred = x - x.mean(-1, keepdim=True) if op_type == "LayerNormalization" else x
    y = centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + 0.1) * scale
    seed = torch.randn_like(y)
    expected = torch.autograd.grad(y, (x, scale), seed)
    made = run(vjp(model), {**feeds, "cotangent.out": seed.numpy()})
    np.testing.assert_allclose(made["out"], run(model, feeds)["out"], atol=1e-6)
    for name, gradient in zip(feeds, expected):
        np.testing.assert_allclose(made[f"grad.{name}"], gradient.numpy(), atol=1e-5)


def test_what_is_not_understood_of_an_optimised_file_is_refused_with_advice():
    model = fused("Inverse", {"x": (2, 3, 3)}, {})
    with pytest.raises(UnsupportedOperator, match=r"com\.microsoft\.Inverse.*give the file from before"):
        vjp(model)
    model = fused("Gelu", {"x": (2, 3)}, {})
    model.graph.node[0].domain = "com.microsoft.nchwc"
    model.opset_import.append(helper.make_opsetid("com.microsoft.nchwc", 1))
    with pytest.raises(FastcamError, match="optimised by ONNX Runtime for one processor"):
        vjp(model)
