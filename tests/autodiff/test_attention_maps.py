"""Attention rollout and LeGrad, against PyTorch: matrices kept by the module, and autograd of each layer's score."""

import functools

import numpy as np
import onnx
import pytest

pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")

import torch

from fastcam import Explainer
from fastcam.schema import RELEVANCE, TARGETS, FastcamError
from fastcam_bench.oracles import torch_oracle
from fastcam_export import export_model
from fastcam_export.verify.session import quiet_session
from support.models.small_models import classifier
from support.models.small_vit import GRID, HEADS, SIZE, WIDTH, build, plain, to_onnx

NETS = {
    "class token": {},
    "registers": {"prefix": 4},
    "mean": {"prefix": 0, "pool": "mean"},
    "mean beside registers": {"prefix": 2, "pool": "mean"},
    "two heads": {"prefix": 2, "pool": "two"},
    "fused": {"prefix": 2, "fused": True},
}
READ = {"class token": [0], "registers": [0], "two heads": [0, 1], "fused": [0]}
FUSED = {"rollout": torch.mean, "rollout-max": torch.amax, "rollout-min": torch.amin}


@functools.cache
def network(name):
    """(the module in float64, its ONNX file, images)"""
    module = build(**NETS[name])
    return plain(module), to_onnx(module), torch_oracle.pictures(3, SIZE)


def run(model, images, targets, name=RELEVANCE):
    session = quiet_session(model)
    return session.run([name], {session.get_inputs()[0].name: images, TARGETS: np.array(targets)})[0]


def rollout(name, module, images, mode):
    """[N, h, w]: the product of all layers' matrices, its rows of the tokens that the head reads."""
    module(torch.from_numpy(images.astype(np.float64)))
    product = None
    for block in module.blocks:
        heads = FUSED[mode](block.weights.detach(), dim=1) + torch.eye(block.weights.shape[-1])
        matrix = heads / heads.sum(-1, keepdim=True)
        product = matrix if product is None else matrix @ product
    rows = READ.get(name, list(range(module.prefix, product.shape[-1])))
    return product[:, rows, module.prefix :].mean(1).reshape(-1, GRID, GRID).numpy()


def legrad(module, images, classes):
    """[N, T, h, w]: mean over layers, heads and rows of the positive part of the gradient at the attention.

    A layer's score is the head's of the mean of its tokens, whatever the network's own head reads.
    """
    columns = []
    for column in np.asarray(classes).T:
        module(torch.from_numpy(images.astype(np.float64)))
        total = 0
        for block in module.blocks:
            scores = module.fc(module.norm(block.tokens.mean(1))) * (2 if module.pool == "two" else 1)
            score = scores.gather(1, torch.from_numpy(column.copy())[:, None]).sum()
            (gradient,) = torch.autograd.grad(score, block.weights, retain_graph=True)
            total = total + gradient.clamp(min=0).mean((1, 2))[:, module.prefix :]
        columns.append((total / len(module.blocks)).reshape(-1, GRID, GRID))
    return torch.stack(columns, 1).numpy()


def close(found, expected, tolerance=1e-5):
    assert np.abs(expected).max() > 0
    assert found.dtype == np.float32 and found.shape == expected.shape
    assert torch_oracle.difference(found, expected) <= tolerance


@pytest.mark.parametrize("name", NETS)
def test_rollout(name):
    """The same for all classes, once for each target."""
    module, proto, images = network(name)
    found = run(export_model(proto, input_gradient="rollout").model, images, [[0, -1]])
    close(found, np.repeat(rollout(name, module, images, "rollout")[:, None], 2, 1))


@pytest.mark.parametrize("mode", ["rollout-max", "rollout-min"])
@pytest.mark.parametrize("name", ["class token", "mean"])
def test_other_fusions_of_heads(name, mode):
    module, proto, images = network(name)
    found = run(export_model(proto, input_gradient=mode, check=False).model, images, [[2]])
    close(found[:, 0], rollout(name, module, images, mode))


@pytest.mark.parametrize("name", NETS)
def test_legrad(name):
    module, proto, images = network(name)
    targets = [[0, 3], [1, 2], [4, 0]]
    close(
        run(export_model(proto, input_gradient="legrad", check=False).model, images, targets),
        legrad(module, images, targets),
    )


def test_of_torchvision_with_the_older_exporter():
    """Its heads and images lie along one axis, and its tokens come first."""
    torch.manual_seed(1)
    module = torch_oracle.torchvision.models.VisionTransformer(SIZE, 4, 2, HEADS, WIDTH, 16, num_classes=5).eval()
    torch_oracle.settle(module, torch_oracle.pictures(2, SIZE))
    images, weights = torch_oracle.pictures(2, SIZE), []

    def written_out(q, k, v, *rest):
        weights.append((q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1))
        return weights[-1] @ v

    proto = torch_oracle.to_onnx(module, SIZE, dynamo=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "scaled_dot_product_attention", written_out)
        tokens = []
        for layer in module.encoder.layers:
            layer.register_forward_hook(lambda layer, inputs, output: tokens.append(output))
        module(torch.from_numpy(images))
    total = 0
    for matrices, z in zip(weights, tokens):
        score = module.heads(module.encoder.ln(z.mean(1)))[:, 2].sum()
        total = total + torch.autograd.grad(score, matrices, retain_graph=True)[0].clamp(min=0).mean((1, 2))[:, 1:] / 2
    found = run(export_model(proto, input_gradient="legrad", check=False).model, images, [[2]])
    close(found[:, 0], total.reshape(2, GRID, GRID).numpy(), 1e-4)


def test_float16_has_the_same_within_its_precision():
    """What is no derivative is not scaled as derivatives are."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    module, proto, images = network("class token")
    half = convert_float_to_float16(onnx.shape_inference.infer_shapes(proto))
    given = images.astype(np.float16)
    found = run(export_model(half, input_gradient="rollout", check=False).model, given, [[1]])
    close(found[:, 0], rollout("class token", module, images, "rollout"), 5e-3)
    found = run(export_model(half, input_gradient="legrad", check=False).model, given, [[1]])
    close(found, legrad(module, images, [[1]] * 3), 0.05)


def test_at_run_time_the_map_has_the_tokens_grid(tmp_path):
    """Whatever the target layer; also of an export in two files."""
    module, proto, _ = network("class token")
    path, parts = tmp_path / "m.onnx", tmp_path / "p.onnx"
    options = {"input_gradient": "rollout", "preprocess": "unit", "check": False}
    exported = export_model(proto, path, **options)
    assert (exported.metadata.further(), exported.metadata.input_gradient_at) == ((RELEVANCE,), "layer")
    picture = np.random.default_rng(3).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    found = Explainer(path)(picture, targets=[1, 2])
    assert found.relevance.shape == (1, 2, GRID, GRID)
    close(found.relevance[:, 0], rollout("class token", module, found_input(found, picture), "rollout"))
    flat, heat = found.relevance[0, 1], found.gradient_image(0, 1).astype(int)
    assert heat.shape == picture.shape and flat.min() > 0.5 * flat.max()
    coldest, *_, hottest = (np.unravel_index(at, flat.shape) for at in np.argsort(flat, axis=None))
    blue, red = (heat[10 * y + 5, 40 * x // 3 + 6, ::2] for y, x in (coldest, hottest))  # shown from its minimum on
    assert blue[0] < blue[1] and red[0] > red[1]
    by_name = Explainer(path)(picture, targets=[1, 2], method="rollout")
    assert np.allclose(by_name.maps[0], found.relevance[0] - found.relevance[0].min((1, 2), keepdims=True), atol=1e-7)
    assert 0.8 < by_name.heatmaps.max() <= 1 and by_name.status[0] == ("ok", "ok")
    export_model(proto, parts, on_demand=True, **options)
    split = Explainer(parts)
    later = split.explain(split.predict(picture), targets=[1, 2])
    assert np.allclose(later.relevance, found.relevance, atol=1e-6)


def found_input(found, picture):
    from fastcam.image.preprocess import prepare

    return prepare(picture, found.metadata.preprocessing)[0]


# ---- what is refused


@pytest.mark.parametrize("mode", [*FUSED, "legrad"])
def test_a_model_without_attention_is_refused(mode):
    with pytest.raises(FastcamError, match=f"no attention between image and score .*, of which {mode} is made") as said:
        export_model(classifier(), input_gradient=mode)
    assert "\n" not in str(said.value)


def test_attention_among_windows_is_refused():
    class Windows(type(build())):
        def forward(self, x):
            tokens = self.patches(x).flatten(2).transpose(1, 2) + self.places
            for block in self.blocks:
                rows = block(tokens.reshape(-1, GRID, WIDTH))
                tokens = tokens + rows.reshape(-1, GRID * GRID, WIDTH)
            return self.head(tokens)

    proto = torch_oracle.to_onnx(Windows(prefix=0, pool="mean", depth=2).eval(), SIZE, dynamo=False)
    with pytest.raises(FastcamError, match=r"no attention among all 9 tokens \(its matrices are 3 x 3\)"):
        export_model(proto, input_gradient="rollout", check=False)


def test_its_grid_is_its_own():
    _, proto, _ = network("class token")
    with pytest.raises(FastcamError, match="rollout has a place of its own; leave input_gradient_at"):
        export_model(proto, input_gradient="rollout", input_gradient_at="image")
