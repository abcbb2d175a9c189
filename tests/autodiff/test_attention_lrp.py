"""LRP through vision transformers, against AttnLRP's formulas written out in PyTorch, and its sums."""

import functools
import io

import numpy as np
import onnx
import pytest

pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")

import torch
from torch import nn

from fastcam.schema import INPUT_GRADIENT, TARGETS, FastcamError
from fastcam_bench.oracles import torch_oracle
from fastcam_export import export_model
from fastcam_export.verify.session import quiet_session
from support.models.small_vit import HEADS, SIZE, WIDTH, Block, Vit, build, plain, to_onnx

EPSILON = 1e-9


def run(model, images, targets):
    session = quiet_session(model)
    found = session.run(None, {session.get_inputs()[0].name: images, TARGETS: np.array(targets)})
    return dict(zip([value.name for value in session.get_outputs()], found))


# ---- the formulas


def divided(r, z):
    return r / (z + EPSILON * torch.where(z < 0, -1.0, 1.0))


def linear(layer, x, r):
    """R of the input of W x + b."""
    return x * (divided(r, layer(x)) @ layer.weight)


def product(a, b, r):
    """R of both factors of a b."""
    share = divided(r, a @ b) / 2
    return a * (share @ b.transpose(-2, -1)), b * (a.transpose(-2, -1) @ share)


def normalized(layer, x, r):
    """R of the input of a LayerNorm."""
    y = layer(x)
    return (y - layer.bias) * divided(r, y)


def attention(block, x, r):
    """R of the input of a block's projection of queries, keys and values."""
    n, length, _ = x.shape
    q, k, v = block.project(x).reshape(n, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
    k, scores = k.transpose(-2, -1) / (WIDTH // HEADS) ** 0.5, q @ k.transpose(-2, -1) / (WIDTH // HEADS) ** 0.5
    a = scores.softmax(-1)
    mixed = (a @ v).transpose(1, 2).reshape(n, length, WIDTH)
    r = linear(block.out, mixed, r).reshape(n, length, HEADS, -1).transpose(1, 2)
    r_a, r_v = product(a, v, r)
    r_scores = scores * (r_a - a * r_a.sum(-1, keepdim=True))
    r_q, r_k = product(q, k, r_scores)
    whole = torch.stack([r_q, r_k.transpose(-2, -1), r_v]).permute(1, 3, 0, 2, 4).reshape(n, length, 3 * WIDTH)
    return linear(block.project, x, whole)


def block_down(block, x, r):
    """R of a block's input."""
    normed = block.norm1(x)
    n, length, _ = x.shape
    q, k, v = block.project(normed).reshape(n, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
    weights = (q @ k.transpose(-2, -1) / (WIDTH // HEADS) ** 0.5).softmax(-1)
    mixed = block.out((weights @ v).transpose(1, 2).reshape(n, length, WIDTH))
    middle = x + mixed
    hidden = block.mlp[0](block.norm2(middle))
    added = block.mlp[2](block.mlp[1](hidden))
    share = divided(r, middle + added)
    inner = linear(block.mlp[0], block.norm2(middle), linear(block.mlp[2], block.mlp[1](hidden), added * share))
    r = middle * share + normalized(block.norm2, middle, inner)
    share = divided(r, middle)
    return x * share + normalized(block.norm1, x, attention(block, normed, mixed * share))


def relevance(module, images, target):
    """R [N, 3, H, W] at the image, epsilon everywhere."""
    with torch.no_grad():
        image = torch.from_numpy(images.astype(np.float64))
        patches = module.patches(image)
        tokens = patches.flatten(2).transpose(1, 2)
        placed = [torch.cat([module.added.expand(len(tokens), -1, -1), tokens], 1) + module.places]
        for block in module.blocks:
            placed.append(block(placed[-1]))
        scores = module.head(placed[-1])
        r = torch.zeros_like(scores)
        r[:, target] = scores[:, target]
        top = torch.zeros_like(placed[-1])
        top[:, 0] = linear(module.fc, module.norm(placed[-1])[:, 0], r)
        r = normalized(module.norm, placed[-1], top)
        for block, x in zip(reversed(module.blocks), placed[-2::-1]):
            r = block_down(block, x, r)
        r = divided(r, placed[0])[:, module.prefix :] * tokens
        r = r.transpose(1, 2).reshape(patches.shape)
        return (image * nn.functional.conv_transpose2d(divided(r, patches), module.patches.weight, stride=4)).numpy()


# ---- tests


@functools.cache
def network(fused):
    module = build(seed=4, prefix=2, depth=2, fused=fused)
    return plain(module), to_onnx(module), torch_oracle.pictures(2, SIZE)


@pytest.mark.parametrize("fused", [False, True], ids=["written out", "fused"])
def test_equal_to_the_formulas(fused):
    module, proto, images = network(fused)
    found = run(export_model(proto, input_gradient="lrp-epsilon", check=False).model, images, [[3, 1]])[INPUT_GRADIENT]
    assert found.dtype == np.float32 and found.shape == (2, 2, 3, SIZE, SIZE)
    for column, target in enumerate((3, 1)):
        assert torch_oracle.difference(found[:, column], relevance(module, images, target)) < 1e-3


def test_normalisation_that_is_written_out():
    """Before opset 17 there was no LayerNormalization; R is the same."""
    module, _, images = network(False)
    buffer = io.BytesIO()
    names = {"input_names": ["image"], "output_names": ["logits"], "dynamic_axes": {"image": {0: "N"}}}
    twin = build(seed=4, prefix=2, depth=2)
    torch.onnx.export(twin, (torch.randn(2, 3, SIZE, SIZE),), buffer, dynamo=False, opset_version=14, **names)
    proto = onnx.load_from_string(buffer.getvalue())
    assert not any(node.op_type == "LayerNormalization" for node in proto.graph.node)
    exported = export_model(proto, input_gradient="lrp-epsilon", check=False)
    found = run(exported.model, images, [[3]])[INPUT_GRADIENT][:, 0]
    assert torch_oracle.difference(found, relevance(module, images, 3)) < 1e-3


@pytest.mark.parametrize("mode", ["lrp-epsilon", "lrp-gamma", "lrp-composite"])
def test_products_and_normalisations_keep_the_sum(mode):
    """Attention without its softmax, and no biases: all of the score arrives at the image."""

    class Linear(Block):
        def forward(self, x):
            n, length, _ = x.shape
            q, k, v = self.project(self.norm1(x)).reshape(n, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
            mixed = (q @ k.transpose(-2, -1) / length) @ v
            x = x + self.out(mixed.transpose(1, 2).reshape(n, length, WIDTH))
            return x + self.mlp(self.norm2(x))

    torch.manual_seed(0)
    module = Vit(0, "mean", depth=2)
    module.blocks = nn.ModuleList(Linear() for _ in range(2))
    for name, parameter in module.named_parameters():
        if name.endswith("bias") or name in ("places",):
            parameter.data.zero_()
    exported = export_model(to_onnx(module.eval()), input_gradient=mode, check=False)
    found = run(exported.model, torch_oracle.pictures(2, SIZE), [[0, 4]])
    scores = found["logits"][:, [0, 4]]
    assert np.abs(scores).min() > 0.01
    assert found[INPUT_GRADIENT].sum((2, 3, 4)) == pytest.approx(scores, rel=1e-3)


def test_winning_probabilities_have_no_rule_for_attention():
    _, proto, _ = network(False)
    with pytest.raises(FastcamError, match="excitation says nothing of such an operator"):
        export_model(proto, input_gradient="excitation", input_gradient_at="image")


def test_the_softmax_at_the_end_is_no_attention():
    module = nn.Sequential(build(seed=4, depth=1), nn.Softmax(1)).eval()
    proto = torch_oracle.to_onnx(module, SIZE, dynamo=False)
    with pytest.raises(FastcamError, match="it is the softmax of no attention"):
        export_model(proto, input_gradient="lrp-epsilon", score="probability")
